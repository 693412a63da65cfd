//! The flows that conntrack knows: listed, found and deleted.
//!
//! Only flows that carry our mark, are TCP and have a translated destination exist here; the kernel filters by the mark,
//! and everything is checked again in user space. Which of them are stale is the caller's to say.
//!
//! Deletes are of single flows, by original addresses, zone and id: a `DELETE` that names a filter whose flags are 0,
//! or no tuple, empties the machine's whole table, and one that names an IPv6 address spares exactly the flows it should
//! delete; with this there is no way to write either. It is also fast enough: see `tests/conntrack_speed.rs`.
//!
//! Source: `net/netfilter/nf_conntrack_netlink.c`.

mod flow;
mod wire;

use std::{
    collections::BTreeSet,
    io::IoSlice,
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
};

use nix::errno::Errno;

pub use self::flow::{Counters, Flow, FlowKey, Status, TcpState, Traffic};
use super::{
    socket::{Netlink, NetlinkError},
    tlv::{Nack, Writer},
};

/// Most flows that are deleted by one `sendmsg`.
const CHUNK: usize = 1024;
/// What the kernel accounts for one refusal that waits to be read, in bytes, generously.
const REFUSAL: usize = 2048;
/// Failures of which the details are kept.
const EXAMPLES: usize = 16;
/// Above this many pairs one pass over all our flows is cheaper than one filtered pass for each.
const FILTERED_PAIRS: usize = 4;

/// Which flows are ours: those whose mark, under the mask, has the value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkFilter {
    value: NonZeroU32,
    mask: u32,
}

impl MarkFilter {
    /// `None` when it could not match anything, or would match flows without a mark: a zero value, or one with bits
    /// outside of the mask.
    pub fn new(value: u32, mask: u32) -> Option<Self> {
        NonZeroU32::new(value)
            .filter(|value| value.get() & !mask == 0)
            .map(|value| Self { value, mask })
    }

    /// The bits that are set on our flows.
    pub const fn value(self) -> u32 {
        self.value.get()
    }

    /// The bits that are looked at.
    pub const fn mask(self) -> u32 {
        self.mask
    }

    /// Whether a flow with this mark is ours.
    pub const fn matches(self, mark: u32) -> bool {
        mark & self.mask == self.value.get()
    }

    fn owns(self, flow: &Flow) -> bool {
        self.matches(flow.mark) && flow.status.dnat()
    }
}

/// Whether the kernel is asked to filter by addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PairFilter {
    /// It is asked, and not again once it refused.
    #[default]
    Kernel,
    /// All our flows are listed and filtered here.
    UserSpace,
}

/// A backend of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The public address, `None` for any.
    pub public: Option<IpAddr>,
    /// The service's port.
    pub public_port: u16,
    /// Where its connections go.
    pub backend: SocketAddr,
}

impl Pair {
    /// Whether a flow is of this pair.
    pub fn matches(&self, flow: &Flow) -> bool {
        self.backend == flow.backend
            && self.public_port == flow.public.port()
            && self.public.is_none_or(|public| public == flow.public.ip())
    }

    const fn of(flow: &Flow, public: Option<IpAddr>) -> Self {
        Self {
            public,
            public_port: flow.public.port(),
            backend: flow.backend,
        }
    }
}

/// What deleting came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Flows that were deleted.
    pub deleted: u64,
    /// Flows that were gone already.
    pub gone: u64,
    /// Flows that are still there.
    pub failed: u64,
    /// The first few of those.
    pub failures: Vec<Failure>,
}

impl Deletion {
    fn refused(&mut self, key: &FlowKey, nack: &Nack) {
        self.deleted = self.deleted.saturating_sub(1);
        if nack.error() == Errno::ENOENT {
            self.gone += 1;
            return;
        }
        self.failed += 1;
        if self.failures.len() < EXAMPLES {
            self.failures.push(Failure {
                key: *key,
                errno: nack.errno,
            });
        }
    }
}

/// A flow that could not be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which.
    pub key: FlowKey,
    /// Why: `EBUSY` when it is offloaded to a flow table, `EPERM` without `CAP_NET_ADMIN`.
    pub errno: i32,
}

/// Access to conntrack, of the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Conntrack {
    /// Two sockets, so that flows can be deleted while they are being listed: the kernel's walk goes bucket by bucket and
    /// begins a bucket again when the entry it stopped at is gone, which at worst shows a flow twice.
    lists: Netlink,
    deletes: Deletes,
    filter: PairFilter,
}

impl Conntrack {
    /// Opens it.
    ///
    /// # Errors
    /// [`NetlinkError::Open`] and [`NetlinkError::Configure`].
    pub fn open() -> Result<Self, NetlinkError> {
        Self::with(PairFilter::Kernel)
    }

    /// Opens it, and says who filters by addresses.
    ///
    /// # Errors
    /// As [`Conntrack::open`].
    pub fn with(filter: PairFilter) -> Result<Self, NetlinkError> {
        let deletes = Deletes {
            netlink: Netlink::netfilter()?,
            writer: Writer::new(),
        };
        Ok(Self {
            lists: Netlink::netfilter()?,
            deletes,
            filter,
        })
    }

    /// Whether the kernel is (still) asked to filter by addresses.
    pub const fn filter(&self) -> PairFilter {
        self.filter
    }

    /// Shows all our flows, one by one. One that changes its place meanwhile may be shown twice.
    ///
    /// # Errors
    /// Those of [`Netlink::dump`].
    pub fn for_each(&mut self, mark: MarkFilter, mut each: impl FnMut(&Flow)) -> Result<(), NetlinkError> {
        list(&mut self.lists, mark, None, |flow| {
            each(flow);
            Ok(())
        })
    }

    /// Deletes flows, and no others that came to have the same addresses meanwhile.
    ///
    /// # Errors
    /// Those of [`Netlink::send`] and [`Netlink::recv`]: some may have been deleted.
    pub fn delete(&mut self, keys: &[FlowKey]) -> Result<Deletion, NetlinkError> {
        let mut outcome = Deletion::default();
        for chunk in keys.chunks(self.deletes.chunk()) {
            self.deletes.send(chunk, &mut outcome)?;
        }
        Ok(outcome)
    }

    /// Lists our flows once and deletes those that `judge` says are stale. Takes a constant amount of memory.
    ///
    /// # Errors
    /// As [`Conntrack::for_each`] and [`Conntrack::delete`].
    pub fn sweep(&mut self, mark: MarkFilter, judge: impl FnMut(&Flow) -> bool) -> Result<Deletion, NetlinkError> {
        self.sweep_listed(mark, None, judge)
    }

    /// Deletes all our flows of these pairs.
    ///
    /// # Errors
    /// As [`Conntrack::sweep`].
    pub fn flush_pairs(&mut self, mark: MarkFilter, pairs: &[Pair]) -> Result<Deletion, NetlinkError> {
        let pairs: BTreeSet<Pair> = pairs.iter().copied().collect();
        let mut outcome = Deletion::default();
        if self.filter == PairFilter::Kernel && pairs.len() <= FILTERED_PAIRS {
            match self.flush_filtered(mark, &pairs, &mut outcome) {
                Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EOPNOTSUPP)) => {
                    self.filter = PairFilter::UserSpace;
                }
                other => return other.map(|()| outcome),
            }
        }
        let rest = self.sweep(mark, |flow| {
            pairs.contains(&Pair::of(flow, None)) || pairs.contains(&Pair::of(flow, Some(flow.public.ip())))
        })?;
        outcome.add(rest);
        Ok(outcome)
    }

    /// Our flow that `backend` sees as coming from `seen_as`, in conntrack's default zone.
    ///
    /// # Errors
    /// Those of [`Netlink::request`].
    pub fn who(
        &mut self,
        mark: MarkFilter,
        backend: SocketAddr,
        seen_as: SocketAddr,
    ) -> Result<Option<Flow>, NetlinkError> {
        if backend.is_ipv4() != seen_as.is_ipv4() {
            return Ok(None);
        }
        let mut found = None;
        let answer = self.lists.request(
            "find a flow",
            |writer, seq| wire::get(writer, seq, backend, seen_as),
            |message| {
                found = Flow::decode(message)?;
                Ok(())
            },
        );
        match answer {
            Err(error) if error.errno() == Some(Errno::ENOENT) => Ok(None),
            // The kernel also finds a flow whose original direction has these addresses.
            other => other.map(|()| found.filter(|f| mark.owns(f) && f.backend == backend && f.seen_as == seen_as)),
        }
    }

    fn flush_filtered(
        &mut self,
        mark: MarkFilter,
        pairs: &BTreeSet<Pair>,
        outcome: &mut Deletion,
    ) -> Result<(), NetlinkError> {
        for pair in pairs {
            if pair
                .public
                .is_none_or(|public| public.is_ipv4() == pair.backend.is_ipv4())
            {
                outcome.add(self.sweep_listed(mark, Some(pair), |flow| pair.matches(flow))?);
            }
        }
        Ok(())
    }

    fn sweep_listed(
        &mut self,
        mark: MarkFilter,
        pair: Option<&Pair>,
        mut judge: impl FnMut(&Flow) -> bool,
    ) -> Result<Deletion, NetlinkError> {
        let Self { lists, deletes, .. } = self;
        let mut outcome = Deletion::default();
        let most = deletes.chunk();
        let mut stale = Vec::with_capacity(most);
        list(lists, mark, pair, |flow| {
            if judge(flow) {
                stale.push(flow.key());
            }
            if stale.len() >= most {
                deletes.send(&stale, &mut outcome)?;
                stale.clear();
            }
            Ok(())
        })?;
        deletes.send(&stale, &mut outcome)?;
        Ok(outcome)
    }
}

impl Deletion {
    fn add(&mut self, other: Self) {
        self.deleted += other.deleted;
        self.gone += other.gone;
        self.failed += other.failed;
        self.failures.extend(other.failures);
        self.failures.truncate(EXAMPLES);
    }
}

fn list(
    netlink: &mut Netlink,
    mark: MarkFilter,
    pair: Option<&Pair>,
    mut each: impl FnMut(&Flow) -> Result<(), NetlinkError>,
) -> Result<(), NetlinkError> {
    let build = |writer: &mut Writer, seq| match pair {
        Some(pair) => wire::dump_pair(writer, seq, mark, pair),
        None => wire::dump(writer, seq, mark),
    };
    netlink.dump("list flows", build, |message| match Flow::decode(message)? {
        Some(flow) if mark.owns(&flow) => each(&flow),
        _ => Ok(()),
    })
}

/// Sends deletes and reads what was refused.
#[derive(Debug)]
struct Deletes {
    netlink: Netlink,
    writer: Writer,
}

impl Deletes {
    /// So many that the refusal of all of them fits the socket's buffer.
    fn chunk(&self) -> usize {
        (self.netlink.receive_buffer() / REFUSAL).clamp(1, CHUNK)
    }

    fn send(&mut self, keys: &[FlowKey], outcome: &mut Deletion) -> Result<(), NetlinkError> {
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
        netlink.send("delete flows", &[IoSlice::new(writer.bytes()?)])?;
        outcome.deleted += u64::try_from(keys.len()).unwrap_or(u64::MAX);
        let first = numbers.first().copied().unwrap_or(last);
        netlink.acks(last, |nack| {
            // Numbers follow each other, but for a wrap that skips 0.
            let near = usize::try_from(nack.seq.wrapping_sub(first)).unwrap_or(usize::MAX);
            let index = [near, near.wrapping_sub(1)]
                .into_iter()
                .find(|index| numbers.get(*index) == Some(&nack.seq));
            if let Some(key) = index.and_then(|index| keys.get(index)) {
                outcome.refused(key, &nack);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_that_is_nobodys_is_refused() {
        assert_eq!(MarkFilter::new(0, 0), None);
        assert_eq!(MarkFilter::new(0, 0x80_0000), None);
        assert_eq!(MarkFilter::new(3, 1), None);
        let mark = MarkFilter::new(0x80_0000, 0x80_0000).unwrap();
        assert!(mark.matches(0x80_0001) && !mark.matches(1) && !mark.matches(0));
    }

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
