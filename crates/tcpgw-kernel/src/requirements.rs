//! Finds out whether this kernel has the features that the rules need. Each is sent in a batch without an end, which the kernel
//! checks as it would any other, and then takes back (as for `nft --check`). It may load modules, as it would for `apply`.
//!
//! Source: `nfnetlink_rcv_batch` in `net/netfilter/nfnetlink.c`.

mod attempt;
mod features;

use nix::errno::Errno;

use self::attempt::first_refusal;
pub use self::features::Feature;
use self::features::{Needs, features};
use crate::netlink::error::NetlinkError;
use crate::netlink::socket::{Netlink, restarting};
use crate::nftables::ownership::Ownership;
use tcpgw_core::model::FlowMark;

/// A feature that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingFeature {
    /// Feature that is missing.
    pub feature: Feature,
    /// Answer of the kernel.
    pub answer: String,
}

/// Asks for every feature that the rules need, and returns those that the kernel lacks.
///
/// # Errors
/// Fails when the kernel cannot be asked or its answer cannot be read: see [`Netlink::send`] and [`Netlink::try_recv`]. Fails
/// with [`NetlinkError::Refused`] without `CAP_NET_ADMIN`.
pub fn lacks(socket: &mut Netlink, mark: FlowMark) -> Result<Vec<MissingFeature>, NetlinkError> {
    let mut lacks = Vec::new();
    for (feature, needs) in features(mark) {
        if let Some(nack) = restarting(|| first_refusal(socket, &needs))? {
            if matches!(nack.error(), Errno::EPERM | Errno::EACCES) {
                let what = "ask the kernel for its features";
                return Err(NetlinkError::Refused { what, nack });
            }
            lacks.push(MissingFeature {
                feature,
                answer: nack.to_string(),
            });
        }
    }
    Ok(lacks)
}

/// Returns whether a table can outlive its owner, and be taken over by another one (Linux 6.9).
///
/// # Errors
/// Fails when the kernel cannot be asked or its answer cannot be read: see [`Netlink::send`] and [`Netlink::try_recv`]. Fails
/// with [`NetlinkError::Refused`] without `CAP_NET_ADMIN` or memory.
pub fn persists(socket: &mut Netlink) -> Result<bool, NetlinkError> {
    let flags = Ownership::Persist.flags();
    let needs = Needs {
        flags,
        ..Needs::default()
    };
    match restarting(|| first_refusal(socket, &needs))? {
        None => Ok(true),
        Some(nack) if !matches!(nack.error(), Errno::EPERM | Errno::EACCES | Errno::ENOMEM) => Ok(false),
        Some(nack) => Err(NetlinkError::Refused {
            what: "ask the kernel for tables that persist",
            nack,
        }),
    }
}
