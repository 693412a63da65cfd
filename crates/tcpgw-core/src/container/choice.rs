//! The addresses and the port at which the gateway reaches a container.

use std::net::IpAddr;
use std::num::NonZeroU16;

use super::labels::label;
use super::value::{Container, ContainerNetwork, ShownName};
use crate::model::{Endpoint, address};

const COMPOSE_PROJECT: &str = "com.docker.compose.project";
/// Largest number of names that a message lists.
const MAX_NAMES: usize = 8;

/// Returns the endpoints of a container that runs, one for each of its addresses in the network. `target`: its port, where a label
/// says it.
///
/// # Errors
///
/// Fails with the reason why it has none.
pub(super) fn endpoints(container: &Container, target: Option<NonZeroU16>) -> Result<Vec<Endpoint>, String> {
    let network = network(container)?;
    let port = target.map_or_else(|| only_port(container), Ok)?;
    if network.addresses.is_empty() {
        return Err(format!("has no address in network {}", ShownName(&network.name)));
    }
    for at in &network.addresses {
        if let Some(kind) = address::refusal_as_backend(*at) {
            return Err(format!(
                "its address {at} in network {} is {kind}",
                ShownName(&network.name)
            ));
        }
    }
    let mut addresses: Vec<IpAddr> = network.addresses.clone();
    addresses.sort_unstable();
    addresses.dedup();
    Ok(addresses
        .into_iter()
        .map(|address| Endpoint { address, port })
        .collect())
}

/// Returns the network that the label names, or else the only one that can be used.
fn network(container: &Container) -> Result<&ContainerNetwork, String> {
    if let Some(wanted) = label(container, "network") {
        let project = container.labels.get(COMPOSE_PROJECT);
        // Compose puts the project in front of the names in its file.
        let long = project.map(|project| format!("{project}_{wanted}"));
        let find = |name: &str| container.networks.iter().find(|network| *network.name == *name);
        let found = find(wanted).or_else(|| find(long.as_deref()?));
        let Some(network) = found else {
            let all = listed(container.networks.iter().map(|network| &*network.name));
            return Err(format!(
                "tcpgw.network: it is in no network {}; it is in {all}",
                ShownName(wanted)
            ));
        };
        return match network.reach.obstacle() {
            Some(why) => Err(format!(
                "tcpgw.network: {} cannot be used: {why}",
                ShownName(&network.name)
            )),
            None => Ok(network),
        };
    }
    let usable: Vec<&ContainerNetwork> = container
        .networks
        .iter()
        .filter(|network| network.reach.obstacle().is_none())
        .collect();
    match (usable.as_slice(), container.networks.first()) {
        ([network], _) => Ok(network),
        ([], None) => Err("it is in no network".to_owned()),
        ([], Some(first)) => Err(format!(
            "{} (network {}); attach it to a bridge network of this machine",
            first.reach.obstacle().unwrap_or("it is in no network"),
            ShownName(&first.name)
        )),
        _ => Err(format!(
            "it is in several networks: {}; set tcpgw.network to the one that the gateway is to use",
            listed(usable.iter().map(|network| &*network.name))
        )),
    }
}

fn only_port(container: &Container) -> Result<NonZeroU16, String> {
    let mut exposed = container.exposed.iter();
    match (exposed.next(), exposed.len()) {
        (Some(port), 0) => Ok(*port),
        (None, _) => Err("it exposes no TCP port; set tcpgw.target to the port that it listens on".to_owned()),
        (Some(_), _) => {
            let ports: Vec<String> = container
                .exposed
                .iter()
                .take(MAX_NAMES)
                .map(ToString::to_string)
                .collect();
            let more = if container.exposed.len() > MAX_NAMES {
                ", ..."
            } else {
                ""
            };
            Err(format!(
                "it exposes several TCP ports: {}{more}; set tcpgw.target to the one that the service is for",
                ports.join(", ")
            ))
        }
    }
}

fn listed<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    let more = if names.len() > MAX_NAMES { ", ..." } else { "" };
    let shown: Vec<String> = names.take(MAX_NAMES).map(|name| ShownName(name).to_string()).collect();
    if shown.is_empty() {
        return "none".to_owned();
    }
    format!("{}{more}", shown.join(", "))
}
