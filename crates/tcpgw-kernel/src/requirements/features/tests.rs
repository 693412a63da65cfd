use std::collections::BTreeSet;

use super::*;
use crate::nftables::expr;
use tcpgw_core::ruleset::name::SpreadRule;
use tcpgw_core::ruleset::skeleton;

fn kinds<'a>(rules: impl Iterator<Item = &'a [Stmt]>) -> BTreeSet<&'static std::ffi::CStr> {
    rules.flat_map(expr::rule).map(|expr| expr.kind).collect()
}

/// Checks that every statement of the rules is part of a test.
#[test]
fn everything_that_the_rules_do_is_asked_for() {
    let mark = FlowMark::default();
    let chains: Vec<_> = ListenScope::ALL
        .map(|listen_scope| {
            skeleton::spread(
                listen_scope,
                &[SpreadRule::client_hash(2), SpreadRule::random(2)].into(),
                mark,
            )
        })
        .into_iter()
        .chain(skeleton::fixed(mark, &SetName::fixed().into_iter().collect()))
        .collect();
    let rules = chains.iter().flat_map(|chain| &chain.rules).map(Vec::as_slice);
    let asked = features(mark);
    let asked_stmts = asked
        .iter()
        .filter_map(|(_, needs)| Some(needs.chain.as_ref()?.2.as_slice()));
    let mut left: BTreeSet<_> = kinds(rules).difference(&kinds(asked_stmts)).copied().collect();
    // An object of timeouts is asked for as such.
    left.remove(c"objref");
    assert_eq!(left, BTreeSet::new());
    let payload = |name: &SetName| std::mem::discriminant(&SetSpec::of(*name).payload);
    let asked_sets: Vec<_> = asked.iter().flat_map(|(_, needs)| &needs.sets).map(payload).collect();
    for name in SetName::fixed() {
        assert!(asked_sets.contains(&payload(&name)), "{name}");
    }
    // A rule that fills or reads a set does so with the set's own key.
    for (feature, needs) in &asked {
        for stmt in needs.chain.iter().flat_map(|(_, _, stmts)| stmts) {
            if let Stmt::In(key, set) | Stmt::Count(key, set) = stmt {
                assert_eq!(*key, SetSpec::of(*set).key, "{}", feature.what);
                assert!(needs.sets.contains(set), "{}", feature.what);
            }
        }
    }
}
