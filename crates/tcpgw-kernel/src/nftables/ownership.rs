//! Whom the kernel lets write to the table, and whether the table outlives the socket that made it.
//!
//! Sources: `nf_tables_newtable`, `nf_tables_updtable` and `nft_rcv_nl_event` in `net/netfilter/nf_tables_api.c`. The flag
//! `persist` came with Linux 6.9, where a table that persists and has no owner (an orphan) can be taken by one, too.

/// `NFT_TABLE_F_DORMANT`.
pub(crate) const DORMANT: u32 = 1;
const OWNER: u32 = 2;
const PERSIST: u32 = 4;

/// What the table is to be. Owned without persisting is not among it: such a table would vanish with its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ownership {
    /// Anybody's, and it can never be owned. All that there is before Linux 6.9.
    Plain,
    /// Anybody's, and it can be owned later.
    Persist,
    /// Of the socket that makes it, and anybody's after that was closed.
    Owned,
}

impl Ownership {
    /// `NFT_TABLE_F_*`.
    pub const fn flags(self) -> u32 {
        match self {
            Self::Plain => 0,
            Self::Persist => PERSIST,
            Self::Owned => OWNER | PERSIST,
        }
    }

    /// That of a table with these `NFT_TABLE_F_*`. One that is owned and does not persist counts as owned: it is not ours.
    pub const fn of(flags: u32) -> Self {
        match (flags & OWNER != 0, flags & PERSIST != 0) {
            (true, _) => Self::Owned,
            (false, true) => Self::Persist,
            (false, false) => Self::Plain,
        }
    }
}

/// What came of taking the table over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adoption {
    /// Nothing: it is not wanted (see [`Kernel::ownership`](crate::Kernel::ownership)), or the kernel has no such thing.
    Unwanted,
    /// There is no table; the next one will be owned.
    Absent,
    /// It was owned by this very socket before.
    Owned,
    /// It was an orphan and is owned now; the generation after that. Nothing in it changed.
    Adopted(u32),
    /// It was made without the flag `persist` and can never be owned: it has to be made anew.
    Plain,
    /// It is owned by the socket with this netlink port, which is mostly its process' number.
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
