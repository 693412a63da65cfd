//! Ownership of the table: which processes may write to it, and whether it outlives the socket that created it.
//!
//! Sources: `nf_tables_newtable`, `nf_tables_updtable` and `nft_rcv_nl_event` in `net/netfilter/nf_tables_api.c`. The
//! flag `persist` came with Linux 6.9, where a socket can also become the owner of a table that persists and has no
//! owner (an orphan).

/// Flag `NFT_TABLE_F_DORMANT`.
pub(crate) const DORMANT: u32 = 1;
const OWNER: u32 = 2;
const PERSIST: u32 = 4;

/// Ownership of a table. Owned without persisting is no variant: such a table would vanish with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// Any process may write, and the table can never be owned. The only ownership before Linux 6.9.
    Plain,
    /// Any process may write, and the table can be owned later.
    Persist,
    /// Only the socket that created the table may write, and any process after it was closed.
    Owned,
}

impl Ownership {
    /// Returns the flags `NFT_TABLE_F_*`.
    pub const fn flags(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Persist => PERSIST,
            Self::Owned => OWNER | PERSIST,
        }
    }

    /// Returns the ownership of a table with these `NFT_TABLE_F_*`. One that is owned and does not persist counts as
    /// owned by another process.
    pub const fn of(flags: u32) -> Self {
        match (flags & OWNER != 0, flags & PERSIST != 0) {
            (true, _) => Self::Owned,
            (false, true) => Self::Persist,
            (false, false) => Self::Plain,
        }
    }
}

/// Result of taking the table over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// The table is not to be owned (see [`Kernel::ownership`](crate::Kernel::ownership)), or the kernel does not
    /// support it.
    Unwanted,
    /// The table does not exist; the next one will be owned.
    Absent,
    /// This socket owned the table before.
    Owned,
    /// The table was an orphan and is owned now; the generation after that. Nothing in it changed.
    Adopted(u32),
    /// The table was created without the flag `persist` and can never be owned: it has to be created again.
    Plain,
    /// The socket with this netlink port owns the table; the port is usually its process' number.
    Foreign(u32),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_back() {
        for ownership in [Ownership::Plain, Ownership::Persist, Ownership::Owned] {
            assert_eq!(Ownership::of(ownership.flags()), ownership);
            assert_eq!(Ownership::of(ownership.flags() | DORMANT), ownership);
        }
        assert_eq!(Ownership::of(OWNER), Ownership::Owned);
    }
}
