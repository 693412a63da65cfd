//! Deploys by the command line under traffic, while the daemon or the deploying command is killed.
//!
//! `TCPGW_DEPLOYS` (default 10, times `TCPGW_SOAK`) new versions are deployed; `TCPGW_KILLS` (default 8, times `TCPGW_SOAK`) is the number of kills.

use std::collections::BTreeMap;
use std::fs;
use std::mem;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::containers::{AMOUNT, Container, SERVICES, deadlines_were_kept, nobody_noticed, others_have_no_flows};
use super::traffic::{Amount, Traffic, lock};
use crate::faults::random::Random;
use crate::faults::rounds;
use crate::harness::brief::state;
use crate::harness::client::PATIENCE;
use crate::harness::daemon::Daemon;
use crate::harness::plan::{PUBLIC, at};
use crate::harness::shell::Ran;
use crate::harness::state::FLOW_MARK;
use crate::harness::{Net, wait_until};

/// Drain time of the services.
const DRAIN: Duration = Duration::from_secs(3);
/// Drain time that short deploys ask for.
const SHORT: Duration = Duration::from_secs(1);
/// Hosts where versions run in turn.
const HOSTS: [[&str; 2]; 2] = [["b1", "b2"], ["b3", "b4"]];

/// Two services with a version of two containers each, by the index of the family.
struct Fleet<'n> {
    net: &'n Net,
    serving: [Vec<Container>; 2],
    gone: Vec<Container>,
    next: u16,
}

impl<'n> Fleet<'n> {
    /// Makes a fleet, and a daemon that has both services from its API.
    #[track_caller]
    fn new(net: &'n Net) -> (Self, Daemon<'n>) {
        let mut fleet = Self {
            net,
            serving: [Vec::new(), Vec::new()],
            gone: Vec::new(),
            next: 3000,
        };
        net.want(state([]));
        let daemon = net.daemon(&[]);
        for (family, (name, port, on_retire)) in SERVICES.into_iter().enumerate() {
            fleet.serving[family] = fleet.version(family);
            let (port, drain) = (port.to_string(), seconds(DRAIN));
            let mut args = vec!["service", "add", name, "--port", &port, "--on-retire", on_retire];
            args.extend(["--drain-timeout", &drain]);
            let endpoints = fleet.endpoints(family);
            args.extend(endpoints.iter().flat_map(|endpoint| ["--backend", endpoint]));
            net.cli(&args).ok();
            net.cli(&["wait", name, "--for", "healthy"]).ok();
        }
        (fleet, daemon)
    }

    /// Makes the containers of another version, which do not listen yet.
    fn unborn(&mut self, family: usize) -> Vec<Container> {
        let is_first = self.serving[family].first().is_none_or(|one| one.host != HOSTS[0][0]);
        let make = |host| {
            self.next += 1;
            Container::new(host, self.next)
        };
        HOSTS[usize::from(!is_first)].into_iter().map(make).collect()
    }

    /// Makes the containers of another version, which listen.
    fn version(&mut self, family: usize) -> Vec<Container> {
        let mut version = self.unborn(family);
        for one in &mut version {
            one.listen(self.net);
        }
        version
    }

    fn endpoints(&self, family: usize) -> Vec<String> {
        endpoints(&self.serving[family], family)
    }

    /// Notes that another version serves. Returns the containers of the version before.
    fn replace(&mut self, family: usize, new: Vec<Container>) -> Vec<Container> {
        mem::replace(&mut self.serving[family], new)
    }

    /// Asserts that no backend drains any more, and that store, history and kernel agree on the backends that serve.
    #[track_caller]
    fn finished(&self, daemon: &Daemon<'_>) {
        daemon.settles(4);
        let serving = [self.endpoints(0), self.endpoints(1)].concat();
        others_have_no_flows(self.net, &serving);
        for (family, (name, ..)) in SERVICES.into_iter().enumerate() {
            self.net.cli(&["wait", name, "--for", "healthy"]).ok();
            let service = history_agrees(self.net, name);
            assert_eq!(service["backends"], json!(self.endpoints(family)), "{service:#}");
        }
        let exported = self.net.cli(&["export"]).ok();
        let file = self.net.state_file("exported.json", exported);
        self.net.tcpgw(&["diff", &file]).exits(0);
    }
}

fn endpoints(containers: &[Container], family: usize) -> Vec<String> {
    containers.iter().map(|one| one.endpoint(family)).collect()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs())
}

fn deploy(service: &str, targets: &[String], more: &[&str]) -> Vec<String> {
    let targets = targets.iter().flat_map(|target| ["--target", target]);
    let args = ["deploy", service]
        .into_iter()
        .chain(targets)
        .chain(more.iter().copied());
    args.map(str::to_owned).collect()
}

fn texts(args: &[String]) -> Vec<&str> {
    args.iter().map(String::as_str).collect()
}

/// Returns the deploys of a service, the newest first.
fn deploys(net: &Net, service: &str) -> Vec<Value> {
    let answer = net.told(&["deploys", "--service", service, "--limit", "1000"]);
    answer["deploys"].as_array().expect("a list").clone()
}

/// Asserts that a service's history holds exactly the finished deploys and ends with the present service. Returns that service.
#[track_caller]
fn history_agrees(net: &Net, name: &str) -> Value {
    let answer = net.told(&["history", name, "--limit", "1000"]);
    let mut entries = answer["entries"].as_array().expect("a list").clone();
    entries.reverse();
    for pair in entries.windows(2) {
        assert_eq!(pair[0]["new"], pair[1]["old"], "{pair:#?}");
        let [Some(first), Some(second)] = [&pair[0], &pair[1]].map(|change| change["revision"].as_u64()) else {
            panic!("{pair:#?}")
        };
        assert!(first < second, "{pair:#?}");
    }
    for deploy in deploys(net, name) {
        let by_it: Vec<&Value> = entries.iter().filter(|entry| entry["deploy"] == deploy["id"]).collect();
        let is_whole = match deploy["phase"].as_str() {
            Some("drained") => by_it.len() == 1 && by_it[0]["new"]["backends"] == deploy["targets"],
            Some("failed" | "undone") => by_it.is_empty(),
            _ => false,
        };
        assert!(is_whole, "{deploy:#}: {by_it:#?}");
    }
    let (last, shown) = (
        entries.last().expect("it was added"),
        net.told(&["service", "show", name]),
    );
    assert_eq!(last["new"], shown["service"]);
    assert_eq!(last["revision"], shown["revision"]);
    shown["service"].clone()
}

/// End of the old containers of a deploy, and the point until which the deploying command waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The containers are told to end at the switch, by a hook.
    Told,
    /// The containers are told to end when the command has returned at the switch.
    Closed,
    /// The containers ignore the deploy, and the command returns when their drain time is over.
    Flushed,
    /// The containers ignore the deploy, and the next deploys begin meanwhile.
    Left,
}

const WAYS: [Way; 4] = [Way::Told, Way::Left, Way::Flushed, Way::Closed];

/// Deploys one version in one of the ways, and asserts that its old containers end as expected.
fn roll(fleet: &mut Fleet<'_>, traffic: &Traffic, family: usize, way: Way) {
    let net = fleet.net;
    let service = SERVICES[family].0;
    let new = fleet.version(family);
    let targets = endpoints(&new, family);
    let mut old = fleet.replace(family, new);
    let told = net.file("told");
    let hook = format!(
        "echo \"$TCPGW_OLD\" > {0}.new && mv {0}.new {0}",
        told.to_string_lossy()
    );
    let short = seconds(SHORT);
    let (drain, more): (Duration, &[&str]) = match way {
        Way::Told => (DRAIN, &["--on-switched", &hook]),
        Way::Closed | Way::Left => (DRAIN, &["--until", "switched"]),
        Way::Flushed => (SHORT, &["--drain-timeout", &short]),
    };
    for one in &mut old {
        one.leave(drain);
    }
    let args = deploy(service, &targets, more);
    if way == Way::Told {
        let running = net.begin(&texts(&args));
        assert!(wait_until(PATIENCE * 3, || told.exists()), "{}", running.wait());
        let names = fs::read_to_string(&told).expect("it is there");
        assert_eq!(names.trim_end(), endpoints(&old, family).join(" "));
        fs::remove_file(&told).expect("it is there");
        traffic.passes();
        old.iter_mut().for_each(Container::close);
        running.wait().exits(0);
    } else {
        net.cli(&texts(&args)).exits(0);
    }
    match way {
        Way::Closed => {
            traffic.passes();
            old.iter_mut().for_each(Container::close);
        }
        Way::Told | Way::Flushed => {
            // From here on they may be removed.
            let names = endpoints(&old, family);
            let mut flows = net.conntrack();
            flows.retain(|flow| flow.mark & FLOW_MARK != 0 && names.contains(&flow.backend.to_string()));
            assert!(flows.is_empty(), "{way:?}: {flows:#?}");
        }
        Way::Left => {}
    }
    fleet.gone.extend(old);
}

#[test]
fn rolling_deploys_fail_nobody() {
    let net = Net::alone();
    let count = rounds("TCPGW_DEPLOYS", 10);
    let (mut fleet, daemon) = Fleet::new(&net);
    let to = [at(PUBLIC[0], 2001), at(PUBLIC[1], 2002)];
    let (traffic, ()) = Traffic::during(&net, &to, &AMOUNT, |traffic| {
        for step in 0..count {
            roll(&mut fleet, traffic, step % 2, WAYS[step / 2 % WAYS.len()]);
        }
        fleet.finished(&daemon);
    });
    let (flushed, least) = deadlines_were_kept(&daemon.logged());
    eprintln!("{flushed} flushed at their deadline, {least:?} after it at least");
    assert!(flushed > 0);
    nobody_noticed(&net, &fleet.gone, &traffic);
    assert!(
        lock(&traffic.longest).as_millis() < 1000,
        "{:?}",
        lock(&traffic.longest)
    );
    let done: usize = SERVICES.iter().map(|(name, ..)| deploys(&net, name).len()).sum();
    assert_eq!(done, count);
    let failed = daemon.events_of("failed");
    assert!(failed.is_empty(), "{failed:#?}");
}

/// Kills the daemon, and starts it again some time later; sometimes once more while it starts.
fn kill_daemon(daemon: &mut Daemon<'_>, random: &mut Random) {
    daemon.kill();
    thread::sleep(Duration::from_millis(200).mul_f64(random.fraction()));
    daemon.launch();
    if random.below(3) == 0 {
        thread::sleep(Duration::from_millis(60).mul_f64(random.fraction()));
        daemon.kill();
        daemon.launch();
    }
}

/// Waits until no deploy of a service is under way; gives the newest if it is a later one than that.
#[track_caller]
fn over(net: &Net, service: &str, than: u64) -> Option<Value> {
    let newest = || {
        let ran = net.cli(&["deploys", "--service", service, "--limit", "1", "-o", "json"]);
        let output: Value = (ran.status == 0).then(|| serde_json::from_str(&ran.stdout).ok())??;
        Some(output["deploys"].get(0).cloned().unwrap_or_default())
    };
    let mut found = None;
    let is_over = || {
        found = newest();
        let phase = found.as_ref().map(|deploy| deploy["phase"].as_str());
        matches!(phase, Some(None | Some("drained" | "failed" | "undone")))
    };
    assert!(wait_until(PATIENCE * 3, is_over), "{found:#?}");
    found.filter(|deploy| deploy["id"].as_u64() > Some(than))
}

/// Runs one deploy during which the daemon or the deploying command is killed. Returns the result of the command and the deploy,
/// if one was begun.
fn disturbed(
    fleet: &mut Fleet<'_>,
    daemon: &mut Daemon<'_>,
    family: usize,
    random: &mut Random,
) -> (Ran, Option<Value>) {
    let net = fleet.net;
    let service = SERVICES[family].0;
    let before = deploys(net, service).first().and_then(|deploy| deploy["id"].as_u64());
    let mut new = fleet.unborn(family);
    let targets = endpoints(&new, family);
    // A deploy that waits for the second one is met while it probes.
    let early = [1, 2, 2][random.below(3)];
    for one in &mut new[..early] {
        one.listen(net);
    }
    for one in &mut fleet.serving[family] {
        one.leave(SHORT);
    }
    let until = ["switched", "drained"][random.below(2)];
    let args = deploy(
        service,
        &targets,
        &["--until", until, "--drain-timeout", &seconds(SHORT)],
    );
    let running = net.begin(&texts(&args));
    // The switch is soon, and draining takes its time: both are met.
    let most = [Duration::from_millis(120), SHORT * 3 / 2][random.below(2)];
    thread::sleep(most.mul_f64(random.fraction()));
    if random.below(2) == 0 {
        kill_daemon(daemon, random);
    } else {
        running.signal(Signal::SIGKILL);
        // A request that the command has sent has begun by then, or never will.
        thread::sleep(Duration::from_millis(300));
    }
    for one in &mut new {
        one.listen(net);
    }
    let ran = running.wait();
    let deploy = over(net, service, before.unwrap_or(0));
    let answer = net.told(&["service", "show", service]);
    let is_switched = answer["service"]["backends"] == json!(targets);
    if is_switched {
        let mut old = fleet.replace(family, new);
        old.iter_mut().for_each(Container::close);
        fleet.gone.extend(old);
    } else {
        assert_eq!(
            answer["service"]["backends"],
            json!(fleet.endpoints(family)),
            "{answer:#}"
        );
        fleet.serving[family].iter_mut().for_each(Container::stay);
        new.iter_mut().for_each(Container::close);
        fleet.gone.extend(new);
    }
    let phase = deploy.as_ref().and_then(|deploy| deploy["phase"].as_str());
    assert_eq!(is_switched, phase == Some("drained"), "{deploy:#?} {answer:#}");
    assert!(ran.status != 0 || is_switched, "{ran}");
    // Nothing is wrong with what was asked for.
    assert_ne!(ran.status, 2, "{ran}");
    (ran, deploy)
}

#[test]
fn whole_or_not_at_all() {
    let net = Net::alone();
    let kills = rounds("TCPGW_KILLS", 8);
    let mut random = Random::seeded();
    let (mut fleet, mut daemon) = Fleet::new(&net);
    let to = [at(PUBLIC[0], 2001), at(PUBLIC[1], 2002)];
    let amount = Amount { sessions: 60, ..AMOUNT };
    let mut outcomes: BTreeMap<(String, i32), usize> = BTreeMap::new();
    let (traffic, ()) = Traffic::during(&net, &to, &amount, |_| {
        for step in 0..kills {
            let (ran, deploy) = disturbed(&mut fleet, &mut daemon, step % 2, &mut random);
            let phase = deploy.map_or_else(|| "none".to_owned(), |deploy| deploy["phase"].to_string());
            *outcomes.entry((phase, ran.status)).or_default() += 1;
        }
        fleet.finished(&daemon);
    });
    eprintln!("deploys by phase and exit code: {outcomes:?}");
    let (flushed, least) = deadlines_were_kept(&daemon.logged());
    eprintln!("{flushed} flushed at their deadline, {least:?} after it at least");
    assert!(flushed > 0);
    nobody_noticed(&net, &fleet.gone, &traffic);
}
