//! Name resolution, where the machine's resolver listens on loopback.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;

use nix::sys::signal::Signal;

use super::TCP;
use crate::harness::Net;

/// Address where the resolver of the test listens.
const RESOLVER: &str = "127.0.0.9:53";

/// Says 192.0.2.7 of every name (RFC 1035, 4.1), and nothing of its other types.
fn answer(question: &[u8]) -> Vec<u8> {
    const HEADER: usize = 12;
    let name = question[HEADER..]
        .iter()
        .position(|byte| *byte == 0)
        .expect("a name ends");
    let end = HEADER + name + 5;
    let is_address = question[end - 4..end] == [0, 1, 0, 1];
    let mut message = question[..end].to_vec();
    message[2..HEADER].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
    if is_address {
        message.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    message
}

/// Answers queries by UDP and TCP as long as the test runs.
fn serve(net: &Net) {
    let (questions, listener) = net.within("gateway", || {
        (
            UdpSocket::bind(RESOLVER).expect("a socket"),
            TcpListener::bind(RESOLVER).expect("a socket"),
        )
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok((length, from)) = questions.recv_from(&mut buffer) {
            let _ = questions.send_to(&answer(&buffer[..length]), from);
        }
    });
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut length = [0; 2];
            while client.read_exact(&mut length).is_ok() {
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                if client.read_exact(&mut question).is_err() {
                    break;
                }
                let mut message = answer(&question);
                let length = u16::try_from(message.len()).expect("it is short").to_be_bytes();
                message.splice(0..0, length);
                let _ = client.write_all(&message);
            }
        }
    });
}

#[test]
fn a_resolver_on_loopback_is_reached() {
    let net = Net::new();
    serve(&net);
    let mut app = net.app("app", &format!("tcp: {TCP}\n"));
    app.write("resolv.conf", "nameserver 127.0.0.9\noptions timeout:2\n");
    let wrap = |command: &Command| {
        let hide =
            "for file in /run/systemd/resolve/resolv.conf; do [ ! -e $file ] || mount --bind /dev/null $file; done";
        let line = format!("{hide}; mount --bind resolv.conf /etc/resolv.conf && exec \"$@\"");
        let mut wrapped = Command::new("unshare");
        wrapped.args(["--mount", "sh", "-c", line.as_str(), "sh"]);
        wrapped.arg(command.get_program()).args(command.get_args());
        wrapped.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        wrapped.current_dir(app.directory());
        wrapped
    };
    let wrapped = wrap(&app.command(&[]));
    app.launch_as(wrapped);
    app.prints("listening");
    let asked = app.cli(&["run", "getent ahostsv4 some.example"]);
    assert!(asked.stdout.starts_with("192.0.2.7"), "{asked}");
    let by_tcp = "RES_OPTIONS=use-vc getent ahostsv4 other.example";
    let asked = app.cli(&["run", by_tcp]);
    assert!(asked.stdout.starts_with("192.0.2.7"), "{asked}");
    app.stop(Signal::SIGINT);
    assert_eq!(net.left_by_up(), Vec::<String>::new());
}
