//! End of the API server: every connected client gets a response.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tcpgw::api::{Socket, SocketSettings, serve};
use tokio::sync::mpsc;

use crate::harness::{PATIENCE, times};
use tcpgw::api::settings::ApiSettings;

/// Clients whose connections and requests wait in the socket's queue when the server ends get a response, although the server had
/// not accepted them.
#[test]
fn who_waits_to_be_accepted_at_the_end_is_answered() {
    const CLIENTS: usize = 24;
    let directory = tempfile::tempdir().unwrap();
    let settings = SocketSettings {
        path: directory.path().join("tcpgw.sock"),
        mode: 0o600,
        group: None,
    };
    let mut socket = Socket::bind(&settings).unwrap();
    let clients: Vec<UnixStream> = (0..CLIENTS)
        .map(|_| {
            let mut client = UnixStream::connect(&settings.path).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            client
                .write_all(
                    b"PUT /v1/services/web HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}",
                )
                .unwrap();
            client
        })
        .collect();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (requests, mut asked) = mpsc::channel(CLIENTS);
        // The receiver is closed, so that requests which get so far are answered that the daemon is ending.
        asked.close();
        let listener = tokio::net::UnixListener::from_std(socket.take_listener().unwrap()).unwrap();
        let settings = ApiSettings {
            times: times(),
            ..ApiSettings::default()
        };
        let served = serve(listener, mpsc::channel(1).1, requests, settings, async {});
        tokio::time::timeout(PATIENCE, served).await.unwrap();
    });
    for mut client in clients {
        let mut text = String::new();
        client.read_to_string(&mut text).unwrap();
        assert!(
            text.starts_with("HTTP/1.1 503") && text.contains("nothing was done"),
            "{text:?}"
        );
    }
    let late = UnixStream::connect(&settings.path).and_then(|mut late| {
        late.set_read_timeout(Some(Duration::from_secs(1)))?;
        late.read(&mut [0])
    });
    late.expect_err("nobody is let in after the end");
}
