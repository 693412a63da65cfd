//! Netlink messages and attributes: written into one growing buffer, read without copying.
//!
//! Owns the wire format and nothing else: it knows no socket, no subsystem and no meaning of an attribute. Reading is
//! total: any bytes give either values or [`Malformed`], never a panic.
//!
//! Sources: RFC 3549, `include/uapi/linux/netlink.h`, `include/uapi/linux/netfilter/nfnetlink.h`.

mod read;

pub use self::read::{Attr, Attrs, Malformed, Message, Messages, Nack, NetlinkReply};

/// Length of `struct nlmsghdr`, in bytes.
pub const HEADER_LEN: usize = 16;
/// Length of `struct nfgenmsg`, in bytes.
pub const FAMILY_LEN: usize = 4;
const ATTR_LEN: usize = 4;

/// Attribute flag: the payload is attributes (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
/// Error of an attribute or message that is longer than its length field can say: 65,535 bytes, or 4 GiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to encode a netlink request: an attribute is longer than 65,535 bytes")]
pub struct TooLong;

/// The `nfgenmsg` that every netfilter message begins with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetfilterHeader {
    /// Address family: `NFPROTO_*`, for conntrack `AF_*`.
    pub family: u8,
    /// Version: `NFNETLINK_V0` (0), unless a subsystem defines another one.
    pub version: u8,
    /// Resource id, sent in network byte order: the subsystem of a batch, or the low 16 bits of the generation id.
    pub res_id: u16,
}

/// The beginning of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Type of the message (`nlmsg_type`); for netfilter `subsystem << 8 | message`.
    pub kind: u16,
    /// Flags `NLM_F_*`.
    pub flags: u16,
    /// Sequence number, which the answers to this message repeat.
    pub seq: u32,
}

/// A message that was begun and must be ended with [`Writer::end`].
#[must_use = "a message without an end has no length"]
#[derive(Debug)]
pub struct OpenMessage(usize);

/// Writes messages one after the other into one buffer.
///
/// An attribute over 65,535 bytes does not fit its length field: the writer remembers it, and [`Writer::finish`] and
/// [`Writer::bytes`] refuse to hand out anything.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
    too_long: bool,
}

impl Writer {
    /// Creates an empty writer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty writer with memory for `bytes`.
    pub fn with_capacity(bytes: usize) -> Self {
        Self {
            buffer: Vec::with_capacity(bytes),
            too_long: false,
        }
    }

    /// Writes a whole netfilter message: header, `nfgenmsg`, and the attributes that `fill` writes.
    pub fn message(&mut self, header: Header, family: NetfilterHeader, fill: impl FnOnce(&mut Self)) {
        let open = self.begin(header, family);
        fill(self);
        self.end(open);
    }

    /// Begins a netfilter message.
    pub fn begin(&mut self, header: Header, family: NetfilterHeader) -> OpenMessage {
        let open = self.begin_plain(header);
        let [high, low] = family.res_id.to_be_bytes();
        self.buffer
            .extend_from_slice(&[family.family, family.version, high, low]);
        open
    }

    /// Begins a message that is followed by something else than `nfgenmsg`, with [`Writer::raw`].
    pub fn begin_plain(&mut self, header: Header) -> OpenMessage {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        self.buffer.extend_from_slice(&header.kind.to_ne_bytes());
        self.buffer.extend_from_slice(&header.flags.to_ne_bytes());
        self.buffer.extend_from_slice(&header.seq.to_ne_bytes());
        // The kernel knows the sender; its port id may stay 0.
        self.buffer.extend_from_slice(&[0; 4]);
        OpenMessage(start)
    }

    /// Ends a message: writes its length.
    #[expect(clippy::needless_pass_by_value, reason = "a message ends once")]
    pub fn end(&mut self, open: OpenMessage) {
        let OpenMessage(start) = open;
        match (
            u32::try_from(self.buffer.len().saturating_sub(start)),
            self.buffer.get_mut(start..start + 4),
        ) {
            (Ok(length), Some(field)) => field.copy_from_slice(&length.to_ne_bytes()),
            _ => self.too_long = true,
        }
    }

    /// Writes an attribute of bytes.
    pub fn attr(&mut self, kind: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len() + ATTR_LEN) else {
            self.too_long = true;
            return;
        };
        let [a, b] = length.to_ne_bytes();
        let [c, d] = kind.to_ne_bytes();
        self.buffer.extend_from_slice(&[a, b, c, d]);
        self.raw(value);
    }

    /// Writes an attribute of one byte.
    pub fn u8(&mut self, kind: u16, value: u8) {
        self.attr(kind, &[value]);
    }

    /// Writes an attribute of 16 bits in network byte order.
    pub fn be16(&mut self, kind: u16, value: u16) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes an attribute of 32 bits in network byte order.
    pub fn be32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes an attribute of 64 bits in network byte order.
    pub fn be64(&mut self, kind: u16, value: u64) {
        self.attr(kind, &value.to_be_bytes());
    }

    /// Writes an attribute of 32 bits in this machine's byte order.
    pub fn ne32(&mut self, kind: u16, value: u32) {
        self.attr(kind, &value.to_ne_bytes());
    }

    /// Writes an attribute of text, ended by a NUL.
    pub fn str(&mut self, kind: u16, value: &str) {
        let Ok(length) = u16::try_from(value.len() + 1 + ATTR_LEN) else {
            self.too_long = true;
            return;
        };
        self.buffer.extend_from_slice(&length.to_ne_bytes());
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.pad();
    }

    /// Writes an attribute that contains the attributes that `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        fill(self);
        match (
            u16::try_from(self.buffer.len().saturating_sub(start)),
            self.buffer.get_mut(start..start + 2),
        ) {
            (Ok(length), Some(field)) => field.copy_from_slice(&length.to_ne_bytes()),
            _ => self.too_long = true,
        }
    }

    /// Writes bytes unchanged, padded to 4: a fixed structure in front of attributes, or whole messages made elsewhere.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
        self.pad();
    }

    /// Returns the number of bytes written so far.
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// Returns whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Removes what was written, and keeps the memory.
    pub fn clear(&mut self) {
        self.buffer.clear();
        self.too_long = false;
    }

    /// Returns what was written.
    ///
    /// # Errors
    ///
    /// Fails when an attribute did not fit its length field.
    pub fn bytes(&self) -> Result<&[u8], TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(&self.buffer) }
    }

    /// Returns what was written and consumes the writer.
    ///
    /// # Errors
    ///
    /// Fails when an attribute did not fit its length field.
    pub fn finish(self) -> Result<Vec<u8>, TooLong> {
        if self.too_long { Err(TooLong) } else { Ok(self.buffer) }
    }

    fn pad(&mut self) {
        let padding = align(self.buffer.len()) - self.buffer.len();
        self.buffer.extend_from_slice(&[0; 3][..padding]);
    }
}

pub(crate) const fn align(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// Returns what a test writes.
#[cfg(test)]
pub(crate) fn written(fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut writer = Writer::new();
    fill(&mut writer);
    writer.finish().unwrap()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{read::*, *};

    #[test]
    fn what_is_written_is_read() {
        let mut writer = Writer::new();
        let header = Header {
            kind: 0x0102,
            flags: 5,
            seq: 7,
        };
        let family = NetfilterHeader {
            family: 2,
            version: 1,
            res_id: 0x0a0b,
        };
        writer.message(header, family, |w| {
            w.u8(1, 9);
            w.be16(2, 0x1234);
            w.be32(3, 0x1234_5678);
            w.be64(4, 0x1234_5678_9abc_def0);
            w.ne32(5, 77);
            w.str(6, "name");
            w.nest(7, |w| w.nest(1, |w| w.attr(2, &[1, 2, 3])));
        });
        writer.message(Header { kind: 3, ..header }, NetfilterHeader::default(), |_| {});

        let bytes = writer.finish().unwrap();
        let messages: Vec<_> = Messages::new(&bytes).map(Result::unwrap).collect();
        assert_eq!(messages.len(), 2);
        assert_eq!(
            (messages[0].kind, messages[0].flags, messages[0].seq, messages[0].pid),
            (0x0102, 5, 7, 0)
        );
        let (read, attrs) = messages[0].family().unwrap();
        assert_eq!(read, family);
        let attrs: Vec<_> = attrs.map(Result::unwrap).collect();
        assert_eq!(attrs.iter().map(|a| a.kind).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(attrs[0].u8(), Ok(9));
        assert_eq!(attrs[1].be16(), Ok(0x1234));
        assert_eq!(attrs[2].be32(), Ok(0x1234_5678));
        assert_eq!(attrs[3].be64(), Ok(0x1234_5678_9abc_def0));
        assert_eq!(attrs[4].ne32(), Ok(77));
        assert_eq!(attrs[5].str(), Ok("name"));
        let inner = attrs[6]
            .nested()
            .next()
            .unwrap()
            .unwrap()
            .nested()
            .next()
            .unwrap()
            .unwrap();
        assert_eq!((inner.kind, inner.payload), (2, &[1, 2, 3][..]));
        assert!(attrs[0].be32().is_err());
    }

    #[test]
    fn the_bytes_are_those_of_the_protocol() {
        let mut writer = Writer::new();
        let family = NetfilterHeader {
            family: 2,
            version: 0,
            res_id: 1,
        };
        writer.message(
            Header {
                kind: 0x0201,
                flags: 1,
                seq: 3,
            },
            family,
            |w| w.nest(4, |w| w.be16(1, 80)),
        );
        let mut expected = Vec::new();
        expected.extend(32u32.to_ne_bytes());
        expected.extend(0x0201u16.to_ne_bytes());
        expected.extend(1u16.to_ne_bytes());
        expected.extend(3u32.to_ne_bytes());
        expected.extend([0; 4]);
        expected.extend([2, 0, 0, 1]);
        expected.extend(12u16.to_ne_bytes());
        expected.extend(0x8004u16.to_ne_bytes());
        expected.extend(6u16.to_ne_bytes());
        expected.extend(1u16.to_ne_bytes());
        expected.extend([0, 80, 0, 0]);
        assert_eq!(writer.finish().unwrap(), expected);
    }

    #[test]
    fn too_long_attributes_are_an_error() {
        let longest = vec![0; 65_531];
        let mut writer = Writer::new();
        writer.attr(1, &longest);
        assert!(writer.bytes().is_ok());
        writer.attr(1, &vec![0; 65_532]);
        assert_eq!(writer.bytes(), Err(TooLong));
        writer.clear();
        assert_eq!(writer.bytes(), Ok(&[][..]));
        writer.nest(1, |w| w.attr(1, &longest));
        assert_eq!(writer.bytes(), Err(TooLong));
        writer.clear();
        writer.str(1, &"x".repeat(65_531));
        assert_eq!(writer.finish(), Err(TooLong));
    }

    #[test]
    fn every_truncation_is_noticed() {
        let mut writer = Writer::new();
        writer.message(Header::default(), NetfilterHeader::default(), |w| w.be32(1, 1));
        let bytes = writer.finish().unwrap();
        for length in 1..bytes.len() {
            assert!(Messages::new(&bytes[..length]).next().unwrap().is_err(), "{length}");
        }
        let attrs = &bytes[HEADER_LEN + FAMILY_LEN..];
        for length in 1..attrs.len() {
            assert!(Attrs::new(&attrs[..length]).next().unwrap().is_err(), "{length}");
        }
    }

    #[test]
    fn a_refusal_says_why_and_where() {
        for capped in [true, false] {
            let request = if capped { HEADER_LEN } else { 23 };
            let mut payload = (-22i32).to_ne_bytes().to_vec();
            payload.extend(23u32.to_ne_bytes());
            payload.resize(4 + align(request), 0);
            let mut attrs = Writer::new();
            attrs.str(NLMSGERR_ATTR_MSG, "no such thing");
            attrs.ne32(NLMSGERR_ATTR_OFFS, 20);
            payload.extend(attrs.finish().unwrap());
            let flags = ACK_TLVS | if capped { CAPPED } else { 0 };
            let message = Message {
                kind: NLMSG_ERROR,
                flags,
                seq: 4,
                pid: 1,
                payload: &payload,
            };
            let nack = Nack {
                errno: 22,
                seq: 4,
                message: Some("no such thing".into()),
                offset: Some(20),
            };
            assert_eq!(message.reply(), Ok(NetlinkReply::Nack(nack)));
        }
    }

    #[test]
    fn acks_and_ends_are_told_apart() {
        let of = |kind, payload| Message {
            kind,
            flags: 0,
            seq: 1,
            pid: 0,
            payload,
        };
        assert_eq!(of(NLMSG_ERROR, &[0; 20]).reply(), Ok(NetlinkReply::Ack));
        assert!(of(NLMSG_ERROR, &[0; 3]).reply().is_err());
        assert_eq!(of(NLMSG_DONE, &[]).reply(), Ok(NetlinkReply::Done(None)));
        assert_eq!(of(NLMSG_DONE, &[0; 4]).reply(), Ok(NetlinkReply::Done(None)));
        let failed = (-4i32).to_ne_bytes();
        assert!(matches!(
            of(NLMSG_DONE, &failed).reply(),
            Ok(NetlinkReply::Done(Some(Nack { errno: 4, .. })))
        ));
        assert_eq!(of(NLMSG_NOOP, &[]).reply(), Ok(NetlinkReply::Noop));
        assert_eq!(of(NLMSG_OVERRUN, &[]).reply(), Ok(NetlinkReply::Overrun));
    }

    proptest! {
        #[test]
        fn reading_is_total(bytes: Vec<u8>) {
            for message in Messages::new(&bytes).flatten() {
                let _ = message.reply();
                let _ = message.family();
            }
            for attr in Attrs::new(&bytes).flatten() {
                let _ = (attr.u8(), attr.be16(), attr.be32(), attr.be64(), attr.ne32(), attr.str());
                let _ = attr.nested().count();
            }
        }

        #[test]
        fn answers_are_total(kind in 0u16..6, flags: u16, payload: Vec<u8>) {
            let _ = Message { kind, flags, seq: 0, pid: 0, payload: &payload }.reply();
        }

        #[test]
        fn attributes_round_trip(values: Vec<(u16, Vec<u8>)>) {
            let mut writer = Writer::new();
            for (kind, value) in &values {
                writer.attr(kind & TYPE_MASK, value);
            }
            let bytes = writer.finish().unwrap();
            let read: Vec<_> = Attrs::new(&bytes).map(|a| a.map(|a| (a.kind, a.payload.to_vec())).unwrap()).collect();
            prop_assert_eq!(read, values.into_iter().map(|(k, v)| (k & TYPE_MASK, v)).collect::<Vec<_>>());
        }
    }
}
