//! Calls `each` with every difference between two summaries, sorted by port and addresses.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::diff::change::{BackendChange, BackendChangeKind, ServiceChange, ServiceChangeKind};
use crate::diff::settings::{described, setting_changes};
use crate::summary::{ServiceSummary, Summary};

pub(super) fn for_each(
    old: &Summary,
    new: &Summary,
    flows: &BTreeMap<(u16, SocketAddr), u64>,
    mut each: impl FnMut(ServiceChange),
) {
    let (mut olds, mut news) = (old.services.iter().peekable(), new.services.iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => return,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some(a), Some(b)) => a.listen_key().cmp(&b.listen_key()),
        };
        let a = if order.is_le() { olds.next() } else { None };
        let b = if order.is_ge() { news.next() } else { None };
        if a != b
            && let Some(change) = change(a, b, flows)
        {
            each(change);
        }
    }
}

fn change(
    old: Option<&ServiceSummary>,
    new: Option<&ServiceSummary>,
    flows: &BTreeMap<(u16, SocketAddr), u64>,
) -> Option<ServiceChange> {
    let service = new.or(old)?;
    let name = new
        .and_then(|new| new.name.as_deref())
        .or_else(|| old.and_then(|old| old.name.as_deref()));
    let backends = backend_changes(old, new, flows);
    let settings = match (old, new) {
        (Some(old), Some(new)) => {
            let mut words = setting_changes(&old.settings, &new.settings);
            if let (Some(before), Some(after)) = (&old.name, &new.name)
                && before != after
            {
                words.insert(0, format!("name {before} -> {after}"));
            }
            words
        }
        (None, Some(new)) => described(&new.settings),
        _ => Vec::new(),
    };
    let kind = match (old, new) {
        (None, _) => ServiceChangeKind::Added,
        (_, None) => ServiceChangeKind::Removed,
        // A name that only one side knows is not a change.
        _ if backends.is_empty() && settings.is_empty() => return None,
        _ => ServiceChangeKind::Changed,
    };
    Some(ServiceChange {
        kind,
        name: name.map(str::to_owned),
        port: service.port,
        addresses: service.addresses.iter().copied().collect(),
        flows: backends.iter().map(|backend| backend.flows).sum(),
        backends,
        settings,
    })
}

fn backend_changes(
    old: Option<&ServiceSummary>,
    new: Option<&ServiceSummary>,
    flows: &BTreeMap<(u16, SocketAddr), u64>,
) -> Vec<BackendChange> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Is {
        Active(u16),
        Draining,
    }
    let states = |service: Option<&ServiceSummary>| -> BTreeMap<SocketAddr, Is> {
        let active = service
            .into_iter()
            .flat_map(|s| s.active.iter().map(|(b, weight)| (*b, Is::Active(*weight))));
        let draining = service
            .into_iter()
            .flat_map(|s| s.draining.iter().map(|b| (*b, Is::Draining)));
        active.chain(draining).collect()
    };
    // The kernel knows slots, not weights: compare shares, not numbers.
    let one_is_bare = old.is_some_and(|old| old.name.is_none());
    let (before, after) = (states(old), states(new));
    let port = old.or(new).map_or(0, |service| service.port);
    let mut changes = Vec::new();
    for (backend, is) in &after {
        let (change, weight) = match (before.get(backend), is) {
            (None, Is::Active(weight)) => (BackendChangeKind::Added, Some(*weight)),
            (Some(Is::Draining), Is::Active(weight)) => (BackendChangeKind::Active, Some(*weight)),
            (Some(Is::Active(_)), Is::Draining) => (BackendChangeKind::Draining, None),
            (None, Is::Draining) if !one_is_bare => (BackendChangeKind::Draining, None),
            (Some(Is::Active(a)), Is::Active(b)) if a != b && !one_is_bare => (BackendChangeKind::Weight, Some(*b)),
            _ => continue,
        };
        changes.push(BackendChange {
            backend: *backend,
            change,
            weight,
            flows: 0,
        });
    }
    for (backend, is) in before.iter().filter(|(backend, _)| !after.contains_key(backend)) {
        let weight = if let Is::Active(weight) = is {
            Some(*weight)
        } else {
            None
        };
        let flows = flows.get(&(port, *backend)).copied().unwrap_or(0);
        changes.push(BackendChange {
            backend: *backend,
            change: BackendChangeKind::Removed,
            weight,
            flows,
        });
    }
    changes
}
