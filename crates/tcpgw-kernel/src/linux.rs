//! Implementation of the trait `Kernel` by the kernel of this machine.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::conntrack::{Conntrack, Deletion, Flow, Pair, Selection};
use crate::firewall::{self, TableFamily};
use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::socket::{Netlink, restarting};
use crate::netlink::tlv::NetlinkReply;
use crate::nftables::nat_order::OlderChains;
use crate::nftables::ownership::{Adoption, DORMANT, Ownership};
use crate::nftables::transaction::{MessageSubject, Sealed, Transaction};
use crate::nftables::watch::Watch;
use crate::nftables::{chains, elements, survey, table};
use crate::requirements;
use crate::{
    Build, Commit, Counted, InFlight, Kernel, KernelError, Observed, ObservedTable, RulesetIdentity, TableProperties,
};
use tcpgw_core::model::FlowMark;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_core::ruleset::skeleton;
use tcpgw_core::ruleset::timeouts::KernelTimeouts;

/// Number of times that the table is read again because of a concurrent write.
const READS: u32 = 30;
/// Number of times that a transaction is sent again because of a concurrent write to another table.
const SENDS: u32 = 100;

/// Time after which a packet has left the stack, where the kernel cannot tell.
const IN_FLIGHT: Duration = Duration::from_millis(10);

/// The kernel of this machine, in the network namespace of the thread that opened it.
#[derive(Debug)]
pub struct Linux {
    /// The one socket that writes: the kernel knows an owner by its socket.
    nft: Netlink,
    ownership: Ownership,
    /// Whether the kernel has tables that persist; `None`: it was not asked yet.
    persists: Option<bool>,
    conntrack: Conntrack,
    /// Watch of the table, once another program has written.
    watch: Option<Watch>,
    /// The last generation at which the table was known to be unchanged.
    watched: Option<u32>,
}

impl Linux {
    /// Opens the sockets. New tables persist, where the kernel supports it, so that they can be owned later.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] and [`NetlinkError::Configure`].
    pub fn open() -> Result<Self, NetlinkError> {
        Self::open_for(Ownership::Persist)
    }

    /// Opens the sockets. New tables get this ownership, as far as the kernel supports it. A table that it owns becomes
    /// an orphan as soon as it is dropped.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] and [`NetlinkError::Configure`].
    pub fn open_for(ownership: Ownership) -> Result<Self, NetlinkError> {
        Ok(Self {
            ownership,
            persists: None,
            nft: Netlink::netfilter()?,
            conntrack: Conntrack::open()?,
            watch: None,
            watched: None,
        })
    }

    fn generation(&mut self) -> Result<u32, NetlinkError> {
        restarting(|| table::generation(&mut self.nft))
    }

    /// Returns the cookie of the network namespace: unique until the machine restarts.
    ///
    /// # Errors
    ///
    /// Fails with the error of `getsockopt`.
    pub fn netns_cookie(&self) -> std::io::Result<u64> {
        crate::ffi::socket::netns_cookie(std::os::fd::AsFd::as_fd(&self.nft))
    }

    /// Returns the netlink port of the socket that writes. By it notifications distinguish this process' transactions
    /// from others, and the kernel identifies the table's owner.
    pub const fn port(&self) -> u32 {
        self.nft.port()
    }

    /// Returns whether the kernel has persistent tables. Asked beforehand, not learnt by a refusal: a large transaction
    /// would cause more refusals than fit into the socket.
    fn persists(&mut self) -> Result<bool, NetlinkError> {
        if let Some(persists) = self.persists {
            return Ok(persists);
        }
        let persists = requirements::persists(&mut self.nft)?;
        if !persists {
            tracing::debug!("this kernel has no tables that persist: the table is a plain one");
        }
        self.persists = Some(persists);
        Ok(persists)
    }

    /// Returns the ownership that a new table gets on this kernel.
    fn attainable(&mut self) -> Result<Ownership, NetlinkError> {
        let wanted = self.ownership;
        if wanted == Ownership::Plain || self.persists()? {
            return Ok(wanted);
        }
        Ok(Ownership::Plain)
    }

    fn send(&mut self, sealed: &Sealed) -> Result<(), KernelError> {
        // Answers to the batch are in the socket when `sendmsg` returns: the kernel works in its context.
        self.nft.send("send the transaction", &sealed.parts())?;
        self.nft.skip_seq(sealed.last_seq());
        let mut refused = Vec::new();
        let mut acknowledged = false;
        loop {
            match self.nft.try_recv() {
                Ok(Some(messages)) => {
                    for message in messages {
                        let message = message.map_err(|error| KernelError::Unknown(error.into()))?;
                        match message.reply().map_err(|error| KernelError::Unknown(error.into()))? {
                            NetlinkReply::Ack => acknowledged |= message.seq == sealed.last_seq(),
                            NetlinkReply::Nack(nack) => refused.extend(sealed.trace(nack)),
                            _ => {}
                        }
                    }
                }
                Ok(None) => break,
                Err(error) => return Err(KernelError::Unknown(error)),
            }
        }
        if refused
            .iter()
            .any(|refused| refused.subject == MessageSubject::Batch && refused.nack.error() == Errno::ERESTART)
        {
            return Err(KernelError::Outdated);
        }
        match (refused.is_empty(), acknowledged) {
            (false, _) => Err(KernelError::Refused(refused)),
            (true, true) => Ok(()),
            (true, false) => Err(KernelError::Unknown(NetlinkError::Timeout)),
        }
    }

    /// Begins to watch the table, unless it is watched already, so that writes of others to it are noticed from now on.
    fn watch(&mut self) -> Result<&mut Watch, NetlinkError> {
        match &mut self.watch {
            Some(watch) => Ok(watch),
            none => Ok(none.insert(Watch::open()?)),
        }
    }

    /// Returns the present generation, if no program has written to the table since the given one.
    fn later(&mut self, generation: u32) -> Result<Option<u32>, NetlinkError> {
        let now = self.generation()?;
        let Some(watch) = self.watch.as_mut().filter(|_| self.watched == Some(generation)) else {
            return Ok(None);
        };
        self.watched = (!watch.touched()?).then_some(now);
        Ok(self.watched)
    }

    /// Sends a transaction that was made for that generation, again if others wrote to other tables meanwhile. Returns
    /// the generation after it.
    ///
    /// A transaction that makes the table is encoded again before it is sent again: it names chains of others.
    fn send_at(
        &mut self,
        mut generation: u32,
        mut sealed: Sealed,
        commit: Option<&Commit<'_>>,
    ) -> Result<u32, KernelError> {
        for _ in 0..SENDS {
            tracing::debug!(bytes = sealed.len(), generation, "sending a transaction");
            match self.send(&sealed) {
                Err(KernelError::Outdated) => {}
                done => {
                    // Notifications about it would look like those of another program.
                    self.watched = None;
                    return done.map(|()| next_generation(generation));
                }
            }
            let Some(later) = self.later(generation)? else { break };
            generation = later;
            match commit.filter(|commit| commit.build.is_some()) {
                Some(commit) => sealed = self.encode(&Commit { generation, ..*commit })?,
                None => sealed.set_generation(generation),
            }
        }
        self.watch()?;
        Err(KernelError::Outdated)
    }

    /// Returns the NAT chains of other programs. The transaction that names them is for a generation that was read
    /// before: it is refused if one was created or removed since. Without them only the order of chains is unknown.
    fn older_chains(&mut self) -> Option<OlderChains> {
        let chains = firewall::without_rules(&mut self.nft)
            .inspect_err(|error| tracing::debug!(%error, "failed to list the chains of others"))
            .ok()?;
        let [legacy4, legacy6] = [TableFamily::Ip, TableFamily::Ip6].map(firewall::has_legacy_nat);
        Some(OlderChains::among(&chains, legacy4.ok()?, legacy6.ok()?))
    }

    fn encode(&mut self, commit: &Commit<'_>) -> Result<Sealed, KernelError> {
        let ownership = match commit.build {
            Some(_) => self.attainable()?,
            None => Ownership::Plain,
        };
        let older = commit.build.and_then(|_| self.older_chains());
        let mut transaction = Transaction::begin(Some(commit.generation), self.nft.next_seq());
        match commit.build {
            Some(Build::New(room)) => transaction.new_table(commit.mark, room, ownership, older.as_ref()),
            Some(Build::Replace(room)) => {
                transaction.delete_table();
                transaction.new_table(commit.mark, room, ownership, older.as_ref());
            }
            None => {}
        }
        transaction.step(commit.step, commit.mark);
        for (set, keys) in commit.forget {
            transaction.forget(*set, keys);
        }
        Ok(transaction.seal().map_err(NetlinkError::from)?)
    }
}

/// Reads the table once; it may change meanwhile.
///
/// # Errors
///
/// Fails when the kernel cannot be read: see [`NetlinkExchange::request`] and [`NetlinkExchange::dump`].
pub fn read(from: &mut impl NetlinkExchange, mark: FlowMark) -> Result<ObservedTable, NetlinkError> {
    let Some(found) = restarting(|| table::table(from))? else {
        return Ok(ObservedTable::Absent);
    };
    let room = found.comment.as_deref().and_then(skeleton::room_of).unwrap_or_default();
    // Each part is repeated separately: while another program commits every millisecond, there is time for one part,
    // and not for all.
    let mut survey = restarting(|| survey::survey(from, room))?;
    let ours = chains::skeleton_is_ours(from, mark, &mut survey)?
        && found.flags & DORMANT == 0
        && found.comment.as_deref() == Some(&skeleton::comment(mark, room));
    let (ruleset, readable) = restarting(|| elements::elements(from, &survey))?;
    let handle = found.handle;
    Ok(if ours && readable {
        ObservedTable::Ours { handle, ruleset, room }
    } else {
        ObservedTable::Other {
            handle,
            comment: found.comment,
            ruleset,
        }
    })
}

fn cpus_online() -> libc::c_long {
    let answer = nix::unistd::sysconf(nix::unistd::SysconfVar::_NPROCESSORS_ONLN);
    answer.ok().flatten().unwrap_or(1)
}

/// Returns the generation after `generation`: 0 is left out when it wraps (`nft_base_seq_inc` in
/// `net/netfilter/nf_tables_api.c`).
pub(crate) fn next_generation(generation: u32) -> u32 {
    generation.checked_add(1).unwrap_or(1)
}

impl Kernel for Linux {
    fn identity(&mut self) -> Result<RulesetIdentity, KernelError> {
        // The generation first: what is committed after it makes the pair one that never was.
        let generation = self.generation()?;
        let table = restarting(|| table::table(&mut self.nft))?.map(|table| table.handle);
        Ok(RulesetIdentity { generation, table })
    }

    fn observe(&mut self, mark: FlowMark) -> Result<Observed, KernelError> {
        for attempt in 0..READS {
            if attempt > 0 || self.watch.is_some() {
                self.watch()?.touched()?;
            }
            let generation = self.generation()?;
            self.watched = Some(generation);
            let read = read(&mut self.nft, mark);
            // Dumps of elements do not report changes in between; the generation does.
            let settled = match self.generation()? {
                now if now == generation => Some(now),
                _ => self.later(generation)?,
            };
            match (settled, read) {
                (None, _) | (_, Err(NetlinkError::Unsettled(_))) => {}
                (Some(generation), read) => {
                    return Ok(Observed {
                        generation,
                        table: read?,
                    });
                }
            }
        }
        Err(NetlinkError::Unsettled(READS).into())
    }

    fn comment(&mut self) -> Result<Option<String>, KernelError> {
        Ok(restarting(|| table::table(&mut self.nft))?.and_then(|table| table.comment))
    }

    fn about(&mut self) -> Result<Option<TableProperties>, KernelError> {
        let table = restarting(|| table::table(&mut self.nft))?;
        Ok(table.map(|table| TableProperties {
            handle: table.handle,
            comment: table.comment,
            flags: table.flags,
            owner: table.owner,
        }))
    }

    fn ownership(&self) -> Ownership {
        self.ownership
    }

    fn adopt(&mut self, generation: u32) -> Result<Adoption, KernelError> {
        if self.attainable()? != Ownership::Owned {
            return Ok(Adoption::Unwanted);
        }
        let Some(table) = restarting(|| table::table(&mut self.nft))? else {
            return Ok(Adoption::Absent);
        };
        match Ownership::of(table.flags) {
            Ownership::Plain => return Ok(Adoption::Plain),
            Ownership::Owned if table.owner == Some(self.port()) => return Ok(Adoption::Owned),
            Ownership::Owned => return Ok(Adoption::Foreign(table.owner.unwrap_or(0))),
            Ownership::Persist => {}
        }
        let mut transaction = Transaction::begin(Some(generation), self.nft.next_seq());
        transaction.adopt_table();
        let sealed = transaction.seal().map_err(NetlinkError::from)?;
        self.send_at(generation, sealed, None).map(Adoption::Adopted)
    }

    fn commit(&mut self, commit: &Commit<'_>) -> Result<u32, KernelError> {
        let sealed = self.encode(commit)?;
        if sealed.is_empty() {
            return Ok(commit.generation);
        }
        self.send_at(commit.generation, sealed, Some(commit))
    }

    fn remove(&mut self) -> Result<bool, KernelError> {
        let mut transaction = Transaction::begin(None, self.nft.next_seq());
        transaction.delete_table();
        match self.send(&transaction.seal().map_err(NetlinkError::from)?) {
            Err(KernelError::Refused(refused))
                if refused.iter().all(|refused| refused.nack.error() == Errno::ENOENT) =>
            {
                Ok(false)
            }
            other => other.map(|()| true),
        }
    }

    /// Reads the sysctls of the calling thread's network namespace, as all of `/proc/sys/net`.
    fn timeouts(&mut self) -> KernelTimeouts {
        KernelTimeouts::from_sysctls(|name| {
            let path = format!("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_{name}");
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        })
    }

    fn counted(&mut self, set: SetName) -> Result<Vec<Counted>, KernelError> {
        Ok(restarting(|| elements::counted(&mut self.nft, set))?)
    }

    fn counters(&mut self, keys: &[(SetName, Box<[u8]>)]) -> Result<Vec<Counted>, KernelError> {
        let mut counted = Vec::with_capacity(keys.len());
        for (set, key) in keys {
            let (packets, bytes) = elements::counter(&mut self.nft, *set, key)?.unwrap_or_default();
            counted.push(Counted {
                key: key.clone(),
                packets,
                bytes,
            });
        }
        Ok(counted)
    }

    fn flows(&mut self, mark: FlowMark, each: &mut dyn FnMut(&Flow)) -> Result<(), KernelError> {
        Ok(self.conntrack.for_each(mark, each)?)
    }

    fn select(
        &mut self,
        mark: FlowMark,
        selection: &Selection,
        each: &mut dyn FnMut(&Flow) -> ControlFlow<()>,
    ) -> Result<(), KernelError> {
        Ok(self.conntrack.select(mark, selection, each)?)
    }

    fn who(&mut self, mark: FlowMark, backend: SocketAddr, seen_as: SocketAddr) -> Result<Option<Flow>, KernelError> {
        Ok(self.conntrack.who(mark, backend, seen_as)?)
    }

    fn sweep(&mut self, mark: FlowMark, judge: &mut dyn FnMut(&Flow) -> bool) -> Result<Deletion, KernelError> {
        Ok(self.conntrack.sweep(mark, judge)?)
    }

    fn flush_pairs(&mut self, mark: FlowMark, pairs: &[Pair]) -> Result<Deletion, KernelError> {
        Ok(self.conntrack.flush_pairs(mark, pairs)?)
    }

    fn settle(&mut self) -> Result<InFlight, KernelError> {
        if self.conntrack.has_none()? {
            return Ok(InFlight::NoFlows);
        }
        match crate::ffi::system::await_rcu_readers() {
            // With one CPU the kernel does not wait at all.
            Ok(()) if cpus_online() > 1 => return Ok(InFlight::Through),
            Ok(()) => {}
            Err(error) => tracing::debug!(%error, "this kernel cannot say when packets are through: sweeping twice"),
        }
        std::thread::sleep(IN_FLIGHT);
        Ok(InFlight::Unknown)
    }

    fn now(&self) -> Instant {
        Instant::now()
    }

    fn pause(&mut self, time: Duration) {
        std::thread::sleep(time);
    }
}
