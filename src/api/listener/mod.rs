//! Listeners over TCP: connections, TLS and time-outs of the add-on's provider API and of the operator's pages.
//!
//! Owns who is let in, how many, and for how long. Knows nothing of what is asked: a [`Handler`] answers.

pub(in crate::api) mod connection_limits;
pub(in crate::api) mod files;
pub(in crate::api) mod tls_keys;
mod tls_words;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use self::connection_limits::{ConnectionLimits, ConnectionSlot, ListenerClient};
pub use self::files::FileError;
use super::limits::Times;
use super::server::{MOMENT, answering, closing};

/// Pause after an error of `accept` that lasts, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);
/// Connections that the kernel keeps until they are accepted, as far as `net.core.somaxconn` allows.
pub const BACKLOG: u32 = 4096;

/// Settings of a listener, with the contents of its files. A reload replaces them.
pub(in crate::api) trait Site: Send + Sync + 'static {
    /// Returns the acceptor of TLS; `None`: plain HTTP.
    fn tls(&self) -> Option<&TlsAcceptor>;

    /// Returns whether a proxy tells the client's address.
    fn is_behind_proxy(&self) -> bool;
}

/// A handler of the requests of a listener.
pub(in crate::api) trait Handler: Send + Sync + 'static {
    /// Name in the log, with an article.
    const NAME: &'static str;
    /// Settings that requests are answered by.
    type Site: Site;

    /// Answers a request. `asks` is called once the client has shown that it may ask: before that, its connection makes room for
    /// others. An answer to a client that may ask has the extension [`Authenticated`].
    fn answer(
        &self,
        site: &Self::Site,
        from: IpAddr,
        request: Request<Incoming>,
        asks: &(dyn Fn() + Sync),
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Marks the answer to a request that had the right credentials.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Authenticated;

/// Returns the client's address: with a proxy, the last one in `x-forwarded-for`.
pub(in crate::api) fn client(is_behind_proxy: bool, from: IpAddr, headers: &HeaderMap) -> IpAddr {
    if !is_behind_proxy {
        return from;
    }
    let forwarded = headers.get_all("x-forwarded-for").iter().next_back();
    let forwarded = forwarded.and_then(|forwarded| forwarded.to_str().ok()?.rsplit(',').next()?.trim().parse().ok());
    forwarded.unwrap_or(from)
}

/// Serves until `stop`, and then lets those that are being served have their answers. While there is no connection slot for a connection, it
/// and those behind it stay in the backlog. Each request is answered by what is in `sites` when it comes, on connections that
/// were open before, too.
pub(in crate::api) async fn serve<H: Handler>(
    limits: ConnectionLimits,
    listener: TcpListener,
    sites: watch::Receiver<Arc<H::Site>>,
    handler: Arc<H>,
    times: Times,
    stop: impl Future<Output = ()> + Send,
) {
    let (ending, ends) = watch::channel(false);
    let limits = Arc::new(limits);
    let mut connections = JoinSet::new();
    let stop = async {
        stop.await;
        // Clients that connected before the end may have sent a request already.
        sleep(MOMENT).await;
    };
    tokio::pin!(stop);
    loop {
        let (stream, from) = tokio::select! {
            () = &mut stop => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "failed to accept a connection to {}", H::NAME);
                    sleep(PAUSE).await;
                    continue;
                }
            },
        };
        // All that a proxy brings comes from it.
        let client = if sites.borrow().is_behind_proxy() {
            ListenerClient::proxy()
        } else {
            ListenerClient::at(from.ip())
        };
        let slot = tokio::select! {
            () = &mut stop => break,
            slot = limits.slot(client) => slot,
        };
        let Some(slot) = slot else {
            tracing::debug!(%from, "closed a connection to {}: its address has too many connections without a request", H::NAME);
            continue;
        };
        let connection = AcceptedConnection {
            from,
            sites: sites.clone(),
            handler: Arc::clone(&handler),
            times,
            ends: ends.clone(),
        };
        connections.spawn(async move {
            let served = async {
                if is_asked(&stream, times.head, &connection.ends).await
                    && let Some(serving_slot) = slot.serving_slot(times.body).await
                {
                    // In a box, so that one that waits costs little.
                    Box::pin(connection.serve(stream, &slot)).await;
                    drop(serving_slot);
                }
            };
            tokio::select! {
                () = served => {}
                () = slot.evicted() => {
                    tracing::debug!(%from, "a connection to {} that asked nothing was closed for another one", H::NAME);
                }
            }
            drop(slot);
        });
    }
    drop(listener);
    let _ = ending.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    if timeout(times.goodbye, all).await.is_err() {
        tracing::debug!("closed connections to {} that had not ended in time", H::NAME);
    }
}

/// Waits until the client has sent something: a silent connection needs no serving slot.
async fn is_asked(stream: &TcpStream, patience: Duration, ends: &watch::Receiver<bool>) -> bool {
    let mut ends = ends.clone();
    // A new stream counts as readable until it was read.
    let mut first = [0];
    tokio::select! {
        asked = timeout(patience, stream.peek(&mut first)) => matches!(asked, Ok(Ok(1))),
        _ = ends.wait_for(|ends| *ends) => false,
    }
}

/// An accepted connection.
struct AcceptedConnection<H: Handler> {
    from: SocketAddr,
    sites: watch::Receiver<Arc<H::Site>>,
    handler: Arc<H>,
    times: Times,
    /// Whether the listener ends.
    ends: watch::Receiver<bool>,
}

impl<H: Handler> AcceptedConnection<H> {
    /// Answers the requests of the connection.
    async fn serve(self, stream: TcpStream, slot: &ConnectionSlot) {
        let Self {
            from,
            sites,
            handler,
            times,
            ends,
        } = self;
        let _ = stream.set_nodelay(true);
        let begun_with = Arc::clone(&sites.borrow());
        let tls = begun_with.tls().cloned();
        let service = service_fn(move |request: Request<Incoming>| {
            let (sites, begun_with, handler) = (sites.clone(), Arc::clone(&begun_with), Arc::clone(&handler));
            async move {
                let site = Arc::clone(&sites.borrow());
                let asks = || slot.note_request();
                let response: Response<Body> = handler.answer(&site, from.ip(), request, &asks).await;
                if response.extensions().get::<Authenticated>().is_some() {
                    slot.answered();
                } else {
                    slot.is_silent_again();
                }
                // Encryption, and whether a proxy says who the client is, are settled when a connection begins.
                let is_outdated = !Arc::ptr_eq(&begun_with, &sites.borrow());
                // A connection that is kept idle would keep its serving slot from those that wait.
                let response = if is_outdated || slot.is_crowded() {
                    closing(response)
                } else {
                    response
                };
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        match tls {
            None => answering(stream, service, times, ends).await,
            Some(tls) => match timeout(times.head, tls.accept(stream)).await {
                Ok(Ok(stream)) => answering(stream, service, times, ends).await,
                Ok(Err(error)) => tracing::debug!(%error, %from, "a TLS handshake with {} failed", H::NAME),
                Err(_) => tracing::debug!(%from, "a TLS handshake with {} took too long", H::NAME),
            },
        }
    }
}
