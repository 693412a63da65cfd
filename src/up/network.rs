//! The network of an app: an address of the gateway's for it, and for each process a pair of links, one end here and one in the
//! namespace of the process, with a route to the address of the process.
//!
//! No two processes share a link, so that no frame of one reaches another; what is routed between them is up to the
//! [rules](super::egress). There is no bridge: where `br_netfilter` is on, as beside Docker, a bridge translates the destination of a
//! frame itself and hands it on to the port of another process, past whatever keeps its ports apart. Names of links follow from
//! the app's id, so that what was left behind is found without a record, and their aliases say [whose](super::owner) they are. Works in the network namespace of the calling thread.
//!
//! Sources: `net/bridge/br_netfilter_hooks.c` (`br_nf_pre_routing_finish`), `net/ipv4/devinet.c` (`inet_select_addr`).

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use ipnet::Ipv4Net;
use netlink_packet_route::address::AddressAttribute;
use netlink_packet_route::link::{InfoData, InfoVeth, LinkAttribute, LinkMessage};
use netlink_packet_route::neighbour::NeighbourState;
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteScope};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection};
use thiserror::Error;
use tokio_stream::StreamExt as _;

use super::id::AppId;
use super::owner::UpOwner;
use crate::app_link;
use tcpgw_core::model::duration;

/// The length of the prefix of an app's network.
pub const PREFIX: u8 = 24;
/// The networks of apps are part of this one.
const POOL: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 213, 0, 0), 16);
/// Name of the link inside a process's network namespace.
const INNER: &str = "eth0";
/// Maximum time for an answer of the kernel.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reason why the network could not be set up or read.
#[derive(Debug, Error)]
pub enum NetworkSetupError {
    /// No netlink socket could be opened.
    #[error("failed to open a netlink socket: {0}")]
    Open(#[source] std::io::Error),
    /// The kernel refused, or did not answer.
    #[error("failed to {what}: {why}")]
    Kernel {
        /// Operation that failed.
        what: String,
        /// Answer of the kernel.
        why: String,
    },
    /// All networks are in use.
    #[error("no network of {POOL} is free for the app: each has an address or a route that this machine uses")]
    NoNetwork,
}

/// Owner of an app's links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkOwner {
    /// The app has no links.
    NoLinks,
    /// A `tcpgw up` that lives, or may live, with this process number.
    Living(u32),
    /// A `tcpgw up` that has ended.
    Ended,
    /// Not known: the links were made a moment ago, or by an earlier version.
    Unknown,
}

/// Values that the link of a process to the app's network is made from.
#[derive(Debug, Clone, Copy)]
pub struct ProcessLink {
    /// Number of its link.
    pub number: u32,
    /// Id of a process in its network namespace.
    pub pid: u32,
    /// The app's network.
    pub network: Ipv4Net,
    /// Address of the process.
    pub address: Ipv4Addr,
}

/// Access to links, addresses and routes of the network namespace of this thread.
#[derive(Debug)]
pub struct Network {
    runtime: tokio::runtime::Runtime,
    handle: Handle,
}

impl Network {
    /// Opens a connection to the kernel, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// Fails with [`NetworkSetupError::Open`] when no netlink socket can be opened.
    pub fn open() -> Result<Self, NetworkSetupError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(NetworkSetupError::Open)?;
        let guard = runtime.enter();
        let (connection, handle, _) = new_connection().map_err(NetworkSetupError::Open)?;
        tokio::spawn(connection);
        drop(guard);
        Ok(Self { runtime, handle })
    }

    fn wait<T>(
        &self,
        what: &str,
        ask: impl Future<Output = Result<T, rtnetlink::Error>>,
    ) -> Result<T, NetworkSetupError> {
        let kernel = |why: String| NetworkSetupError::Kernel {
            what: what.to_owned(),
            why,
        };
        let answer = self
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE, ask).await });
        answer
            .map_err(|_| kernel(format!("no answer within {}", duration::show(PATIENCE))))?
            .map_err(|error| kernel(error.to_string()))
    }

    fn links(&self) -> Result<Vec<LinkMessage>, NetworkSetupError> {
        let links = async { self.handle.link().get().execute().collect::<Result<Vec<_>, _>>().await };
        self.wait("list links", links)
    }

    fn index_of(&self, name: &str) -> Result<Option<u32>, NetworkSetupError> {
        let links = self.links()?;
        let found = links.iter().find(|link| name_of(link) == Some(name));
        Ok(found.map(|link| link.header.index))
    }

    /// Returns a free network of the pool, that of the app's number if it can be.
    ///
    /// # Errors
    /// Fails when every network of the pool is in use, or the kernel does not list links, addresses or routes.
    pub fn choose(&self, id: &AppId) -> Result<Ipv4Net, NetworkSetupError> {
        let used = self.used()?;
        let networks: Vec<Ipv4Net> = POOL.subnets(PREFIX).into_iter().flatten().collect();
        let first = usize::try_from(id.number()).unwrap_or_default() % networks.len().max(1);
        let (after, from) = networks.split_at(first);
        let mut candidates = from.iter().chain(after);
        let is_free = |one: &&Ipv4Net| {
            let overlaps = |other: &Ipv4Net| other.contains(*one) || one.contains(other);
            !used.iter().any(overlaps)
        };
        candidates.find(is_free).copied().ok_or(NetworkSetupError::NoNetwork)
    }

    /// Addresses and destinations of routes, but the default one.
    fn used(&self) -> Result<Vec<Ipv4Net>, NetworkSetupError> {
        let addresses = async {
            self.handle
                .address()
                .get()
                .execute()
                .collect::<Result<Vec<_>, _>>()
                .await
        };
        let addresses = self.wait("list addresses", addresses)?;
        let of_address = addresses.iter().flat_map(|message| {
            let attributes = message.attributes.iter();
            attributes.filter_map(|attribute| match attribute {
                AddressAttribute::Address(std::net::IpAddr::V4(address))
                | AddressAttribute::Local(std::net::IpAddr::V4(address)) => Some(Ipv4Net::from(*address)),
                _ => None,
            })
        });
        let every = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let routes = async {
            self.handle
                .route()
                .get(every)
                .execute()
                .collect::<Result<Vec<_>, _>>()
                .await
        };
        let routes = self.wait("list routes", routes)?;
        let of_route = routes.iter().filter_map(|route| {
            let length = route.header.destination_prefix_length;
            let destination = route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
                _ => None,
            })?;
            Ipv4Net::new(destination, length).ok()
        });
        Ok(of_address.chain(of_route).collect())
    }

    /// Gives the gateway the first address of the network, on a link of its own.
    ///
    /// # Errors
    /// Fails when the kernel refuses the links or the address, or does not answer.
    pub fn add_gateway(&self, id: &AppId, owner: &UpOwner, network: Ipv4Net) -> Result<(), NetworkSetupError> {
        // A pair of which both ends are here: unlike links of other kinds it is needed for the processes anyway.
        let name = gateway_name(id);
        let peer = link_name(id, 0);
        self.add_pair(
            &name,
            LinkMessageBuilder::<LinkUnspec>::new().name(peer.as_str()).build(),
        )?;
        let index = self.must_find(&name)?;
        for index in [index, self.must_find(&peer)?] {
            let up = owned(LinkUnspec::new_with_index(index), owner).up().build();
            self.wait("switch a link on", self.handle.link().set(up).execute())?;
        }
        let address = gateway_of(network).into();
        let add = self.handle.address().add(index, address, PREFIX).execute();
        self.wait("give the gateway its address", add)
    }

    fn add_pair(&self, name: &str, peer: LinkMessage) -> Result<(), NetworkSetupError> {
        let pair = LinkMessageBuilder::<LinkVeth>::new(name, INNER)
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        self.wait("make a pair of links", self.handle.link().add(pair).execute())
    }

    fn must_find(&self, name: &str) -> Result<u32, NetworkSetupError> {
        self.index_of(name)?.ok_or_else(|| NetworkSetupError::Kernel {
            what: format!("find the link {name}"),
            why: "it is not there".into(),
        })
    }

    /// Makes the links of a process, one of them in its network namespace, and the route to its address.
    ///
    /// # Errors
    /// Fails when the kernel refuses a link, an address or the route, for example because the process has ended, or
    /// does not answer.
    pub fn add_process(&self, id: &AppId, owner: &UpOwner, link: ProcessLink) -> Result<(), NetworkSetupError> {
        let ProcessLink {
            number,
            pid,
            network,
            address,
        } = link;
        let name = link_name(id, number);
        let inner = LinkMessageBuilder::<LinkUnspec>::new()
            .name(INNER)
            .address(inner_mac(address).to_vec())
            .setns_by_pid(pid)
            .build();
        self.add_pair(&name, inner)?;
        let index = self.must_find(&name)?;
        let outer = owned(LinkUnspec::new_with_index(index), owner)
            .address(outer_mac(address).to_vec())
            .up()
            .build();
        self.wait("switch a link on", self.handle.link().set(outer).execute())?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .pref_source(gateway_of(network))
            .build();
        self.wait("set the route to a process", self.handle.route().add(route).execute())?;
        self.add_neighbour(index, address, inner_mac(address))
    }

    /// Adds a permanent neighbour entry, so that no ARP request is needed, whatever `arp_ignore` says.
    fn add_neighbour(&self, link: u32, address: Ipv4Addr, mac: [u8; 6]) -> Result<(), NetworkSetupError> {
        let neighbour = self.handle.neighbours().add(link, address.into());
        let neighbour = neighbour.link_layer_address(&mac).state(NeighbourState::Permanent);
        self.wait("note the hardware address of a neighbour", neighbour.execute())
    }

    /// Removes the links of a process, if they are there.
    ///
    /// # Errors
    /// Fails when the kernel does not remove the link, or does not answer.
    pub fn remove_process(&self, id: &AppId, number: u32) -> Result<(), NetworkSetupError> {
        match self.index_of(&link_name(id, number))? {
            Some(index) => self.remove(index),
            None => Ok(()),
        }
    }

    /// Returns the owner of the links of each app that has some here, by the app's id.
    ///
    /// # Errors
    /// Fails when the kernel does not list the links.
    pub fn apps(&self) -> Result<BTreeMap<String, LinkOwner>, NetworkSetupError> {
        let mut apps = BTreeMap::new();
        for link in self.links()? {
            let Some(id) = name_of(&link).and_then(app_link::app_of) else {
                continue;
            };
            let owner = alias_of(&link).and_then(|alias| alias.parse::<UpOwner>().ok());
            let one = match owner {
                Some(owner) if owner.lives() => LinkOwner::Living(owner.pid),
                Some(_) => LinkOwner::Ended,
                None => LinkOwner::Unknown,
            };
            let all = apps.entry(id.to_owned()).or_insert(one);
            *all = match (*all, one) {
                (LinkOwner::Living(pid), _) | (_, LinkOwner::Living(pid)) => LinkOwner::Living(pid),
                (LinkOwner::Unknown, _) | (_, LinkOwner::Unknown) => LinkOwner::Unknown,
                _ => LinkOwner::Ended,
            };
        }
        Ok(apps)
    }

    /// Returns the owner of the links of the app with this id.
    ///
    /// # Errors
    /// Fails when the kernel does not list the links.
    pub fn link_owner(&self, id: &str) -> Result<LinkOwner, NetworkSetupError> {
        Ok(self.apps()?.get(id).copied().unwrap_or(LinkOwner::NoLinks))
    }

    /// Returns whether an address is in the pool of addresses of apps.
    pub fn is_of_apps(address: IpAddr) -> bool {
        matches!(address, IpAddr::V4(address) if POOL.contains(&address))
    }

    /// Removes all links of an app, and with them their addresses and routes; returns their number.
    ///
    /// # Errors
    /// Fails when the kernel does not list the links, or does not remove one of them.
    pub fn remove_all(&self, id: &AppId) -> Result<usize, NetworkSetupError> {
        let (gateway, processes) = (gateway_name(id), link_prefix(id));
        let is_its = |name: &str| name == gateway || name.starts_with(&processes);
        let all = self.links()?;
        let its: Vec<u32> = all
            .iter()
            .filter(|link| name_of(link).is_some_and(is_its))
            .map(|link| link.header.index)
            .collect();
        for index in &its {
            self.remove(*index)?;
        }
        Ok(its.len())
    }

    fn remove(&self, index: u32) -> Result<(), NetworkSetupError> {
        match self.wait("remove a link", self.handle.link().del(index).execute()) {
            // The kernel has removed the link with the namespace of its peer.
            Err(_) if !self.links()?.iter().any(|link| link.header.index == index) => Ok(()),
            other => other,
        }
    }
}

/// Sets up the calling thread's network namespace: loopback, the process's address, and the route to the outside.
///
/// # Errors
/// Fails when no netlink socket can be opened, the link to the machine is missing, or the kernel refuses an address or
/// a route.
pub fn set_up_inside(address: Ipv4Addr, gateway: Ipv4Addr) -> Result<(), NetworkSetupError> {
    let network = Network::open()?;
    for name in ["lo", INNER] {
        let up = LinkUnspec::new_with_index(network.must_find(name)?).up().build();
        network.wait("switch a link on", network.handle.link().set(up).execute())?;
    }
    let index = network.must_find(INNER)?;
    let add = network.handle.address().add(index, address.into(), 32).execute();
    network.wait("give the process its address", add)?;
    network.add_neighbour(index, gateway, outer_mac(address))?;
    let near = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(gateway, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    network.wait(
        "set the route to the gateway",
        network.handle.route().add(near).execute(),
    )?;
    let out = RouteMessageBuilder::<Ipv4Addr>::new().gateway(gateway).build();
    network.wait("set the way out", network.handle.route().add(out).execute())
}

/// Returns the address of the gateway: the first of the network.
pub fn gateway_of(network: Ipv4Net) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(network.network()) + 1)
}

/// Returns the name of the link that has an app's gateway address.
pub fn gateway_name(id: &AppId) -> String {
    app_link::gateway_name(&id.to_string())
}

/// Returns how the names of the links to an app's processes begin.
pub fn link_prefix(id: &AppId) -> String {
    app_link::process_prefix(&id.to_string())
}

fn link_name(id: &AppId, number: u32) -> String {
    format!("{}{}", link_prefix(id), number % 10_000)
}

/// Returns the hardware address of the link inside a process's network namespace.
fn inner_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x74, a, b, c, d]
}

/// Returns the hardware address of the gateway's end of that link.
fn outer_mac(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x06, 0x74, a, b, c, d]
}

/// Adds the owner as an alias to a new link.
fn owned(link: LinkMessageBuilder<LinkUnspec>, owner: &UpOwner) -> LinkMessageBuilder<LinkUnspec> {
    link.append_extra_attribute(LinkAttribute::IfAlias(owner.to_string()))
}

fn alias_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

fn name_of(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_into_a_link() {
        let id = AppId::of(std::path::Path::new("/home/me/app"), 1);
        for name in [gateway_name(&id), link_name(&id, u32::MAX)] {
            assert!(name.len() <= 15, "{name}");
            assert!(app_link::is_of_app(&name), "{name}");
        }
        assert_ne!(link_name(&id, 1), link_name(&id, 2));
    }
}
