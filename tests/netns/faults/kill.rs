//! Runs that are killed at random moments, under traffic.

use std::fmt;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::random::Random;
use super::{PAUSE, SetOnDrop, assert_holds, filler, held, leftovers, rounds, wanted};
use crate::harness::brief::{service, state};
use crate::harness::client::{Conn, PATIENCE, Spread, connect};
use crate::harness::plan::{PUBLIC, at};
use crate::harness::server::Behaviour;
use crate::harness::shell::TCPGW;
use crate::harness::state::{backends, backends_with};
use crate::harness::{Net, wait_until};
use crate::retire::{open, switched, until};

const ROUNDS: usize = 60;
/// Backend of the rolling service that is always present.
const STAYS: &str = "b1";
/// Largest number of connections to the rolling service that are kept open.
const KEPT: usize = 60;

/// A run that is killed at any moment is finished by the next. After about every second kill, and after the last, one run is left
/// to its end.
///
/// `TCPGW_SEED` repeats a run's states and delays; `TCPGW_KILLS` and `TCPGW_SOAK` make it longer.
#[test]
fn a_run_that_is_killed_at_any_moment_is_finished_by_the_next() {
    let rounds = rounds("TCPGW_KILLS", ROUNDS);
    let net = Net::alone();
    let _servers = [3000, 3001, 3002].map(|port| net.serve_all(port, Behaviour::Greet));
    let mut random = Random::seeded();
    let mut first = changing(&mut random);
    // With these settings sessions with all backends are possible.
    for service in first["services"].as_array_mut().expect("a state") {
        service["balance"] = "random".into();
    }
    net.apply(&first);
    let traffic = Traffic::new();
    let (spreads, tally) = traffic.during(&net, || Killer::new(&net, &traffic, random, first).kill(rounds));
    println!("{tally}");
    for spread in &spreads {
        println!(
            "{} short connections, the longest {:?}",
            spread.served(),
            spread.longest
        );
        assert!(spread.failures.is_empty(), "{spread:?}");
        assert!(spread.served() > rounds, "{spread:?}");
    }
    println!(
        "{} to the backend that stayed among others",
        traffic.stayed.load(Relaxed)
    );
    assert_eq!(net.handshakes_again(), 0, "no SYN was lost");
    assert!(tally.hit * 10 >= rounds * 6, "{tally}");
    assert!(tally.changed >= rounds / 20, "{tally}");
}

/// A drain that is interrupted by a signal is finished by the next run. Draining is the longest part of a run, and the likeliest
/// that a user interrupts.
#[test]
fn a_drain_that_is_interrupted_is_finished_by_the_next_run() {
    let net = Net::new();
    let _servers = net.serve_all(3000, Behaviour::Greet);
    let on = |host: &str| state([service("web", 8000, &[host], 3000, json!({"on_retire": "reset"}))]);
    let file = net.state_file("after.json", on("b2"));
    for (signal, status) in [(Signal::SIGTERM, 143), (Signal::SIGINT, 130), (Signal::SIGHUP, 129)] {
        net.apply(on("b1"));
        let mut conn = open(&net, at(PUBLIC[0], 8000), "b1");
        // Under nohup these tests ignore SIGHUP, and so would the command.
        let run = ["env", "--default-signal", TCPGW, "apply", "--drain", "1h", &file];
        let run = net.spawn("gateway", &run);
        assert!(wait_until(PATIENCE, || switched(&net)));
        run.signal(signal);
        run.wait().exits(status);
        conn.echo(b"on").expect("it goes on");
        assert_eq!(
            net.spread("client", at(PUBLIC[0], 8000), 4)
                .into_keys()
                .collect::<Vec<_>>(),
            ["b2"]
        );
        let differs = net.tcpgw(&["diff", &file]).exits(1).stdout;
        // The record had the run's changes before the kernel did.
        assert!(
            differs.contains("! 1 stale flow of earlier backends will be flushed"),
            "{differs}"
        );
        net.apply(on("b2"));
        assert_holds(&net, &on("b2"), "after the drain");
        let left = leftovers(&net, &on("b2"));
        assert!(left.is_empty(), "{left:?}");
        conn.echo(b"late").expect_err("it was flushed");
    }
}

/// Returns a random state: `web` stays at b1 and b2, `rolls` at b1, all else changes.
fn changing(random: &mut Random) -> Value {
    let mut weight = |host: &str| backends_with(&[host], 3000, &json!({"weight": random.below(4) + 1}));
    let of_web = [weight("b1"), weight("b2")].concat();
    let balance = ["client-hash", "random", "source-hash", "round-robin"][random.below(4)];
    let limit = [json!({}), json!({"limit": {"pps": 50_000 + random.below(5)}})][random.below(2)].clone();
    let mut web = service("web", 8000, &[], 3000, json!({"balance": balance}));
    web["backends"] = of_web.into();
    if let Some(limit) = limit.get("limit") {
        web["limit"] = limit.clone();
    }
    let others = [&["b2"][..], &["b3"], &["b2", "b4"], &["b3", "b4"], &[]][random.below(5)];
    let hosts = [&[STAYS], others].concat();
    let on_retire = ["reset", "drop"][random.below(2)];
    let mut services = vec![
        web,
        service("rolls", 8002, &hosts, 3001, json!({"on_retire": on_retire})),
    ];
    if random.below(2) == 0 {
        let gone = backends(&["b3", "b4"], 3002);
        services.push(json!({"name": "comes-and-goes", "port": 8001, "backends": gone, "balance": balance}));
    }
    if random.below(3) == 0 {
        services.extend(filler(10_000, 300));
    }
    state(services)
}

/// Traffic of clients that must not be disturbed.
struct Traffic {
    over: AtomicBool,
    echoes: AtomicU64,
    /// Connections of the rolling service that met the backend that stays.
    stayed: AtomicUsize,
}

impl Traffic {
    fn new() -> Self {
        Self {
            over: AtomicBool::new(false),
            echoes: AtomicU64::new(0),
            stayed: AtomicUsize::new(0),
        }
    }

    /// Runs `work` under traffic, and returns the results of the short connections with that of `work`.
    fn during<T>(&self, net: &Net, work: impl FnOnce() -> T) -> (Vec<Spread>, T) {
        let more = || {
            thread::sleep(PAUSE);
            !self.over.load(Relaxed)
        };
        let held = PUBLIC.map(|address| Self::sessions(net, address));
        thread::scope(|scope| {
            let clients = PUBLIC.map(|address| {
                let more = &more;
                scope.spawn(move || net.spread_while("client", at(address, 8000), 1, more))
            });
            for mut conns in held {
                scope.spawn(move || self.talk(&mut conns));
            }
            for address in PUBLIC {
                let more = &more;
                scope.spawn(move || self.roll(net, address, more));
            }
            let end = SetOnDrop(&self.over);
            let done = work();
            drop(end);
            let spreads = clients.map(|client| client.join().expect("clients do not panic"));
            (spreads.into(), done)
        })
    }

    fn sessions(net: &Net, address: &str) -> Vec<Conn> {
        ["b1", "b2", "b1", "b2"]
            .map(|host| until(net, at(address, 8000), host))
            .into_iter()
            .chain([until(net, at(address, 8002), STAYS)])
            .collect()
    }

    fn talk(&self, conns: &mut [Conn]) {
        while !self.over.load(Relaxed) {
            for (n, conn) in conns.iter_mut().enumerate() {
                conn.echo(b"still here").unwrap_or_else(|e| panic!("session {n}: {e}"));
                self.echoes.fetch_add(1, Relaxed);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Connections to the rolling service, from another host: those that meet the backend that stays must not fail.
    fn roll(&self, net: &Net, address: &str, more: &(dyn Fn() -> bool + Sync)) {
        let place = net.place("routed");
        thread::scope(|scope| {
            let work = || {
                place.enter();
                while more() {
                    // A connection to a backend that has just left may fail.
                    let Ok(mut conn) = connect(at(address, 8002), PATIENCE) else {
                        continue;
                    };
                    conn.patience(Duration::from_secs(2));
                    if conn.greeting().is_ok_and(|greeting| greeting.backend == STAYS) {
                        conn.echo(b"stays").expect("its backend was there throughout");
                        self.stayed.fetch_add(1, Relaxed);
                    }
                }
            };
            scope.spawn(work);
        });
    }
}

/// Moments at which the kills hit.
#[derive(Debug, Default)]
struct Tally {
    rounds: usize,
    hit: usize,
    /// The rules were changed when the run was killed.
    changed: usize,
    /// The rules were neither the old nor the wanted ones.
    between: usize,
    /// The rules were the wanted ones, and flows were left to flush.
    unswept: usize,
    /// Runs that were left to their end.
    healed: usize,
    took: Duration,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            rounds,
            hit,
            changed,
            between,
            unswept,
            healed,
            took,
        } = self;
        write!(
            f,
            "{hit} of {rounds} kills hit a run: {changed} after it had changed the rules, {between} of them between two \
             transactions, {unswept} with flows left to flush; {healed} runs finished, in {took:?}"
        )
    }
}

struct Killer<'a> {
    net: &'a Net,
    traffic: &'a Traffic,
    random: Random,
    /// State that the last run wanted.
    wanted: Value,
    /// Time that a run takes, by whether many services come or go.
    takes: [Duration; 2],
    kept: Vec<Conn>,
    tally: Tally,
}

impl<'a> Killer<'a> {
    fn new(net: &'a Net, traffic: &'a Traffic, random: Random, wanted: Value) -> Self {
        Self {
            net,
            traffic,
            random,
            wanted,
            takes: [Duration::ZERO; 2],
            kept: Vec::new(),
            tally: Tally::default(),
        }
    }

    fn kill(mut self, rounds: usize) -> Tally {
        let begin = Instant::now();
        for _ in 0..6 {
            let next = changing(&mut self.random);
            self.finish(next, "before any kill");
        }
        self.tally.healed = 0;
        for round in 0..rounds {
            let when = format!("round {round}");
            self.keep_some();
            let next = changing(&mut self.random);
            self.kill_one(&next);
            let echoes = self.traffic.echoes.load(Relaxed);
            if self.random.below(2) == 0 || round + 1 == rounds {
                // The same again looks at every flow, another one only at those that it must.
                let last = if self.random.below(2) == 0 {
                    next
                } else {
                    changing(&mut self.random)
                };
                self.finish(last, &when);
                let moved = self.traffic.echoes.load(Relaxed) > echoes;
                assert!(
                    moved || !self.traffic.over.load(Relaxed),
                    "{when}: the sessions stand still"
                );
            } else {
                self.wanted = next;
            }
        }
        self.tally.rounds = rounds;
        self.tally.took = begin.elapsed();
        self.tally
    }

    /// Opens a connection whose flow will be stale when its backend is removed, and closes surplus ones.
    fn keep_some(&mut self) {
        let family = self.random.below(2);
        let to = [at(PUBLIC[family], 8002), at(PUBLIC[family], 8001)][self.random.below(2)];
        self.kept.extend(self.net.connect("routed", to).ok());
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    fn kill_one(&mut self, next: &Value) {
        let before = self.net.identity().generation;
        let file = self.net.state_file("next.json", next);
        let drain = [&[][..], &["--drain", "40ms"]][usize::from(self.random.below(4) == 0)];
        let time = self.takes[self.class(next)] + Duration::from_millis(40) * u32::from(!drain.is_empty());
        let delay = time.mul_f64(self.random.fraction());
        let mut run = start(self.net, &[drain, &[&file]].concat());
        wait_precisely(delay);
        run.kill().expect("a child can be killed");
        let ended = end(run);
        assert!(ended.signal == Some(9) || ended.status == Some(0), "{}", ended.stderr);
        if ended.signal.is_none() {
            return;
        }
        self.tally.hit += 1;
        if self.net.identity().generation == before {
            return;
        }
        self.tally.changed += 1;
        let tcpgw_kernel::ObservedTable::Ours { ruleset, .. } = held(self.net) else {
            return;
        };
        if ruleset == wanted(next) {
            self.tally.unswept += usize::from(!leftovers(self.net, next).is_empty());
        } else {
            self.tally.between += 1;
        }
    }

    /// Lets a run come to its end, and looks at what it left.
    fn finish(&mut self, next: Value, when: &str) {
        let class = self.class(&next);
        let file = self.net.state_file("next.json", &next);
        let begin = Instant::now();
        let ended = end(start(self.net, &[&file]));
        self.takes[class] = begin.elapsed();
        assert_eq!(ended.status, Some(0), "{when}: {}", ended.stderr);
        assert_holds(self.net, &next, when);
        let left = leftovers(self.net, &next);
        assert!(left.is_empty(), "{when}: {left:?}");
        self.wanted = next;
        self.tally.healed += 1;
    }

    fn class(&self, next: &Value) -> usize {
        let many = |state: &Value| {
            state["services"]
                .as_array()
                .is_some_and(|services| services.len() > 100)
        };
        usize::from(many(next) || many(&self.wanted))
    }
}

struct Ended {
    status: Option<i32>,
    signal: Option<i32>,
    stderr: String,
}

/// Starts a run without `ip netns exec`, which takes as long as a small run itself.
fn start(net: &Net, args: &[&str]) -> Child {
    let spawn = || {
        let mut command = Command::new(TCPGW);
        command.arg("apply").args(args).envs(net.environment());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
    };
    net.within("gateway", spawn).expect("tcpgw runs")
}

fn end(mut run: Child) -> Ended {
    let mut text = String::new();
    let mut stderr = run.stderr.take().expect("a pipe");
    stderr.read_to_string(&mut text).expect("it says text");
    let status = run.wait().expect("a child ends");
    Ended {
        status: status.code(),
        signal: status.signal(),
        stderr: text,
    }
}

/// Waits with more precision than sleeping has: a sleep alone is off by more than the time between two transactions of a small
/// run.
fn wait_precisely(time: Duration) {
    let begin = Instant::now();
    thread::sleep(time.saturating_sub(Duration::from_micros(200)));
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}
