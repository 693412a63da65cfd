//! The law of names: a flow, its traffic and its connection belong to the service that had its place and backend when it began.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::flow_sums::{EndedFlow, FlowSums, LiveFlows};
use super::tests::{CONNECTIONS, backend, counted, flow, pair, summary};
use super::{LastCounts, Ledger, NamedService, NamesChange};
use tcpgw_kernel::Counted;
use tcpgw_kernel::conntrack::Flow;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const PLACES: u8 = 3;
const BACKENDS: u8 = 3;

/// Services by place: name and backends.
type Tenants = BTreeMap<u8, (&'static str, BTreeSet<u8>)>;

/// Way in which the counters of services that lose a place are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CountsRead {
    /// All of them, before the end of the change is told.
    All,
    /// One by one, right after the change.
    Last,
    /// One by one, while a sample is under way that has earlier values.
    LastWithinSample,
    /// One by one, after a sample that has the same values or later ones.
    LastAfterSample,
}

#[derive(Debug, Clone)]
enum Event {
    /// A flow to one of the backends of the service at a place.
    Begin(u8, usize),
    /// More packets of a live flow.
    Packets(usize, u64),
    /// The end of a live flow, which is reported.
    End(usize),
    Sample,
    /// Other services, and flows that begin when the kernel has them, but end before the change is known to have been made.
    Change(Tenants, Vec<(u8, u8)>, CountsRead),
    /// A change that the kernel refuses.
    Refused(Tenants),
}

fn tenants() -> impl Strategy<Value = Tenants> {
    let tenant = prop::option::weighted(0.8, (0..NAMES.len(), prop::collection::btree_set(0..BACKENDS, 1..3)));
    prop::collection::vec(tenant, usize::from(PLACES)).prop_map(|places| {
        let mut taken = BTreeSet::new();
        let places = (0..PLACES).zip(places);
        let places =
            places.filter_map(|(place, tenant)| tenant.map(|(name, backends)| (place, (NAMES[name], backends))));
        places.filter(|(_, (name, _))| taken.insert(*name)).collect()
    })
}

fn counts_read() -> impl Strategy<Value = CountsRead> {
    prop::sample::select(vec![
        CountsRead::All,
        CountsRead::Last,
        CountsRead::LastWithinSample,
        CountsRead::LastAfterSample,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..PLACES, any::<usize>()).prop_map(|(place, at)| Event::Begin(place, at)),
        3 => (any::<usize>(), 1..100_u64).prop_map(|(at, packets)| Event::Packets(at, packets)),
        3 => any::<usize>().prop_map(Event::End),
        2 => Just(Event::Sample),
        4 => (tenants(), prop::collection::vec((0..PLACES, 0..BACKENDS), 0..3), counts_read())
            .prop_map(|(next, early, read)| Event::Change(next, early, read)),
        1 => tenants().prop_map(Event::Refused),
    ]
}

#[derive(Default)]
struct World {
    ledger: Ledger,
    tenants: Tenants,
    /// Live flows, each with the service that it began with.
    live: Vec<(Flow, &'static str)>,
    next: u32,
    counters: BTreeMap<(u8, u8), u64>,
    ended: BTreeMap<(&'static str, u8), FlowSums>,
    connections: BTreeMap<(&'static str, u8), u64>,
}

fn place_of(flow: &Flow) -> u8 {
    u8::try_from(flow.public.port() - 2000).unwrap()
}

fn backend_of(flow: &Flow) -> u8 {
    (0..BACKENDS).find(|last| backend(*last) == flow.backend).unwrap()
}

impl World {
    fn change_to(&self, next: &Tenants) -> NamesChange {
        let service = |(place, (name, backends)): (&u8, &(&str, BTreeSet<u8>))| NamedService {
            name: (*name).into(),
            port: 2000 + u16::from(*place),
            addresses: BTreeSet::new(),
            backends: backends.iter().map(|last| backend(*last)).collect(),
        };
        let names: BTreeSet<&str> = next.values().map(|(name, _)| *name).collect();
        let gone = self.tenants.values().filter(|(name, _)| !names.contains(name));
        let is_new = |(place, tenant): &(&u8, &(&'static str, BTreeSet<u8>))| self.tenants.get(place) != Some(tenant);
        NamesChange {
            is_all: false,
            gone: gone.map(|(name, _)| (*name).into()).collect(),
            come: next.iter().filter(is_new).map(service).collect(),
        }
    }

    fn begin(&mut self, place: u8, last: u8, owner: &'static str) {
        self.next += 1;
        self.live.push((flow(self.next, place, last, 1), owner));
        *self.counters.entry((place, last)).or_default() += 1;
        *self.connections.entry((owner, last)).or_default() += 1;
    }

    fn end(&mut self, at: usize) {
        let (flow, owner) = self.live.swap_remove(at);
        let sums = self.ended.entry((owner, backend_of(&flow))).or_default();
        *sums = sums.and(FlowSums::ended(&flow));
        assert_eq!(self.ledger.service_of(&flow), Some(owner), "{flow:?}");
        self.ledger.ended(&EndedFlow::from(&flow));
    }

    fn counted(&self) -> Vec<Counted> {
        let counters = self.counters.iter();
        counters
            .map(|((place, last), packets)| counted(&pair(2000 + u16::from(*place), *last), *packets))
            .collect()
    }

    fn read_counters(&mut self) {
        self.ledger.sample_begins();
        let counted = self.counted();
        self.ledger.counters(Some(1), vec![(CONNECTIONS, counted)]);
    }

    fn sample(&mut self) {
        self.read_counters();
        let mut list = LiveFlows::default();
        for (flow, _) in &self.live {
            list.add(flow, self.ledger.carried(flow));
        }
        self.ledger.flows(list, Vec::new());
    }

    fn change(&mut self, next: Tenants, early: &[(u8, u8)], read: CountsRead) {
        let sampled = self.counted();
        self.ledger.change_begins(self.change_to(&next));
        let before = std::mem::replace(&mut self.tenants, next);
        let has = |tenants: &Tenants, place: u8, last: u8| {
            let tenant = tenants.get(&place).filter(|(_, backends)| backends.contains(&last));
            tenant.map(|(name, _)| *name)
        };
        // Flows of backends that are gone are deleted.
        while let Some(at) = self
            .live
            .iter()
            .position(|(flow, _)| has(&self.tenants, place_of(flow), backend_of(flow)).is_none())
        {
            self.end(at);
        }
        let last = LastCounts {
            table: Some(1),
            counted: self
                .counted()
                .into_iter()
                .map(|counted| (CONNECTIONS, counted))
                .collect(),
        };
        match read {
            CountsRead::All => self.read_counters(),
            CountsRead::LastAfterSample => {
                self.read_counters();
                self.ledger.last_counters(last);
            }
            CountsRead::Last => self.ledger.last_counters(last),
            CountsRead::LastWithinSample => {
                self.ledger.sample_begins();
                self.ledger.last_counters(last);
            }
        }
        for (flow, _) in &self.live {
            self.ledger.carry(flow);
        }
        for (place, last) in early {
            if let Some(owner) = has(&self.tenants, *place, *last)
                && has(&before, *place, *last).is_none_or(|former| former == owner)
            {
                self.begin(*place, *last, owner);
                self.end(self.live.len() - 1);
            }
        }
        self.ledger.change_ends(true);
        if read == CountsRead::LastWithinSample {
            self.ledger.counters(Some(1), vec![(CONNECTIONS, sampled)]);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Begin(place, at) => {
                if let Some((name, backends)) = self.tenants.get(&place) {
                    let last = *backends.iter().nth(at % backends.len()).unwrap();
                    self.begin(place, last, name);
                }
            }
            Event::Packets(at, packets) if !self.live.is_empty() => {
                let at = at % self.live.len();
                let (of, _) = &mut self.live[at];
                let had = of.counters.map_or(0, |counters| counters.to.packets);
                *of = flow(of.id, place_of(of), backend_of(of), had + packets);
            }
            Event::End(at) if !self.live.is_empty() => self.end(at % self.live.len()),
            Event::Packets(..) | Event::End(_) => {}
            Event::Sample => self.sample(),
            Event::Change(next, early, read) => self.change(next, &early, read),
            Event::Refused(next) => {
                self.ledger.change_begins(self.change_to(&next));
                self.ledger.change_ends(false);
            }
        }
    }
}

proptest! {
    #[test]
    fn flows_belong_to_the_service_that_they_began_with(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::default();
        for event in events {
            world.happens(event);
        }
        // The first one of these lists flows that end; the second one has their ends.
        world.sample();
        world.sample();
        let mut truth = world.ended.clone();
        for (flow, owner) in &world.live {
            let sums = truth.entry((owner, backend_of(flow))).or_default();
            *sums = sums.and(FlowSums::live(flow));
        }
        let totals = world.ledger.totals();
        for name in NAMES {
            for last in 0..BACKENDS {
                let of = totals.backend(name, backend(last)).copied().unwrap_or_default();
                let connections = world.connections.get(&(name, last)).copied().unwrap_or(0);
                prop_assert_eq!(of.connections, connections, "connections of {} to {}", name, last);
                let flows = truth.get(&(name, last)).copied().unwrap_or_default();
                prop_assert_eq!(of.flows, flows, "traffic of {} to {}", name, last);
            }
        }
    }
}

#[test]
fn two_services_that_swap_ports_keep_their_flows() {
    let mut ledger = Ledger::new();
    ledger.know(&summary(&[
        ("a", 2000, &["10.2.0.1:3000"]),
        ("b", 2001, &["10.2.0.1:3000"]),
    ]));
    let (of_a, of_b) = (flow(1, 0, 1, 5), flow(2, 1, 1, 5));
    ledger.change_begins((&summary(&[("b", 2000, &["10.2.0.1:3000"]), ("a", 2001, &["10.2.0.1:3000"])])).into());
    assert!(ledger.hands_over());
    for flow in [&of_a, &of_b] {
        ledger.carry(flow);
    }
    ledger.change_ends(true);
    let names = |ledger: &Ledger| {
        [&of_a, &of_b, &flow(3, 0, 1, 1), &flow(4, 1, 1, 1)].map(|flow| ledger.service_of(flow).map(str::to_owned))
    };
    let expected = ["a", "b", "b", "a"].map(|name| Some(name.to_owned()));
    assert_eq!(names(&ledger), expected);
    // A flow that has ended is not remembered.
    ledger.ended(&EndedFlow::from(&of_a));
    assert_eq!(ledger.service_of(&of_a), Some("b"));
}

#[test]
fn a_new_service_takes_no_flows_of_the_one_before_and_the_former_none_of_it() {
    let mut ledger = Ledger::new();
    ledger.know(&summary(&[("c2", 2000, &["10.2.0.1:3000"])]));
    let next = summary(&[("tenant-b", 2000, &["10.2.0.2:3000"])]);
    ledger.change_begins((&next).into());
    assert!(!ledger.hands_over(), "no flow goes on");
    // Flows of both may end while it is not known whether the kernel has made the change.
    for _ in 0..2 {
        assert_eq!(ledger.service_of(&flow(1, 0, 1, 1)), Some("c2"));
        assert_eq!(ledger.service_of(&flow(2, 0, 2, 1)), Some("tenant-b"));
        ledger.change_ends(true);
    }
    // A backend that the former one had, too, and that the present one gets.
    ledger.change_begins((&summary(&[("tenant-b", 2000, &["10.2.0.1:3000"])])).into());
    assert_eq!(ledger.service_of(&flow(3, 0, 1, 1)), Some("tenant-b"));
    ledger.change_ends(false);
    // A backend that both had at different times belongs to the one that has it now.
    ledger.know(&summary(&[("tenant-b", 2000, &["10.2.0.1:3000"])]));
    ledger.know(&summary(&[("tenant-b", 2000, &["10.2.0.2:3000"])]));
    assert_eq!(ledger.service_of(&flow(3, 0, 1, 1)), Some("tenant-b"));
}
