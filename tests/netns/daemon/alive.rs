//! The daemon stays up and answers, whoever asks and however little there is to do.

use std::os::unix::net::UnixDatagram;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::Net;
use crate::harness::brief::state;
use crate::harness::client::PATIENCE;

/// Nothing is due in the loop for a minute: no services, or none any more, and no checks.
#[test]
fn an_idle_daemon_keeps_its_watchdog_fed() {
    const WATCHDOG: Duration = Duration::from_secs(4);
    let net = Net::new();
    net.want(state([]));
    let path = net.file("notify.sock");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    manager.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let variables = [
        ("NOTIFY_SOCKET", path.to_string_lossy().into_owned()),
        ("WATCHDOG_USEC", WATCHDOG.as_micros().to_string()),
        ("TCPGW_CHECK_INTERVAL", "0s".to_owned()),
    ];
    let mut daemon = net.daemon_within(&variables);
    let is_fed = |time: Duration, what: &str| {
        let begin = Instant::now();
        let mut last = begin;
        while begin.elapsed() < time {
            let mut told = [0; 1024];
            let length = manager
                .recv(&mut told)
                .unwrap_or_else(|error| panic!("{what}: {error}"));
            if String::from_utf8_lossy(&told[..length])
                .lines()
                .any(|line| line == "WATCHDOG=1")
            {
                let gap = last.elapsed();
                assert!(gap < WATCHDOG / 2, "{what}: {gap:?}");
                last = Instant::now();
            }
        }
        assert!(last > begin, "{what}: the watchdog was told nothing");
    };
    is_fed(WATCHDOG * 2, "no services");
    daemon.post("/v1/teardown", "").ok();
    is_fed(WATCHDOG * 2, "torn down");
    daemon.stop();
}

/// Many who read what takes long to read, and somebody who writes.
#[test]
fn readers_of_the_store_do_not_end_the_daemon() {
    const READERS: usize = 120;
    const TIME: Duration = Duration::from_secs(5);
    let net = Net::new();
    net.want(state([]));
    let mut daemon = net.daemon(&[]);
    let put = |nth: usize| {
        let backends: Vec<String> = (1..=200).map(|at| format!("10.66.{}.{at}:80", nth % 2)).collect();
        let body = json!({"port": 7000, "backends": backends});
        daemon.ask("PUT", "/v1/services/much", &body.to_string())
    };
    // A history that takes time to read.
    for nth in 0..300 {
        let answer = put(nth).expect("an answer");
        assert!([200, 201].contains(&answer.status), "{answer:?}");
    }
    let begin = Instant::now();
    thread::scope(|scope| {
        let read = || {
            let (mut good, mut busy) = (0, 0);
            while begin.elapsed() < TIME {
                let answer = daemon.ask("GET", "/v1/history?limit=1000", "").expect("an answer");
                match answer.status {
                    200 => good += 1,
                    503 => busy += 1,
                    _ => panic!("{answer:?}"),
                }
            }
            (good, busy)
        };
        let readers: Vec<_> = (0..READERS).map(|_| scope.spawn(read)).collect();
        let mut puts = 0;
        while begin.elapsed() < TIME {
            let asked = Instant::now();
            let answer = put(puts).expect("an answer");
            // There may be no connection left for it.
            assert!([200, 201, 503].contains(&answer.status), "{answer:?}");
            assert!(asked.elapsed() < PATIENCE);
            puts += usize::from(answer.status != 503);
        }
        let read = readers.into_iter().map(|reader| reader.join().expect("a reader"));
        let (good, busy) = read.fold((0, 0), |(good, busy), (a, b)| (good + a, busy + b));
        eprintln!("{good} histories read, {busy} refused, {puts} services put");
        assert!(good > 0 && puts > 0);
    });
    daemon.get("/v1/healthz");
    daemon.stop();
}
