//! The sample of `examples/mqtt`, as a platform runs it: a broker behind the gateway, and clients that lose nothing over a deploy.
//!
//! A message counts as lost when the broker acknowledged it (PUBACK) and it does not arrive at the subscriber. Brokers share nothing, so the
//! sample's publisher sends again what the subscriber has not confirmed.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::platform::{configure, daemon};
use crate::harness::daemon::Daemon;
use crate::harness::sample::{PATIENCE, Program, RESET, SAMPLE, UNHEARD, all_arrive};
use crate::harness::{Net, wait_until};

/// The clients' keepalive in seconds. A client notices after 1.5 times this value that the broker does not answer.
const KEEPALIVE: u64 = 2;
/// Number of readings of a publisher.
const READINGS: usize = 300;
const PER_SECOND: &str = "50";

/// Broker that a test runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Broker {
    Aedes,
    /// An Aedes broker that ignores SIGTERM.
    Deaf,
    Mosquitto,
}

impl Broker {
    #[track_caller]
    fn start(self, net: &Net, host: &str) -> Program {
        let (variables, command) = match self {
            Self::Aedes => ("PORT=1883", "node broker.js"),
            Self::Deaf => ("PORT=1883 ON_SIGTERM=ignore", "node broker.js"),
            Self::Mosquitto => ("PORT=1883", "sh mosquitto.sh"),
        };
        let broker = Program::start(net, host, &format!("broker-{host}"), variables, command);
        assert!(net.wait_for_listener(host, 1883, PATIENCE), "{}", broker.printed());
        broker
    }
}

/// The gateway with the app's resource, and a broker in `b1`.
struct App<'n> {
    net: &'n Net,
    _daemon: Daemon<'n>,
    url: String,
}

impl<'n> App<'n> {
    fn new(net: &'n Net, plan: &str) -> Self {
        let config = configure(net, "20000-20009", "");
        if !plan.is_empty() {
            let text = fs::read_to_string(&config).expect("a configuration");
            fs::write(&config, text.replace("pps = 500\n", plan)).expect("failed to write");
        }
        let daemon = daemon(net, &config);
        net.cli(&["addon", "provision", "mqtt", "--plan", "small"]).ok();
        let app = Self {
            net,
            _daemon: daemon,
            // The name of the gateway leads nowhere here; the port is the first.
            url: "TCP_URL=tcp://203.0.113.1:20000".into(),
        };
        let answer = net.cli(&["env", "mqtt"]).ok();
        assert!(answer.trim_end().ends_with(":20000"), "{answer}");
        app
    }

    /// Sends new connections to the broker in a host.
    #[track_caller]
    fn deploy(&self, host: &str, until: &str) {
        let target = match host {
            "b1" => "10.2.0.11:1883",
            _ => "10.2.0.12:1883",
        };
        self.net
            .cli(&["deploy", "app:mqtt", "--target", target, "--until", until])
            .ok();
    }

    fn subscriber(&self) -> Program {
        let variables = format!("{} KEEPALIVE={KEEPALIVE}", self.url);
        let subscriber = Program::start(self.net, "client", "subscriber", &variables, "node subscriber.js");
        subscriber.prints("subscribed", 1);
        subscriber
    }

    fn publisher(&self, more: &str, arguments: &str) -> Program {
        let variables = format!("{} KEEPALIVE={KEEPALIVE} {more}", self.url);
        let command = format!("node publisher.js {arguments}");
        Program::start(self.net, "client", "publisher", &variables, &command)
    }
}

/// Results of a deploy of another broker under traffic. `flushed` is the time at which the old connections were cut.
struct Redeploy {
    switched: Instant,
    flushed: Option<Instant>,
    back: Instant,
    /// Output of the subscriber up to its reconnection.
    printed: String,
}

#[track_caller]
fn redeploy(broker: Broker, on_retire: &str) -> Redeploy {
    let net = Net::new();
    let app = App::new(&net, "");
    net.cli(&[
        "service",
        "set",
        "app:mqtt",
        "--drain-timeout",
        "1s",
        "--on-retire",
        on_retire,
    ])
    .ok();
    let old = broker.start(&net, "b1");
    app.deploy("b1", "switched");
    let subscriber = app.subscriber();
    let mut publisher = app.publisher("", &format!("{READINGS} {PER_SECOND}"));
    subscriber.prints("received", 50);

    let _new = broker.start(&net, "b2");
    app.deploy("b2", "switched");
    let switched = Instant::now();
    old.running.signal(Signal::SIGTERM);
    let mut flushed = None;
    if broker == Broker::Deaf {
        // Only the gateway ends these connections, when their time is over.
        net.cli(&["wait", "app:mqtt", "--for", "drained"]).ok();
        flushed = Some(Instant::now());
    }
    subscriber.prints("subscribed", 2);
    let back = Instant::now();
    let printed = subscriber.printed();

    // All readings arrive, and the publisher knows it.
    let acknowledged = all_arrive(&mut publisher, &subscriber, READINGS);
    assert!(acknowledged.len() > READINGS / 2, "{}", publisher.printed());
    Redeploy {
        switched,
        flushed,
        back,
        printed,
    }
}

#[test]
fn clients_of_a_broker_that_closes_are_back_at_once() {
    let redeployed = redeploy(Broker::Aedes, "drop");
    let took = redeployed.back - redeployed.switched;
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn clients_of_mosquitto_are_back_at_once() {
    let redeployed = redeploy(Broker::Mosquitto, "drop");
    let took = redeployed.back - redeployed.switched;
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Clients of a broker that ignores SIGTERM, with retirement by `drop`, get no reset: they notice by their keepalive and
/// reconnect.
#[test]
fn clients_of_a_deaf_broker_are_back_after_their_keepalive() {
    let redeployed = redeploy(Broker::Deaf, "drop");
    let took = redeployed.back - redeployed.flushed.expect("it was flushed");
    let notices = Duration::from_millis(KEEPALIVE * 1500);
    // The first attempt comes within a second of that.
    println!("the subscriber was back after {took:?}");
    assert!(took < notices + Duration::from_secs(4), "{took:?}");
    let printed = redeployed.printed;
    assert!(printed.contains(UNHEARD) && !printed.contains(RESET), "{printed}");
}

/// Clients of a broker that ignores SIGTERM, with retirement by `reset`, reconnect after their next packet: it is answered with a
/// reset, and a keepalive is sent in any case.
#[test]
fn clients_of_a_deaf_broker_are_back_after_their_next_packet_where_it_is_reset() {
    let redeployed = redeploy(Broker::Deaf, "reset");
    let took = redeployed.back - redeployed.flushed.expect("it was flushed");
    println!("the subscriber was back after {took:?}");
    assert!(took < Duration::from_secs(KEEPALIVE + 2), "{took:?}");
    // The time alone does not tell that from a lost reset.
    let printed = redeployed.printed;
    assert!(printed.contains(RESET) && !printed.contains(UNHEARD), "{printed}");
}

/// Each documented way of starting the broker passes SIGTERM on to it, although npm and shells stand between.
#[test]
fn sigterm_reaches_the_broker_whichever_way_it_was_started() {
    let readme = fs::read_to_string(format!("{SAMPLE}/README.md")).expect("the sample has a README");
    let of_procfile = |name: &str| {
        let text = fs::read_to_string(format!("{SAMPLE}/{name}")).expect("the sample has a Procfile");
        let command = text
            .trim()
            .strip_prefix("tcp: ")
            .expect("it has a process tcp")
            .to_owned();
        format!("sh -c '{command}'")
    };
    let told = [
        "npm run start-tcp",
        r#"sh -c "exec npm run start-tcp""#,
        "node broker.js",
        "sh mosquitto.sh",
    ];
    for command in told {
        assert!(readme.contains(command), "{command}");
    }
    let net = Net::new();
    let commands = told.map(str::to_owned).into_iter();
    let commands = commands.chain(["Procfile", "Procfile.mosquitto"].map(of_procfile));
    for (number, command) in commands.enumerate() {
        let variables = "PORT=1883 npm_config_update_notifier=false";
        let mut broker = Program::start(&net, "b1", &format!("broker-{number}"), variables, &command);
        assert!(
            net.wait_for_listener("b1", 1883, PATIENCE),
            "{command}: {}",
            broker.printed()
        );
        broker.running.signal(Signal::SIGTERM);
        assert!(wait_until(PATIENCE, || broker.running.ended()), "{command}");
        // A broker without its parent would listen on.
        let listens = || !net.sh("b1", "ss -Hltn 'sport = :1883'").ok().is_empty();
        assert!(wait_until(PATIENCE, || !listens()), "{command}: {}", broker.printed());
    }
}

/// The plan's limit holds on the way: 200 packets and 300,000 bytes per second, to each container and from it, also while one
/// container replaces another.
#[test]
fn the_plan_holds_on_the_way() {
    const PPS: u64 = 200;
    let net = Net::new();
    let app = App::new(&net, &format!("pps = {PPS}\nburst = {PPS}\n"));
    net.cli(&["service", "set", "app:mqtt", "--drain-timeout", "1s"]).ok();
    let old = Broker::Aedes.start(&net, "b1");
    app.deploy("b1", "switched");
    let subscriber = app.subscriber();
    let hosts = ["b1", "b2"];
    let counters = || hosts.map(|host| net.counters(host, "eth0"));
    let (began, before) = (Instant::now(), counters());
    // Ten times what may pass.
    let publisher = app.publisher("BYTES=3000", "1000000 1000");
    std::thread::sleep(Duration::from_secs(4));
    let _new = Broker::Aedes.start(&net, "b2");
    app.deploy("b2", "switched");
    old.running.signal(Signal::SIGTERM);
    std::thread::sleep(Duration::from_secs(4));
    let after = counters();
    let seconds = began.elapsed().as_secs_f64();
    let mut all = 0;
    for (host, (after, before)) in hosts.iter().zip(after.into_iter().zip(before)) {
        let moved = after - before;
        // A burst of one second, and the frames' own bytes.
        let most = (seconds + 1.0) * f64::from(u32::try_from(PPS * 1500).expect("it fits")) * 1.1;
        for bytes in [moved.received.bytes, moved.sent.bytes] {
            let bytes = f64::from(u32::try_from(bytes).expect("it fits"));
            assert!(bytes < most, "{host}: {bytes} bytes in {seconds} s, of {most}");
        }
        all += moved.received.bytes;
    }
    // The limit was in use: at least half of the bytes that may pass to one container passed to both.
    assert!(all > 600_000, "{all} bytes: {}", publisher.printed());
    assert!(subscriber.count("received") > 50, "{}", subscriber.printed());
}
