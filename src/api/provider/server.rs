//! Connections from platforms and browsers.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::http::{Request, Response};
use hyper::body::Incoming;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

use super::ProviderApi;
use super::handler::{ProviderState, answer};
use super::traffic::TrafficObserver;
use crate::api::descriptors::DescriptorBudget;
use crate::api::listener::connection_limits::ConnectionLimits;
use crate::api::listener::{self, Handler};
use crate::api::settings;
use crate::control::request::DaemonRequest;
use crate::throttle::Throttle;

/// Serves until `stop`, and then lets those that are being served have their answers: see [`listener::serve`]. Each request is
/// answered by what is in `provider` when it comes, on connections that were open before, too.
pub async fn serve(
    listener: TcpListener,
    provider: watch::Receiver<Arc<ProviderApi>>,
    requests: mpsc::Sender<DaemonRequest>,
    settings: settings::ApiSettings,
    stop: impl Future<Output = ()> + Send,
) {
    let limits = ConnectionLimits::new(DescriptorBudget::of_this_process().slots());
    serve_within(limits, listener, provider, requests, settings, stop).await;
}

async fn serve_within(
    limits: ConnectionLimits,
    listener: TcpListener,
    provider: watch::Receiver<Arc<ProviderApi>>,
    requests: mpsc::Sender<DaemonRequest>,
    settings: settings::ApiSettings,
    stop: impl Future<Output = ()> + Send,
) {
    let times = settings.times;
    let shared = Arc::new(ProviderState {
        requests,
        times,
        throttle: Mutex::new(Throttle::default()),
        traffic: TrafficObserver::new(settings.open),
    });
    listener::serve(limits, listener, provider, shared, times, stop).await;
}

impl Handler for ProviderState {
    const NAME: &'static str = "the provider API";
    type Site = ProviderApi;

    async fn answer(
        &self,
        provider: &ProviderApi,
        from: IpAddr,
        request: Request<Incoming>,
        asks: &(dyn Fn() + Sync),
    ) -> Response<Body> {
        answer(provider, self, from, request, asks).await
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;
    use std::time::{Duration, SystemTime};

    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::{sleep, timeout};

    use super::*;
    use crate::addon::id::ResourceId;
    use crate::addon::settings::{AddonSection, AddonSettings};
    use crate::api;
    use crate::api::descriptors::MOST_ACCEPTED;
    use crate::api::provider::{ProviderApi, read_credentials, session};
    use crate::secrets::{Owners, Secret};
    use tcpgw_core::model::Fences;

    const PASSWORD: &str = "0123456789abcdef";

    /// A running provider, whose daemon is played by the test.
    struct Served {
        at: SocketAddr,
        salt: Secret,
        asked: mpsc::Receiver<DaemonRequest>,
        providers: watch::Sender<Arc<ProviderApi>>,
        directory: tempfile::TempDir,
    }

    /// Returns a provider with its files in that directory, and its settings.
    fn provider(directory: &Path, host: &str, password: &str) -> (AddonSettings, ProviderApi) {
        let file = directory.join("credentials.toml");
        let text = format!("username = 'u'\npassword = '{password}'\nsso_salt = 'fedcba9876543210'");
        std::fs::write(&file, text).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let section = format!(
            "listen = '127.0.0.1:1024'\nhost = '{host}'\nports = '20000-20009'\ncredentials = '{}'\n\
             plans = [{{name = 'small', id = '5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11', pps = 512}}]",
            tcpgw_core::escape::path(&file)
        );
        let section: AddonSection = toml::from_str(&section).unwrap();
        let settings = section.check(&Fences::default()).unwrap();
        let provider = ProviderApi::load(&settings, &Owners::of_daemon()).unwrap();
        (settings, provider)
    }

    async fn served(times: api::Times) -> Served {
        served_within(times, MOST_ACCEPTED).await
    }

    /// Starts a provider with this number of connection slots.
    async fn served_within(times: api::Times, slots: usize) -> Served {
        let directory = tempfile::tempdir().unwrap();
        let (settings, provider) = provider(directory.path(), "gw.example.com", PASSWORD);
        let salt = read_credentials(&settings, &Owners::of_daemon()).unwrap().sso_salt;
        let (providers, current) = watch::channel(Arc::new(provider));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        // Requests are taken, and never answered.
        let (requests, asked) = mpsc::channel(4);
        let settings = settings::ApiSettings {
            times,
            ..settings::ApiSettings::default()
        };
        let limits = ConnectionLimits::new(slots);
        let stop = std::future::pending();
        tokio::spawn(serve_within(limits, listener, current, requests, settings, stop));
        Served {
            at,
            salt,
            asked,
            providers,
            directory,
        }
    }

    /// Returns a request for the catalog with that password.
    fn catalog(password: &str) -> String {
        let credentials = STANDARD.encode(format!("u:{password}"));
        format!(
            "GET /v2/catalog HTTP/1.1\r\nhost: x\r\nx-broker-api-version: 2.17\r\nauthorization: Basic {credentials}\r\n\r\n"
        )
    }

    /// Returns the head of the next answer, on a connection that is kept.
    async fn head(stream: &mut TcpStream) -> String {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap().into());
        }
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.unwrap().parse().unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        head
    }

    /// After the settings were read again, a connection that was open before has its requests judged by the new ones, and ends.
    #[tokio::test]
    async fn connections_that_are_kept_follow_new_settings() {
        let served = served(api::Times::default()).await;
        let new = "another-password";
        let mut lines = Vec::new();
        for _ in 0..2 {
            let mut line = TcpStream::connect(served.at).await.unwrap();
            line.write_all(catalog(PASSWORD).as_bytes()).await.unwrap();
            let head = head(&mut line).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("close"), "{head}");
            lines.push(line);
        }
        let (_, provider) = provider(served.directory.path(), "gw.example.com", new);
        served.providers.send_replace(Arc::new(provider));
        for (line, (password, status)) in lines.iter_mut().zip([(PASSWORD, 401), (new, 200)]) {
            line.write_all(catalog(password).as_bytes()).await.unwrap();
            let answer = rest(line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
        }
        // A connection that begins afterwards is kept.
        let mut line = TcpStream::connect(served.at).await.unwrap();
        for _ in 0..2 {
            line.write_all(catalog(new).as_bytes()).await.unwrap();
            let head = head(&mut line).await;
            assert!(head.starts_with("HTTP/1.1 200 ") && !head.contains("close"), "{head}");
        }
    }

    /// Returns everything that comes until the connection is closed.
    async fn rest(stream: &mut TcpStream) -> String {
        let mut answer = String::new();
        let read = timeout(Duration::from_secs(60), stream.read_to_string(&mut answer));
        read.await.unwrap().unwrap();
        answer
    }

    /// If the daemon does not answer, a browser gets a message within the time that a page waits.
    #[tokio::test]
    async fn a_page_does_not_wait_for_a_daemon_that_hangs() {
        let times = api::Times {
            place: Duration::from_millis(100),
            answer: Duration::from_millis(100),
            ..api::Times::default()
        };
        let provider = served(times).await;
        let (id, now) = (
            ResourceId::from_random(1),
            SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap(),
        );
        let cookie = session::begin(&provider.salt, id, false, now);
        let cookie = cookie.split(';').next().unwrap();
        let request = format!("GET /apps/{id} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: {cookie}\r\n\r\n");
        // Some clients shut down their side when they have asked, and wait for the answer.
        for shuts_down in [false, true] {
            let mut stream = TcpStream::connect(provider.at).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            if shuts_down {
                stream.shutdown().await.unwrap();
            }
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 503 "), "{shuts_down} {answer}");
            assert!(
                answer.contains("retry-after: 5") && answer.contains("text/html"),
                "{answer}"
            );
            assert!(answer.contains("The gateway is busy"), "{answer}");
        }
    }

    /// Two addresses have all connection slots, one with connections that send nothing, one with requests that do not end: heads, or bodies of single
    /// sign-on, which is asked for without credentials.
    #[tokio::test]
    async fn connections_that_ask_nothing_make_room_for_others() {
        for begin in [
            "GET /v2/catalog HTTP/1.1\r\n",
            "POST /heroku/sso HTTP/1.1\r\nhost: x\r\ncontent-length: 60000\r\n\r\n=",
        ] {
            make_room_for_others(begin).await;
        }
    }

    async fn make_room_for_others(begin: &str) {
        let times = api::Times {
            head: Duration::from_secs(600),
            body: Duration::from_secs(600),
            body_piece: Duration::from_secs(600),
            ..api::Times::default()
        };
        let provider = served_within(times, 20).await;
        let from = |last: u8| {
            let at = provider.at;
            async move {
                let socket = tokio::net::TcpSocket::new_v4().unwrap();
                socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).unwrap();
                socket.connect(at).await.unwrap()
            }
        };
        let mut held = Vec::new();
        for number in 0..20_u8 {
            let mut stream = from(2 + number % 2).await;
            if number % 2 == 0 {
                stream.write_all(begin.as_bytes()).await.unwrap();
            }
            held.push(stream);
        }
        for _ in 0..5 {
            let mut stream = from(9).await;
            let request = "GET /v2/catalog HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(request.as_bytes()).await.unwrap();
            let answer = rest(&mut stream).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        }
    }

    /// Connections that send nothing have no place, so that none of them has to make room for a request.
    #[tokio::test]
    async fn connections_that_send_nothing_take_no_place() {
        let provider = served(api::Times::default()).await;
        let mut held = Vec::new();
        for _ in 0..150 {
            held.push(TcpStream::connect(provider.at).await.unwrap());
        }
        let mut stream = TcpStream::connect(provider.at).await.unwrap();
        stream.write_all(catalog(PASSWORD).as_bytes()).await.unwrap();
        let answer = timeout(Duration::from_secs(60), head(&mut stream)).await.unwrap();
        // On a connection that is kept, which is not so where all serving slots are in use.
        assert!(
            answer.starts_with("HTTP/1.1 200 ") && !answer.contains("connection: close"),
            "{answer}"
        );
        for silent in &held {
            let closed = silent.try_read(&mut [0]);
            assert!(closed.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
        }
    }

    /// An address has all its serving slots, or connection slots, with connections that ask nothing, and others of it wait: a request from there is answered
    /// all the same.
    #[tokio::test]
    async fn an_address_makes_room_for_its_own_requests() {
        let times = api::Times {
            head: Duration::from_secs(600),
            body: Duration::from_secs(600),
            ..api::Times::default()
        };
        for (slots, count, begin) in [(MOST_ACCEPTED, 200, "GET /v2/catalog HTTP/1.1\r\n"), (40, 30, "")] {
            let provider = served_within(times, slots).await;
            let mut held = Vec::new();
            for _ in 0..count {
                let mut stream = TcpStream::connect(provider.at).await.unwrap();
                stream.write_all(begin.as_bytes()).await.unwrap();
                held.push(stream);
            }
            // Until then, those that are there may just be about to send the rest.
            sleep(Duration::from_secs(2)).await;
            for _ in 0..3 {
                let mut stream = TcpStream::connect(provider.at).await.unwrap();
                stream.write_all(catalog(PASSWORD).as_bytes()).await.unwrap();
                let answered = timeout(Duration::from_secs(60), head(&mut stream)).await;
                let answer = answered.expect("the others do not keep it waiting");
                assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            }
        }
    }

    /// A body that has begun and does not end in time is answered by an error of the dialect, even if bytes trickle in all the
    /// while; the connection ends, and nothing is ordered.
    #[tokio::test]
    async fn a_slow_body_is_given_up() {
        let times = api::Times {
            body_piece: Duration::from_millis(200),
            ..api::Times::default()
        };
        let mut provider = served(times).await;
        for (path, key) in [
            ("/scalingo/resources", "\"message\""),
            ("/v2/service_instances/a", "\"description\""),
        ] {
            let method = if path.starts_with("/v2") { "PUT" } else { "POST" };
            let (mut reader, mut writer) = TcpStream::connect(provider.at).await.unwrap().into_split();
            // `u:0123456789abcdef`
            let head = format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Basic dTowMTIzNDU2Nzg5YWJjZGVm\r\n\
                 x-broker-api-version: 2.17\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n{{"
            );
            writer.write_all(head.as_bytes()).await.unwrap();
            let trickle = tokio::spawn(async move {
                while writer.write_all(b" ").await.is_ok() {
                    sleep(Duration::from_millis(10)).await;
                }
            });
            let mut answer = Vec::new();
            // A reset may follow the answer, since more came.
            let read = timeout(Duration::from_secs(60), reader.read_to_end(&mut answer));
            let _ = read.await.expect("the connection ends");
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(answer.contains("connection: close"), "{answer}");
            assert!(
                answer.contains(key) && answer.contains("did not come in time; nothing was changed"),
                "{answer}"
            );
            timeout(Duration::from_secs(60), trickle).await.unwrap().unwrap();
        }
        assert!(provider.asked.try_recv().is_err(), "nothing is ordered");
    }
}
