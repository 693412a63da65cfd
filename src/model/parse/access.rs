//! Where a service listens and whom it lets in.

use std::collections::BTreeSet;

use ipnet::IpNet;

use super::value;
use crate::model::json::Json;
use crate::model::problem::{Place, Problems};
use crate::model::{Listen, address, network};

pub(super) fn listen(json: &Json, place: &Place<'_>, problems: &mut Problems) -> Option<Listen> {
    let items = value::list(json, "IP addresses", place, problems)?;
    if items.is_empty() {
        problems.add(place, "is empty; leave it out to listen on every local address");
        return None;
    }
    let mut addresses = BTreeSet::new();
    let mut is_good = true;
    for (i, item) in items.iter().enumerate() {
        let place = place.index(i);
        is_good &= match local_address(item, &place, problems) {
            Some(address) if addresses.insert(address) => true,
            Some(address) => {
                problems.add(&place, format_args!("{address} is given twice"));
                false
            }
            None => false,
        };
    }
    is_good.then_some(Listen::At(addresses))
}

pub(super) fn allow(json: &Json, place: &Place<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
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

pub(super) fn networks(json: &Json, place: &Place<'_>, problems: &mut Problems) -> Option<Vec<IpNet>> {
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

fn local_address(json: &Json, place: &Place<'_>, problems: &mut Problems) -> Option<std::net::IpAddr> {
    let text = value::string(json, "an IP address like \"192.0.2.1\"", place, problems)?;
    let address = address::parse(text).map_err(|error| problems.add(place, error)).ok()?;
    if let Some(kind) = address::refusal_as_local(address) {
        problems.add(
            place,
            format_args!("{address} is {kind}; must be an address of this machine that clients reach"),
        );
        return None;
    }
    Some(address)
}
