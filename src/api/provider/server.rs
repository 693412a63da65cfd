//! Connections from platforms and browsers.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::Provider;
use super::handler::{Shared, answer};
use super::places::{Places, Visitor};
use super::traffic::TrafficObserver;
use crate::addon::throttle::Throttle;
use crate::api;
use crate::api::server::connection;
use crate::daemon::ask::Ask;

/// After an error of `accept` that lasts, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stop`, and then lets those that are being served have their answers.
pub async fn serve(
    listener: TcpListener,
    provider: watch::Receiver<Arc<Provider>>,
    asks: mpsc::Sender<Ask>,
    settings: api::Settings,
    stop: impl Future<Output = ()> + Send,
) {
    let times = settings.times;
    let (ending, ends) = watch::channel(false);
    let places = Arc::new(Places::default());
    let shared = Arc::new(Shared {
        asks,
        times,
        throttle: Mutex::new(Throttle::default()),
        traffic: TrafficObserver::new(settings.open),
    });
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let (stream, from) = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a connection to the provider API");
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        let provider = Arc::clone(&provider.borrow());
        // All that a proxy brings comes from it.
        let visitor = if provider.is_behind_proxy() {
            Visitor::proxy()
        } else {
            Visitor::at(from.ip())
        };
        let (shared, ends) = (Arc::clone(&shared), ends.clone());
        if let Some(place) = places.enter(visitor) {
            connections.spawn(async move {
                serve_one(stream, from, provider, shared, ends).await;
                drop(place);
            });
        } else if let Some(queued) = places.queue(visitor) {
            connections.spawn(async move {
                if let Some(place) = queued.place(shared.times.turn).await {
                    serve_one(stream, from, provider, shared, ends).await;
                    drop(place);
                }
            });
        }
    }
    drop(listener);
    let _ = ending.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(times.goodbye, all).await.is_err() {
        tracing::debug!("some connections to the provider API were cut");
    }
}

async fn serve_one(
    stream: TcpStream,
    from: SocketAddr,
    provider: Arc<Provider>,
    shared: Arc<Shared>,
    ends: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let times = shared.times;
    let tls = provider.tls.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (provider, shared) = (Arc::clone(&provider), Arc::clone(&shared));
        async move {
            let response: Response<Body> = answer(&provider, &shared, from.ip(), request).await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    match tls {
        None => connection(stream, service, times, ends).await,
        Some(tls) => match timeout(times.head, tls.accept(stream)).await {
            Ok(Ok(stream)) => connection(stream, service, times, ends).await,
            Ok(Err(error)) => tracing::debug!(%error, %from, "a TLS handshake with the provider API failed"),
            Err(_) => tracing::debug!(%from, "a TLS handshake with the provider API took too long"),
        },
    }
}
