//! Hooks over TLS: a receiver is told if its certificate is trusted, and else the log says why it is not.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sys::signal::Signal;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::{Net, wait_until};

/// Settings of a receiver with a new certificate for 127.0.0.1 that signs itself, and that certificate as PEM.
fn certified() -> (Arc<ServerConfig>, String) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
    let signed = params.self_signed(&key).expect("a certificate");
    let chain: Vec<CertificateDer<'static>> = vec![signed.der().clone()];
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|config| config.with_no_client_auth().with_single_cert(chain, secret));
    (Arc::new(config.expect("settings of TLS")), signed.pem())
}

/// Receives events at an address of the gateway until the test has ended.
fn receiver(net: &Net, config: Arc<ServerConfig>) -> (u16, Receiver<Value>) {
    let listener = net
        .within("gateway", || TcpListener::bind("127.0.0.1:0"))
        .expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let (sender, received) = channel();
    thread::spawn(move || receive(&listener, &config, &sender));
    (port, received)
}

fn receive(listener: &TcpListener, config: &Arc<ServerConfig>, events: &Sender<Value>) {
    while let Ok((stream, _)) = listener.accept() {
        stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
        let connection = ServerConnection::new(Arc::clone(config)).expect("a connection");
        let mut stream = BufReader::new(StreamOwned::new(connection, stream));
        let mut head = String::new();
        // A client that does not trust the certificate ends the connection.
        while !head.ends_with("\r\n\r\n") && stream.read_line(&mut head).is_ok_and(|length| length > 0) {}
        let Some((_, rest)) = head.split_once("content-length: ") else {
            continue;
        };
        let length = rest.split("\r\n").next().and_then(|length| length.parse().ok());
        let mut body = vec![0; length.expect("a length")];
        stream.read_exact(&mut body).expect("a body");
        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
        stream.get_mut().write_all(answer).expect("an answer");
        if events.send(serde_json::from_slice(&body).expect("JSON")).is_err() {
            return;
        }
    }
}

#[test]
fn a_receiver_is_told_over_tls_if_its_certificate_is_trusted_and_else_the_log_says_why() {
    let net = Net::new();
    net.want(state([]));
    let (config, pem) = certified();
    let (port, events) = receiver(&net, config);
    let [trusted, other] = [("trusted.crt", pem), ("other.crt", certified().1)].map(|(name, pem)| {
        let path = net.file(name);
        fs::write(&path, pem).expect("a certificate");
        format!("ca_file = '{}'\n", path.to_string_lossy())
    });
    let configure = |authorities: &str| {
        let file = net.file("config.toml");
        let hook = format!(
            "[[hooks]]\nname = 'platform'\non = ['started', 'committed']\nurl = 'https://127.0.0.1:{port}/hook'\n"
        );
        fs::write(&file, format!("{hook}{authorities}")).expect("a configuration");
        file.to_string_lossy().into_owned()
    };
    let daemon = net.daemon(&["--config", &configure(&trusted)]);
    for kind in ["started", "committed"] {
        let received = events.recv_timeout(PATIENCE).expect("an event");
        assert_eq!(received["event"], kind);
    }

    // The first attempt says why the certificate is not trusted, and what to do. Both have the same name.
    let reload = |authorities: &str| {
        let times = || daemon.logged().matches("configuration read again").count();
        let before = times();
        configure(authorities);
        daemon.signal(Signal::SIGHUP);
        assert!(wait_until(PATIENCE, || times() > before), "{}", daemon.logged());
    };
    reload(&other);
    net.want(state([service("web", 2001, &[], 3000, json!({}))]));
    let is_said = || {
        let logged = daemon.logged();
        let mut lines = logged.lines();
        lines.any(|line| {
            [
                "platform",
                "the TLS handshake failed",
                "is signed by another key",
                "by ca_file",
            ]
            .iter()
            .all(|words| line.contains(words))
        })
    };
    assert!(wait_until(PATIENCE, is_said), "{}", daemon.logged());
    // A file that is none is a problem at once.
    let problems = || daemon.get("/v1/daemon")["problems"].to_string();
    reload("ca_file = '/no/such/file'\n");
    let is_named = || problems().contains("/no/such/file");
    assert!(wait_until(PATIENCE, is_named), "{}", problems());
    assert!(events.try_recv().is_err(), "it was told without trust");
    // What waited is told when the certificate is trusted.
    reload(&trusted);
    let received = events.recv_timeout(PATIENCE * 4).expect("an event");
    assert_eq!(received["id"], daemon.events_of("committed")[1]["id"]);
    assert!(
        wait_until(PATIENCE, || !problems().contains("/no/such/file")),
        "{}",
        problems()
    );
}
