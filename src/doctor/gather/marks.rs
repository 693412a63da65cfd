//! Routes of packets that other programs' rules have marked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::facts::CheapFacts;
use super::route_query::{far, ports_from, ports_to};
use tcpgw_core::ruleset::name::Family;
use tcpgw_kernel::firewall::RuleEffect;
use tcpgw_kernel::netlink::error::NetlinkError;
use tcpgw_kernel::route::{IncomingRoute, Routes};

/// Maximum number of marks that are examined.
const MOST_MARKS: usize = 32;

/// Looks up the routes of packets with each mark that a rule writes: to one backend behind each interface, and back.
/// Returns the marks that are refused.
pub(super) fn refused_marks(facts: &CheapFacts) -> Result<BTreeSet<(Family, bool, u32)>, NetlinkError> {
    let mut refused = BTreeSet::new();
    let marks = written(facts);
    let (Ok(backend_routes), false) = (&facts.backend_routes, marks.is_empty()) else {
        return Ok(refused);
    };
    let mut routes = Routes::open()?;
    let mut distinct = BTreeSet::new();
    let backends: BTreeMap<IpAddr, u16> = facts.backends().map(|backend| (backend.ip(), backend.port())).collect();
    for (address, way) in backend_routes {
        let family = Family::of(*address);
        let Some(way) = way
            .as_ref()
            .filter(|way| !way.local && distinct.insert((family, way.index)))
        else {
            continue;
        };
        let inputs = inputs(facts, family, &distinct);
        let to_backends = inputs.into_iter().map(|input| (false, *address, far(family), input));
        for (reply, to, from, input) in to_backends.chain([(true, far(family), *address, way.index)]) {
            let port = backends.get(address).copied();
            let ports = port.map(if reply { ports_from } else { ports_to });
            if !matches!(routes.incoming_route(to, from, input, ports)?, IncomingRoute::Goes(_)) {
                continue;
            }
            for mark in &marks {
                if !matches!(
                    routes.incoming_route_marked(to, from, input, ports, Some(*mark))?,
                    IncomingRoute::Goes(_)
                ) {
                    refused.insert((family, reply, *mark));
                }
            }
        }
    }
    Ok(refused)
}

fn written(facts: &CheapFacts) -> BTreeSet<u32> {
    let effects = facts
        .known_chains()
        .flatten()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.effects);
    let marks = effects.flat_map(|effect| match effect {
        RuleEffect::PacketMark(write) => write.all_of_zero(),
        _ => Vec::new(),
    });
    marks.filter(|mark| *mark != 0).take(MOST_MARKS).collect()
}

/// Returns the interfaces by which clients come in: that of the route to remote clients, or if there is none, those
/// with addresses that lead to no backend.
fn inputs(facts: &CheapFacts, family: Family, inside: &BTreeSet<(Family, u32)>) -> Vec<u32> {
    let far = facts.client_routes.as_ref().ok();
    if let Some(far) = far.and_then(|backend_routes| backend_routes.get(&(family, None))?.as_ref()) {
        return vec![far.index];
    }
    let is_of_family = |(address, _): &(IpAddr, u8)| Family::of(*address) == family;
    let links = facts.links.iter().flatten().filter(|link| link.up && !link.loopback);
    links
        .filter(|link| link.addresses.iter().any(is_of_family) && !inside.contains(&(family, link.index)))
        .map(|link| link.index)
        .collect()
}
