//! Encodes requests to rtnetlink, and decodes its answers.

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable as _, NetlinkHeader, NetlinkSerializable as _,
};
use netlink_packet_route::RouteNetlinkMessage;

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Header, Malformed, Message, Writer};
use crate::route::Routes;

pub(super) fn encode(writer: &mut Writer, seq: u32, flags: u16, request: &RouteNetlinkMessage) {
    let mut body = vec![0; request.buffer_len()];
    request.serialize(&mut body);
    let open = writer.begin_plain(Header {
        kind: request.message_type(),
        flags,
        seq,
    });
    writer.raw(&body);
    writer.end(open);
}

pub(super) fn decode(message: &Message<'_>) -> Result<RouteNetlinkMessage, Malformed> {
    let mut header = NetlinkHeader::default();
    header.message_type = message.kind;
    RouteNetlinkMessage::deserialize(&header, message.payload)
        .map_err(|_| Malformed::new("an address or a route of an unknown shape"))
}

impl<A: NetlinkExchange> Routes<A> {
    pub(super) fn dump(
        &mut self,
        what: &'static str,
        request: &RouteNetlinkMessage,
        each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        self.0.dump(
            what,
            |writer, seq| encode(writer, seq, NLM_F_REQUEST | NLM_F_DUMP, request),
            each,
        )
    }
}
