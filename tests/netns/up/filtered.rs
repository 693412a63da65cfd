//! `tcpgw up` beside Docker: other programs drop forwarded packets, and the printed command lets the app's packets pass.

use std::net::TcpListener;

use nix::sys::signal::Signal;

use super::{PATIENCE, TCP};
use crate::harness::plan::addresses;
use crate::harness::{Net, wait_until};

/// Command that exits with 0 if it can connect to the outside.
const CONNECT: &str =
    "/usr/bin/python3 -c 'import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 1)'";

/// Docker's rules, and a firewall written by hand: commands that set them up, the advice that is expected, and commands that
/// remove them.
const RULES: [(&str, &str, &str); 2] = [
    (
        "iptables-nft -N DOCKER-USER; iptables-nft -A DOCKER-USER -j RETURN; iptables-nft -A FORWARD -j DOCKER-USER; \
         iptables-nft -A FORWARD -i docker0 ! -o docker0 -j ACCEPT; iptables-nft -P FORWARD DROP",
        "; to let them pass, as root: iptables-nft -I DOCKER-USER ",
        "iptables-nft -P FORWARD ACCEPT; iptables-nft -F; iptables-nft -X",
    ),
    (
        "nft 'table inet mine { chain forward { type filter hook forward priority 0; policy drop; ct state established accept; }; }'",
        "; to let them pass, as root: nft insert rule inet mine forward ",
        "nft delete table inet mine",
    ),
];

#[test]
fn a_policy_of_drop_is_told_with_the_line_that_lets_the_app_pass() {
    let net = Net::new();
    let server = net.within("client", || TcpListener::bind("0.0.0.0:0").expect("a socket"));
    let port = server.local_addr().expect("it is bound").port();
    let outside = format!("{CONNECT} {} {port}", addresses("client")[0]);
    for (name, (rules, fix, undo)) in ["first", "second"].into_iter().zip(RULES) {
        net.sh("gateway", rules).ok();
        let mut app = net.app(name, &format!("tcp: {TCP}\n"));
        app.start(&[], 1);
        app.prints("what processes of `tcpgw up` and the outside send each other");
        assert_eq!(app.cli(&["run", &outside]).status, 1, "{name}");
        assert!(app.ask().is_err(), "{name}");
        let reported = |command: &[&str]| net.cli(command).stdout.contains("what processes of `tcpgw up`");
        assert!(
            wait_until(PATIENCE, || reported(&["status", "--interval", "0s"])),
            "{name}: {}",
            net.cli(&["status"])
        );
        assert!(reported(&["doctor"]), "{name}: {}", net.cli(&["doctor"]));

        let printed = app.printed();
        let warning = printed.lines().find(|line| line.contains(fix));
        let (_, line) = warning
            .and_then(|line| line.split_once("; to let them pass, as root: "))
            .unwrap_or_else(|| panic!("no {fix:?}: {printed}"));
        net.sh("gateway", line).ok();
        let ran = app.cli(&["run", &outside]);
        assert_eq!(ran.status, 0, "{name}: {ran}");
        assert!(app.ask().is_ok(), "{name}");
        let is_over = || {
            !reported(&["status", "--interval", "0s"])
                && !net
                    .cli(&["status", "--interval", "0s"])
                    .stdout
                    .contains("packets_dropped")
        };
        assert!(wait_until(PATIENCE, is_over), "{name}: {}", net.cli(&["status"]));
        assert!(
            !net.cli(&["doctor"]).stdout.contains("packets-dropped"),
            "{}",
            net.cli(&["doctor"])
        );
        app.stop(Signal::SIGINT);
        net.sh("gateway", undo).ok();
    }
}
