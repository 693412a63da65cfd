//! Many requests at a time, and daemons that are killed meanwhile. `TCPGW_KILLS` (default 100, times `TCPGW_SOAK`) is the number
//! of kills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tcpgw::addon::Dialect;

use super::platform::{
    DIALECTS, Line, Reply, SERVICE, SMALL, configure, daemon, in_parallel, listens, port_of, provision, request,
    services, standard_headers,
};
use crate::faults::rounds;
use crate::harness::client::PATIENCE;
use crate::harness::shell::TCPGW;
use crate::harness::{Net, wait_until};

fn text(dialect: Dialect, app: &str) -> Vec<u8> {
    let (method, path, body) = provision(dialect, app, "small");
    request(method, &path, &standard_headers(), &body.to_string()).into_bytes()
}

fn binding(app: &str) -> Vec<u8> {
    let path = format!("/v2/service_instances/{app}/service_bindings/b");
    let body = format!("{{\"service_id\":\"{SERVICE}\",\"plan_id\":\"{SMALL}\"}}");
    request("PUT", &path, &standard_headers(), &body).into_bytes()
}

/// Provisions, and returns the port and the body that answered.
fn provisioned(line: &mut Line, dialect: Dialect, app: &str) -> std::io::Result<(u16, Value)> {
    let reply = line.exchange(&text(dialect, app))?;
    assert!([200, 201].contains(&reply.status), "{reply:?}");
    let body = reply.json();
    if dialect == Dialect::Osb {
        let bound = line.exchange(&binding(app))?;
        assert!([200, 201].contains(&bound.status), "{bound:?}");
        return Ok((port_of(&bound.json()["credentials"]["uri"]), body));
    }
    Ok((port_of(&body["config"]["TCP_URL"]), body))
}

/// Opens a connection for each request before the first is sent, sends all, and reads all answers.
#[track_caller]
fn at_once(requests: &[Vec<u8>]) -> Vec<Reply> {
    let mut lines: Vec<Line> = requests.iter().map(|_| Line::new().expect("a connection")).collect();
    for (line, request) in lines.iter_mut().zip(requests) {
        line.set_patience(Duration::from_secs(120));
        line.send(request).expect("it is taken");
    }
    lines.iter_mut().map(|line| line.reply().expect("an answer")).collect()
}

/// Provisions so many apps at once, and returns their ports.
fn provisioned_at_once(prefix: &str, count: u32) -> BTreeMap<u32, u16> {
    let dialect = |number: u32| DIALECTS[number as usize % 4];
    let app = |number: u32| format!("{prefix}-{number}");
    let provisions: Vec<Vec<u8>> = (0..count).map(|number| text(dialect(number), &app(number))).collect();
    let replies = at_once(&provisions);
    let bindings = (0..count).filter(|number| dialect(*number) == Dialect::Osb);
    let bindings: Vec<Vec<u8>> = bindings.map(|number| binding(&app(number))).collect();
    let mut bound = at_once(&bindings).into_iter();
    let mut ports = BTreeMap::new();
    for (number, reply) in (0..).zip(replies) {
        assert!([200, 201].contains(&reply.status), "{number}: {reply:?}");
        let url = if dialect(number) == Dialect::Osb {
            bound.next().expect("an answer").json()["credentials"]["uri"].clone()
        } else {
            reply.json()["config"]["TCP_URL"].clone()
        };
        ports.insert(number, port_of(&url));
    }
    ports
}

/// A connection beyond the limit waits in the listen backlog and is answered later.
#[test]
fn few_descriptors_are_enough_for_many_connections() {
    let net = Net::new();
    let config = configure(&net, "20000-21999", "");
    let file = |name: &str| net.file(name).to_string_lossy().into_owned();
    let (socket, store) = (file("tcpgw.sock"), file("store/store.db"));
    std::fs::create_dir_all(net.file("store")).expect("a directory");
    for (limit, count) in [("--nofile=48:48", 40), ("--nofile=1024:1024", 400)] {
        let daemon = [
            "prlimit", limit, TCPGW, "daemon", "--config", &config, "--socket", &socket, "--store", &store,
        ];
        let daemon = net.spawn("gateway", &daemon);
        listens(&net);
        // It listens before it takes requests.
        let first = || Line::new().and_then(|mut line| line.exchange(&text(Dialect::Scalingo, "first")));
        let takes_requests = || net.within("gateway", first).is_ok_and(|reply| reply.status != 503);
        assert!(wait_until(PATIENCE, takes_requests), "{limit}");
        let given = net.within("gateway", || provisioned_at_once(&format!("of-{count}"), count));
        let ports: BTreeSet<u16> = given.values().copied().collect();
        assert_eq!(ports.len(), count as usize, "{limit}");
        daemon.signal(nix::sys::signal::Signal::SIGTERM);
        daemon.wait().exits(0);
    }
}

#[test]
fn a_thousand_at_once_get_a_thousand_ports() {
    const COUNT: u32 = 1000;
    let net = Net::new();
    let mut daemon = daemon(&net, &configure(&net, "20000-20999", ""));
    let given = net.within("gateway", || provisioned_at_once("app", COUNT));
    let ports: BTreeSet<u16> = given.values().copied().collect();
    assert_eq!((given.len(), ports.len()), (1000, 1000));
    assert_eq!(services(&daemon).len(), 1000);
    // One more finds none left, in its dialect's words, and nothing is half made.
    for dialect in DIALECTS {
        let reply = net.within("gateway", || {
            Line::new()
                .expect("a connection")
                .exchange(&text(dialect, "one-more"))
                .expect("an answer")
        });
        assert_eq!(reply.status, 422, "{reply:?}");
        assert!(reply.body.contains("no public port is left"), "{reply:?}");
    }
    assert_eq!(services(&daemon).len(), 1000);
    daemon.kill();
    daemon.start();
    listens(&net);
    let again = net.within("gateway", || provisioned_at_once("app", COUNT));
    assert_eq!(again, given, "the same again");
    assert_eq!(services(&daemon).len(), 1000);
}

/// An acknowledged resource exists exactly once after a kill; a request without an acknowledgement makes exactly one resource
/// when it is repeated.
#[test]
fn kills_lose_and_double_nothing() {
    let net = Net::new();
    let config = configure(&net, "20000-29999", "");
    let mut daemon = daemon(&net, &config);
    let (counter, given) = (AtomicU32::new(0), Mutex::new(BTreeMap::new()));
    for round in 0..rounds("TCPGW_KILLS", 100) {
        let is_over = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                let place = net.place("gateway");
                let (counter, given, is_over) = (&counter, &given, &is_over);
                scope.spawn(move || {
                    place.enter();
                    // The daemon may be killed before that.
                    let Ok(mut line) = Line::new() else { return };
                    while !is_over.load(Ordering::Relaxed) {
                        let number = counter.fetch_add(1, Ordering::Relaxed);
                        let dialect = DIALECTS[number as usize % 4];
                        match provisioned(&mut line, dialect, &format!("app-{number}")) {
                            Ok(told) => drop(given.lock().expect("no panic").insert(number, told)),
                            Err(_) => return,
                        }
                    }
                });
            }
            // Every other kill comes after an acknowledgement, the rest at any moment.
            let before = given.lock().expect("no panic").len();
            if round % 2 == 0 {
                wait_until(PATIENCE, || given.lock().expect("no panic").len() > before);
            }
            let nanos = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |now| now.subsec_nanos());
            thread::sleep(Duration::from_micros(u64::from(nanos % 120_000)));
            daemon.kill();
            is_over.store(true, Ordering::Relaxed);
        });
        daemon.start();
        listens(&net);
    }
    let known = given.lock().expect("no panic").clone();
    assert!(!known.is_empty(), "none was acknowledged");
    let asked = counter.load(Ordering::Relaxed);
    let again = Mutex::new(BTreeSet::new());
    in_parallel(&net, asked, 8, |number| {
        let mut line = Line::new().expect("a connection");
        let told = provisioned(&mut line, DIALECTS[number as usize % 4], &format!("app-{number}"));
        let told = told.expect("an answer");
        assert!(
            again.lock().expect("no panic").insert(told.0),
            "port {} is given twice",
            told.0
        );
        if let Some(known) = known.get(&number) {
            assert_eq!(*known, told, "an acknowledged one is not as it was");
        }
    });
    assert_eq!(services(&daemon).len(), asked as usize, "each app has one");
    eprintln!("{} of {asked} were acknowledged before the kills", known.len());
}
