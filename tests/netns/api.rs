//! The API serves its own network namespace only.

use std::process::Command;

use serde_json::Value;
use tcpgw::api::{Socket, SocketSettings, serve};
use tokio::sync::{mpsc, oneshot};

use crate::harness::shell::TCPGW;
use tcpgw::api::settings::ApiSettings;

#[test]
fn who_is_in_another_namespace_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tcpgw.sock");
    let settings = SocketSettings {
        path: path.clone(),
        mode: 0o600,
        group: None,
    };
    let mut socket = Socket::bind(&settings).expect("a socket");
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let listener = tokio::net::UnixListener::from_std(socket.take_listener().expect("a listener"));
            // The receiver is closed, so that requests which get so far are answered that the daemon is ending.
            let (asks, _) = mpsc::channel(1);
            let stop = async { drop(stopped.await) };
            let (_, renewed) = mpsc::channel(1);
            serve(
                listener.expect("a listener"),
                renewed,
                asks,
                ApiSettings::default(),
                stop,
            )
            .await;
        });
    });
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("TCPGW_CONFIG", "/dev/null")
            .env("TCPGW_SOCKET", &path);
        command.output().expect("it runs")
    };
    let elsewhere = run("unshare", &["--net", TCPGW, "status"]);
    let here = run(TCPGW, &["status"]);
    let socket = path.to_str().expect("text");
    // Any program can send this request, without regard to the network namespace.
    let ask = "import socket, sys\n\
               s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
               s.sendall(b'GET /v1/status HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n')\n\
               answer = b''.join(iter(lambda: s.recv(4096), b''))\n\
               sys.stdout.buffer.write(answer.partition(b'\\r\\n\\r\\n')[2])";
    let by_hand = run("unshare", &["--net", "python3", "-c", ask, socket]);
    let _ = stop.send(());
    serving.join().expect("the server ends");

    let error = String::from_utf8_lossy(&elsewhere.stderr);
    assert!(error.contains("serves another network namespace"), "{error}");
    assert_eq!(elsewhere.status.code(), Some(1));
    let output: Value = serde_json::from_slice(&by_hand.stdout).expect("JSON");
    assert_eq!(output["error"]["code"], "other_namespace");
    let error = String::from_utf8_lossy(&here.stderr);
    assert!(error.contains("the daemon is ending"), "{error}");
}
