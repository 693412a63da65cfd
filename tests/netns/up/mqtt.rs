//! The sample of `examples/mqtt` as its README runs it: its broker is restarted while messages flow.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use super::App;
use crate::harness::Net;
use crate::harness::sample::{Program, SAMPLE, UNHEARD, all_arrive, libraries};

/// The clients' keepalive in seconds. A client notices after 1.5 times this value that the broker does not answer.
const KEEPALIVE: u64 = 2;
/// Number of readings of the publisher, which sends 50 in a second.
const READINGS: usize = 300;

/// Makes an app of the sample: its files, with its libraries beside them.
fn sample<'n>(net: &'n Net, procfile: &str, variables: &str) -> App<'n> {
    let read = |file: &str| fs::read_to_string(format!("{SAMPLE}/{file}")).expect("a file of the sample");
    let app = net.app("mqtt", &read(procfile));
    for file in ["broker.js", "mosquitto.sh"] {
        app.write(file, &read(file));
    }
    app.write(".env", &format!("{}=1\n{variables}", app.marker()));
    symlink(libraries(), app.directory().join("node_modules")).expect("failed to link the libraries");
    app
}

/// Restarts the broker while messages flow, and waits until all have arrived. Returns the time from the end of the subscriber's connection,
/// or from the end of the old broker's time, until it is back, and what it has printed until then.
#[track_caller]
fn restarted(procfile: &str, variables: &str, on_retire: &str, grace: Option<Duration>) -> (Duration, String) {
    let net = Net::new();
    let mut app = sample(&net, procfile, variables);
    app.start(&["-m", "tcp=1", "--grace", "1s"], 1);
    let port = app.port().expect("it was told");
    let services = net.cli(&["service", "ls", "-o", "json"]).ok();
    let services: serde_json::Value = serde_json::from_str(&services).expect("JSON");
    let name = services["services"][0]["service"]["name"]
        .as_str()
        .expect("a service")
        .to_owned();
    net.cli(&["service", "set", &name, "--on-retire", on_retire]).ok();
    let clients = format!("TCP_URL=tcp://203.0.113.1:{port} KEEPALIVE={KEEPALIVE}");
    let subscriber = Program::start(&net, "client", "subscriber", &clients, "node subscriber.js");
    subscriber.prints("subscribed", 1);
    let command = format!("node publisher.js {READINGS} 50");
    let mut publisher = Program::start(&net, "client", "publisher", &clients, &command);
    subscriber.prints("received", 50);

    let (mut restart, begin) = (app.command(&["restart"]), Instant::now());
    let mut restart = restart.spawn().expect("failed to run tcpgw up");
    let left = match grace {
        None => {
            subscriber.prints("not", 1);
            Instant::now()
        }
        // The grace period begins with the restart at the earliest.
        Some(grace) => begin + grace,
    };
    subscriber.prints("subscribed", 2);
    let (took, printed) = (left.elapsed(), subscriber.printed());
    assert!(restart.wait().expect("failed to wait").success(), "{}", app.printed());
    all_arrive(&mut publisher, &subscriber, READINGS);
    app.stop(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(net.left_by_up(), Vec::<String>::new());
    (took, printed)
}

#[test]
fn clients_of_a_broker_that_closes_are_back_at_once() {
    let (took, _) = restarted("Procfile", "", "drop", None);
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn clients_of_mosquitto_are_back_at_once() {
    let (took, _) = restarted("Procfile.mosquitto", "", "drop", None);
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Clients of a broker that ignores SIGTERM reconnect after its time, when it is killed. They are told by its end, or notice by
/// their keepalive when their connections were flushed a few milliseconds before.
#[test]
fn clients_of_a_deaf_broker_are_back_after_its_time() {
    let (took, _) = restarted("Procfile", "ON_SIGTERM=ignore\n", "drop", Some(Duration::from_secs(1)));
    let notice = Duration::from_millis(KEEPALIVE * 1500);
    // A new broker has to start first, and the first attempt comes within a second.
    println!("the subscriber was back after {took:?}");
    assert!(took < notice + Duration::from_secs(5), "{took:?}");
}

/// With `on_retire` as `reset` these clients reconnect sooner: the next packet, at the latest that of a keepalive, is answered
/// with a reset, unless the end of the old broker tells them first.
#[test]
fn clients_of_a_deaf_broker_are_back_after_its_time_where_they_are_reset() {
    let (took, printed) = restarted("Procfile", "ON_SIGTERM=ignore\n", "reset", Some(Duration::from_secs(1)));
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(KEEPALIVE + 5), "{took:?}");
    assert!(!printed.contains(UNHEARD), "{printed}");
}
