//! Connections: who is let in, how many, for how long.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::error::ApiError;
use super::limits::{CONNECTIONS, HEAD, HEADERS, REFUSALS, Times};
use super::stall::Stalling;
use super::{Settings, routes};
use crate::daemon::ask::{Ask, Peer};

/// After an error of `accept` that lasts, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves the API until `stop`, and then lets those that are being served have their answers.
///
/// What is asked goes to `asks`; what the kernel shows is read here. Dropping the future ends all connections at once.
pub async fn serve(
    listener: UnixListener,
    asks: mpsc::Sender<Ask>,
    settings: Settings,
    stop: impl Future<Output = ()> + Send,
) {
    let times = settings.times;
    let (ending, ends) = watch::channel(false);
    let router = routes::router(asks, settings, ends.clone());
    let served = Arc::new(Semaphore::new(CONNECTIONS));
    let refused = Arc::new(Semaphore::new(REFUSALS));
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a connection to the API");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        if let Ok(place) = Arc::clone(&served).try_acquire_owned() {
            let (router, ends) = (router.clone(), ends.clone());
            connections.spawn(async move {
                match admit(&stream) {
                    Ok(peer) => {
                        let router = TowerToHyperService::new(router);
                        connection(stream, Admitted { peer, router }, times, ends).await;
                    }
                    Err(refusal) => refuse(stream, times, ends, refusal).await,
                }
                drop(place);
            });
            continue;
        }
        // Those that come while all these are busy wait in the kernel's queue.
        let place = tokio::select! {
            () = &mut stop => break,
            place = Arc::clone(&refused).acquire_owned() => place,
        };
        let ends = ends.clone();
        connections.spawn(async move {
            refuse(stream, times, ends, || {
                ApiError::busy(&format!("there are {CONNECTIONS} connections already"))
            })
            .await;
            drop(place);
        });
    }
    drop(listener);
    let _ = ending.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(times.goodbye, all).await.is_err() {
        tracing::debug!("some connections to the API were cut");
    }
}

/// Who is at the other end; or why nobody is served there.
fn admit(stream: &UnixStream) -> Result<Peer, fn() -> ApiError> {
    let peer = stream.peer_cred().map_err(|_| -> fn() -> ApiError {
        || ApiError::failed("failed to see who is at the other end of the connection")
    })?;
    let pid = peer.pid().filter(|pid| *pid > 0);
    if pid.is_some_and(is_elsewhere) {
        return Err(|| {
            let message = "this daemon serves another network namespace than yours: run the command in the daemon's";
            ApiError::new(StatusCode::FORBIDDEN, "other_namespace", message)
        });
    }
    Ok(Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid,
    })
}

/// Whether a process is in another network namespace, as far as that can be seen.
fn is_elsewhere(pid: i32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    // Of this thread: the process' first one may be elsewhere.
    let here = namespace("thread-self");
    namespace(&pid.to_string()).is_some_and(|there| here.is_some_and(|here| here != there))
}

/// The router for one peer.
struct Admitted {
    peer: Peer,
    router: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for Admitted {
    type Response = Response<Body>;
    type Error = std::convert::Infallible;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        self.router.call(request)
    }
}

async fn refuse(stream: UnixStream, times: Times, ends: watch::Receiver<bool>, refusal: impl Fn() -> ApiError) {
    let times = Times {
        head: times.turn,
        ..times
    };
    let service = service_fn(|_: Request<Incoming>| {
        let mut response = refusal().into_response();
        let close = axum::http::HeaderValue::from_static("close");
        response.headers_mut().insert(axum::http::header::CONNECTION, close);
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    connection(stream, service, times, ends).await;
}

async fn connection<S>(stream: UnixStream, service: S, times: Times, mut ends: watch::Receiver<bool>)
where
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    let io = TokioIo::new(Stalling::new(stream, times.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .max_headers(HEADERS)
        .max_buf_size(HEAD)
        .serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(ends.wait_for(|ends| *ends).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API ended early");
    }
}
