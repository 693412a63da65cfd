//! The ways in which a netlink operation fails.

use std::io;

use nix::errno::Errno;

use crate::netlink::tlv::{Malformed, Nack, TooLong};

/// Time in seconds after which a missing answer of the kernel is an error.
pub const TIMEOUT_SECONDS: i64 = 10;

/// Bytes that `netlink_sendmsg` needs free in addition to the message.
pub(super) const SEND_OVERHEAD: usize = 32;

/// Reason why a netlink operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// The socket could not be opened.
    #[error("failed to open a netlink socket: {0}{hint}", hint = hint(.0))]
    Open(#[source] io::Error),
    /// A socket option was refused.
    #[error("failed to set {option} on a netlink socket: {source}{hint}", hint = hint(.source))]
    Configure {
        /// Name of the option.
        option: &'static str,
        /// Error of the kernel.
        source: io::Error,
    },
    /// An attribute is longer than its length field can say.
    #[error(transparent)]
    Encode(#[from] TooLong),
    /// No thread could be started to read or write beside this one.
    #[error("failed to start a thread: {0}")]
    Thread(#[source] io::Error),
    /// The request did not leave.
    #[error("failed to send a request of {bytes} bytes to {what}: {source}{hint}", hint = send_hint(.source, *.bytes))]
    Send {
        /// Description of the operation.
        what: &'static str,
        /// The size of the request.
        bytes: usize,
        /// Error of the kernel.
        source: io::Error,
    },
    /// The answer could not be read.
    #[error("failed to receive a netlink answer: {0}")]
    Receive(#[source] io::Error),
    /// No answer came for [`TIMEOUT_SECONDS`].
    #[error("failed to receive a netlink answer: none came within {TIMEOUT_SECONDS} s")]
    Timeout,
    /// Answers were lost (`ENOBUFS`): the outcome is unknown, read the kernel again.
    #[error("failed to receive all netlink answers: they overran the socket's buffer; the outcome is unknown")]
    Overrun,
    /// An answer was longer than the receive buffer, and was lost; the buffer has grown meanwhile.
    #[error("failed to receive a netlink answer: it has {0} bytes, more than the buffer")]
    Truncated(usize),
    /// An answer is malformed.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The data changed while it was read (`NLM_F_DUMP_INTR`): read it again.
    #[error("failed to read a consistent state: another program changed it meanwhile; try again")]
    Interrupted,
    /// The data changed during every attempt.
    #[error(
        "failed to read a consistent state: others changed it during each of {0} attempts; find the program that writes nftables all the time (`nft monitor`)"
    )]
    Unsettled(u32),
    /// The kernel refused the request.
    #[error("failed to {what}: {nack}{hint}", hint = hint(&io::Error::from_raw_os_error(.nack.errno)))]
    Refused {
        /// Description of the operation.
        what: &'static str,
        /// The kernel's answer.
        nack: Nack,
    },
}

impl NetlinkError {
    /// Returns the kernel's errno, if there is one.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { nack, .. } => Some(nack.error()),
            Self::Open(source) | Self::Receive(source) | Self::Configure { source, .. } | Self::Send { source, .. } => {
                source.raw_os_error().map(Errno::from_raw)
            }
            _ => None,
        }
    }

    /// Returns whether an answer was lost or is inconsistent, so that a new attempt may succeed.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Overrun | Self::Truncated(_) | Self::Interrupted)
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EPERM | Errno::EACCES) => " (needs CAP_NET_ADMIN)",
        Some(Errno::EPROTONOSUPPORT) => " (this kernel lacks the subsystem)",
        Some(Errno::ENOBUFS | Errno::ENOMEM) => " (the kernel is short of memory)",
        Some(Errno::EOPNOTSUPP) => " (this kernel cannot do it, or a module is missing)",
        _ => "",
    }
}

/// Returns a hint on why sending failed. A transaction must be sent in one piece, and root of a user namespace may not
/// exceed the system's limit, which is half of the size that the buffer then has (`sk_setsockopt` in
/// `net/core/sock.c`).
fn send_hint(error: &io::Error, bytes: usize) -> String {
    if error.raw_os_error() == Some(libc::EMSGSIZE) {
        let least = bytes.saturating_add(SEND_OVERHEAD).div_ceil(2);
        format!(
            " (larger than the send buffer may be: raise net.core.wmem_max to {least} or more, outside of containers, or run \
             with CAP_NET_ADMIN in the initial user namespace)"
        )
    } else {
        hint(error).to_owned()
    }
}
