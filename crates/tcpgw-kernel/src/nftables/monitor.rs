//! Monitor of writes by other programs to the table: notifications of `nf_tables`, up to the one of the generation that
//! ends a transaction and names the process.
//!
//! Each listener costs the kernel time. Only its owner can write to an owned table, so nothing is to be monitored then
//! but the end of the ownership, which is not notified.
//!
//! Sources: `nf_tables_commit`, `nft_commit_notify` and `nf_tables_gen_notify` in `net/netfilter/nf_tables_api.c`.

use std::collections::BTreeSet;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::{Malformed, Message, Messages, NetlinkReply};
use crate::nftables::nft::{self, msg};
use crate::nftables::watch::{GROUP, is_about_us};

/// Most datagrams of one [`NftablesMonitor::drain`]: others may write without end.
const AT_ONCE: usize = 1024;
/// Largest number of writers that are listed in one [`TableNotification`].
const WRITERS: usize = 8;
/// Characters of a process' name (`TASK_COMM_LEN`, without its NUL).
const NAME: usize = 15;

/// Receives notifications of every commit in the network namespace of the thread that opened it. Does not block.
#[derive(Debug)]
pub struct NftablesMonitor {
    socket: Netlink,
    decoder: Decoder,
}

/// Change of the table by other programs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TableChange {
    /// The table was not changed.
    #[default]
    Untouched,
    /// The table was changed, or may have been.
    Touched,
    /// The table was removed and not created again.
    Gone,
}

/// Changes by others since the last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableNotification {
    /// Generation after the last transaction of any program, if there was one.
    pub generation: Option<u32>,
    /// Whether another program ended a transaction on any table, or may have.
    pub by_others: bool,
    /// Change of the table.
    pub table: TableChange,
    /// Threads that wrote to the table, as far as the kernel reports them; the first few.
    pub who: BTreeSet<Committer>,
    /// Whether notifications were lost: anything may have happened.
    pub lost: bool,
    /// Whether more notifications may be available at once.
    pub more: bool,
}

impl TableNotification {
    /// Returns whether the table has to be checked.
    pub fn is_drift(&self) -> bool {
        self.table != TableChange::Untouched || self.lost
    }

    /// Returns the writers as text: `nft (1234)`.
    pub fn by(&self) -> Option<String> {
        let names: Vec<_> = self.who.iter().map(ToString::to_string).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }
}

/// A thread that committed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Committer {
    /// Number of the thread in the first PID namespace of the machine; that of its process if it has no other threads.
    pub pid: u32,
    /// Name of the thread without control characters: up to 15 characters that it chose itself.
    pub name: String,
}

impl fmt::Display for Committer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.pid)
    }
}

impl NftablesMonitor {
    /// Begins to monitor. `own` is the netlink port of the socket that writes for this process, see
    /// [`Linux::port`](crate::linux::Linux::port): its transactions are ignored.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] and [`NetlinkError::Configure`].
    pub fn open(own: u32) -> Result<Self, NetlinkError> {
        let socket = Netlink::netfilter()?;
        socket.join(GROUP)?;
        Ok(Self {
            socket,
            decoder: Decoder::new(own),
        })
    }

    /// Returns the changes that the available notifications report. A transaction whose messages are incomplete is
    /// reported by a later call.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Receive`].
    pub fn drain(&mut self) -> Result<TableNotification, NetlinkError> {
        for _ in 0..AT_ONCE {
            match self.socket.try_recv() {
                Ok(None) => return Ok(self.decoder.take()),
                Ok(Some(messages)) => self.decoder.decode(messages),
                Err(NetlinkError::Overrun | NetlinkError::Truncated(_)) => self.decoder.lose(),
                Err(error) => return Err(error),
            }
        }
        Ok(TableNotification {
            more: true,
            ..self.decoder.take()
        })
    }
}

impl AsFd for NftablesMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for NftablesMonitor {
    fn as_raw_fd(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }
}

/// Decoder of notifications from any source. Its memory is bounded by what it reports.
#[derive(Debug)]
pub struct Decoder {
    own: u32,
    notification: TableNotification,
    /// Change by the transaction that has not ended.
    change: TableChange,
}

impl Decoder {
    /// Creates a decoder that ignores the socket with this port.
    pub fn new(own: u32) -> Self {
        Self {
            own,
            notification: TableNotification::default(),
            change: TableChange::Untouched,
        }
    }

    /// Decodes these messages.
    pub fn decode(&mut self, messages: Messages<'_>) {
        for message in messages {
            match message {
                Ok(message) if message.kind == nft::message(msg::NEW_GEN) => self.end(&message),
                Ok(message) if message.kind >> 8 == nft::SUBSYSTEM => self.note(&message),
                Ok(message) if !matches!(message.reply(), Ok(NetlinkReply::Overrun)) => {}
                _ => self.lose(),
            }
        }
    }

    /// Records that messages were lost.
    pub fn lose(&mut self) {
        self.notification.lost = true;
        self.notification.by_others = true;
    }

    /// Returns the changes since the last call, up to the last transaction that ended.
    pub fn take(&mut self) -> TableNotification {
        std::mem::take(&mut self.notification)
    }

    fn note(&mut self, message: &Message<'_>) {
        let removed = message.kind == nft::message(msg::DEL_TABLE);
        let made = message.kind == nft::message(msg::NEW_TABLE);
        // One message of a large transaction is enough.
        let enough = self.change != TableChange::Untouched && !removed && !made;
        if message.pid == self.own || enough || !is_about_us(message) {
            return;
        }
        self.change = if removed {
            TableChange::Gone
        } else {
            TableChange::Touched
        };
    }

    fn end(&mut self, message: &Message<'_>) {
        let change = std::mem::take(&mut self.change);
        let Ok((generation, writer)) = read_generation(message) else {
            return self.lose();
        };
        self.notification.generation = Some(generation);
        self.notification.by_others |= message.pid != self.own;
        if change != TableChange::Untouched {
            self.notification.table = change;
        }
        if message.pid == self.own {
            // What was noted is of a transaction whose end was lost, and what we write to is there.
            if self.notification.table == TableChange::Gone {
                self.notification.table = TableChange::Touched;
            }
        } else if change != TableChange::Untouched && self.notification.who.len() < WRITERS {
            self.notification.who.extend(writer);
        }
    }
}

fn read_generation(message: &Message<'_>) -> Result<(u32, Option<Committer>), Malformed> {
    let (_, attrs) = message.family()?;
    let (mut id, mut pid, mut name) = (None, None, None);
    for attr in attrs {
        let attr = attr?;
        match attr.kind {
            nft::GEN_ID => id = Some(attr.be32()?),
            nft::GEN_PID => pid = Some(attr.be32()?),
            nft::GEN_NAME => name = Some(read_name(attr.payload)),
            _ => {}
        }
    }
    let id = id.ok_or(Malformed::new("no generation id in the notification"))?;
    Ok((id, pid.zip(name).map(|(pid, name)| Committer { pid, name })))
}

fn read_name(bytes: &[u8]) -> String {
    let name = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let clean = |c: char| if c.is_control() { '?' } else { c };
    String::from_utf8_lossy(name).chars().take(NAME).map(clean).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::netlink::tlv::{Header, NetfilterHeader, Writer as Wire};
    use crate::nftables::skeleton::TABLE;

    const OWN: u32 = 77;

    /// Notifications as the kernel sends them.
    #[derive(Default)]
    struct Told(Vec<u8>);

    impl Told {
        fn say(mut self, port: u32, kind: u16, family: u8, fill: impl FnOnce(&mut Wire)) -> Self {
            let mut wire = Wire::new();
            let header = Header {
                kind: nft::message(kind),
                flags: 0,
                seq: 1,
            };
            let family = NetfilterHeader {
                family,
                ..NetfilterHeader::default()
            };
            wire.message(header, family, fill);
            let mut bytes = wire.finish().unwrap();
            bytes[12..16].copy_from_slice(&port.to_ne_bytes());
            self.0.extend(bytes);
            self
        }

        fn about(self, port: u32, kind: u16, table: &str) -> Self {
            self.say(port, kind, nft::INET, |wire| wire.str(1, table))
        }

        fn end(self, port: u32, generation: u32, pid: u32, name: &str) -> Self {
            self.say(port, msg::NEW_GEN, 0, |wire| {
                wire.be32(nft::GEN_ID, generation);
                wire.be32(nft::GEN_PID, pid);
                wire.str(nft::GEN_NAME, name);
            })
        }

        fn notification(&self) -> TableNotification {
            let mut decoder = Decoder::new(OWN);
            decoder.decode(Messages::new(&self.0));
            decoder.take()
        }
    }

    #[test]
    fn a_change_of_our_table_has_a_name() {
        let notification = Told::default()
            .about(5, msg::NEW_ELEM, TABLE)
            .about(5, msg::NEW_ELEM, TABLE)
            .end(5, 9, 1234, "nft")
            .about(6, msg::NEW_ELEM, "other")
            .end(6, 10, 1235, "docker")
            .notification();
        assert!(notification.table == TableChange::Touched && !notification.lost && notification.is_drift());
        assert_eq!(notification.generation, Some(10));
        assert_eq!(notification.by().as_deref(), Some("nft (1234)"));
    }

    #[test]
    fn our_own_and_others_tables_are_no_drift() {
        let notification = Told::default()
            .about(OWN, msg::DEL_TABLE, TABLE)
            .about(OWN, msg::NEW_TABLE, TABLE)
            .end(OWN, 9, 1, "tcpgw")
            .say(5, msg::DEL_TABLE, 2, |wire| wire.str(1, TABLE))
            .end(5, 10, 2, "nft")
            .notification();
        assert!(
            !notification.is_drift() && notification.who.is_empty(),
            "{notification:?}"
        );
        assert_eq!(notification.generation, Some(10));
    }

    #[test]
    fn it_is_gone_until_somebody_makes_it() {
        let change = |told: &Told| told.notification().table;
        let gone = Told::default().about(5, msg::DEL_TABLE, TABLE).end(5, 9, 1, "nft");
        assert_eq!(change(&gone), TableChange::Gone);
        let again = gone.about(6, msg::NEW_TABLE, TABLE).end(6, 10, 2, "tcpgw");
        assert_eq!(change(&again), TableChange::Touched);
        assert_eq!(again.notification().who.len(), 2);
        let replaced = Told::default()
            .about(5, msg::DEL_TABLE, TABLE)
            .about(5, msg::NEW_TABLE, TABLE)
            .end(5, 9, 1, "nft");
        assert_eq!(change(&replaced), TableChange::Touched);
        let ours = again.about(6, msg::DEL_TABLE, TABLE).end(6, 11, 2, "tcpgw");
        assert_eq!(change(&ours), TableChange::Gone);
        assert_eq!(change(&ours.end(OWN, 12, 3, "tcpgw")), TableChange::Touched);
    }

    #[test]
    fn what_has_not_ended_is_told_later() {
        let begun = Told::default().about(5, msg::DEL_TABLE, TABLE);
        let end = Told::default().end(5, 9, 1, "nft");
        let mut decoder = Decoder::new(OWN);
        decoder.decode(Messages::new(&begun.0));
        assert_eq!(decoder.take(), TableNotification::default());
        decoder.decode(Messages::new(&end.0));
        assert_eq!(decoder.take().table, TableChange::Gone);
        assert_eq!(decoder.take(), TableNotification::default());
    }

    #[test]
    fn names_are_short_and_clean() {
        let notification = Told::default()
            .about(5, msg::NEW_RULE, TABLE)
            .end(5, 9, 1, "a\x1b[2J\nb0123456789abcdef")
            .notification();
        assert_eq!(notification.by().as_deref(), Some("a?[2J?b01234567 (1)"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let told = (1..100).fold(Told::default(), |told, pid| {
            told.about(pid + 100, msg::NEW_RULE, TABLE)
                .end(pid + 100, pid, pid, "nft")
        });
        assert_eq!(told.notification().who.len(), WRITERS);
    }

    proptest! {
        #[test]
        fn any_bytes_are_heard(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0u16..40, port in 0u32..3) {
            let mut decoder = Decoder::new(1);
            decoder.decode(Messages::new(&bytes));
            let told = Told::default().say(port, kind, nft::INET, |wire| wire.raw(&bytes)).end(port, 9, 1, "nft");
            decoder.decode(Messages::new(&told.0));
            let notification = decoder.take();
            prop_assert!(notification.generation == Some(9) || notification.lost);
        }
    }
}
