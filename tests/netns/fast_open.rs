//! TCP Fast Open: data before the handshake is complete, both ways (RFC 7413).

use std::io::{Read, Write};
use std::net::{Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::wire::{Packet, SYN, lines};

const REQUEST: &[u8] = b"early";
/// Size of an answer in more segments than a client acknowledges before it knows of the answer.
const ANSWER: usize = 12_000;

/// Makes a topology with a client of which only SYNs get out for a while, as if it were far away, and a backend that accepts data
/// with a SYN. Every segment is sent by itself.
fn far_apart() -> Net {
    let net = Net::new();
    // 1 and 4: clients, without a cookie. 2, 0x200 and 0x400: every listener, without a cookie.
    net.sh("client", "sysctl -q -w net.ipv4.tcp_fastopen=5").ok();
    net.sh("b1", "sysctl -q -w net.ipv4.tcp_fastopen=1538").ok();
    for host in ["client", "b1"] {
        net.sh(host, "ethtool -K eth0 tso off gso off gro off").ok();
    }
    net.nft(
        "client",
        "table inet far {
            set young { type inet_proto . inet_service; size 65536; flags dynamic,timeout; timeout 100ms; }
            chain output { type filter hook output priority 0;
                tcp flags syn / fin,syn,rst,ack update @young { meta l4proto . tcp sport } accept
                meta l4proto . tcp sport @young drop; }; }",
    );
    net.apply(state([service("web", 8000, &["b1"], 3000, json!({}))]));
    net
}

fn connect(to: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
    setsockopt(&socket, sockopt::TcpFastOpenConnect, &true).expect("fast open");
    socket.set_read_timeout(Some(PATIENCE)).expect("a patient socket");
    socket.connect(&SockAddr::from(to)).expect("it only begins");
    let mut stream = TcpStream::from(socket);
    stream.set_nodelay(true).expect("segments go by themselves");
    stream.write_all(REQUEST).expect("it goes with the SYN");
    stream
}

fn listen(net: &Net) -> TcpListener {
    net.within("b1", || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 3000)))
        .expect("a listener")
}

fn asked(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).expect("a patient socket");
    let mut request = [0; REQUEST.len()];
    stream.read_exact(&mut request).expect("a request");
}

/// Returns true when a received SYN carries the whole request. Without such a SYN a test would prove nothing.
fn was_early(packets: &[Packet]) -> bool {
    packets
        .iter()
        .any(|packet| packet.has(SYN) && !packet.outgoing && packet.payload == REQUEST.len())
}

fn no_challenges(net: &Net) {
    for set in ["reused_v4", "reused_v6"] {
        assert_eq!(net.tally(set), [].into(), "{set}");
    }
}

#[test]
fn an_answer_may_come_before_the_handshake_is_complete() {
    const ROUNDS: usize = 5;
    let net = far_apart();
    let listener = listen(&net);
    let server = thread::spawn(move || {
        for _ in 0..2 * ROUNDS {
            let (mut stream, _) = listener.accept().expect("a connection");
            asked(&mut stream);
            stream.write_all(&[7; ANSWER]).expect("an answer");
        }
    });
    for public in PUBLIC {
        let wire = net.capture("b1", |packet| packet.has(SYN));
        for round in 0..ROUNDS {
            let answer = net.within("client", || {
                let mut answer = Vec::new();
                connect(at(public, 8000)).read_to_end(&mut answer).map(|_| answer.len())
            });
            assert!(
                answer.as_ref().is_ok_and(|length| *length == ANSWER),
                "{public}, connection {round}: {answer:?}"
            );
        }
        let packets = wire.stop();
        assert!(was_early(&packets), "{public}: {}", lines(&packets));
    }
    server.join().expect("it served all");
    no_challenges(&net);
}
