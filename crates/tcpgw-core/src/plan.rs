//! Transactions that turn one ruleset into another.
//!
//! A packet may read one set before a transaction and the next one after it. So a service that gets fewer slots, or
//! another rule to choose them, is changed in three transactions: the first adds what is new and points the slots that
//! will go to backends that stay; the second removes the old rule; the third removes the slots. A SYN finds a backend
//! whichever of its lookups is the first one after a transaction, unless a second transaction is committed before its
//! last lookup.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::ruleset::Ruleset;
use crate::ruleset::name::{ListenScope, SetName, SpreadRule};
use crate::ruleset::rows::Difference;
use crate::ruleset::spec::SetSpec;
use crate::ruleset::step::{ListenKey, PlanStep, Retimed, RowBatch};

/// The transactions that make one ruleset out of another: none, one, or up to three.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan<'a> {
    /// The transactions in order; none of them is empty.
    pub steps: Vec<PlanStep<'a>>,
}

impl Plan<'_> {
    /// Returns whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Returns the number of elements that are added and deleted.
    pub fn elements(&self) -> usize {
        self.steps.iter().map(PlanStep::elements).sum()
    }
}

/// Returns the transactions that turn `have` into `want`.
pub fn plan<'a>(have: &'a Ruleset, want: &'a Ruleset) -> Plan<'a> {
    let mut planner = Planner {
        have,
        want,
        steps: Default::default(),
    };
    let names: BTreeSet<SetName> = have.sets().keys().chain(want.sets().keys()).copied().collect();
    for name in names {
        planner.set(name);
    }
    planner.timeouts();
    planner.round_robin_chains();
    planner.chains();
    let steps = planner.steps.into_iter().filter(|step| !step.is_empty()).collect();
    Plan { steps }
}

const PREPARE: usize = 0;
const SWITCH: usize = 1;
const TIDY: usize = 2;

struct Planner<'a> {
    have: &'a Ruleset,
    want: &'a Ruleset,
    steps: [PlanStep<'a>; 3],
}

impl<'a> Planner<'a> {
    fn timeouts(&mut self) {
        let (had, wanted) = (self.have.timeouts(), self.want.timeouts());
        if had != wanted {
            self.steps[PREPARE].retimed = Some(Retimed {
                timeouts: *wanted,
                spreads: ListenScope::ALL
                    .map(|listen_scope| (listen_scope, self.have.widths(listen_scope)))
                    .into(),
                optional_sets: self.have.optional_sets(),
            });
        }
        let (had, needed) = (self.have.idle_timeouts(), self.want.idle_timeouts());
        self.steps[PREPARE].new_timeouts = needed.difference(&had).map(|timeouts| (*timeouts, *wanted)).collect();
        self.steps[TIDY].old_timeouts = had.difference(&needed).copied().collect();
    }

    fn set(&mut self, name: SetName) {
        match (self.have.rows(name), self.want.rows(name)) {
            (None, Some(want)) => {
                self.steps[PREPARE].add.insert(name, RowBatch::All(want));
            }
            (Some(have), None) => have.iter().for_each(|row| self.gone(name, row)),
            (Some(have), Some(want)) => have.differences(want, |difference| match difference {
                Difference::Gone(row) => self.gone(name, row),
                Difference::New(row) => self.steps[PREPARE].add(name, Cow::Borrowed(row)),
                Difference::Changed(old, new) => {
                    self.steps[PREPARE].delete(name, old);
                    self.steps[PREPARE].add(name, Cow::Borrowed(new));
                }
            }),
            (None, None) => {}
        }
    }

    fn gone(&mut self, name: SetName, row: &'a [u8]) {
        match name {
            SetName::Spread(listen_scope, SpreadRule::Slots(_)) | SetName::Hashed(listen_scope)
                if has_slots(self.want, listen_scope, row) =>
            {
                self.steps[SWITCH].delete(name, row);
            }
            SetName::Slots(listen_scope) => self.slot_gone(listen_scope, row),
            _ => self.steps[PREPARE].delete(name, row),
        }
    }

    fn slot_gone(&mut self, listen_scope: ListenScope, row: &'a [u8]) {
        let name = SetName::Slots(listen_scope);
        let spec = SetSpec::of(name);
        let (key, backend) = row.split_at(spec.key_len());
        let (listening, number) = key.split_at(key.len() - 4);
        let staying = self.slots_of(listen_scope, listening);
        if staying.is_empty() {
            self.steps[PREPARE].delete(name, row);
            return;
        }
        if !staying.iter().any(|slot| slot[key.len()..] == *backend) {
            let number = u32::from_ne_bytes([number[0], number[1], number[2], number[3]]) as usize;
            let stand_in = &staying[number % staying.len()][key.len()..];
            self.steps[PREPARE].delete(name, row);
            self.steps[PREPARE].add(name, Cow::Owned([key, stand_in].concat()));
        }
        self.steps[TIDY].delete(name, row);
    }

    /// Returns the slots that a service shall have.
    fn slots_of(&self, listen_scope: ListenScope, listening: &[u8]) -> Vec<&'a [u8]> {
        let Some(rows) = self.want.rows(SetName::Slots(listen_scope)) else {
            return Vec::new();
        };
        let slot = |number: u32| rows.find(&[listening, &number.to_ne_bytes()].concat());
        (0..).map_while(slot).collect()
    }

    /// Plans the changes of round-robin chains. A packet that entered the rules before a transaction sees the chains of
    /// that transaction as empty, so a service with clients is sent to a chain one transaction after the chain was
    /// created.
    fn round_robin_chains(&mut self) {
        let (have, want) = (self.have.round_robin_services(), self.want.round_robin_services());
        let listen_keys: BTreeSet<&ListenKey> = have.keys().chain(want.keys()).collect();
        for listen_key in listen_keys {
            let (had, wanted) = (have.get(listen_key), want.get(listen_key));
            if had == wanted {
                continue;
            }
            let serves = |ruleset| has_slots(ruleset, listen_key.0, &listen_key.1);
            let step = if serves(self.have) && serves(self.want) {
                SWITCH
            } else {
                PREPARE
            };
            if had.is_some() {
                self.steps[step].delete_round_robin_services.insert(listen_key.clone());
            }
            if let Some(chain) = wanted {
                self.steps[step]
                    .add_round_robin_services
                    .insert(listen_key.clone(), chain.clone());
            }
        }
    }

    fn chains(&mut self) {
        let (had, wanted) = (self.have.optional_sets(), self.want.optional_sets());
        if had != wanted {
            // The rows of these sets are added and removed in this step, too.
            self.steps[PREPARE].optional_sets = Some((had, wanted));
        }
        let (had, wanted) = (self.have.round_robin_chains(), self.want.round_robin_chains());
        self.steps[PREPARE].new_round_robin_chains = wanted.difference(&had).map(|chain| (*chain).clone()).collect();
        self.steps[TIDY].old_round_robin_chains = had.difference(&wanted).map(|chain| (*chain).clone()).collect();
        for listen_scope in ListenScope::ALL {
            let (had, wanted) = (self.have.widths(listen_scope), self.want.widths(listen_scope));
            let both: BTreeSet<SpreadRule> = had.union(&wanted).copied().collect();
            if both != had {
                self.steps[PREPARE]
                    .new_widths
                    .extend(wanted.difference(&had).map(|width| (listen_scope, *width)));
                self.steps[PREPARE].spreads.insert(listen_scope, both.clone());
            }
            if both != wanted {
                self.steps[TIDY]
                    .old_widths
                    .extend(had.difference(&wanted).map(|width| (listen_scope, *width)));
                self.steps[TIDY].spreads.insert(listen_scope, wanted);
            }
        }
    }
}

/// Returns whether the service of this key has slots in this scope.
pub(crate) fn has_slots(ruleset: &Ruleset, listen_scope: ListenScope, service_key: &[u8]) -> bool {
    let listening = match listen_scope {
        ListenScope::Any(_) => service_key.get(4..).unwrap_or_default(),
        ListenScope::At(_) => service_key,
    };
    ruleset
        .rows(SetName::Slots(listen_scope))
        .is_some_and(|rows| rows.contains(&[listening, &0_u32.to_ne_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::compile::compile;
    use crate::ruleset::name::{Family, RoundRobinChain};
    use crate::ruleset::skeleton::OptionalSets;
    use crate::ruleset::timeouts::{KernelTimeouts, Timeouts};

    const ANY: ListenScope = ListenScope::Any(Family::V4);

    fn ruleset(balance: &str, backends: &[&str]) -> Ruleset {
        let text = format!(
            r#"{{"version":1,"services":[{{"name":"a","port":8000,"balance":"{balance}","backends":{backends:?}}}]}}"#
        );
        compile(
            &crate::model::parse(text.as_bytes()).unwrap(),
            &crate::ruleset::links::Links::default(),
        )
    }

    const TWO: [&str; 2] = ["10.2.0.1:1", "10.2.0.2:1"];
    const OTHER_TWO: [&str; 2] = ["10.2.0.1:1", "10.2.0.3:1"];

    #[test]
    fn a_swapped_backend_takes_one_transaction() {
        let (have, want) = (ruleset("random", &TWO), ruleset("random", &OTHER_TWO));
        let plan = plan(&have, &want);
        assert_eq!((plan.steps.len(), plan.elements()), (1, 4));
        let step = &plan.steps[0];
        assert_eq!(step.delete[&SetName::Slots(ANY)].len(), 1);
        assert_eq!(step.add[&SetName::Slots(ANY)].len(), 1);
        assert_eq!(step.delete[&SetName::Unlimited(Family::V4)].len(), 1);
        assert_eq!(step.add[&SetName::Unlimited(Family::V4)].len(), 1);
    }

    #[test]
    fn fewer_slots_take_three() {
        let (have, want) = (ruleset("client-hash", &TWO), ruleset("client-hash", &TWO[..1]));
        let steps = plan(&have, &want).steps;
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[0].new_widths, [(ANY, SpreadRule::client_hash(1))].into());
        assert_eq!(
            steps[0].spreads,
            [(ANY, [1, 2].map(SpreadRule::client_hash).into())].into()
        );
        assert!(
            steps[1]
                .delete
                .keys()
                .eq(&[SetName::Spread(ANY, SpreadRule::client_hash(2))])
        );
        assert!(steps[2].delete.keys().eq(&[SetName::Slots(ANY)]));
        assert_eq!(steps[2].old_widths, [(ANY, SpreadRule::client_hash(2))].into());
        assert_eq!(steps[2].spreads, [(ANY, [SpreadRule::client_hash(1)].into())].into());
    }

    #[test]
    fn a_round_robin_chain_is_there_before_clients_are_sent_to_it() {
        let (have, want) = (ruleset("round-robin", &TWO), ruleset("round-robin", &TWO[..1]));
        let steps = plan(&have, &want).steps;
        assert_eq!(steps.len(), 3);
        assert!(steps[0].new_round_robin_chains.len() == 1 && steps[0].add_round_robin_services.is_empty());
        assert!(steps[1].delete_round_robin_services.len() == 1 && steps[1].add_round_robin_services.len() == 1);
        assert_eq!(steps[2].old_round_robin_chains.len(), 1);
    }

    #[test]
    fn timeouts_are_written_with_what_else_changes() {
        let longer = KernelTimeouts {
            established: 7,
            ..KernelTimeouts::default()
        };
        let have = ruleset("client-hash", &TWO);
        let want = have.clone().with_timeouts(longer);
        let steps = plan(&have, &want).steps;
        assert_eq!(steps.len(), 1);
        let retimed = steps[0].retimed.as_ref().unwrap();
        assert_eq!(retimed.timeouts, longer);
        assert_eq!(retimed.spreads[&ANY], [SpreadRule::client_hash(2)].into());
        assert_eq!(
            steps[0],
            PlanStep {
                retimed: steps[0].retimed.clone(),
                ..PlanStep::default()
            }
        );
        let nothing = Ruleset::default();
        assert_eq!(plan(&nothing, &want).steps.len(), 1, "a new table is whole at once");
        assert!(plan(&want, &want).is_empty());
    }

    fn silent(balance: &str, idle: &str) -> Ruleset {
        let text = format!(
            r#"{{"version":1,"services":[
            {{"name":"a","port":8000,"balance":"{balance}","backends":{TWO:?},"idle_timeout":"{idle}"}},
            {{"name":"b","port":8001,"backends":["10.2.0.9:1"],"idle_timeout":"60s"}}]}}"#
        );
        compile(&crate::model::parse(text.as_bytes()).unwrap(), &[].into())
    }

    #[test]
    fn a_changed_idle_timeout_touches_its_service_only() {
        let of = |seconds| Timeouts::Idle(Family::V4, std::num::NonZeroU32::new(seconds).unwrap());
        for balance in ["client-hash", "random", "source-hash", "round-robin"] {
            let (have, want) = (silent(balance, "90s"), silent(balance, "2m"));
            assert_eq!(have.idle_timeouts(), [of(60), of(90)].into(), "{balance}");
            let plan = plan(&have, &want);
            let steps = &plan.steps;
            assert_eq!(
                steps[0].new_timeouts.keys().collect::<Vec<_>>(),
                [&of(120)],
                "{balance}"
            );
            assert_eq!(steps[steps.len() - 1].old_timeouts, [of(90)].into(), "{balance}");
            assert_eq!(plan.elements(), 2, "{balance}");
            let touched = steps.iter().flat_map(|step| step.delete.keys().chain(step.add.keys()));
            for name in touched {
                assert!(matches!(name, SetName::Spread(ANY, _)), "{balance}: {name}");
            }
            let shared = silent(balance, "60s");
            assert_eq!(shared.idle_timeouts(), [of(60)].into(), "one object for each value");
        }
    }

    #[test]
    fn a_new_service_takes_one() {
        for balance in ["client-hash", "random", "source-hash", "round-robin"] {
            let want = ruleset(balance, &TWO);
            let nothing = Ruleset::default();
            assert_eq!(plan(&nothing, &want).steps.len(), 1, "{balance}");
            assert_eq!(plan(&nothing, &want).elements(), want.len());
            assert!(plan(&want, &want).is_empty());
        }
    }

    #[test]
    fn what_an_interrupted_plan_left_is_used_or_removed() {
        let want = ruleset("round-robin", &TWO);
        let chain = (*want.round_robin_chains().first().unwrap()).clone();
        let other = RoundRobinChain {
            width: 9,
            ..chain.clone()
        };
        let left = Ruleset::default().among(
            &[(ANY, SpreadRule::random(5))].into(),
            &[chain, other.clone()].into(),
            &[SetName::Limited(Family::V4)].into(),
        );
        let steps = plan(&left, &want).steps;
        assert!(steps.iter().all(|step| step.new_round_robin_chains.is_empty()));
        assert_eq!(
            steps[0].optional_sets,
            Some(([SetName::Limited(Family::V4)].into(), OptionalSets::new()))
        );
        let last = steps.last().unwrap();
        assert_eq!(
            (&last.old_widths, &last.old_round_robin_chains),
            (&[(ANY, SpreadRule::random(5))].into(), &[other].into())
        );
    }
}
