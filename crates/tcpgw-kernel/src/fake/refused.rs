//! Refusals.

use nix::errno::Errno;

use crate::netlink::tlv::Nack;
use crate::nftables::transaction::{MessageSubject, RefusedMessage};

pub(super) fn refused(subject: MessageSubject, element: Option<&[u8]>, errno: Errno) -> RefusedMessage {
    RefusedMessage {
        subject,
        element: element.map(Into::into),
        expression: None,
        nack: Nack {
            errno: errno as i32,
            seq: 0,
            message: None,
            offset: None,
        },
    }
}
