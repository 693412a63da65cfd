//! Connections of the API's sockets: their admission, number and time limits.

use std::fs;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::error::ApiError;
use super::lanes::{Lane, Lanes};
use super::limits::{HEAD, HEADERS, Times};
use super::routes;
use super::settings::ApiSettings;
use super::stall::Stalling;
use crate::control::request::{DaemonRequest, Peer};

/// Pause after an error of `accept` that lasts, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Time for which connections go on after the end was requested, so that earlier requests are read.
pub(super) const MOMENT: Duration = Duration::from_millis(100);
/// Path that is answered when there is no room for more connections.
const HEALTH: &str = "/v1/healthz";

/// Serves the API until `stop`, and then lets the requests in progress get their answers.
///
/// A listener from `renewed` takes the place of the present one. Requests go to the daemon's loop by `requests`; the state of
/// the kernel is read here. Dropping the future ends all connections at once.
pub async fn serve(
    mut listener: UnixListener,
    mut renewed: mpsc::Receiver<UnixListener>,
    requests: mpsc::Sender<DaemonRequest>,
    settings: ApiSettings,
    stop: impl Future<Output = ()> + Send,
) {
    let times = settings.times;
    let (ending, ends) = watch::channel(false);
    let lanes = Lanes::new(settings.privileged.clone(), settings.lanes());
    // Each lane has its own places for looks, followers, waiters and large bodies.
    let reserved = routes::router(requests.clone(), settings.clone(), ends.clone());
    let common = routes::router(requests, settings, ends.clone());
    let seat = |stream: UnixStream, connections: &mut JoinSet<()>| {
        let Some(place) = stream.peer_cred().ok().and_then(|peer| lanes.enter(peer.uid())) else {
            return turn_away(stream);
        };
        let router = if place.lane() == Lane::Reserved {
            &reserved
        } else {
            &common
        };
        let router = TowerToHyperService::new(router.clone());
        let ends = ends.clone();
        connections.spawn(async move {
            match admit(&stream) {
                Ok(peer) => serve_in(place.lane(), stream, Admitted { peer, router }, times, ends).await,
                Err(refusal) => refuse(stream, times, ends, refusal).await,
            }
            drop(place);
        });
    };
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let stream = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            Some(new) = renewed.recv() => {
                listener = new;
                continue;
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a connection to the API");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        seat(stream, &mut connections);
    }
    // Clients that connected before the end may have sent a request already.
    for stream in waiting(listener) {
        seat(stream, &mut connections);
    }
    sleep(MOMENT).await;
    let _ = ending.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(times.goodbye, all).await.is_err() {
        tracing::debug!("closed connections to the API that had not ended in time");
    }
}

/// Closes the listener, and returns the connections that were not accepted yet. Later connections are refused.
fn waiting(listener: UnixListener) -> Vec<UnixStream> {
    let Ok(listener) = listener.into_std() else {
        return Vec::new();
    };
    // No new ones come into its queue, and those that are there stay.
    if let Err(error) = shutdown(listener.as_raw_fd(), Shutdown::Read) {
        tracing::debug!(%error, "failed to close the queue of the socket");
    }
    // The listener does not block; its queue is no longer than the system allows.
    let accepted = std::iter::from_fn(|| listener.accept().ok());
    let streams = accepted.filter_map(|(stream, _)| {
        stream.set_nonblocking(true).ok()?;
        UnixStream::from_std(stream).ok()
    });
    streams.collect()
}

/// Returns the peer of a connection, or the error by which it is refused.
fn admit(stream: &UnixStream) -> Result<Peer, fn() -> ApiError> {
    let peer = stream.peer_cred().map_err(|_| -> fn() -> ApiError {
        || ApiError::failed("failed to see who is at the other end of the connection")
    })?;
    let pid = peer.pid().filter(|pid| *pid > 0);
    if pid.is_some_and(is_elsewhere) {
        return Err(|| {
            let message = "this daemon serves another network namespace than yours: ask it from within the daemon's";
            ApiError::new(StatusCode::FORBIDDEN, "other_namespace", message)
        });
    }
    Ok(Peer {
        uid: peer.uid(),
        gid: peer.gid(),
        pid,
        browser: None,
    })
}

/// Returns whether a process is in another network namespace, as far as that is visible.
fn is_elsewhere(pid: i32) -> bool {
    let namespace = |of: &str| fs::read_link(format!("/proc/{of}/ns/net")).ok();
    // The namespace of this thread: the process's first one may be in another.
    let here = namespace("thread-self");
    namespace(&pid.to_string()).is_some_and(|there| here.is_some_and(|here| here != there))
}

/// Closes a connection for which there is no place, with an answer to any request.
fn turn_away(stream: UnixStream) {
    let error = ApiError::busy("there are too many connections already");
    let (length, body) = error.text();
    let head = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n"
    );
    // The socket does not block, and the client may have gone.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write_all((head + &body).as_bytes());
    }
}

async fn serve_in(lane: Lane, stream: UnixStream, admitted: Admitted, times: Times, ends: watch::Receiver<bool>) {
    if lane != Lane::Narrow {
        return connection(stream, admitted, times, ends).await;
    }
    let times = Times {
        head: times.narrow_head,
        ..times
    };
    let service = service_fn(move |request: Request<Incoming>| {
        let is_health = request.method() == Method::GET && request.uri().path() == HEALTH;
        let health = is_health.then(|| admitted.call(request));
        async {
            let response = match health {
                Some(health) => health.await?,
                None => ApiError::busy("there are too many connections already").into_response(),
            };
            Ok::<_, std::convert::Infallible>(closing(response))
        }
    });
    connection(stream, service, times, ends).await;
}

pub(super) fn closing(mut response: Response<Body>) -> Response<Body> {
    let close = axum::http::HeaderValue::from_static("close");
    response.headers_mut().insert(axum::http::header::CONNECTION, close);
    response
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
        head: times.narrow_head,
        ..times
    };
    let service = service_fn(|_: Request<Incoming>| {
        let response = closing(refusal().into_response());
        async { Ok::<_, std::convert::Infallible>(response) }
    });
    connection(stream, service, times, ends).await;
}

/// Serves one connection until it ends, or `ends` says so and it has its answer.
///
/// A client that shuts down its sending side is taken for gone: a waiter or a follower that was ended must not keep its place.
/// See [`answering`].
async fn connection<I, S>(stream: I, service: S, times: Times, ends: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    serve_http(stream, service, times, ends, false).await;
}

/// Serves a connection like [`connection`], for clients whose requests are all answered soon: one that has shut down its
/// sending side gets its answer, too.
pub(super) async fn answering<I, S>(stream: I, service: S, times: Times, ends: watch::Receiver<bool>)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    serve_http(stream, service, times, ends, true).await;
}

async fn serve_http<I, S>(stream: I, service: S, times: Times, mut ends: watch::Receiver<bool>, half_close: bool)
where
    I: AsyncRead + AsyncWrite + Unpin,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = std::convert::Infallible>,
{
    let io = TokioIo::new(Stalling::new(stream, times.write));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(times.head)
        .half_close(half_close)
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
