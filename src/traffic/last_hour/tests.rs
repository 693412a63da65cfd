use proptest::prelude::*;

use super::sample::Gains;
use super::*;
use crate::traffic::tests::{both, flow};
use crate::traffic::totals::{BackendTotals, ServiceTotals};
use crate::traffic::{Ledger, LiveFlows};
use crate::view::tally::FlowCounts;
use tcpgw_kernel::conntrack::{Flow, TcpState};

const A: &str = "a";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn sample(gains: Gains, flows: u64) -> HourSample {
    HourSample { gains, flows }
}

fn one(total: u64, flows: u64) -> impl Iterator<Item = (&'static str, HourSample)> {
    std::iter::once((A, sample([total; GAINS], flows)))
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn whole(value: f64) -> u64 {
    value.round() as u64
}

/// Returns the packets to the backends in all known slots.
fn gained(hour: &LastHour, now: Duration) -> u64 {
    let slots = hour.services[A].since();
    let rates = hour.of(A, now).expect("it is kept");
    let last = slot_of(now);
    let known = rates.iter().rev().zip(0..).filter_map(|(rates, back)| {
        let covered = hour.covered(u64::checked_sub(last, back)?, slots)?;
        Some((*rates)?.packets_to * covered.as_secs_f64())
    });
    whole(known.sum())
}

#[test]
fn rates_are_those_of_each_slot() {
    let mut hour = LastHour::default();
    // 100 a second in the first slot, none in the second, 10 a second in the third, which has not ended.
    for (at, total) in [(0, 7), (10, 1007), (30, 3007), (45, 3007), (60, 3007), (70, 3107)] {
        hour.take(seconds(at), one(total, at));
    }
    let rates = hour.of(A, seconds(70)).unwrap();
    assert_eq!(rates.len(), SLOTS);
    assert!(
        rates[..SLOTS - 3].iter().all(Option::is_none),
        "nothing is known of the time before"
    );
    let last: Vec<SlotRates> = rates[SLOTS - 3..].iter().map(|rates| rates.unwrap()).collect();
    let found: Vec<_> = last
        .iter()
        .map(|rates| (whole(rates.packets_to), whole(rates.dropped), whole(rates.flows)))
        .collect();
    assert_eq!(found, [(100, 100, 10), (0, 0, 45), (10, 10, 70)]);
    // Nobody has sampled since.
    let later = hour.of(A, seconds(130)).unwrap();
    assert_eq!(later[SLOTS - 2..], [None, None]);
    assert_eq!(whole(later[SLOTS - 5].unwrap().packets_to), 100);
}

#[test]
fn open_connections_are_those_that_the_page_calls_so() {
    let states = [
        Some(TcpState::Established),
        None,
        Some(TcpState::SynSent),
        Some(TcpState::SynRecv),
        Some(TcpState::FinWait),
        Some(TcpState::CloseWait),
        Some(TcpState::LastAck),
        Some(TcpState::TimeWait),
        Some(TcpState::Close),
    ];
    let mut ledger = Ledger::new();
    ledger.know(&both());
    let (mut list, mut tally) = (LiveFlows::default(), FlowCounts::default());
    for (id, state) in (1..).zip(states) {
        // Of a reset or an ended connection conntrack has seen an answer, too.
        let flow = Flow {
            tcp_state: state,
            ..flow(id, 0, 0, 5)
        };
        list.add(&flow, None);
        tally.count(state);
    }
    // Of a service that has lost the place.
    list.add(&flow(100, 0, 1, 5), Some("b"));
    ledger.flows(list, Vec::new());
    let open: Vec<_> = ledger.samples().map(|(name, sample)| (name, sample.flows)).collect();
    assert_eq!(tally.established, 2);
    assert_eq!(open, [("a", tally.established), ("b", 1)]);
}

#[test]
fn a_sample_has_all_directions_backends_and_drops() {
    let of = |flows| BackendTotals {
        connections: 5,
        flows: crate::traffic::FlowSums::of(flows),
        drops: [1, 0, 0, 0, 0, 1],
    };
    let totals = ServiceTotals {
        drops: [10, 0, 0, 0, 0, 0],
        backends: [("10.0.0.1:1".parse().unwrap(), of([1, 2, 3, 4, 0, 0]))].into(),
        others: of([10, 20, 30, 40, 0, 0]),
    };
    let expected = sample([11, 22, 33, 44, 10, 14], 6);
    assert_eq!(HourSample::new(&totals, 6), expected);
}

#[test]
fn a_new_service_has_the_traffic_since_it_was_seen() {
    let mut hour = LastHour::default();
    hour.take(seconds(0), std::iter::empty());
    hour.take(seconds(20), one(1_000_000, 0));
    assert_eq!(
        hour.of(A, seconds(20)).unwrap().last(),
        Some(&None),
        "what it gained before is not known"
    );
    hour.take(seconds(25), one(1_000_500, 0));
    let rates = hour.of(A, seconds(25)).unwrap();
    assert_eq!(whole(rates.last().unwrap().unwrap().packets_to), 100);
}

#[test]
fn totals_that_begin_anew_are_gains() {
    let mut hour = LastHour::default();
    hour.take(seconds(0), one(900, 0));
    hour.take(seconds(10), one(100, 0));
    assert_eq!(gained(&hour, seconds(10)), 100);
}

#[test]
fn what_is_older_than_an_hour_is_forgotten() {
    let mut hour = LastHour::default();
    hour.take(seconds(0), one(0, 0));
    hour.take(seconds(10), one(1000, 0));
    assert!(hour.services[A].ring.is_none(), "the slot has not ended");
    hour.take(seconds(40), one(1000, 0));
    assert!(hour.services[A].ring.is_some());
    for at in (70..3700).step_by(30) {
        hour.take(seconds(at), one(1000, 0));
    }
    assert!(hour.services[A].ring.is_none(), "a silent service needs no slots");
    assert_eq!(gained(&hour, seconds(3690)), 0);
    // A machine that slept for longer begins anew.
    hour.take(seconds(20_000), one(5000, 0));
    assert!(hour.of(A, seconds(20_000)).unwrap().iter().all(Option::is_none));
}

#[test]
fn services_that_end_are_forgotten_and_memory_is_bounded() {
    let names: Vec<String> = (0..MOST_SERVICES + 10).map(|at| format!("service-{at}")).collect();
    let mut hour = LastHour::default();
    for at in 0..4 {
        let total = at * 1000;
        let samples = names.iter().map(|name| (&**name, sample([total; GAINS], 1)));
        hour.take(seconds(at * 30), samples);
    }
    assert_eq!(hour.len(), MOST_SERVICES);
    // Name, its entry in the map, and the slots.
    let each = 16 + 64 + size_of::<ServiceSlots>() + SLOTS * NUMBERS * 2;
    assert!(each * 10_000 < 30 << 20, "10,000 services need {} MB", each / 100);
    hour.take(seconds(125), one(0, 0));
    assert_eq!((hour.len(), hour.is_empty()), (1, false));
    assert_eq!(hour.of("service-1", seconds(125)), None);
}

#[test]
fn a_clock_that_stands_changes_nothing() {
    let mut hour = LastHour::default();
    hour.take(seconds(5), one(0, 0));
    hour.take(seconds(5), one(100, 0));
    hour.take(seconds(1), one(200, 0));
    hour.take(seconds(10), one(500, 0));
    assert_eq!(gained(&hour, seconds(10)), 500);
    assert_eq!(hour.of("b", seconds(10)), None);
}

proptest! {
    #[test]
    fn nothing_is_lost_however_often_samples_are_taken(
        steps in prop::collection::vec((1_u64..200_000, 0_u64..1_000_000_000), 1..40),
    ) {
        let mut hour = LastHour::default();
        let (mut now, mut total) = (seconds(5), 17);
        hour.take(now, one(total, 0));
        let most: u64 = steps.iter().map(|(pause, _)| pause).sum();
        prop_assume!(most < 3_500_000);
        for (pause, more) in &steps {
            now += Duration::from_millis(*pause);
            total += more;
            hour.take(now, one(total, 0));
            let rates = hour.of(A, now).expect("it is kept");
            prop_assert_eq!(rates.len(), SLOTS);
        }
        // A slot of which less is known than rates are taken from is not shown.
        let slots = &hour.services[A];
        let last = slot_of(now);
        let found: u64 = (0..=last)
            .filter(|slot| slot + (SLOTS as u64) > last)
            .map(|slot| slots.values(slot, last)[0])
            .sum();
        let expected = total - 17;
        prop_assert!(found.abs_diff(expected) <= expected / 4000 + SLOTS as u64, "{found} of {expected}");
        prop_assert!(gained(&hour, now) <= expected + expected / 4000 + SLOTS as u64);
    }

    #[test]
    fn rates_are_never_above_what_was_sampled(
        steps in prop::collection::vec((1_u32..60_000, 0_u32..100_000), 1..60),
    ) {
        let mut hour = LastHour::default();
        let (mut now, mut total, mut most) = (Duration::ZERO, 0, 0.0_f64);
        hour.take(now, one(total, 0));
        for (pause, more) in steps {
            let pause = Duration::from_millis(pause.into());
            now += pause;
            total += u64::from(more);
            hour.take(now, one(total, 0));
            most = most.max(f64::from(more) / pause.as_secs_f64());
            for rates in hour.of(A, now).expect("it is kept").into_iter().flatten() {
                // Rounding of milliseconds, of whole packets, and of what is kept.
                prop_assert!(rates.packets_to <= most * 1.01 + 2.0, "{rates:?} of {most}");
                prop_assert!(rates.packets_to >= 0.0);
            }
        }
    }
}
