//! The engine's cache of the table, because of which the cost of a change depends on the change alone.

use std::collections::{BTreeMap, BTreeSet};

use tcpgw_core::model::{Service, SourceMode};
use tcpgw_core::ruleset::Ruleset;
use tcpgw_core::ruleset::links::Links;
use tcpgw_core::ruleset::name::{ListenScope, SetName, SpreadRule};
use tcpgw_core::ruleset::room::Room;
use tcpgw_core::ruleset::rows::Rows;
use tcpgw_core::ruleset::skeleton::OptionalSets;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;
use tcpgw_kernel::RulesetIdentity;

/// Cached contents of the table, apart from the services themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CachedState {
    pub(super) identity: RulesetIdentity,
    pub(super) room: Room,
    /// Number of services with each width.
    pub(super) widths: BTreeMap<(ListenScope, SpreadRule), usize>,
    /// Number of elements of each set whose size is fixed, or that the rules look up only while it has some.
    pub(super) elements: BTreeMap<SetName, usize>,
    /// Number of services that preserve their clients' addresses.
    pub(super) preserving: usize,
}

impl CachedState {
    /// Returns the widths that services other than those of `ruleset` have.
    pub(super) fn widths_without(&self, ruleset: &Ruleset) -> BTreeSet<(ListenScope, SpreadRule)> {
        let own = widths(ruleset);
        let others = self
            .widths
            .iter()
            .filter(|(width, count)| **count > own.get(width).copied().unwrap_or(0));
        others.map(|(width, _)| *width).collect()
    }

    pub(super) fn count(&mut self, added: &Ruleset, removed: &Ruleset) {
        let (plus, minus) = (widths(added), widths(removed));
        for (width, count) in minus {
            if let Some(left) = self.widths.get_mut(&width) {
                *left = left.saturating_sub(count);
            }
        }
        for (width, count) in plus {
            *self.widths.entry(width).or_default() += count;
        }
        self.widths.retain(|_, count| *count > 0);
        let counts = |name: &SetName| name.is_optional() || Room::decides().contains(name);
        let names: BTreeSet<SetName> = added.sets().keys().chain(removed.sets().keys()).copied().collect();
        for name in names.into_iter().filter(counts) {
            let of = |ruleset: &Ruleset| ruleset.rows(name).map_or(0, Rows::len);
            let count = self.elements.entry(name).or_default();
            *count = (*count + of(added)).saturating_sub(of(removed));
        }
    }

    /// Returns the optional sets that the rules look up: those that have elements.
    pub(super) fn asked(&self) -> OptionalSets {
        let filled = self
            .elements
            .iter()
            .filter(|(name, count)| name.is_optional() && **count > 0);
        filled.map(|(name, _)| *name).collect()
    }
}

pub(super) fn widths(ruleset: &Ruleset) -> BTreeMap<(ListenScope, SpreadRule), usize> {
    let width = |(name, rows): (&SetName, &Rows)| match name {
        SetName::Spread(listen_scope, width) => Some(((*listen_scope, *width), rows.len())),
        _ => None,
    };
    ruleset.sets().iter().filter_map(width).collect()
}

/// Links and timeouts of the gateway that the table follows.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    pub(super) links: Links,
    pub(super) timeouts: KernelTimeouts,
}

pub(super) fn preserves(service: &Service) -> bool {
    service.source == SourceMode::Preserve
}
