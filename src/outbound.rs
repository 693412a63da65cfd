//! Requests to other servers over HTTP and HTTPS: one request on a connection of its own, bounded in time and size.
//!
//! Follows no redirections, uses no proxy, keeps no cookies.

mod base_url;
mod certificates;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, Request, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

pub use self::base_url::{BaseUrl, UrlError};
use self::certificates::NamedServers;

/// Largest body of an answer, in bytes.
const BODY: usize = 4 << 20;
/// Largest head of an answer, in bytes.
const HEAD: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS: usize = 128;
/// Largest file of certificates, in bytes.
const BUNDLE: u64 = 4 << 20;
/// Files in which systems keep their trusted certificates: Debian, Fedora, SUSE, Alpine.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Reason why no client can be made.
#[derive(Debug, Error)]
pub enum OutboundError {
    /// The file of certificates cannot be read.
    #[error("failed to read the certificates of {}: {why}", tcpgw_core::escape::path(path))]
    Certificates {
        /// Path of the file.
        path: PathBuf,
        /// Description of the error.
        why: String,
    },
    /// None of the system's files of certificates exists.
    #[error("no certificates of authorities were found in {}: name a file (--cacert)", BUNDLES.join(", "))]
    NoBundle,
    /// The TLS library refuses its configuration.
    #[error("failed to prepare TLS: {0}")]
    Tls(#[from] tokio_rustls::rustls::Error),
}

/// Reason why there is no answer.
#[derive(Debug, Error)]
pub enum Failed {
    /// The answer did not come within this time.
    #[error("no complete answer within {} s (--timeout)", .0.as_secs_f32())]
    Late(Duration),
    /// The server cannot be reached.
    #[error("failed to connect: {0}")]
    Connect(io::Error),
    /// The connection, with its TLS handshake, took longer than this.
    #[error("no connection within {} s (--timeout)", .0.as_secs_f32())]
    Unconnected(Duration),
    /// The server is not the one that it should be, or does not speak TLS.
    #[error("the TLS handshake failed: {}", certificates::in_words(.0))]
    Tls(io::Error),
    /// The server's name cannot be in a certificate.
    #[error("the host's name cannot be in a certificate: name the server by a DNS name or an IP address")]
    Name,
    /// The connection broke off, or the answer is not HTTP.
    #[error(
        "the server ended the connection before its answer was complete, or its answer is not HTTP: {0}; check the URL, and the log of the server"
    )]
    Http(String),
    /// The body of the answer is too large.
    #[error("the answer has more than {} MiB, the most that is read", BODY >> 20)]
    Large,
}

impl Failed {
    /// Returns whether the request, or a part of it, may have been sent.
    pub fn is_sent(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Unconnected(_) | Self::Tls(_) | Self::Name => false,
            Self::Late(_) | Self::Http(_) | Self::Large => true,
        }
    }
}

/// An answer of the server.
#[derive(Debug, Clone)]
pub struct OutboundAnswer {
    /// The status code.
    pub status: u16,
    /// Headers of the answer.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// Time from the request to the end of the answer.
    pub took: Duration,
}

/// A client for requests to another server.
#[derive(Clone)]
pub struct OutboundClient {
    timeout: Duration,
    /// Connector for TLS; `None`: nothing is encrypted.
    tls: Option<TlsConnector>,
    /// Whether the bodies of answers are read.
    reads_bodies: bool,
}

impl OutboundClient {
    /// Returns a client whose requests take at most `timeout` each. `authorities` is a file of certificates (PEM) to trust instead of
    /// the system's; neither is read unless one of the URLs is encrypted or a file is named.
    ///
    /// # Errors
    /// Fails when certificates are needed and cannot be read.
    pub fn new<'u>(
        urls: impl IntoIterator<Item = &'u BaseUrl>,
        authorities: Option<&Path>,
        timeout: Duration,
    ) -> Result<Self, OutboundError> {
        let is_needed = urls.into_iter().any(|url| url.is_encrypted) || authorities.is_some();
        let tls = if is_needed { Some(connector(authorities)?) } else { None };
        Ok(Self {
            timeout,
            tls,
            reads_bodies: true,
        })
    }

    /// Returns the same client, which reads no bodies: those of its answers are empty.
    #[must_use]
    pub fn without_bodies(self) -> Self {
        Self {
            reads_bodies: false,
            ..self
        }
    }

    /// Sends a request. `target` is the path and query behind the URL's own path.
    ///
    /// # Errors
    /// Fails with [`Failed`] when the server cannot be reached, is not trusted, or gives no complete answer within the
    /// time and the size of an answer.
    pub async fn send(
        &self,
        url: &BaseUrl,
        method: &str,
        target: &str,
        headers: &[(&str, String)],
        body: Vec<u8>,
    ) -> Result<OutboundAnswer, Failed> {
        let began = Instant::now();
        let path = format!("{}{target}", url.path);
        let path = if path.starts_with('/') {
            path
        } else {
            format!("/{path}")
        };
        let mut request = Request::builder().method(method).uri(path);
        request = request
            .header(header::HOST, &url.authority)
            .header(header::CONNECTION, "close");
        request = request.header(header::USER_AGENT, concat!("tcpgw/", env!("CARGO_PKG_VERSION")));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|error| Failed::Http(error.to_string()))?;
        let (status, headers, body) = self.exchange(url, request).await?;
        Ok(OutboundAnswer {
            status,
            headers,
            body,
            took: began.elapsed(),
        })
    }

    async fn exchange(&self, url: &BaseUrl, request: Request<Full<Bytes>>) -> Result<(u16, HeaderMap, Bytes), Failed> {
        let deadline = ExchangeDeadline::after(self.timeout);
        let stream = deadline.connects(TcpStream::connect((url.host.as_str(), url.port)));
        let stream = stream.await?.map_err(Failed::Connect)?;
        let _ = stream.set_nodelay(true);
        match self.tls.as_ref().filter(|_| url.is_encrypted) {
            None => deadline.speaks(stream, request, self.reads_bodies).await,
            Some(tls) => {
                let name = ServerName::try_from(url.host.clone()).map_err(|_| Failed::Name)?;
                let stream = deadline.connects(tls.connect(name, stream));
                let stream = stream.await?.map_err(Failed::Tls)?;
                deadline.speaks(stream, request, self.reads_bodies).await
            }
        }
    }
}

/// The time until which all of an exchange has to end.
#[derive(Debug, Clone, Copy)]
struct ExchangeDeadline {
    at: tokio::time::Instant,
    /// Time from the beginning to the deadline.
    time: Duration,
}

impl ExchangeDeadline {
    fn after(time: Duration) -> Self {
        let now = tokio::time::Instant::now();
        // Without an end where the clock cannot name it: a day.
        let at = now.checked_add(time).unwrap_or(now + Duration::from_secs(24 * 3600));
        Self { at, time }
    }

    async fn connects<T>(self, connecting: impl Future<Output = T>) -> Result<T, Failed> {
        let connected = timeout_at(self.at, connecting).await;
        connected.map_err(|_| Failed::Unconnected(self.time))
    }

    async fn speaks<S>(
        self,
        stream: S,
        request: Request<Full<Bytes>>,
        reads_body: bool,
    ) -> Result<(u16, HeaderMap, Bytes), Failed>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let spoken = timeout_at(self.at, exchange_on(stream, request, reads_body.then_some(BODY))).await;
        spoken.map_err(|_| Failed::Late(self.time))?
    }
}

/// Returns the settings of the client's end of a connection: the head of an answer is bounded.
pub fn http1_client() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(HEAD).max_headers(HEADERS);
    builder
}

/// Sends a request on a connection of its own. `most`: the largest body of the answer that is read, in bytes; `None`: no body is.
/// It takes as long as the server wants.
///
/// # Errors
/// Fails when the exchange breaks off, is no HTTP, or the body is larger.
pub async fn exchange_on<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    most: Option<usize>,
) -> Result<(u16, HeaderMap, Bytes), Failed>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let failed = |error: hyper::Error| {
        // hyper's own text names the stage, and its source the cause.
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        Failed::Http(format!("{error}{}", cause.unwrap_or_default()))
    };
    let (mut sender, connection) = http1_client().handshake(TokioIo::new(stream)).await.map_err(failed)?;
    let answer = async {
        let (head, body) = sender.send_request(request).await.map_err(failed)?.into_parts();
        let Some(most) = most else {
            return Ok((head.status.as_u16(), head.headers, Bytes::new()));
        };
        let body = Limited::new(body, most).collect().await.map_err(|error| {
            if error.is::<http_body_util::LengthLimitError>() {
                Failed::Large
            } else {
                Failed::Http(format!("failed to read the body: {error}"))
            }
        })?;
        Ok((head.status.as_u16(), head.headers, body.to_bytes()))
    };
    tokio::pin!(answer, connection);
    // The connection has nothing to say: what fails there, the request is told.
    tokio::select! {
        biased;
        answer = &mut answer => return answer,
        _ = &mut connection => {}
    }
    answer.await
}

fn connector(authorities: Option<&Path>) -> Result<TlsConnector, OutboundError> {
    let named = authorities.map(Path::to_owned);
    let found = || BUNDLES.iter().map(PathBuf::from).find(|path| path.exists());
    let path = named.or_else(found).ok_or(OutboundError::NoBundle)?;
    let wrong = |why: String| OutboundError::Certificates {
        path: path.clone(),
        why,
    };
    let text = read(&path).map_err(|error| wrong(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let certificates = certificates.map_err(|error| wrong(error.to_string()))?;
    // A system's bundle may have some that cannot be used.
    let (used, _) = roots.add_parsable_certificates(certificates.iter().cloned());
    if used == 0 {
        return Err(wrong("there is none that can be used (PEM)".into()));
    }
    let provider = Arc::new(ring::default_provider());
    // The system's certificates are those of authorities, and not of servers.
    let servers = if authorities.is_some() {
        certificates
    } else {
        Vec::new()
    };
    let verifier = NamedServers::new(roots, servers, Arc::clone(&provider));
    let verifier = verifier.map_err(|error| wrong(error.to_string()))?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let file = std::fs::File::options()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(BUNDLE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > BUNDLE {
        return Err(io::Error::other("is larger than 4 MiB"));
    }
    Ok(bytes)
}
