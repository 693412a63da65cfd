//! Chains that choose the source address that a backend sees.

use super::chain::SkeletonChain;
use crate::model::FlowMark;
use crate::ruleset::name::{Family, OptionalSets, SetName};
use crate::ruleset::spec::SetSpec;
use crate::ruleset::stmt::{Stmt, receiver};

pub(super) fn source(mark: FlowMark, optional_sets: &OptionalSets) -> Vec<Vec<Stmt>> {
    let mut rules = vec![vec![Stmt::Marked(mark, false), Stmt::Return]];
    for family in Family::BOTH {
        rules.push(vec![
            Stmt::In(receiver(family), SetName::Preserved(family)),
            Stmt::Goto(format!("preserve_{family}")),
        ]);
    }
    rules.extend(Family::BOTH.map(|family| vec![Stmt::Snat(family)]));
    for family in Family::BOTH
        .into_iter()
        .filter(|family| knows_sources(*family, optional_sets))
    {
        rules.push(vec![
            Stmt::Family(family),
            Stmt::StatusDnat,
            own_address(family, optional_sets),
        ]);
    }
    rules.push(vec![Stmt::StatusDnat, Stmt::Masquerade]);
    rules
}

pub(super) fn preserve(family: Family, optional_sets: &OptionalSets) -> SkeletonChain {
    let same_link = Stmt::In(SetSpec::of(SetName::SameLink).key, SetName::SameLink);
    SkeletonChain::new(
        format!("preserve_{family}"),
        vec![
            vec![same_link, own_address(family, optional_sets)],
            vec![Stmt::InNowhere, own_address(family, optional_sets)],
            vec![Stmt::Count(receiver(family), SetName::Acquainted(family))],
        ],
    )
}

fn knows_sources(family: Family, optional_sets: &OptionalSets) -> bool {
    optional_sets.contains(&SetName::LinkSources(family))
}

fn own_address(family: Family, optional_sets: &OptionalSets) -> Stmt {
    if knows_sources(family, optional_sets) {
        Stmt::Goto(format!("link_source_{family}"))
    } else {
        Stmt::Masquerade
    }
}

/// Returns the chains that set, by `snat`, the address that masquerading would choose, if it is still a local address.
/// `fib` can look up only a packet's own addresses, so the packet has this address for the time of the lookup. An
/// address that is changed and restored leaves the packet's checksums as they were.
pub(super) fn by_link(family: Family) -> [SkeletonChain; 2] {
    let known = format!("known_source_{family}");
    [
        SkeletonChain::new(
            known.clone(),
            vec![
                vec![Stmt::RestoreSource(family)],
                vec![Stmt::SnatToLink(family)],
                vec![Stmt::Masquerade],
            ],
        ),
        SkeletonChain::new(
            format!("link_source_{family}"),
            vec![
                vec![Stmt::PretendLinkSource(family)],
                vec![Stmt::LocalSource, Stmt::Goto(known)],
                vec![Stmt::RestoreSource(family)],
                vec![Stmt::Masquerade],
            ],
        ),
    ]
}
