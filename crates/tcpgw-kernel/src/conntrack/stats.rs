//! Statistics of conntrack, and the test whether it can filter.

use nix::errno::Errno;

use super::wire;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;

/// Counters of conntrack, summed over all CPUs, since the network namespace began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Number of packets that conntrack could assign to no flow.
    pub invalid: u64,
    /// Number of entries that could not be added to the table, because another one had the same addresses by then.
    pub insert_failed: u64,
    /// Number of packets that were dropped because there was no room, or no memory.
    pub drop: u64,
    /// Number of entries that were removed early to make room.
    pub early_drop: u64,
    /// Number of look-ups that began again because the table changed.
    pub search_restart: u64,
    /// Number of entries that were refused because their bucket was too long.
    pub chain_too_long: u64,
}

impl Stats {
    /// Reads the counters.
    ///
    /// # Errors
    /// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
    pub fn read(socket: &mut impl NetlinkExchange) -> Result<Self, NetlinkError> {
        let mut total = Self::default();
        socket.dump("read the counters of conntrack", wire::cpu_stats, |message| {
            for attr in message.family()?.1 {
                let attr = attr?;
                let field = match attr.kind {
                    wire::CTA_STATS_INVALID => &mut total.invalid,
                    wire::CTA_STATS_INSERT_FAILED => &mut total.insert_failed,
                    wire::CTA_STATS_DROP => &mut total.drop,
                    wire::CTA_STATS_EARLY_DROP => &mut total.early_drop,
                    wire::CTA_STATS_SEARCH_RESTART => &mut total.search_restart,
                    wire::CTA_STATS_CHAIN_TOOLONG => &mut total.chain_too_long,
                    _ => continue,
                };
                *field += u64::from(attr.be32()?);
            }
            Ok(())
        })?;
        Ok(total)
    }
}

/// Returns whether the kernel can filter flows by address: it refuses an invalid filter only if it reads filters.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::dump`].
pub fn can_filter(socket: &mut impl NetlinkExchange) -> Result<bool, NetlinkError> {
    match socket.dump("ask conntrack for its filter", wire::senseless_filter, |_| Ok(())) {
        Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP | Errno::ERANGE)) => Ok(true),
        other => other.map(|()| false),
    }
}
