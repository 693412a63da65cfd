//! Links as the doctor needs them: bridge ports, MTUs, addresses, neighbours, offloads.
//!
//! Everything comes from rtnetlink and ioctls: files under `/sys/class/net` belong to the network namespace in which
//! `/sys` was mounted, which need not be this one.
//!
//! Source: `include/uapi/linux/if_link.h`, `if_bridge.h`, `neighbour.h`, `if_addr.h`, `ethtool.h`, `rtnetlink.h`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::ffi::system;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::{Netlink, restarting};
use crate::netlink::tlv::{Attrs, Header, Malformed, Message};

const GET_LINK: u16 = 18;
const GET_ADDR: u16 = 22;
const GET_NEIGH: u16 = 30;
const GET_QDISC: u16 = 38;
const REQUEST_DUMP: u16 = 0x301;
const AF_BRIDGE: u8 = 7;

const IFF_UP: u32 = 1;
const IFF_LOOPBACK: u32 = 8;
const IFF_NOARP: u32 = 0x80;
const IFF_LOWER_UP: u32 = 0x1_0000;
/// Links of Ethernet (`include/uapi/linux/if_arp.h`).
const ARPHRD_ETHER: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;
const INFO_SLAVE_KIND: u16 = 4;
const INFO_SLAVE_DATA: u16 = 5;
const BR_NF_CALL_IPTABLES: u16 = 36;
const BR_NF_CALL_IP6TABLES: u16 = 37;
const BRPORT_MODE: u16 = 4;

const TCA_KIND: u16 = 1;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_F_DADFAILED: u8 = 8;
const IFA_F_TENTATIVE: u8 = 0x40;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;
const NDA_MASTER: u16 = 9;
const NUD_FAILED: u16 = 0x20;

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one fact, and all combinations occur"
)]
pub struct LinkDetails {
    /// Number of the link in this network namespace.
    pub index: u32,
    /// Name of the link.
    pub name: String,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is switched on and nothing is at its other end: no cable, a port that is down, a bridge without ports.
    pub no_carrier: bool,
    /// Whether it is loopback.
    pub loopback: bool,
    /// Whether hosts on it are found without ARP: a tunnel, for example.
    pub no_arp: bool,
    /// Whether ARP is switched off on it though it is of Ethernet (`ip link set NAME arp off`), and hosts on it cannot be found.
    pub arp_off: bool,
    /// Bytes in the longest packet that it takes.
    pub mtu: u32,
    /// Number of the link that it is a port of.
    pub master: Option<u32>,
    /// Number of the link by which the frames of a VLAN come.
    pub parent: Option<u32>,
    /// Whether it is a bridge, and whether that one alone asks the rules for IPv4 and for IPv6.
    pub bridge: Option<[bool; 2]>,
    /// Whether a port of a bridge sends packets back by the port on which they came in.
    pub hairpin: Option<bool>,
    /// Whether a program for XDP sees its packets first.
    pub xdp: bool,
    /// Whether traffic control sees packets that come in (`ingress`, `clsact`): its filters may drop some. Those that are attached
    /// by the system call `bpf` (tcx) are not known.
    pub classifies: bool,
    /// Addresses, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Addresses of the link that are not in use yet, because the kernel still looks for another host that has them.
    pub tentative: Vec<IpAddr>,
    /// Offloads of the interface; `None` where they are unknown or were not read: see [`read_offloads`].
    pub offloads: Option<Offloads>,
}

/// Offloads of an interface that handle many packets at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offloads {
    /// Whether received packets are merged so that they cannot be told apart again.
    pub lro: bool,
    /// Whether received packets are merged.
    pub gro: bool,
    /// Whether packets are cut into segments only when they are sent.
    pub gso: bool,
}

/// A neighbour on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Number of the link.
    pub link: u32,
    /// IP address of the neighbour.
    pub address: IpAddr,
    /// Hardware address, if it ever answered.
    pub hardware: Option<Vec<u8>>,
    /// Whether it did not answer when it was last asked.
    pub failed: bool,
}

/// Entry of a bridge's forwarding table: the port behind which a hardware address was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgeEntry {
    /// The hardware address.
    pub hardware: Vec<u8>,
    /// Number of the port.
    pub port: u32,
    /// Number of the bridge.
    pub bridge: u32,
}

/// Returns all links, without their offloads.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn links() -> Result<Vec<LinkDetails>, NetlinkError> {
    let mut socket = Netlink::route()?;
    let mut links = restarting(|| {
        let mut links = Vec::new();
        dump(&mut socket, "list links", GET_LINK, &[0; 16], |message| {
            links.push(link(message.payload)?);
            Ok(())
        })?;
        Ok(links)
    })?;
    let addresses = restarting(|| {
        let mut addresses = Vec::new();
        dump(&mut socket, "list addresses", GET_ADDR, &[0; 8], |message| {
            addresses.extend(own_address(message.payload)?);
            Ok(())
        })?;
        Ok(addresses)
    })?;
    let classifying = restarting(|| {
        let mut found = Vec::new();
        dump(
            &mut socket,
            "list queueing disciplines",
            GET_QDISC,
            &[0; 20],
            |message| {
                found.extend(classifying(message.payload)?);
                Ok(())
            },
        )?;
        Ok(found)
    });
    let classifying = match classifying {
        // Without traffic control (`CONFIG_NET_SCHED`) there is none.
        Err(error) if error.errno() == Some(nix::errno::Errno::EOPNOTSUPP) => Vec::new(),
        other => other?,
    };
    for link in &mut links {
        link.classifies = classifying.contains(&link.index);
        let own = || addresses.iter().filter(|own| own.link == link.index);
        link.addresses = own().map(|own| (own.address, own.length)).collect();
        link.tentative = own().filter(|own| own.tentative).map(|own| own.address).collect();
    }
    Ok(links)
}

/// Reads the offloads of each link, by three ioctls for each.
pub fn read_offloads(links: &mut [LinkDetails]) {
    for link in links {
        link.offloads = offloads(&link.name);
    }
}

/// Returns the neighbours of all links.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn neighbours() -> Result<Vec<Neighbour>, NetlinkError> {
    let mut socket = Netlink::route()?;
    restarting(|| {
        let mut found = Vec::new();
        dump(&mut socket, "list neighbours", GET_NEIGH, &[0; 12], |message| {
            found.extend(neighbour(message.payload)?);
            Ok(())
        })?;
        Ok(found)
    })
}

/// Returns the hardware addresses that bridges learned.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn learned() -> Result<Vec<BridgeEntry>, NetlinkError> {
    let mut socket = Netlink::route()?;
    let mut request = [0; 12];
    request[0] = AF_BRIDGE;
    restarting(|| {
        let mut found = Vec::new();
        dump(
            &mut socket,
            "list what bridges learned",
            GET_NEIGH,
            &request,
            |message| {
                found.extend(entry(message.payload)?);
                Ok(())
            },
        )?;
        Ok(found)
    })
}

fn dump(
    socket: &mut impl NetlinkExchange,
    what: &'static str,
    kind: u16,
    header: &[u8],
    each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    socket.dump(
        what,
        |writer, seq| {
            let open = writer.begin_plain(Header {
                kind,
                flags: REQUEST_DUMP,
                seq,
            });
            writer.raw(header);
            writer.end(open);
        },
        each,
    )
}

const SHORT: Malformed = Malformed::new("an answer that is shorter than its header");

/// Reads `struct ifinfomsg`: family, type (at 2), index (at 4), flags (at 8), change.
fn link(payload: &[u8]) -> Result<LinkDetails, Malformed> {
    let (header, attrs) = payload.split_first_chunk::<16>().ok_or(SHORT)?;
    let flags = number(header, 8);
    let mut link = LinkDetails {
        index: number(header, 4),
        up: flags & IFF_UP != 0,
        no_carrier: flags & (IFF_UP | IFF_LOWER_UP) == IFF_UP,
        loopback: flags & IFF_LOOPBACK != 0,
        no_arp: flags & IFF_NOARP != 0,
        ..LinkDetails::default()
    };
    let (mut below, mut is_vlan) = (None, false);
    let mut is_without_neighbours = false;
    for attr in Attrs::new(attrs) {
        let attr = attr?;
        match attr.kind {
            // The kernel takes any bytes but a slash, a colon and white space.
            IFLA_IFNAME => link.name = text(attr.payload),
            IFLA_MTU => link.mtu = attr.ne32()?,
            // For other kinds it may be a link elsewhere, such as the other end of a veth.
            IFLA_LINK => below = Some(attr.ne32()?),
            IFLA_MASTER => link.master = Some(attr.ne32()?),
            IFLA_XDP => {
                let attached = attr.nested().first(IFLA_XDP_ATTACHED)?;
                link.xdp = attached.map(|attr| attr.u8()).transpose()?.is_some_and(|how| how != 0);
            }
            IFLA_LINKINFO => {
                is_vlan = read_kind(&attr.nested(), &mut link)?;
                is_without_neighbours = has_no_neighbours(&attr.nested())?;
            }
            _ => {}
        }
    }
    link.parent = below.filter(|_| is_vlan);
    // Modems are named so (`FLAG_WWAN` of `include/linux/usb/usbnet.h`): they look like Ethernet, and have no ARP.
    let is_modem = link.name.starts_with("ww");
    let is_ethernet = u16::from_ne_bytes([header[2], header[3]]) == ARPHRD_ETHER;
    let has_neighbours = is_ethernet && !is_without_neighbours && !is_modem;
    link.arp_off = link.no_arp && has_neighbours;
    link.no_arp &= !has_neighbours;
    Ok(link)
}

/// Returns whether a link of Ethernet is of a kind that has no ARP by itself.
fn has_no_neighbours(infos: &Attrs<'_>) -> Result<bool, Malformed> {
    let kind = infos.clone().first(INFO_KIND)?.map(|attr| attr.str()).transpose()?;
    Ok(kind.is_some_and(|kind| matches!(kind, "dummy" | "ifb" | "ipvlan" | "nlmon" | "rmnet" | "vrf")))
}

/// Reads what matters of bridges and their ports, and returns whether it is a VLAN.
fn read_kind(infos: &Attrs<'_>, link: &mut LinkDetails) -> Result<bool, Malformed> {
    let text = |kind| infos.clone().first(kind)?.map(|attr| attr.str()).transpose();
    let flag = |data: u16, kind| {
        let data = infos.clone().first(data)?;
        let attr = data.map(|data| data.nested().first(kind)).transpose()?.flatten();
        Ok(attr.map(|attr| attr.u8()).transpose()?.is_some_and(|flag| flag != 0))
    };
    if text(INFO_KIND)? == Some("bridge") {
        link.bridge = Some([
            flag(INFO_DATA, BR_NF_CALL_IPTABLES)?,
            flag(INFO_DATA, BR_NF_CALL_IP6TABLES)?,
        ]);
    }
    if text(INFO_SLAVE_KIND)? == Some("bridge") {
        link.hairpin = Some(flag(INFO_SLAVE_DATA, BRPORT_MODE)?);
    }
    Ok(text(INFO_KIND)? == Some("vlan"))
}

/// Returns the link of a queueing discipline that classifies incoming packets. Reads `struct tcmsg`: family, padding,
/// index (at 4), handle, parent, info.
fn classifying(payload: &[u8]) -> Result<Option<u32>, Malformed> {
    let (header, attrs) = payload.split_first_chunk::<20>().ok_or(SHORT)?;
    let kind = Attrs::new(attrs).first(TCA_KIND)?.map(|attr| text(attr.payload));
    let is_one = kind.is_some_and(|kind| kind == "clsact" || kind == "ingress");
    Ok(is_one.then(|| number(header, 4)))
}

/// An address of a link.
#[derive(Debug)]
struct OwnAddress {
    link: u32,
    address: IpAddr,
    /// Length of the prefix.
    length: u8,
    tentative: bool,
}

/// Reads `struct ifaddrmsg`: family, prefix length, flags, scope, index.
fn own_address(payload: &[u8]) -> Result<Option<OwnAddress>, Malformed> {
    let (header, attrs) = payload.split_first_chunk::<8>().ok_or(SHORT)?;
    let (mut local, mut address) = (None, None);
    for attr in Attrs::new(attrs) {
        let attr = attr?;
        match attr.kind {
            IFA_LOCAL => local = ip(attr.payload),
            IFA_ADDRESS => address = ip(attr.payload),
            _ => {}
        }
    }
    let found = local.or(address);
    Ok(found.map(|address| OwnAddress {
        link: number(header, 4),
        address,
        length: header[1],
        // One that another host has stays tentative for ever (`addrconf_dad_stop`).
        tentative: header[2] & (IFA_F_TENTATIVE | IFA_F_DADFAILED) == IFA_F_TENTATIVE,
    }))
}

/// Reads `struct ndmsg`: family, padding, index (at 4), state (at 8), flags, type.
fn neighbour(payload: &[u8]) -> Result<Option<Neighbour>, Malformed> {
    let (header, attrs) = payload.split_first_chunk::<12>().ok_or(SHORT)?;
    let address = Attrs::new(attrs).first(NDA_DST)?.and_then(|attr| ip(attr.payload));
    let hardware = Attrs::new(attrs).first(NDA_LLADDR)?.map(|attr| attr.payload.to_vec());
    let state = u16::from_ne_bytes([header[8], header[9]]);
    Ok(address.map(|address| Neighbour {
        link: number(header, 4),
        address,
        hardware,
        failed: state & NUD_FAILED != 0,
    }))
}

fn entry(payload: &[u8]) -> Result<Option<BridgeEntry>, Malformed> {
    let (header, attrs) = payload.split_first_chunk::<12>().ok_or(SHORT)?;
    let hardware = Attrs::new(attrs).first(NDA_LLADDR)?.map(|attr| attr.payload.to_vec());
    let bridge = Attrs::new(attrs)
        .first(NDA_MASTER)?
        .map(|attr| attr.ne32())
        .transpose()?;
    Ok(hardware.zip(bridge).map(|(hardware, bridge)| BridgeEntry {
        hardware,
        port: number(header, 4),
        bridge,
    }))
}

fn text(bytes: &[u8]) -> String {
    let bytes = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(bytes).into_owned()
}

fn number(header: &[u8], at: usize) -> u32 {
    let bytes = header.get(at..).and_then(|rest| rest.first_chunk());
    bytes.map_or(0, |bytes| u32::from_ne_bytes(*bytes))
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets).into()),
        16 => bytes.first_chunk::<16>().map(|octets| Ipv6Addr::from(*octets).into()),
        _ => None,
    }
}

fn offloads(name: &str) -> Option<Offloads> {
    const GET_GSO: u32 = 0x23;
    const GET_FLAGS: u32 = 0x25;
    const GET_GRO: u32 = 0x2b;
    const FLAG_LRO: u32 = 1 << 15;
    Some(Offloads {
        lro: system::ethtool_value(name, GET_FLAGS).ok()? & FLAG_LRO != 0,
        gro: system::ethtool_value(name, GET_GRO).ok()? != 0,
        gso: system::ethtool_value(name, GET_GSO).ok()? != 0,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn this_machine_has_loopback() {
        let links = links().unwrap();
        let lo = links.iter().find(|link| link.loopback).unwrap();
        assert_eq!((lo.name.as_str(), lo.bridge, lo.hairpin), ("lo", None, None));
        assert!(lo.mtu >= 1500);
        neighbours().unwrap();
        learned().unwrap();
    }

    #[test]
    fn arp_is_switched_off_on_links_of_ethernet_only() {
        let read = |kind: u16, noarp: u8, info: Option<&[u8; 8]>, name: &[u8; 4]| {
            let mut payload = vec![0; 16];
            payload[2..4].copy_from_slice(&kind.to_ne_bytes());
            payload[8..12].copy_from_slice(&u32::from(noarp).to_ne_bytes());
            payload.extend([8, 0, 3, 0]);
            payload.extend(name);
            if let Some(info) = info {
                // IFLA_LINKINFO, nested, with INFO_KIND.
                payload.extend([16, 0, 18, 0x80, 12, 0, 1, 0]);
                payload.extend(info);
            }
            let link = link(&payload).unwrap();
            (link.no_arp, link.arp_off)
        };
        assert_eq!(read(1, 0x81, None, b"ext\0"), (false, true));
        assert_eq!(read(1, 0x81, Some(b"bridge\0\0"), b"br0\0"), (false, true));
        assert_eq!(read(1, 1, None, b"ext\0"), (false, false));
        assert_eq!(read(0xfffe, 0x81, None, b"tun\0"), (true, false));
        assert_eq!(read(1, 0x81, Some(b"dummy\0\0\0"), b"dum\0"), (true, false));
        assert_eq!(read(1, 0x81, None, b"ww0\0"), (true, false));
    }

    #[test]
    fn what_sees_packets_before_all_rules_is_known() {
        let attached = |how: u8| {
            let mut payload = vec![0; 16];
            // IFLA_XDP, nested, with IFLA_XDP_ATTACHED.
            payload.extend([12, 0, 43, 0x80, 5, 0, 2, 0, how, 0, 0, 0]);
            link(&payload).unwrap().xdp
        };
        assert_eq!([0, 1, 2].map(attached), [false, true, true]);
        let discipline = |kind: &[u8; 8]| {
            let mut payload = vec![0; 20];
            payload[4] = 7;
            payload.extend([12, 0, 1, 0]);
            payload.extend(kind);
            classifying(&payload).unwrap()
        };
        assert_eq!(discipline(b"clsact\0\0"), Some(7));
        assert_eq!(discipline(b"ingress\0"), Some(7));
        assert_eq!(discipline(b"noqueue\0"), None);
    }

    proptest! {
        #[test]
        fn decoding_is_total(payload: Vec<u8>) {
            let _ = (link(&payload), own_address(&payload), neighbour(&payload), entry(&payload), classifying(&payload));
        }
    }
}
