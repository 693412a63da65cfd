//! Policies of IPsec, which may drop packets that are forwarded.
//!
//! Source: `include/uapi/linux/xfrm.h`, `net/xfrm/xfrm_user.c`, `net/xfrm/xfrm_policy.c`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST};
use nix::errno::Errno;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::{Netlink, restarting};
use crate::netlink::tlv::{Attrs, Header, Malformed, Message};

/// `XFRM_MSG_NEWPOLICY`.
const NEW_POLICY: u16 = 0x13;
/// `XFRM_MSG_GETPOLICY`.
const GET_POLICY: u16 = 0x15;
/// `XFRM_MSG_GETDEFAULT`, since Linux 5.15.
const GET_DEFAULT: u16 = 0x28;
/// `XFRM_USERPOLICY_BLOCK`.
const DEFAULT_BLOCK: u8 = 1;
/// `XFRM_POLICY_BLOCK`.
const BLOCK: u8 = 1;
/// `XFRM_POLICY_OUT` and `XFRM_POLICY_FWD`.
const OUT: u8 = 1;
const FORWARD: u8 = 2;
/// `XFRMA_TMPL`, `XFRMA_MARK` and `XFRMA_IF_ID`.
const TEMPLATES: u16 = 5;
const MARK: u16 = 21;
const INTERFACE_ID: u16 = 31;
/// Length of `struct xfrm_userpolicy_info`, aligned: the attributes follow.
const INFO_LEN: usize = 168;
/// Largest number of policies that are kept.
const MOST: usize = 4096;

/// The policies that forwarded packets must pass, and what happens to packets for which there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// The policies, those that go first before others.
    pub list: Vec<Policy>,
    /// Number of policies that were not kept, because there are too many.
    pub left_out: usize,
    /// Whether a packet is dropped for which there is no policy of the direction "forward".
    pub forward_blocked: bool,
    /// Whether a packet is dropped for which there is no policy of the direction "out".
    pub out_blocked: bool,
}

/// Packets that a policy is for, by their direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyDirection {
    /// Packets that are forwarded.
    Forward,
    /// Packets that leave: those that are forwarded, and the gateway's own.
    Out,
}

/// A policy of the direction "forward" or "out": a forwarded packet must pass both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Packets that the policy is for.
    pub direction: PolicyDirection,
    /// Whether it drops packets.
    pub blocks: bool,
    /// Whether packets must be, or must have been, transformed: encrypted or authenticated.
    pub transforms: bool,
    /// Priority: the policy with the lowest number decides, of those for a packet.
    pub priority: u32,
    /// Network of the packets' sources.
    pub source: IpNet,
    /// Network of the packets' destinations.
    pub destination: IpNet,
    /// Port of the sender, and the bits of it that are compared.
    pub source_port: (u16, u16),
    /// Port of the receiver, and the bits of it that are compared.
    pub destination_port: (u16, u16),
    /// Number of the protocol; 0: any.
    pub protocol: u8,
    /// Whether it is for packets of an interface, with a mark, or of a tunnel's interface only.
    pub conditional: bool,
}

/// Reads the policies of the network namespace of this thread. A kernel without IPsec has none.
///
/// # Errors
/// Fails when the kernel refuses (`CAP_NET_ADMIN` is needed), or its answer cannot be read: see
/// [`NetlinkExchange::dump`].
pub fn policies() -> Result<Policies, NetlinkError> {
    match Netlink::xfrm() {
        Ok(mut netlink) => read(&mut netlink),
        Err(error) if error.errno() == Some(Errno::EPROTONOSUPPORT) => Ok(Policies::default()),
        Err(error) => Err(error),
    }
}

fn read(netlink: &mut impl NetlinkExchange) -> Result<Policies, NetlinkError> {
    let mut found = restarting(|| {
        let mut found = Policies::default();
        netlink.dump(
            "list the policies of IPsec",
            |writer, seq| {
                let open = writer.begin_plain(Header {
                    kind: GET_POLICY,
                    flags: NLM_F_REQUEST | NLM_F_DUMP,
                    seq,
                });
                writer.end(open);
            },
            |message| {
                match policy(message)? {
                    Some(_) if found.list.len() >= MOST => found.left_out += 1,
                    policy => found.list.extend(policy),
                }
                Ok(())
            },
        )?;
        Ok(found)
    })?;
    found.list.sort_by_key(|policy| policy.priority);
    (found.forward_blocked, found.out_blocked) = match blocked_by_default(netlink) {
        // Kernels before 5.15 do not know the request, and let such packets pass.
        Err(error) if error.errno() == Some(Errno::EINVAL) => (false, false),
        other => other?,
    };
    Ok(found)
}

/// Returns whether packets without a policy are dropped, for the directions "forward" and "out".
fn blocked_by_default(netlink: &mut impl NetlinkExchange) -> Result<(bool, bool), NetlinkError> {
    restarting(|| {
        let mut blocked = (false, false);
        netlink.request(
            "read the default of IPsec's policies",
            |writer, seq| {
                let open = writer.begin_plain(Header {
                    kind: GET_DEFAULT,
                    flags: NLM_F_REQUEST | NLM_F_ACK,
                    seq,
                });
                // `struct xfrm_userpolicy_default`: in, fwd and out.
                writer.raw(&[0; 3]);
                writer.end(open);
            },
            |message| {
                if let (GET_DEFAULT, [_, forward, out, ..]) = (message.kind, message.payload) {
                    blocked = (*forward == DEFAULT_BLOCK, *out == DEFAULT_BLOCK);
                }
                Ok(())
            },
        )?;
        Ok(blocked)
    })
}

/// Decodes `struct xfrm_userpolicy_info` and the attributes after it; `None`: the policy is of another direction.
fn policy(message: &Message<'_>) -> Result<Option<Policy>, Malformed> {
    if message.kind != NEW_POLICY {
        return Ok(None);
    }
    let info = message.payload;
    let (&[dir, action], true) = (bytes(info, 160)?, info.len() >= INFO_LEN) else {
        return Err(SHORT);
    };
    let direction = match dir {
        FORWARD => PolicyDirection::Forward,
        OUT => PolicyDirection::Out,
        _ => return Ok(None),
    };
    let port = |at| {
        Ok::<_, Malformed>((
            u16::from_be_bytes(*bytes(info, at)?),
            u16::from_be_bytes(*bytes(info, at + 2)?),
        ))
    };
    let family = u16::from_ne_bytes(*bytes(info, 40)?);
    let [destination_length, source_length, protocol] = *bytes(info, 42)?;
    let mut conditional = u32::from_ne_bytes(*bytes(info, 48)?) != 0;
    let mut transforms = false;
    for attr in Attrs::new(info.get(INFO_LEN..).unwrap_or_default()) {
        let attr = attr?;
        match attr.kind {
            TEMPLATES => transforms = !attr.payload.is_empty(),
            MARK => conditional |= attr.array::<8>()?[4..] != [0; 4],
            INTERFACE_ID => conditional |= attr.ne32()? != 0,
            _ => {}
        }
    }
    Ok(Some(Policy {
        direction,
        blocks: action == BLOCK,
        transforms,
        priority: u32::from_ne_bytes(*bytes(info, 152)?),
        source: network(family, bytes(info, 16)?, source_length)?,
        destination: network(family, bytes(info, 0)?, destination_length)?,
        source_port: port(36)?,
        destination_port: port(32)?,
        protocol,
        conditional,
    }))
}

const SHORT: Malformed = Malformed::new("a policy of IPsec of an unknown shape");

fn bytes<const N: usize>(of: &[u8], at: usize) -> Result<&[u8; N], Malformed> {
    of.get(at..).and_then(|rest| rest.first_chunk()).ok_or(SHORT)
}

fn network(family: u16, address: &[u8; 16], length: u8) -> Result<IpNet, Malformed> {
    let [a, b, c, d, ..] = *address;
    let address = match i32::from(family) {
        libc::AF_INET => IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
        libc::AF_INET6 => IpAddr::V6(Ipv6Addr::from(*address)),
        _ => return Err(SHORT),
    };
    IpNet::new(address, length).map_err(|_| SHORT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(payload: &[u8]) -> Message<'_> {
        Message {
            kind: NEW_POLICY,
            flags: 0,
            seq: 0,
            pid: 0,
            payload,
        }
    }

    #[test]
    fn a_policy_is_read() {
        let mut info = vec![0; INFO_LEN];
        info[..4].copy_from_slice(&[10, 2, 0, 0]);
        info[32..40].copy_from_slice(&[0x0b, 0xb8, 0xff, 0xff, 0, 0, 0, 0]);
        info[40..42].copy_from_slice(&2u16.to_ne_bytes());
        info[42] = 24;
        info[44] = 6;
        info[152..156].copy_from_slice(&7u32.to_ne_bytes());
        info[160..162].copy_from_slice(&[FORWARD, BLOCK]);
        let read = policy(&message(&info)).unwrap().unwrap();
        let expected = Policy {
            direction: PolicyDirection::Forward,
            blocks: true,
            transforms: false,
            priority: 7,
            source: "0.0.0.0/0".parse().unwrap(),
            destination: "10.2.0.0/24".parse().unwrap(),
            source_port: (0, 0),
            destination_port: (3000, 0xffff),
            protocol: 6,
            conditional: false,
        };
        assert_eq!(read, expected);
        // For incoming packets, which are not forwarded.
        info[160] = 0;
        assert_eq!(policy(&message(&info)), Ok(None));
        info.pop();
        assert!(policy(&message(&info)).is_err());
    }

    proptest! {
        #[test]
        fn decoding_is_total(payload in prop::collection::vec(any::<u8>(), 0..400), family in 0u8..12, dir in 0u8..4) {
            let mut payload = payload;
            if payload.len() > 160 {
                payload[40] = family;
                payload[41] = 0;
                payload[160] = dir;
            }
            let _ = policy(&message(&payload));
        }
    }
}
