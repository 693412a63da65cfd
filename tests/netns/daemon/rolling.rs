//! Containers that are replaced one after the other, under traffic; the daemon is killed meanwhile.
//!
//! `TCPGW_ROUNDS` (default 25) times four containers are replaced; `TCPGW_KILLS` (default 12) is how often the daemon is
//! killed.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::traffic::{Amount, End, Ended, Traffic, lock};
use crate::faults::number;
use crate::faults::random::Random;
use crate::harness::brief::state;
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{self, BACKENDS, PUBLIC, at};
use crate::harness::server::{Behaviour, Server};
use crate::harness::state::FLOW_MARK;
use crate::harness::{Net, wait_until};

const DRAIN: Duration = Duration::from_secs(3);
/// A service that drops, over IPv4, and one that resets, over IPv6; by the family's index.
const SERVICES: [(&str, u16, &str); 2] = [("drops", 2001, "drop"), ("resets", 2002, "reset")];

/// One container: a port of a host, for both services.
struct Container {
    server: Option<Server>,
    host: &'static str,
    port: u16,
    /// When it was asked to leave.
    left: Option<Instant>,
    /// When its server was about to close.
    closed: Option<Instant>,
}

impl Container {
    fn start(net: &Net, host: &'static str, port: u16) -> Self {
        let name = format!("{host}:{port}");
        let server = net.serve_as(&name, host, at("::", port), Behaviour::Greet);
        Self {
            server: Some(server),
            host,
            port,
            left: None,
            closed: None,
        }
    }

    fn endpoint(&self, family: usize) -> String {
        std::net::SocketAddr::new(plan::addresses(self.host)[family], self.port).to_string()
    }
}

/// Containers that serve, by host; those that were replaced; the next port.
struct Platform<'n> {
    net: &'n Net,
    serving: BTreeMap<&'static str, Container>,
    gone: Vec<Container>,
    next: u16,
}

impl<'n> Platform<'n> {
    fn new(net: &'n Net) -> Self {
        let serving = BACKENDS.map(|host| (host, Container::start(net, host, 3000)));
        Self {
            net,
            serving: serving.into(),
            gone: Vec::new(),
            next: 3001,
        }
    }

    fn state(&self) -> Value {
        let services = SERVICES
            .into_iter()
            .enumerate()
            .map(|(family, (name, port, on_retire))| {
                let backends: Vec<String> = self.serving.values().map(|one| one.endpoint(family)).collect();
                json!({
                    "name": name, "port": port, "backends": backends, "on_retire": on_retire,
                    "drain_timeout": format!("{}s", DRAIN.as_secs()),
                })
            });
        state(services)
    }

    /// Starts another container on that host and says so.
    fn replace(&mut self, host: &'static str) {
        let new = Container::start(self.net, host, self.next);
        self.next += 1;
        let mut old = self.serving.insert(host, new).expect("a container");
        old.left = Some(Instant::now());
        self.gone.push(old);
        self.net.want(self.state());
    }

    /// Waits until the last that was replaced gets no connections any more.
    #[track_caller]
    fn switched(&self) {
        let old = self.gone.last().expect("one was replaced");
        let new = &self.serving[old.host];
        let [address, address6] = plan::addresses(old.host);
        let is_switched = || {
            let slots = self.net.sh(
                "gateway",
                "nft list map inet tcpgw slots_v4; nft list map inet tcpgw slots_v6",
            );
            let slots = slots.ok();
            [address, address6].iter().all(|address| {
                slots.contains(&format!("{address} . {}", new.port))
                    && !slots.contains(&format!("{address} . {}", old.port))
            })
        };
        assert!(
            wait_until(PATIENCE * 3, is_switched),
            "{host} is not replaced",
            host = old.host
        );
    }

    /// The last that was replaced ends in good order.
    fn close_last(&mut self) {
        let old = self.gone.last_mut().expect("one was replaced");
        old.closed = Some(Instant::now());
        drop(old.server.take());
    }

    /// Whether a session may have ended that way.
    fn explains(&self, ended: &Ended) -> bool {
        let (host, port) = ended.backend.split_once(':').expect("a name of ours");
        let container = self
            .gone
            .iter()
            .find(|gone| gone.host == host && gone.port.to_string() == port);
        let Some(container) = container else { return false };
        let by_its_server = container.closed.is_some_and(|closed| ended.at >= closed);
        let at_the_deadline = container.left.is_some_and(|left| ended.at >= left + DRAIN);
        match (ended.end, ended.service) {
            (End::Reset, 2002) => by_its_server || at_the_deadline,
            (End::Closed | End::Reset, _) => by_its_server,
            (End::Silent, service) => service == 2001 && at_the_deadline,
        }
    }

    /// Nobody leaves any more, nothing of the old ones is left, and the kernel is as the file says.
    #[track_caller]
    fn finished(&self, daemon: &Daemon<'_>) {
        daemon.settles(8);
        let stale = || {
            let of = |family| self.serving.values().map(move |one: &Container| one.endpoint(family));
            let serving: Vec<String> = of(0).chain(of(1)).collect();
            let mut flows = self.net.conntrack();
            flows.retain(|flow| flow.mark & FLOW_MARK != 0 && !serving.contains(&flow.backend.to_string()));
            flows
        };
        assert!(wait_until(PATIENCE, || stale().is_empty()), "{:#?}", stale());
        let file = self.net.wanted().display().to_string();
        self.net.tcpgw(&["diff", &file]).exits(0);
    }
}

const AMOUNT: Amount = Amount {
    rate: 500,
    clients: 16,
    sessions: 200,
};

#[track_caller]
fn nobody_noticed(net: &Net, platform: &Platform<'_>, traffic: &Traffic) {
    let (failures, refused) = (lock(&traffic.failures), lock(&traffic.refused));
    let ended = lock(&traffic.ended);
    let count = |end| ended.iter().filter(|ended| ended.end == end).count();
    eprintln!(
        "{} replaced, {} requests, the longest {:?}, {} failed, {} SYNs again; sessions: {} closed, {} reset, {} silent, \
         {} refused",
        platform.gone.len(),
        traffic.served.load(std::sync::atomic::Ordering::Relaxed),
        *lock(&traffic.longest),
        failures.len(),
        net.syns_again("client"),
        count(End::Closed),
        count(End::Reset),
        count(End::Silent),
        refused.len()
    );
    if !failures.is_empty() || !refused.is_empty() {
        // Whether the gateway has refused them, or a container.
        let counted = net.sh(
            "gateway",
            "nft list table inet tcpgw | grep -E 'counter packets [1-9]|set .* \\{'",
        );
        eprintln!("{}", counted.ok());
    }
    assert!(failures.is_empty(), "{failures:#?}");
    assert!(refused.is_empty(), "{refused:#?}");
    let unexplained: Vec<_> = ended.iter().filter(|ended| !platform.explains(ended)).collect();
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    // A SYN that is sent again costs its client a second.
    assert_eq!(net.syns_again("client"), 0);
}

#[test]
fn replacing_every_container_fails_nobody() {
    let net = Net::alone();
    let rounds = number("TCPGW_ROUNDS").unwrap_or(25);
    let mut platform = Platform::new(&net);
    net.want(platform.state());
    let daemon = net.daemon(&[]);
    daemon.settles(8);
    let to = [at(PUBLIC[0], 2001), at(PUBLIC[1], 2002)];
    let (traffic, ()) = Traffic::during(&net, &to, &AMOUNT, |traffic| {
        for step in 0..rounds * BACKENDS.len() {
            platform.replace(BACKENDS[step % BACKENDS.len()]);
            platform.switched();
            if step % 2 == 0 {
                // Requests that it has are short.
                traffic.passes();
                platform.close_last();
            }
        }
        platform.finished(&daemon);
    });
    nobody_noticed(&net, &platform, &traffic);
    assert!(
        lock(&traffic.longest).as_millis() < 1000,
        "{:?}",
        lock(&traffic.longest)
    );
    let failed = daemon.events_of("failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn a_daemon_that_is_killed_finishes_what_it_began() {
    let net = Net::alone();
    let kills = number("TCPGW_KILLS").unwrap_or(12);
    let mut random = Random::seeded();
    let mut platform = Platform::new(&net);
    net.want(platform.state());
    let mut daemon = net.daemon(&[]);
    daemon.settles(8);
    let to = [at(PUBLIC[0], 2001), at(PUBLIC[1], 2002)];
    let amount = Amount { sessions: 60, ..AMOUNT };
    let (traffic, ()) = Traffic::during(&net, &to, &amount, |traffic| {
        for step in 0..kills {
            platform.replace(BACKENDS[step % BACKENDS.len()]);
            thread::sleep(Duration::from_millis(400).mul_f64(random.fraction()));
            daemon.kill();
            thread::sleep(Duration::from_millis(200).mul_f64(random.fraction()));
            daemon.launch();
            if random.below(3) == 0 {
                // While it starts.
                thread::sleep(Duration::from_millis(60).mul_f64(random.fraction()));
                daemon.kill();
                daemon.launch();
            }
            platform.switched();
            if step % 2 == 0 {
                traffic.passes();
                platform.close_last();
            }
        }
        platform.finished(&daemon);
    });
    nobody_noticed(&net, &platform, &traffic);
}
