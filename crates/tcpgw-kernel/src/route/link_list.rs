//! Lists the links of this network namespace.

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NlasIterator, ParseableParametrized as _};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    link::{LinkAttribute, LinkFlags, LinkHeader, LinkInfo, LinkMessage},
};
use nix::errno::Errno;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::restarting;
use crate::netlink::tlv::Malformed;
use crate::route::Routes;
use crate::route::message::encode;

/// Length of `struct ifinfomsg`, in bytes.
const LINK_HEADER_LEN: usize = 16;

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkEntry {
    /// Number in this network namespace.
    pub index: u32,
    /// Name of the link.
    pub name: String,
    /// Kind, such as `veth` or `bridge`; `None` for hardware and loopback.
    pub kind: Option<String>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is loopback.
    pub loopback: bool,
}

impl<A: NetlinkExchange> Routes<A> {
    /// Returns all links whose names are text.
    ///
    /// # Errors
    /// Fails when the kernel refuses the request or its answer cannot be read: see [`NetlinkExchange::dump`].
    pub fn links(&mut self) -> Result<Vec<LinkEntry>, NetlinkError> {
        restarting(|| {
            let mut links = Vec::new();
            let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
            self.dump("list links", &request, |message| {
                links.extend(decode_link(message.payload)?);
                Ok(())
            })?;
            Ok(links)
        })
    }

    pub(super) fn link_name(&mut self, index: u32) -> Result<Option<String>, NetlinkError> {
        let mut request = LinkMessage::default();
        request.header.index = index;
        let request = RouteNetlinkMessage::GetLink(request);
        let mut name = None;
        let answer = restarting(|| {
            self.0.request(
                "find a link",
                |writer, seq| encode(writer, seq, NLM_F_REQUEST | NLM_F_ACK, &request),
                |message| {
                    name = decode_link(message.payload)?.map(|link| link.name);
                    Ok(())
                },
            )
        });
        match answer {
            Err(error) if error.errno() == Some(Errno::ENODEV) => Ok(None),
            other => other.map(|()| name),
        }
    }
}

/// Decodes a link attribute by attribute, so that one of a kind that the codec reads wrongly does not hide the others. Returns `None`
/// for a link whose name is not text, which the kernel allows.
pub(super) fn decode_link(payload: &[u8]) -> Result<Option<LinkEntry>, Malformed> {
    let odd = Malformed::new("a link of an unknown shape");
    let header = LinkHeader::parse(payload).map_err(|_| odd)?;
    let (mut name, mut kind) = (None, None);
    for attribute in NlasIterator::new(payload.get(LINK_HEADER_LEN..).unwrap_or_default()) {
        match LinkAttribute::parse_with_param(&attribute.map_err(|_| odd)?, AddressFamily::Unspec) {
            Ok(LinkAttribute::IfName(text)) => name = Some(text),
            Ok(LinkAttribute::LinkInfo(infos)) => {
                kind = infos.iter().find_map(|info| match info {
                    LinkInfo::Kind(kind) => Some(kind.to_string()),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    Ok(name.map(|name| LinkEntry {
        index: header.index,
        name,
        kind,
        up: header.flags.contains(LinkFlags::Up),
        loopback: header.flags.contains(LinkFlags::Loopback),
    }))
}
