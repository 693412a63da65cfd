//! Checks of the routes of backends' answers to clients.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::super::facts::{CheapFacts, ClientOfService};
use super::super::finding::{Diagnosis, FindingSeverity, advice};
use super::client_groups::{ClientGroup, GroupedClients, state_of};
use super::forwarding::is_link_local;
use super::routes::is_private;
use super::text::some;
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;
use tcpgw_kernel::route::links::LinkDetails;

/// Reports answers without a route. They come in by the backends' interface, and policy routing may route them
/// differently from the gateway's own packets. A route that refuses may be intended, to block networks, or to keep
/// containers from the Internet.
pub(super) fn check(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    back_to_backends(facts, diagnosis);
    let Some(lost) = diagnosis.known("routes of answers", &facts.lost_answers) else {
        return;
    };
    let mut clients = GroupedClients::new(facts);
    for (of, passes) in [(&lost.clients, false), (&lost.reached, true)] {
        for client in of {
            clients.add(*client, passes);
        }
    }
    let mut by_family: BTreeMap<Family, Vec<&SocketAddr>> = BTreeMap::new();
    for backend in &lost.backends {
        by_family.entry(Family::of(backend.ip())).or_default().push(backend);
    }
    let others = lost.clients.iter();
    let others = others.filter(|client| !by_family.contains_key(&Family::of(client.client)));
    let mut found = answers_to_clients(facts, &clients, others);
    for (family, backends) in by_family {
        let of_family = |client: &&ClientOfService| Family::of(client.client) == family;
        let is_dead = |client: &ClientOfService| clients.dead_group_of(*client).is_some();
        let is_any_reached = lost.reached.iter().any(|client| of_family(&client));
        found.push((
            !is_any_reached || lost.clients.iter().filter(of_family).any(is_dead),
            format!(
                "answers of {} have no route to clients far away, or one that refuses: {}",
                count(backends.len(), "backend"),
                some(&backends)
            ),
            "answers of these backends are dropped; the gateway's own packets have a route, so it is a rule of policy routing \
             that stops them",
        ));
    }
    for (is_broken, seen, cause) in found {
        diagnosis.found(
            "answers-without-route",
            if is_broken { FindingSeverity::Broken } else { FindingSeverity::Warning },
            seen,
            cause.into(),
            Some(advice(
                "see `ip rule` and `ip route show table all` (with `-6` for IPv6) for rules with `iif`, `from`, `ipproto` or `sport`, and for routes that say blackhole, \
                 unreachable or prohibit; give the rule's table a default route",
            )),
        );
    }
}

/// Returns what is found about lost clients, for each group of which all are lost and for the others: whether it is
/// broken, what was seen, and the cause.
fn answers_to_clients<'a>(
    facts: &CheapFacts,
    clients: &GroupedClients<'_>,
    lost: impl Iterator<Item = &'a ClientOfService>,
) -> Vec<(bool, String, &'static str)> {
    let mut by_group: BTreeMap<Option<ClientGroup>, BTreeSet<&ClientOfService>> = BTreeMap::new();
    for client in lost {
        by_group
            .entry(clients.dead_group_of(*client))
            .or_default()
            .insert(client);
    }
    let is_recent = |client: &ClientOfService| {
        let mut of = state_of(facts, *client).peekable();
        of.peek().is_none() || of.any(|of| of.is_recent)
    };
    by_group.retain(|dead, lost| dead.is_some() || lost.iter().any(|client| is_recent(client)));
    let found = by_group.into_iter().map(|(dead, lost)| {
        let lost: BTreeSet<IpAddr> = lost.into_iter().map(|client| client.client).collect();
        let seen = format!(
            "answers to {} of {} that were served a moment ago have no route, or one that refuses or leads to the gateway itself: {}",
            lost.len(),
            clients.size(dead.unwrap_or(ClientGroup::ALL)),
            some(&lost)
        );
        let cause = "answers of backends to them are dropped, unless these networks are to be blocked";
        (dead.is_some(), seen, cause)
    });
    found.collect()
}

/// Reports a route to remote clients that leads from the backends' link to another host there, though clients have another link by
/// which they come in. Where clients come by the same link, a router there is right.
fn back_to_backends(facts: &CheapFacts, diagnosis: &mut Diagnosis) {
    let (Ok(backend_routes), Ok(answers), Ok(links)) = (&facts.backend_routes, &facts.answers, &facts.links) else {
        return;
    };
    for family in Family::BOTH {
        let of_family = backend_routes
            .iter()
            .filter(|(address, _)| Family::of(**address) == family);
        let ways = of_family.filter_map(|(_, way)| way.as_ref());
        let on_link = ways.filter(|way| way.gateway.is_none() && !way.local && !way.shared);
        let inner: BTreeSet<u32> = on_link.map(|way| way.index).collect();
        let mut of_answers = answers.iter().filter(|((of, _), _)| *of == family);
        let back = of_answers.find_map(|(_, way)| {
            let way = way.as_ref().filter(|way| inner.contains(&way.index))?;
            Some((way.index, way.gateway?))
        });
        let Some((index, router)) = back else { continue };
        let is_of_clients = |address: &IpAddr| {
            Family::of(*address) == family
                && !address.is_loopback()
                && !is_link_local(*address)
                && !is_private(*address)
        };
        let outer = links.iter().find(|link| {
            let mut addresses = link.addresses.iter().map(|(address, _)| address);
            link.up && !link.loopback && !inner.contains(&link.index) && addresses.any(is_of_clients)
        });
        let has_clients = |link: &LinkDetails| link.addresses.iter().any(|(address, _)| is_of_clients(address));
        // Where backends and clients are on one link, this is the route to its router.
        if facts.link(index).is_some_and(has_clients) {
            continue;
        }
        let is_backend = facts
            .services
            .services
            .iter()
            .any(|service| service.backends().any(|of| of.ip() == router));
        let is_inside = is_backend || is_private(router) || is_link_local(router);
        let Some(outer) = outer.filter(|_| is_inside) else {
            continue;
        };
        let (v6, any) = match family {
            Family::V4 => ("", "0.0.0.0/0"),
            Family::V6 => (" -6", "::/0"),
        };
        let name = facts.link(index).map_or("an interface", |link| link.name.as_str());
        let (severity, what) = if is_backend {
            (FindingSeverity::Broken, "a backend")
        } else {
            (FindingSeverity::Warning, "a host beside the backends")
        };
        diagnosis.found(
            "answers-without-route",
            severity,
            format!(
                "the route to remote clients ({any}) leads back to the backends: by {name} to {router}, {what}, though {} has a public address",
                outer.name
            ),
            "answers of backends to clients do not arrive, unless that host is a router that passes them on".into(),
            Some(advice(format!(
                "see `ip{v6} route`, and give the route back the router of {}: `ip{v6} route replace default via ROUTER dev {}`",
                outer.name, outer.name
            ))),
        );
    }
}
