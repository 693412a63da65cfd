//! Addresses that a service listens on, and clients that it admits.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

use super::value;
use crate::model::json::Json;
use crate::model::problem::{InputProblems, JsonPath};
use crate::model::{Listen, address, network};

/// Largest number of `source_addresses` of one family.
pub const MAX_SOURCE_ADDRESSES: usize = 16;

pub(super) fn listen(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Listen> {
    let empty = "is empty; leave it out to listen on every local address";
    let local = "must be an address of this machine that clients reach";
    addresses(json, (empty, local), place, problems).map(Listen::At)
}

pub(super) fn sources(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<BTreeSet<IpAddr>> {
    let empty = "is empty; leave it out to masquerade";
    let local = "must be an address of this machine that backends answer to";
    let addresses = addresses(json, (empty, local), place, problems)?;
    let v4 = addresses.iter().filter(|address| address.is_ipv4()).count();
    let most = v4.max(addresses.len() - v4);
    if most > MAX_SOURCE_ADDRESSES {
        problems.add(
            place,
            format_args!("has {most} addresses of one family; at most {MAX_SOURCE_ADDRESSES} are accepted"),
        );
        return None;
    }
    Some(addresses)
}

fn addresses(
    json: &Json,
    (empty, local): (&str, &str),
    place: &JsonPath<'_>,
    problems: &mut InputProblems,
) -> Option<BTreeSet<IpAddr>> {
    let items = value::list(json, "IP addresses", place, problems)?;
    if items.is_empty() {
        problems.add(place, empty);
        return None;
    }
    let mut addresses = BTreeSet::new();
    let mut is_good = true;
    for (i, item) in items.iter().enumerate() {
        let place = place.index(i);
        is_good &= match local_address(item, local, &place, problems) {
            Some(address) if addresses.insert(address) => true,
            Some(address) => {
                problems.add(&place, format_args!("{address} is given twice"));
                false
            }
            None => false,
        };
    }
    is_good.then_some(addresses)
}

pub(super) fn allow(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Vec<IpNet>> {
    let networks = networks(json, place, problems)?;
    if networks.is_empty() {
        problems.add(
            place,
            "is empty, which would refuse everyone; leave it out to allow everyone",
        );
        return None;
    }
    Some(networks)
}

pub(super) fn networks(json: &Json, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<Vec<IpNet>> {
    let items = value::list(json, "networks", place, problems)?;
    let mut networks = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let place = place.index(i);
        let Some(text) = value::string(item, "a network like \"10.0.0.0/8\"", &place, problems) else {
            continue;
        };
        match network::parse(text) {
            Ok(network) => networks.push(network),
            Err(error) => problems.add(&place, error),
        }
    }
    (networks.len() == items.len()).then(|| network::aggregate(&networks))
}

fn local_address(json: &Json, local: &str, place: &JsonPath<'_>, problems: &mut InputProblems) -> Option<IpAddr> {
    let text = value::string(json, "an IP address like \"192.0.2.1\"", place, problems)?;
    let address = address::parse(text).map_err(|error| problems.add(place, error)).ok()?;
    if let Some(kind) = address::refusal_as_local(address) {
        problems.add(place, format_args!("{address} is {kind}; {local}"));
        return None;
    }
    Some(address)
}
