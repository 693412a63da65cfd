//! Deletion of flows one by one, many in one `sendmsg`, and the numbers of those that were deleted, gone or refused.

use std::{io::IoSlice, sync::mpsc::Receiver};

use nix::errno::Errno;

use super::key::FlowKey;
use super::wire;
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange as _;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::{Nack, Writer};

const WHAT: &str = "delete flows";
/// Largest number of flows that are deleted by one `sendmsg`.
const CHUNK: usize = 1024;
/// Upper estimate of the bytes that the kernel accounts for one refusal that waits to be read.
const REFUSAL: usize = 2048;
/// Number of failures whose details are kept.
const EXAMPLES: usize = 16;

/// Result of a deletion.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Number of flows that were deleted.
    pub deleted: u64,
    /// Number of flows that did not exist any more.
    pub gone: u64,
    /// Number of flows that could not be deleted.
    pub failed: u64,
    /// The first few flows that could not be deleted.
    pub failures: Vec<DeleteFailure>,
    /// Whether answers were lost: there may be flows that were not read, or not deleted.
    pub incomplete: bool,
}

impl Deletion {
    /// Adds the numbers of another pass.
    pub(super) fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.gone += other.gone;
        self.failed += other.failed;
        self.incomplete |= other.incomplete;
        self.failures.extend(other.failures);
        self.failures.truncate(EXAMPLES);
    }

    /// Records lost answers as incomplete instead of an error: the caller looks again.
    pub(super) fn unless_lost(&mut self, answer: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
        match answer {
            Err(error) if error.is_passing() => {
                self.incomplete = true;
                Ok(())
            }
            other => other,
        }
    }

    fn refused(&mut self, key: &FlowKey, nack: &Nack) {
        self.deleted = self.deleted.saturating_sub(1);
        if nack.error() == Errno::ENOENT {
            self.gone += 1;
            return;
        }
        self.failed += 1;
        if self.failures.len() < EXAMPLES {
            self.failures.push(DeleteFailure {
                key: *key,
                errno: nack.errno,
            });
        }
    }
}

/// A flow that could not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeleteFailure {
    /// Key of the flow that was not deleted.
    pub key: FlowKey,
    /// Error of the kernel: `EBUSY` when the flow is offloaded to a flow table.
    pub errno: i32,
}

/// Sender of deletions, which reads the refusals.
#[derive(Debug)]
pub(super) struct Deletes {
    netlink: Netlink,
    writer: Writer,
}

impl Deletes {
    pub(super) fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::netfilter()?,
            writer: Writer::new(),
        })
    }

    /// Returns the number of deletions whose refusals fit into the socket's buffer.
    pub(super) fn chunk(&self) -> usize {
        (self.netlink.receive_buffer() / REFUSAL).clamp(1, CHUNK)
    }

    pub(super) fn send_all(&mut self, chunks: Receiver<Vec<FlowKey>>) -> Result<Deletion, NetlinkError> {
        let mut outcome = Deletion::default();
        for chunk in chunks {
            self.send(&chunk, &mut outcome)?;
        }
        Ok(outcome)
    }

    pub(super) fn send(&mut self, keys: &[FlowKey], outcome: &mut Deletion) -> Result<(), NetlinkError> {
        let Self { netlink, writer } = self;
        writer.clear();
        let mut numbers = Vec::with_capacity(keys.len());
        for (index, key) in keys.iter().enumerate() {
            let seq = netlink.next_seq();
            wire::delete(writer, seq, index + 1 == keys.len(), key);
            numbers.push(seq);
        }
        let Some(&last) = numbers.last() else {
            return Ok(());
        };
        netlink.send(WHAT, &[IoSlice::new(writer.bytes()?)])?;
        outcome.deleted += u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let first = numbers.first().copied().unwrap_or(last);
        let answer = netlink.acks(last, |nack| {
            if nack.seq == first && nack.error() == Errno::EPERM {
                return Err(NetlinkError::Refused { what: WHAT, nack });
            }
            // Numbers follow each other, but for a wrap that skips 0.
            let near = usize::try_from(nack.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
            let index = [near, near.wrapping_sub(1)]
                .into_iter()
                .find(|index| numbers.get(*index) == Some(&nack.seq));
            if let Some(key) = index.and_then(|index| keys.get(index)) {
                outcome.refused(key, &nack);
            }
            Ok(())
        });
        outcome.unless_lost(answer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_and_a_few_are_kept() {
        let address = "192.0.2.1:1".parse().unwrap();
        let key = FlowKey {
            client: address,
            public: address,
            zone: 0,
            id: 1,
        };
        let nack = |errno| Nack {
            errno,
            seq: 1,
            message: None,
            offset: None,
        };
        let mut outcome = Deletion {
            deleted: 100,
            ..Deletion::default()
        };
        outcome.refused(&key, &nack(libc::ENOENT));
        for _ in 0..20 {
            outcome.refused(&key, &nack(libc::EBUSY));
        }
        assert_eq!((outcome.deleted, outcome.gone, outcome.failed), (79, 1, 20));
        assert_eq!(outcome.failures.len(), EXAMPLES);
        let other = outcome.clone();
        outcome.add(other);
        assert_eq!(
            (outcome.deleted, outcome.failed, outcome.failures.len()),
            (158, 40, EXAMPLES)
        );
    }
}
