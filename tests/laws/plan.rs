//! A plan leads from any ruleset to any other, touches nothing else, and interrupts no client.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tcpgw_core::model::{FlowMark, State};
use tcpgw_core::plan::plan;
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::spec::SetSpec;
use tcpgw_core::ruleset::step::PlanStep;
use tcpgw_core::summary::Summary;
use tcpgw_kernel::fake::{ConnectOutcome, Fake, GenerationView, PacketWalk, Syn};
use tcpgw_kernel::{Commit, Kernel, ObservedTable};

use crate::clients::syns;
use crate::ruleset::{active, may_enter};
use crate::state;
use crate::states::ruleset;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_plan_leads_there(have in state(), want in state()) {
        let (have, want) = (ruleset(&have), ruleset(&want));
        let mut fake = fake(&have);
        carry_out(&mut fake, &want, usize::MAX);
        prop_assert_eq!(&seen(&mut fake), &want);
        prop_assert!(plan(&want, &want).is_empty());
        prop_assert!(plan(&have, &want).steps.len() <= 3);
    }

    #[test]
    fn a_plan_leads_there_from_one_that_was_interrupted(
        have in state(), half in state(), third in state(), want in state(), steps in (0..3_usize, 0..3_usize),
    ) {
        let mut fake = fake(&ruleset(&have));
        carry_out(&mut fake, &ruleset(&half), steps.0);
        carry_out(&mut fake, &ruleset(&third), steps.1);
        let want = ruleset(&want);
        carry_out(&mut fake, &want, usize::MAX);
        prop_assert_eq!(seen(&mut fake), want);
    }

    #[test]
    fn what_does_not_change_keeps_its_buckets_and_counters(have in state(), want in state()) {
        let (have, want) = (ruleset(&have), ruleset(&want));
        let mut fake = fake(&have);
        let before = fake.generation();
        carry_out(&mut fake, &want, usize::MAX);
        for (name, rows) in have.sets() {
            let spec = SetSpec::of(*name);
            for row in rows {
                let identity = &row[..spec.identity_len()];
                if want.rows(*name).and_then(|rows| rows.find(identity)) == Some(row) {
                    prop_assert_eq!(fake.born(*name, identity), Some(before), "an element of {} was touched", name);
                }
            }
        }
        for (listen_key, chain) in have.round_robin_services() {
            if want.round_robin_services().get(listen_key) == Some(chain) {
                prop_assert_eq!(fake.born(SetName::RoundRobin(listen_key.0), &listen_key.1), Some(before));
            }
        }
    }

    /// A client finds a backend whenever a transaction is committed: a packet reads one set after the other, with the transaction
    /// between any two reads.
    #[test]
    fn a_client_finds_a_backend_whenever_a_transaction_falls(
        have in state(), want in state(), picks in prop::collection::vec(0..256_u32, 12),
    ) {
        let views = views(&mut fake(&ruleset(&have)), &want);
        check(&views, &[&have, &want], &picks)?;
    }

    /// A client finds a backend also during a plan that begins at the state which an interrupted plan left.
    #[test]
    fn a_client_finds_a_backend_after_an_interruption(
        have in state(), half in state(), want in state(), steps in 0..3_usize,
        picks in prop::collection::vec(0..256_u32, 12),
    ) {
        let mut fake = fake(&ruleset(&have));
        carry_out(&mut fake, &ruleset(&half), steps);
        let views = views(&mut fake, &want);
        check(&views, &[&have, &half, &want], &picks)?;
    }
}

fn fake(ruleset: &Ruleset) -> Fake {
    Fake::holding(ruleset, FlowMark::default()).unwrap()
}

fn seen(fake: &mut Fake) -> Ruleset {
    match fake.observe(FlowMark::default()).unwrap().table {
        ObservedTable::Ours { ruleset, .. } => ruleset,
        other => panic!("{other:?}"),
    }
}

fn commit(fake: &mut Fake, step: &PlanStep<'_>) {
    let commit = Commit {
        generation: fake.generation(),
        mark: FlowMark::default(),
        build: None,
        step,
        forget: &[],
    };
    fake.commit(&commit)
        .unwrap_or_else(|error| panic!("{error}\n{step:#?}"));
}

/// Commits at most so many steps of the plan.
fn carry_out(fake: &mut Fake, want: &Ruleset, steps: usize) {
    let have = seen(fake);
    for step in plan(&have, want).steps.iter().take(steps) {
        commit(fake, step);
    }
}

/// Returns the kernel's views as packets meet them: before the plan, and after each of its steps.
fn views(fake: &mut Fake, want: &State) -> Vec<GenerationView> {
    let (have, want) = (seen(fake), ruleset(want));
    let mut views = vec![fake.view()];
    for step in &plan(&have, &want).steps {
        commit(fake, step);
        views.push(fake.view());
    }
    views
}

/// Checks clients whose address is allowed in all of these states, at a service that has backends in all of them: between the
/// states each one gets to a backend of one of them, and after the first transaction to a backend of the last.
fn check(views: &[GenerationView], states: &[&State], picks: &[u32]) -> Result<(), TestCaseError> {
    let summaries: Vec<Summary> = states.iter().map(|state| Summary::from(*state)).collect();
    for syn in syns() {
        let (Some(backends), Some(want)) = (backends(&summaries, &syn), summaries.last()) else {
            continue;
        };
        let last = want
            .service_at(syn.public)
            .map(|want| active(want, syn.public.is_ipv4()))
            .unwrap_or_default();
        for (at, pair) in views.windows(2).enumerate() {
            // From the first transaction on only what is wanted.
            let backends = if at > 0 { &last } else { &backends };
            for pick in picks {
                for change in 0.. {
                    let (outcome, steps) = PacketWalk::across(&pair[0], &pair[1], change).syn(&syn, *pick);
                    let arrived = matches!(outcome, ConnectOutcome::Backend(backend) if backends.contains(&backend));
                    prop_assert!(
                        arrived,
                        "{syn:?}, pick {pick}, change before step {change}: {outcome:?}"
                    );
                    if change >= steps {
                        break;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Returns the backends of all states together, or `None` if one of the states has no backend for that client, or if the states
/// allow different clients.
fn backends(summaries: &[Summary], syn: &Syn) -> Option<BTreeSet<std::net::SocketAddr>> {
    let services: Vec<_> = summaries
        .iter()
        .map(|s| s.service_at(syn.public))
        .collect::<Option<_>>()?;
    let first = services.first()?;
    let mut backends = BTreeSet::new();
    for service in &services {
        let (a, b) = (&first.settings, &service.settings);
        let of_service = active(service, syn.public.is_ipv4());
        let same_way = first.addresses.is_empty() == service.addresses.is_empty();
        if of_service.is_empty() || !same_way || (&a.allow, &a.deny) != (&b.allow, &b.deny) {
            return None;
        }
        backends.extend(of_service);
    }
    may_enter(first, syn.client.ip()).then_some(backends)
}

/// Each change from one kind of balance and number of backends to another keeps the clients of the backends that stay, tried with
/// small numbers.
#[test]
fn each_way_to_change_the_slots_of_a_service_keeps_its_clients() {
    let ways = ["client-hash", "random", "source-hash", "round-robin"];
    let sizes = [1, 2, 3, 5];
    let picks: Vec<u32> = (0..6).chain((6..256).step_by(25)).collect();
    for (before, after) in ways.iter().flat_map(|a| ways.iter().map(move |b| (a, b))) {
        for (from, to) in sizes.iter().flat_map(|a| sizes.iter().map(move |b| (*a, *b))) {
            // Half of the old backends stay.
            let (have, want) = (alone(before, 0..from), alone(after, from / 2..from / 2 + to));
            let views = views(&mut fake(&ruleset(&have)), &want);
            check(&views, &[&have, &want], &picks).unwrap_or_else(|e| panic!("{before} {from} -> {after} {to}: {e}"));
        }
    }
}

fn alone(balance: &str, backends: std::ops::Range<u8>) -> State {
    let backends: Vec<String> = backends.map(|at| format!("10.2.0.{}:3000", at + 11)).collect();
    let text = format!(
        r#"{{"version":1,"services":[{{"name":"a","port":8000,"balance":"{balance}","backends":{backends:?}}}]}}"#
    );
    tcpgw_core::model::parse(text.as_bytes()).unwrap()
}
