//! Clients that were served, in groups: those of one address family, of one service, or of both.
//!
//! Clients of another family or service come by other addresses, ports and routes: that they are served shows nothing about a
//! group of which everybody is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::super::facts::{CheapFacts, ClientOfService, ServedClient};
use tcpgw_core::ruleset::name::Family;
use tcpgw_core::words::count;

/// Number of clients whose packets would be lost which shows an outage, if nobody else of their group is served.
pub(super) const SEVERAL_CLIENTS: usize = 3;

/// Clients of one family, of one service (by its position), of both, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClientGroup {
    family: Option<Family>,
    service: Option<usize>,
}

impl ClientGroup {
    /// The group of all clients.
    pub(super) const ALL: Self = Self {
        family: None,
        service: None,
    };
}

/// The clients of a group.
#[derive(Debug, Default)]
struct GroupMembers {
    reached: BTreeSet<IpAddr>,
    lost: BTreeSet<IpAddr>,
    /// Lost clients that are not considered banned.
    unbanned: BTreeSet<IpAddr>,
}

/// Clients in all groups that they belong to.
#[derive(Debug)]
pub(super) struct GroupedClients<'a> {
    facts: &'a CheapFacts,
    groups: BTreeMap<ClientGroup, GroupMembers>,
}

impl<'a> GroupedClients<'a> {
    pub(super) const fn new(facts: &'a CheapFacts) -> Self {
        Self {
            facts,
            groups: BTreeMap::new(),
        }
    }

    /// Adds a client, by one of its connections. A client is reached if packets of any of them pass.
    pub(super) fn add(&mut self, of: ClientOfService, passes: bool) {
        let Some(ClientGroup { family, service }) = self.group_of(of) else {
            return;
        };
        let is_banned = !passes && state_of(self.facts, of).any(|client| client.is_banned);
        for family in [family, None] {
            for service in [service, None] {
                let members = self.groups.entry(ClientGroup { family, service }).or_default();
                if passes {
                    members.reached.insert(of.client);
                } else {
                    members.lost.insert(of.client);
                    if !is_banned {
                        members.unbanned.insert(of.client);
                    }
                }
            }
        }
    }

    /// Returns the number of all clients of a group with what they are: `12 IPv4 clients of web :8000`.
    pub(super) fn size(&self, group: ClientGroup) -> String {
        let members = self.groups.get(&group);
        let number = members.map_or(0, |members| members.lost.union(&members.reached).count());
        let clients = match group.family {
            Some(Family::V4) => count(number, "IPv4 client"),
            Some(Family::V6) => count(number, "IPv6 client"),
            None => count(number, "client"),
        };
        let service = group.service.and_then(|at| self.facts.services.services.get(at));
        let Some(service) = service else { return clients };
        let name = service.name.as_deref().map(|name| format!("{name} "));
        format!("{clients} of {}:{}", name.unwrap_or_default(), service.port)
    }

    /// Returns whether no packet of this client in its smallest group passes.
    pub(super) fn is_lost(&self, of: ClientOfService) -> bool {
        let members = self.group_of(of).and_then(|group| self.groups.get(&group));
        members.is_some_and(|members| members.lost.contains(&of.client) && !members.reached.contains(&of.client))
    }

    /// Returns the largest group with this client of which all are lost, and not by a ban.
    pub(super) fn dead_group_of(&self, of: ClientOfService) -> Option<ClientGroup> {
        let ClientGroup { family, service } = self.group_of(of)?;
        let groups = [(None, None), (family, None), (None, service), (family, service)];
        let mut groups = groups
            .map(|(family, service)| ClientGroup { family, service })
            .into_iter();
        groups.find(|group| {
            let members = self.groups.get(group);
            members.is_some_and(|members| members.reached.is_empty() && members.unbanned.len() >= SEVERAL_CLIENTS)
        })
    }

    /// Returns the smallest group of a client; `None` if the service is gone.
    fn group_of(&self, of: ClientOfService) -> Option<ClientGroup> {
        Some(ClientGroup {
            family: Some(Family::of(of.client)),
            service: Some(self.facts.services.position_at(of.public)?),
        })
    }
}

/// Returns what is remembered of a client of a service: one for each backend.
pub(super) fn state_of(facts: &CheapFacts, of: ClientOfService) -> impl Iterator<Item = &ServedClient> {
    facts.served.iter().filter(move |client| client.of_service() == of)
}
