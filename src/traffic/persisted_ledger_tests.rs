//! The law of what is shown: whatever happens, none of its numbers falls.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::file::TotalsFile;
use super::flow_sums::{EndedFlow, FlowSums, LiveFlows};
use super::tests::{BOOT, CONNECTIONS, backend, both, counted, flow, pair};
use super::{PersistedLedger, Totals};
use tcpgw_kernel::conntrack::Flow;

/// Services and backends of the tests.
const PAIRS: [(u8, u8); 4] = [(0, 0), (0, 1), (1, 0), (1, 1)];

#[derive(Debug, Clone)]
enum Event {
    /// A connection of a service to a backend.
    Connect(u8, u8),
    /// Packets of one of the live flows.
    Packets(usize, u64),
    /// The end of one of the live flows, with its report.
    End(usize),
    /// A sample that nobody asked for.
    Sample,
    /// A sample of which nobody sees anything before it is written; whether it can be.
    Show(bool),
    /// The daemon is killed, and another one begins.
    Crash,
    /// The table is deleted, and made anew. The daemon may not have seen its last counters.
    TableGone,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..2_u8, 0..2_u8).prop_map(|(service, last)| Event::Connect(service, last)),
        3 => (any::<usize>(), 1..1000_u64).prop_map(|(at, packets)| Event::Packets(at, packets)),
        2 => any::<usize>().prop_map(Event::End),
        2 => Just(Event::Sample),
        4 => prop::bool::weighted(0.8).prop_map(Event::Show),
        2 => Just(Event::Crash),
        2 => Just(Event::TableGone),
    ]
}

struct World<'d> {
    directory: &'d Path,
    persisted: PersistedLedger,
    live: Vec<Flow>,
    next: u32,
    table: u64,
    counters: [[u64; 2]; 2],
}

impl<'d> World<'d> {
    fn new(directory: &'d Path) -> Self {
        Self {
            directory,
            persisted: Self::daemon(directory),
            live: Vec::new(),
            next: 1,
            table: 1,
            counters: Default::default(),
        }
    }

    fn daemon(directory: &Path) -> PersistedLedger {
        let (mut persisted, error) = PersistedLedger::open(TotalsFile::new(directory, 7), BOOT.into());
        assert!(error.is_none(), "{error:?}");
        persisted.ledger_mut().know(&both());
        persisted
    }

    fn sample(&mut self) {
        let mut list = LiveFlows::default();
        self.live.iter().for_each(|flow| list.add(flow, None));
        let counted = PAIRS.iter().filter_map(|(service, last)| {
            let packets = self.counters[usize::from(*service)][usize::from(*last)];
            (packets > 0).then(|| counted(&pair(2000 + u16::from(*service), *last), packets))
        });
        let counted = counted.collect();
        let ledger = self.persisted.ledger_mut();
        ledger.counters(Some(self.table), vec![(CONNECTIONS, counted)]);
        ledger.flows(list, Vec::new());
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Connect(service, last) => {
                self.counters[usize::from(*service)][usize::from(*last)] += 1;
                self.live.push(flow(self.next, *service, *last, 1));
                self.next += 1;
            }
            Event::Packets(at, packets) if !self.live.is_empty() => {
                let at = at % self.live.len();
                let of = &mut self.live[at];
                let had = of.counters.map_or(0, |counters| counters.to.packets);
                let service = u8::try_from(of.public.port() - 2000).unwrap();
                let last = u8::from(of.backend == backend(1));
                *of = flow(of.id, service, last, had + packets);
            }
            Event::End(at) if !self.live.is_empty() => {
                let ended = self.live.swap_remove(at % self.live.len());
                self.persisted.ledger_mut().ended(&EndedFlow::from(&ended));
            }
            Event::Packets(..) | Event::End(_) => {}
            Event::Sample => self.sample(),
            Event::Show(can_write) => {
                self.sample();
                let obstacle = self.directory.join("netns-7.totals.new");
                if !can_write {
                    fs::create_dir(&obstacle).unwrap();
                }
                assert_eq!(self.persisted.save(None).is_ok(), *can_write);
                let _ = fs::remove_dir(&obstacle);
            }
            Event::Crash => self.persisted = Self::daemon(self.directory),
            Event::TableGone => {
                self.table += 1;
                self.counters = Default::default();
            }
        }
    }
}

/// Returns the numbers of all pairs, in one order.
fn numbers(totals: &Totals) -> Vec<(u64, FlowSums)> {
    let of = |(service, last): &(u8, u8)| {
        let name = ["a", "b"][usize::from(*service)];
        let totals = totals.backend(name, backend(*last)).copied().unwrap_or_default();
        (totals.connections, totals.flows)
    };
    PAIRS.iter().map(of).collect()
}

proptest! {
    #[test]
    fn what_was_shown_never_falls(events in prop::collection::vec(event(), 1..60)) {
        let directory = tempfile::tempdir().unwrap();
        let mut world = World::new(directory.path());
        let mut before = numbers(&world.persisted.saved_totals());
        for event in events {
            world.happens(&event);
            let now = numbers(&world.persisted.saved_totals());
            for ((connections, flows), (had, had_flows)) in now.iter().zip(&before) {
                prop_assert!(connections >= had, "{event:?}: connections fell from {had} to {connections}");
                prop_assert_eq!(flows.max(*had_flows), *flows, "{:?}: traffic fell", event);
            }
            before = now;
        }
    }
}

#[test]
fn a_sample_is_shown_when_it_is_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut world = World::new(directory.path());
    let connections = |world: &World<'_>| numbers(&world.persisted.saved_totals())[0].0;
    world.happens(&Event::Connect(0, 0));
    world.happens(&Event::Sample);
    assert_eq!(connections(&world), 0);
    world.happens(&Event::Show(false));
    assert_eq!(connections(&world), 0);
    world.happens(&Event::Show(true));
    assert_eq!(connections(&world), 1);
    world.happens(&Event::TableGone);
    world.happens(&Event::Crash);
    assert_eq!(connections(&world), 1);
}
