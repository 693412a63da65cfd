use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::flow_sums::{EndedFlow, LiveFlows};
use super::*;
use tcpgw_core::model;
use tcpgw_core::ruleset::key::TCP;
use tcpgw_core::ruleset::name::{Family, ListenScope, Scope, SetName};
use tcpgw_core::summary::Summary;
use tcpgw_kernel::Counted;
use tcpgw_kernel::conntrack::{Counters, CtStatus, Flow, TcpState, Traffic};

pub(super) const CONNECTIONS: SetName = SetName::Connections(ListenScope::Any(Family::V4));
const REFUSED: SetName = SetName::Refused(Scope::Any);
const OVER: SetName = SetName::OverTo(Family::V4);
pub(super) const BOOT: &str = "the boot";
const DNAT: u32 = 32;
const SEEN_REPLY: u32 = 2;
const DYING: u32 = 512;

pub(super) fn summary(services: &[(&str, u16, &[&str])]) -> Summary {
    let services: Vec<_> = services
        .iter()
        .map(|(name, port, backends)| serde_json::json!({"name": name, "port": port, "backends": backends}))
        .collect();
    let text = serde_json::json!({"version": 1, "services": services}).to_string();
    Summary::from(&model::parse(text.as_bytes()).expect("a good state"))
}

pub(super) fn backend(last: u8) -> SocketAddr {
    SocketAddr::from(([10, 2, 0, last], 3000))
}

pub(super) fn both() -> Summary {
    summary(&[
        ("a", 2000, &["10.2.0.0:3000", "10.2.0.1:3000"]),
        ("b", 2001, &["10.2.0.0:3000", "10.2.0.1:3000"]),
    ])
}

pub(super) fn counted(key: &[u8], packets: u64) -> Counted {
    Counted {
        key: key.into(),
        packets,
        bytes: packets * 60,
    }
}

/// Returns the key of the connections from a port to a backend.
pub(super) fn pair(port: u16, last: u8) -> Vec<u8> {
    [
        &port.to_be_bytes(),
        &[0, 0, 10, 2, 0, last][..],
        &3000_u16.to_be_bytes(),
        &[0, 0],
    ]
    .concat()
}

pub(super) fn flow(id: u32, service: u8, last: u8, packets: u64) -> Flow {
    let traffic = Traffic {
        packets,
        bytes: packets * 100,
    };
    Flow {
        client: SocketAddr::from(([198, 51, 100, 1], 40_000)),
        public: SocketAddr::from(([203, 0, 113, 1], 2000 + u16::from(service))),
        backend: backend(last),
        seen_as: SocketAddr::from(([10, 2, 0, 254], 40_000)),
        id,
        mark: 0x0080_0000,
        status: CtStatus(DNAT | if packets > 1 { SEEN_REPLY } else { 0 }),
        tcp_state: Some(TcpState::Established),
        zone: 0,
        timeout: None,
        counters: Some(Counters {
            to: traffic,
            from: traffic,
        }),
        started: None,
    }
}

fn restarted(ledger: &Ledger) -> Ledger {
    let bytes = ledger.encode(BOOT).expect("text and numbers");
    let mut again = Ledger::decode(&bytes, BOOT).expect("it is whole");
    again.know(&both());
    again
}

#[test]
fn counters_go_on_where_the_kernel_begins_anew() {
    let mut ledger = Ledger::new();
    ledger.know(&both());
    let key = pair(2000, 1);
    let connections = |ledger: &Ledger| ledger.totals().backend("a", backend(1)).map_or(0, |of| of.connections);
    let sample = |ledger: &mut Ledger, table, packets: &[u64]| {
        let counted = packets.iter().map(|packets| counted(&key, *packets)).collect();
        ledger.counters(Some(table), vec![(CONNECTIONS, counted)]);
    };
    sample(&mut ledger, 1, &[5]);
    assert_eq!(connections(&ledger), 5);
    sample(&mut ledger, 1, &[7]);
    assert_eq!(connections(&ledger), 7);
    // The element was removed, and is added again.
    sample(&mut ledger, 1, &[]);
    sample(&mut ledger, 1, &[9]);
    assert_eq!(connections(&ledger), 16);
    // Another table.
    sample(&mut ledger, 2, &[20]);
    assert_eq!(connections(&ledger), 36);
    // What was counted while no daemon ran is not lost.
    let mut ledger = restarted(&ledger);
    sample(&mut ledger, 2, &[25]);
    assert_eq!(connections(&ledger), 41);
    // A service that was removed keeps what it had, and goes on when it comes again.
    ledger.know(&summary(&[]));
    sample(&mut ledger, 2, &[]);
    ledger.know(&both());
    sample(&mut ledger, 2, &[1]);
    assert_eq!(connections(&ledger), 42);
}

#[test]
fn drops_belong_to_their_service_and_those_of_an_endpoint_to_each_service_that_has_it() {
    let mut ledger = Ledger::new();
    ledger.know(&both());
    let service = [TCP, [7, 209, 0, 0]].concat();
    let endpoint = &pair(0, 1)[4..];
    for _ in 0..2 {
        ledger.counters(
            Some(1),
            vec![
                (REFUSED, vec![counted(&service, 3)]),
                (OVER, vec![counted(endpoint, 4)]),
            ],
        );
    }
    let totals = ledger.totals();
    assert_eq!(totals.service("b").map(|of| of.drops), Some([3, 0, 0, 0, 0, 0]));
    for name in ["a", "b"] {
        assert_eq!(
            totals.backend(name, backend(1)).map(|of| of.drops[0]),
            Some(4),
            "{name}"
        );
        assert_eq!(totals.service(name).map(|of| of.sum().drops[0]), Some(4), "{name}");
    }
    // Keys that are none, or of nobody.
    ledger.counters(
        Some(1),
        vec![
            (CONNECTIONS, vec![counted(&[1, 2], 3), counted(&pair(99, 1), 3)]),
            (REFUSED, vec![counted(&[], 3)]),
            (OVER, vec![counted(&[10], 3)]),
        ],
    );
    assert_eq!(ledger.totals().services.len(), 2);
}

#[test]
fn bytes_that_are_not_whole_are_no_ledger() {
    let mut ledger = Ledger::new();
    ledger.know(&both());
    ledger.counters(Some(1), vec![(CONNECTIONS, vec![counted(&pair(2000, 1), 5)])]);
    let bytes = ledger.encode(BOOT).expect("text and numbers");
    assert!(Ledger::decode(&bytes, BOOT).is_some());
    assert!(Ledger::decode(&bytes, "another boot").is_none());
    for cut in 0..bytes.len() {
        assert!(Ledger::decode(&bytes[..cut], BOOT).is_none(), "{cut}");
        let mut torn = bytes.clone();
        torn[cut] ^= 1;
        assert!(Ledger::decode(&torn, BOOT).is_none(), "{cut}");
    }
}

#[test]
fn a_file_is_written_whole_and_a_damaged_one_is_told() {
    let directory = std::env::temp_dir().join(format!("tcpgw-totals-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = file::TotalsFile::new(&directory, 7);
    assert!(file.load(BOOT).unwrap().is_none());
    let mut ledger = Ledger::new();
    ledger.know(&both());
    ledger.counters(Some(1), vec![(CONNECTIONS, vec![counted(&pair(2000, 1), 5)])]);
    file.save(&ledger, BOOT).unwrap();
    let read = file.load(BOOT).unwrap().expect("it was written");
    assert_eq!(read.totals().services, ledger.totals().services);
    std::fs::write(file.path(), b"something else").unwrap();
    assert!(file.load(BOOT).is_err());
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn removed_services_and_backends_are_kept_up_to_a_bound_and_their_sums_stay() {
    let mut ledger = Ledger::new();
    let everybody: Vec<String> = (0..250_u8)
        .flat_map(|high| (0..50_u8).map(move |low| format!("10.{high}.{low}.1:3000")))
        .collect();
    for backends in everybody.chunks(250) {
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        ledger.know(&summary(&[("a", 2000, &backends)]));
        let counted = backends.iter().map(|backend| {
            let backend: std::net::SocketAddrV4 = backend.parse().unwrap();
            let key = [
                &2000_u16.to_be_bytes(),
                &[0, 0][..],
                &backend.ip().octets(),
                &[0x0b, 0xb8, 0, 0],
            ]
            .concat();
            counted(&key, 2)
        });
        ledger.counters(Some(1), vec![(CONNECTIONS, counted.collect())]);
    }
    ledger.know(&summary(&[("a", 2000, &["10.2.0.1:3000"])]));
    let totals = ledger.totals();
    let service = totals.service("a").expect("it is there");
    assert!(
        (10_000..=10_001).contains(&service.backends.len()),
        "{}",
        service.backends.len()
    );
    assert_eq!(service.sum().connections, 25_000);
}

/// Several samples are kept at a time: 10,000 services with four backends have 17 MB of totals.
#[test]
fn samples_share_what_has_not_changed() {
    let mut ledger = Ledger::new();
    ledger.know(&both());
    let connections = |a, b| {
        vec![(
            CONNECTIONS,
            vec![counted(&pair(2000, 1), a), counted(&pair(2001, 1), b)],
        )]
    };
    ledger.counters(Some(1), connections(5, 1));
    ledger.flows(LiveFlows::default(), Vec::new());
    let before = ledger.totals();
    ledger.counters(Some(1), connections(5, 2));
    ledger.flows(LiveFlows::default(), Vec::new());
    let after = ledger.totals();
    let is_shared = |name: &str| Arc::ptr_eq(&before.services[name], &after.services[name]);
    assert!(is_shared("a"), "nothing has changed");
    assert!(!is_shared("b"));
    assert_eq!(before.service("b").unwrap().sum().connections, 1);
    assert_eq!(after.service("b").unwrap().sum().connections, 2);
}

/// A step of the kernel or of the daemon.
#[derive(Debug, Clone)]
enum Event {
    /// A connection of a service to a backend.
    Connect(u8, u8),
    /// Packets of one of the live flows.
    Packets(usize, u64),
    /// The end of one of the live flows; whether its report arrives.
    End(usize, bool),
    /// A sample: how many of the live flows are listed before more ends and packets come, and these.
    Sample(usize, Vec<(usize, bool)>),
    /// A new table, of which the daemon hears after its last sample.
    Table,
    /// The daemon is killed, and the next one begins with what was kept at the last sample.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let end = (any::<usize>(), prop::bool::weighted(0.9));
    prop_oneof![
        4 => (0..2_u8, 0..2_u8).prop_map(|(service, last)| Event::Connect(service, last)),
        4 => (any::<usize>(), 1..1000_u64).prop_map(|(at, packets)| Event::Packets(at, packets)),
        3 => end.prop_map(|(at, reported)| Event::End(at, reported)),
        3 => (any::<usize>(), prop::collection::vec(end, 0..4)).prop_map(|(listed, ends)| Event::Sample(listed, ends)),
        1 => Just(Event::Table),
        1 => Just(Event::Restart),
    ]
}

/// A kernel, its daemon, and the truth.
struct World {
    ledger: Ledger,
    kept: Vec<u8>,
    live: Vec<Flow>,
    next: u32,
    table: u64,
    counters: [[u64; 2]; 2],
    connected: [[u64; 2]; 2],
    truth: [[FlowSums; 2]; 2],
    /// Whether anything was lost that the totals lack now.
    is_exact: bool,
    /// Live flows as they were in the last list, by their ids.
    listed: BTreeMap<u32, FlowSums>,
    /// Flows whose ends were reported since the last list.
    reported: Vec<Flow>,
    /// Sums that flows which ended without a report had gained since they were listed last.
    lost: [[FlowSums; 2]; 2],
}

impl World {
    fn new() -> Self {
        let mut ledger = Ledger::new();
        ledger.know(&both());
        Self {
            kept: ledger.encode(BOOT).expect("text and numbers"),
            ledger,
            live: Vec::new(),
            next: 1,
            table: 1,
            counters: Default::default(),
            connected: Default::default(),
            truth: Default::default(),
            is_exact: true,
            listed: BTreeMap::new(),
            reported: Vec::new(),
            lost: Default::default(),
        }
    }

    /// Takes a flow that ended unnoticed.
    fn lose(&mut self, flow: &Flow) {
        let (service, last) = Self::place(flow);
        let listed = self.listed.get(&flow.id).copied().unwrap_or_default();
        let of_pair = &mut self.lost[service][last];
        *of_pair = of_pair.and(FlowSums::ended(flow).beyond(listed));
    }

    fn place(flow: &Flow) -> (usize, usize) {
        let IpLast(last) = IpLast::of(flow.backend);
        (usize::from(flow.public.port() - 2000), last)
    }

    fn end(&mut self, at: usize, reported: bool) -> Option<EndedFlow> {
        if self.live.is_empty() {
            return None;
        }
        let flow = self.live.swap_remove(at % self.live.len());
        let (service, last) = Self::place(&flow);
        let truth = &mut self.truth[service][last];
        *truth = truth.and(FlowSums::ended(&flow));
        self.is_exact &= reported;
        if !reported {
            self.lose(&flow);
            return None;
        }
        let ended = EndedFlow::from(&flow);
        self.reported.push(flow);
        Some(ended)
    }

    fn sample(&mut self, listed: usize, ends: &[(usize, bool)]) {
        // The counters are read first: connections that come meanwhile are in the next sample.
        let counters = self.counters;
        let mut list = LiveFlows::default();
        let first = if self.live.is_empty() {
            0
        } else {
            listed % (self.live.len() + 1)
        };
        let listed_first: Vec<u32> = self.live[..first].iter().map(|flow| flow.id).collect();
        for flow in &self.live[..first] {
            list.add(flow, None);
            self.listed.insert(flow.id, FlowSums::live(flow));
        }
        let mut reports = Vec::new();
        for (at, reported) in ends {
            reports.extend(self.end(*at, *reported));
        }
        for flow in self.live.iter().filter(|flow| !listed_first.contains(&flow.id)) {
            list.add(flow, None);
            self.listed.insert(flow.id, FlowSums::live(flow));
        }
        self.reported.clear();
        // One that is being deleted is still in the kernel's table.
        let mut dying = flow(self.next + 1000, 0, 0, 77);
        dying.status = CtStatus(dying.status.0 | DYING);
        list.add(&dying, None);
        let of = |service: u8, last: u8| {
            let packets = counters[usize::from(service)][usize::from(last)];
            (packets > 0).then(|| counted(&pair(2000 + u16::from(service), last), packets))
        };
        let all = [(0, 0), (0, 1), (1, 0), (1, 1)]
            .into_iter()
            .filter_map(|(service, last)| of(service, last));
        self.ledger
            .counters(Some(self.table), vec![(CONNECTIONS, all.collect())]);
        self.ledger.flows(list, reports);
        self.kept = self.ledger.encode(BOOT).expect("text and numbers");
    }

    /// Returns the totals of all four pairs.
    fn totals(&self) -> [[(u64, FlowSums); 2]; 2] {
        let totals = self.ledger.totals();
        ["a", "b"].map(|name| {
            [0, 1].map(|last| {
                totals
                    .backend(name, backend(last))
                    .map_or_else(Default::default, |of| (of.connections, of.flows))
            })
        })
    }

    /// Returns what is true, with live flows as far as they are now.
    fn truth(&self) -> [[FlowSums; 2]; 2] {
        let mut truth = self.truth;
        for flow in &self.live {
            let (service, last) = Self::place(flow);
            truth[service][last] = truth[service][last].and(FlowSums::live(flow));
        }
        truth
    }
}

struct IpLast(usize);

impl IpLast {
    fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self(usize::from(address.ip().octets()[3])),
            SocketAddr::V6(_) => unreachable!("all are of IPv4"),
        }
    }
}

proptest! {
    #[test]
    fn totals_never_fall_and_are_the_truth_where_nothing_was_lost(events in prop::collection::vec(event(), 1..80)) {
        let mut world = World::new();
        let mut before = world.totals();
        for event in events {
            match event {
                Event::Connect(service, last) => {
                    let (at, to) = (usize::from(service), usize::from(last));
                    world.counters[at][to] += 1;
                    world.connected[at][to] += 1;
                    world.live.push(flow(world.next, service, last, 1));
                    world.next += 1;
                }
                Event::Packets(at, packets) if !world.live.is_empty() => {
                    let at = at % world.live.len();
                    let of = &mut world.live[at];
                    let had = of.counters.map_or(0, |counters| counters.to.packets);
                    let (service, last) = World::place(of);
                    *of = flow(of.id, u8::try_from(service).unwrap(), u8::try_from(last).unwrap(), had + packets);
                }
                Event::Packets(..) => {}
                Event::End(at, reported) => {
                    if let Some(ended) = world.end(at, reported) {
                        world.ledger.ended(&ended);
                    }
                }
                Event::Sample(listed, ends) => world.sample(listed, &ends),
                Event::Table => {
                    world.sample(0, &[]);
                    world.table += 1;
                    world.counters = Default::default();
                }
                Event::Restart => {
                    let ended_since = world.ledger.encode(BOOT).unwrap() != world.kept;
                    world.is_exact &= !ended_since;
                    for flow in std::mem::take(&mut world.reported) {
                        world.lose(&flow);
                    }
                    world.ledger = Ledger::decode(&world.kept, BOOT).expect("it was kept");
                    world.ledger.know(&both());
                }
            }
            let now = world.totals();
            let truth = world.truth();
            for (service, last) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let ((connections, sums), (had, had_sums)) = (now[service][last], before[service][last]);
                prop_assert!(connections >= had, "connections fell from {had} to {connections}");
                prop_assert_eq!(sums.max(had_sums), sums, "totals fell");
                prop_assert!(connections <= world.connected[service][last]);
                prop_assert_eq!(sums.max(truth[service][last]), truth[service][last], "more than is true");
            }
            before = now;
        }
        world.sample(0, &[]);
        // What was listed as live, and ended during the list, is whole in the next one.
        world.sample(0, &[]);
        let (now, truth) = (world.totals(), world.truth());
        for (service, last) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            prop_assert_eq!(now[service][last].0, world.connected[service][last], "connections");
            if world.is_exact {
                prop_assert_eq!(now[service][last].1, truth[service][last], "flows");
            }
            let at_least = truth[service][last].beyond(world.lost[service][last]);
            let sums = now[service][last].1;
            prop_assert_eq!(sums.max(at_least), sums, "more is missing than what came after the last lists of unreported flows");
        }
    }
}

#[test]
fn numbers_of_a_sum_are_those_of_its_flow() {
    let answered = FlowSums::ended(&flow(1, 0, 0, 5));
    assert_eq!((answered.to_backend().packets, answered.from_backend().bytes), (5, 500));
    assert_eq!((answered.answered(), answered.unanswered()), (1, 0));
    let silent = flow(2, 0, 0, 1);
    assert_eq!(
        FlowSums::live(&silent),
        FlowSums::of([1, 100, 1, 100, 0, 0]),
        "it may be answered yet"
    );
    assert_eq!(FlowSums::ended(&silent).unanswered(), 1);
}
