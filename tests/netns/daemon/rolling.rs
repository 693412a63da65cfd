//! Containers that are replaced one after the other, under traffic, while the daemon is killed now and then.
//!
//! `TCPGW_ROUNDS` (default 10, times `TCPGW_SOAK`) times four containers are replaced; `TCPGW_KILLS` (default 8, times `TCPGW_SOAK`) is how often the daemon is
//! killed.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use super::containers::{AMOUNT, Container, SERVICES, nobody_noticed, others_have_no_flows};
use super::traffic::{Amount, Traffic, lock};
use crate::faults::random::Random;
use crate::faults::rounds;
use crate::harness::brief::state;
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{self, BACKENDS, PUBLIC, at};
use crate::harness::{Net, wait_until};

const DRAIN: Duration = Duration::from_secs(3);
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
        old.leave(DRAIN);
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

    /// Closes the container that was replaced last, in good order.
    fn close_last(&mut self) {
        let old = self.gone.last_mut().expect("one was replaced");
        old.close();
    }

    /// Asserts that no backend drains any more, that no flow of an old container is left, and that the kernel agrees with the
    /// file.
    #[track_caller]
    fn finished(&self, daemon: &Daemon<'_>) {
        daemon.settles(8);
        let of = |family| self.serving.values().map(move |one: &Container| one.endpoint(family));
        let serving: Vec<String> = of(0).chain(of(1)).collect();
        others_have_no_flows(self.net, &serving);
        let file = self.net.wanted().to_string_lossy().into_owned();
        self.net.tcpgw(&["diff", &file]).exits(0);
    }
}

#[test]
fn replacing_every_container_fails_nobody() {
    let net = Net::alone();
    let rounds = rounds("TCPGW_ROUNDS", 10);
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
    nobody_noticed(&net, &platform.gone, &traffic);
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
    let kills = rounds("TCPGW_KILLS", 8);
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
    nobody_noticed(&net, &platform.gone, &traffic);
}
