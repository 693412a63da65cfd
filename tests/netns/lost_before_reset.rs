//! A reset that its receiver does not take, because data before it was lost: it answers with an acknowledgement (a challenge ACK,
//! RFC 5961, 3.2), which finds no flow any more, since conntrack forgets a flow with the reset (`close : 0`).

use std::io::{ErrorKind, Read as _, Write as _};
use std::time::Duration;

use serde_json::json;
use socket2::SockRef;

use crate::harness::Net;
use crate::harness::brief::{service, state};
use crate::harness::client::PATIENCE;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::listen_at;

/// Time within which an answer arrives on a busy machine, too.
const SOON: Duration = Duration::from_secs(3);

/// Returns the error that a client gets when the last data of its connection is lost between the gateway and the client, and the
/// backend resets the connection then.
fn end_of_a_client(net: &Net, public: &str) -> ErrorKind {
    let b1 = net.within("b1", || listen_at("[::]:3000")).expect("a listener");
    let mut conn = net.connect("client", at(public, 2001)).expect("it listens");
    let (mut accepted, _) = b1.accept().expect("a connection");
    conn.send(b"hello").expect("it goes out");
    accepted.read_exact(&mut [0; 5]).expect("it comes");
    net.nft(
        "client",
        "table inet loss { chain in { type filter hook prerouting priority -300; tcp sport 2001 @ih,0,8 >= 0x0 drop; }; }",
    );
    accepted.write_all(b"lost").expect("it goes out");
    SockRef::from(&accepted)
        .set_linger(Some(Duration::ZERO))
        .expect("an option");
    drop(accepted);
    conn.patience(SOON);
    let ended = conn.receive().expect_err("nothing comes");
    net.nft("client", "delete table inet loss");
    ended.kind()
}

#[test]
fn the_client_is_told_where_late_packets_are_answered() {
    let net = Net::new();
    for (on_retire, end) in [("drop", ErrorKind::WouldBlock), ("reset", ErrorKind::ConnectionReset)] {
        net.apply(state([service(
            "a",
            2001,
            &["b1"],
            3000,
            json!({"on_retire": on_retire}),
        )]));
        for public in PUBLIC {
            assert_eq!(end_of_a_client(&net, public), end, "on_retire {on_retire}, {public}");
        }
    }
}

/// Without tcpgw the kernel lets the backend answer: it keeps a flow that was reset for 10 s, the client's acknowledgement
/// reaches the backend, and the client accepts the backend's second reset.
#[test]
fn the_kernel_alone_lets_the_backend_answer() {
    let net = Net::new();
    net.nft(
        "gateway",
        "table ip plain { chain pre { type nat hook prerouting priority dstnat; tcp dport 2001 dnat to 10.2.0.11:3000; }; \
         chain post { type nat hook postrouting priority srcnat; ct status dnat masquerade; }; }",
    );
    assert_eq!(end_of_a_client(&net, PUBLIC[0]), ErrorKind::ConnectionReset);
}

/// A backend is always told of a lost reset, because the gateway's own stack answers for the client.
#[test]
fn a_backend_is_always_told() {
    let net = Net::new();
    net.apply(state([service("a", 2001, &["b1"], 3000, json!({}))]));
    for public in PUBLIC {
        let b1 = net.within("b1", || listen_at("[::]:3000")).expect("a listener");
        let mut conn = net.connect("client", at(public, 2001)).expect("it listens");
        let (mut accepted, _) = b1.accept().expect("a connection");
        accepted.set_read_timeout(Some(PATIENCE)).expect("an option");
        conn.send(b"hello").expect("it goes out");
        accepted.read_exact(&mut [0; 5]).expect("it comes");
        net.nft(
            "b1",
            "table inet loss { chain in { type filter hook prerouting priority -300; tcp dport 3000 @ih,0,8 >= 0x0 drop; }; }",
        );
        conn.send(b"lost").expect("it goes out");
        conn.reset().expect("it ends");
        let ended = accepted.read(&mut [0; 8]).expect_err("nothing comes");
        net.nft("b1", "delete table inet loss");
        assert_eq!(ended.kind(), ErrorKind::ConnectionReset, "{public}");
    }
}
