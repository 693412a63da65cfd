//! Reading of messages and attributes in place.

use std::mem;

use nix::errno::Errno;

use super::{ATTR_LEN, FAMILY_LEN, HEADER_LEN, NetfilterHeader, align};

/// The bits of an attribute's type (`NLA_TYPE_MASK`).
pub(super) const TYPE_MASK: u16 = 0x3fff;

pub(super) const NLMSG_NOOP: u16 = 1;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;
/// `NLM_F_CAPPED`: the kernel repeats only the header of the request.
pub(super) const CAPPED: u16 = 0x100;
/// `NLM_F_ACK_TLVS`: extended ACK attributes follow.
pub(super) const ACK_TLVS: u16 = 0x200;
pub(super) const NLMSGERR_ATTR_MSG: u16 = 1;
pub(super) const NLMSGERR_ATTR_OFFS: u16 = 2;

/// Error of bytes that are no netlink message or attribute, or not of the requested form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("failed to decode a netlink answer: {what}")]
pub struct Malformed {
    /// Description of what is wrong.
    pub what: &'static str,
}

impl Malformed {
    /// Creates the error with a description of what is wrong.
    pub const fn new(what: &'static str) -> Self {
        Self { what }
    }
}

/// A received message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Type of the message: `nlmsg_type`.
    pub kind: u16,
    /// Flags `NLM_F_*`.
    pub flags: u16,
    /// Sequence number of the request that it answers; 0 in notifications.
    pub seq: u32,
    /// The port id of the socket whose request it answers.
    pub pid: u32,
    /// Payload after the header.
    pub payload: &'a [u8],
}

/// Role of a message in the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetlinkReply<'a> {
    /// A message of the subsystem.
    Data(Message<'a>),
    /// The request that asked for an ACK was carried out.
    Ack,
    /// The request was refused.
    Nack(Nack),
    /// A dump ended, with an error if it could not be completed.
    Done(Option<Nack>),
    /// No meaning (`NLMSG_NOOP`).
    Noop,
    /// Data was lost.
    Overrun,
}

/// The kernel's refusal of one message, with what the extended ACK says about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The errno, positive.
    pub errno: i32,
    /// Sequence number of the message that was refused.
    pub seq: u32,
    /// Text of the kernel, if any.
    pub message: Option<String>,
    /// Offset of the bad attribute in the refused message, its header included.
    pub offset: Option<u32>,
}

impl Nack {
    /// Returns the errno as a value to match on.
    pub fn error(&self) -> Errno {
        Errno::from_raw(self.errno)
    }
}

impl std::fmt::Display for Nack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ({:?})", self.error().desc(), self.error())?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl<'a> Message<'a> {
    /// Distinguishes ACKs, refusals and ends of dumps from data.
    ///
    /// # Errors
    ///
    /// Fails when an answer is too short for its type.
    pub fn reply(&self) -> Result<NetlinkReply<'a>, Malformed> {
        Ok(match self.kind {
            NLMSG_NOOP => NetlinkReply::Noop,
            NLMSG_OVERRUN => NetlinkReply::Overrun,
            NLMSG_ERROR => match self.errno()? {
                0 => NetlinkReply::Ack,
                errno => NetlinkReply::Nack(self.nack(errno, self.error_attrs())),
            },
            // Old kernels end a dump with no error code at all.
            NLMSG_DONE if self.payload.len() < 4 => NetlinkReply::Done(None),
            NLMSG_DONE => match self.errno()? {
                0 => NetlinkReply::Done(None),
                errno => NetlinkReply::Done(Some(self.nack(errno, self.payload.get(4..)))),
            },
            _ => NetlinkReply::Data(*self),
        })
    }

    /// Returns the `nfgenmsg` and the attributes after it.
    ///
    /// # Errors
    ///
    /// Fails when the message is shorter than its header.
    pub fn family(&self) -> Result<(NetfilterHeader, Attrs<'a>), Malformed> {
        match self.payload.split_first_chunk::<FAMILY_LEN>() {
            Some((&[family, version, high, low], rest)) => Ok((
                NetfilterHeader {
                    family,
                    version,
                    res_id: u16::from_be_bytes([high, low]),
                },
                Attrs::new(rest),
            )),
            None => Err(Malformed::new("a netfilter message without its family")),
        }
    }

    /// Returns the errno of `NLMSG_ERROR` or `NLMSG_DONE`, positive.
    fn errno(&self) -> Result<i32, Malformed> {
        let (code, _) = self
            .payload
            .split_first_chunk()
            .ok_or(Malformed::new("an answer without its error code"))?;
        Ok(i32::from_ne_bytes(*code).checked_neg().unwrap_or(i32::MAX))
    }

    /// Returns the attributes of the extended ACK of an `NLMSG_ERROR`: after the code and the request, or its header if
    /// capped.
    fn error_attrs(&self) -> Option<&'a [u8]> {
        let request = self.payload.get(4..)?;
        let length = match self.flags & CAPPED {
            0 => align(usize::try_from(u32::from_ne_bytes(*request.first_chunk()?)).ok()?),
            _ => HEADER_LEN,
        };
        request.get(length..)
    }

    fn nack(&self, errno: i32, attrs: Option<&'a [u8]>) -> Nack {
        let mut nack = Nack {
            errno,
            seq: self.seq,
            message: None,
            offset: None,
        };
        if self.flags & ACK_TLVS == 0 {
            return nack;
        }
        for attr in Attrs::new(attrs.unwrap_or_default()).map_while(Result::ok) {
            match attr.kind {
                NLMSGERR_ATTR_MSG => nack.message = attr.str().ok().map(str::to_owned),
                NLMSGERR_ATTR_OFFS => nack.offset = attr.ne32().ok(),
                _ => {}
            }
        }
        nack
    }
}

/// Iterator over the messages in a received buffer, which ends after the first error.
#[derive(Clone, Debug)]
pub struct Messages<'a>(&'a [u8]);

impl<'a> Messages<'a> {
    /// Returns an iterator over the messages in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes that were not read yet.
    pub const fn bytes(&self) -> &'a [u8] {
        self.0
    }

    fn take_one(bytes: &'a [u8]) -> Result<(Message<'a>, &'a [u8]), Malformed> {
        let short = Malformed::new("a message that is shorter than its header");
        let (header, _) = bytes.split_first_chunk::<HEADER_LEN>().ok_or(short)?;
        let &[l0, l1, l2, l3, t0, t1, f0, f1, s0, s1, s2, s3, p0, p1, p2, p3] = header;
        let length = usize::try_from(u32::from_ne_bytes([l0, l1, l2, l3])).map_err(|_| short)?;
        let payload = bytes
            .get(HEADER_LEN..length)
            .ok_or(Malformed::new("a message that ends behind the buffer"))?;
        let message = Message {
            kind: u16::from_ne_bytes([t0, t1]),
            flags: u16::from_ne_bytes([f0, f1]),
            seq: u32::from_ne_bytes([s0, s1, s2, s3]),
            pid: u32::from_ne_bytes([p0, p1, p2, p3]),
            payload,
        };
        Ok((message, bytes.get(align(length)..).unwrap_or_default()))
    }
}

impl<'a> Iterator for Messages<'a> {
    type Item = Result<Message<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        Some(Self::take_one(bytes).map(|(message, rest)| {
            self.0 = rest;
            message
        }))
    }
}

/// Iterator over the attributes in a payload, which ends after the first error.
#[derive(Clone, Debug)]
pub struct Attrs<'a>(&'a [u8]);

impl<'a> Attrs<'a> {
    /// Returns an iterator over the attributes in `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Returns the first attribute of this type.
    ///
    /// # Errors
    ///
    /// Fails when an attribute before it is malformed.
    pub fn first(self, kind: u16) -> Result<Option<Attr<'a>>, Malformed> {
        for attr in self {
            let attr = attr?;
            if attr.kind == kind {
                return Ok(Some(attr));
            }
        }
        Ok(None)
    }

    fn take_one(bytes: &'a [u8]) -> Result<(Attr<'a>, &'a [u8]), Malformed> {
        let (&[l0, l1, t0, t1], _) = bytes
            .split_first_chunk::<ATTR_LEN>()
            .ok_or(Malformed::new("an attribute that is shorter than its header"))?;
        let length = usize::from(u16::from_ne_bytes([l0, l1]));
        let payload = bytes
            .get(ATTR_LEN..length)
            .ok_or(Malformed::new("an attribute that ends behind its message"))?;
        let kind = u16::from_ne_bytes([t0, t1]) & TYPE_MASK;
        Ok((Attr { kind, payload }, bytes.get(align(length)..).unwrap_or_default()))
    }
}

impl<'a> Iterator for Attrs<'a> {
    type Item = Result<Attr<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = mem::take(&mut self.0);
        if bytes.is_empty() {
            return None;
        }
        Some(Self::take_one(bytes).map(|(attr, rest)| {
            self.0 = rest;
            attr
        }))
    }
}

/// An attribute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr<'a> {
    /// Type without the flags for nesting and byte order.
    pub kind: u16,
    /// Value of the attribute.
    pub payload: &'a [u8],
}

impl<'a> Attr<'a> {
    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// Fails when the value has another length; likewise for the other types.
    pub fn u8(&self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    /// Reads 16 bits in network byte order.
    pub fn be16(&self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    /// Reads 32 bits in network byte order.
    pub fn be32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    /// Reads 64 bits in network byte order.
    pub fn be64(&self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// Reads 32 bits in this machine's byte order.
    pub fn ne32(&self) -> Result<u32, Malformed> {
        self.array().map(u32::from_ne_bytes)
    }

    /// Reads text up to the first NUL.
    ///
    /// # Errors
    ///
    /// Fails when the text is not UTF-8.
    pub fn str(&self) -> Result<&'a str, Malformed> {
        let text = self.payload.split(|byte| *byte == 0).next().unwrap_or_default();
        str::from_utf8(text).map_err(|_| Malformed::new("text that is no UTF-8"))
    }

    /// Returns the attributes that the value contains.
    pub const fn nested(&self) -> Attrs<'a> {
        Attrs::new(self.payload)
    }

    /// Reads exactly `N` bytes.
    ///
    /// # Errors
    ///
    /// Fails when the value has another length.
    pub fn array<const N: usize>(&self) -> Result<[u8; N], Malformed> {
        self.payload
            .try_into()
            .map_err(|_| Malformed::new("an attribute of another length than its type has"))
    }
}
