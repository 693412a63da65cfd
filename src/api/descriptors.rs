//! Division of the limit of open files among the daemon's own work, the local sockets, and the listeners over TCP.
//!
//! What is left beside the daemon's work is divided into thirds: one for the two local sockets, one for the add-on's listener and one
//! for the web listener. None of these knows how many descriptors the others use, so that their parts have to fit beside each other.

use nix::sys::resource::{Resource, getrlimit};

use super::limits::{CONNECTIONS, LaneSizes, NARROW, READ_ONLY_ALL, RESERVED};

/// Descriptors that the daemon has open at most while it has work: about 27 that stay, and netlink sockets, journals and new
/// files of a change. They are left to it where the limit of open files is low.
const DESCRIPTORS_OF_WORK: u64 = 40;
/// Descriptors of the process per connection of a listener: the part of them that its connections may have.
const DESCRIPTORS_PER_SEAT: u64 = 4;
/// Connections that a listener accepts at once, as far as the limit of open files allows.
pub const MOST_ACCEPTED: usize = 2048;
/// Connections that a listener accepts even if all connections to the local sockets then do not fit beside them.
const FEW_SEATS: usize = 4;
/// Connections that the web listener accepts at once, as far as the limit of open files allows.
const MOST_ACCEPTED_WEB: usize = 256;
/// Number of connections to both local sockets in all lanes together.
const ALL: usize = CONNECTIONS + RESERVED + NARROW + READ_ONLY_ALL;

/// Numbers of connections and queries that fit into a limit of open files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorBudget {
    files: u64,
}

impl DescriptorBudget {
    /// Returns the budget of a process with this limit of open files.
    pub fn of(files: u64) -> Self {
        Self { files }
    }

    /// Returns the budget of this process.
    pub(super) fn of_this_process() -> Self {
        Self::of(getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now))
    }

    /// Returns the number of descriptors beside the daemon's own work.
    fn room(self) -> usize {
        usize::try_from(self.files.saturating_sub(DESCRIPTORS_OF_WORK)).unwrap_or(usize::MAX)
    }

    /// Returns the part of these sizes of a local socket that fits: both sockets together have a third of the room, but a few
    /// connections at least.
    pub(super) fn lanes(self, sizes: LaneSizes) -> LaneSizes {
        let third = self.room() / 3;
        if third >= ALL {
            return sizes;
        }
        let part = |size: usize| size * third / ALL;
        LaneSizes {
            common: part(sizes.common).max(2),
            share: part(sizes.share).max(1),
            // Commands of root have their slots also where little is left.
            reserved: part(sizes.reserved).max(sizes.reserved.min(4)),
            narrow: part(sizes.narrow).max(1),
            narrow_share: part(sizes.narrow_share).max(1),
        }
    }

    /// Returns the number of connections of the add-on's listener: half of what the local sockets leave.
    pub fn slots(self) -> usize {
        let of_sockets = self.lanes(LaneSizes::FULL).all() + self.lanes(LaneSizes::READ_ONLY).all();
        let part = usize::try_from(self.files / DESCRIPTORS_PER_SEAT).unwrap_or(usize::MAX);
        let half = self.room().saturating_sub(of_sockets) / 2;
        // With less than 64 descriptors, the slots of root are hardly all in use.
        let few = (self.room() / 2).min(FEW_SEATS);
        part.min(half.max(few)).clamp(1, MOST_ACCEPTED)
    }

    /// Returns the number of connections of the web listener.
    pub fn web_slots(self) -> usize {
        self.slots().min(MOST_ACCEPTED_WEB)
    }

    /// Returns how many of `most` queries of the kernel may run at a time. Each query opens several netlink sockets.
    pub(super) fn kernel_queries(self, most: usize) -> usize {
        const FEW_FILES: u64 = 256;
        if self.files < FEW_FILES { most.div_ceil(2) } else { most }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_within_the_limit_of_open_files() {
        let slots = |files| DescriptorBudget::of(files).slots();
        assert_eq!([0, 40, 48, 64, 80, 128].map(slots), [1, 1, 4, 4, 11, 29]);
        assert_eq!([1024, 4096, u64::MAX].map(slots), [256, 1024, MOST_ACCEPTED]);
        let web_slots = |files| DescriptorBudget::of(files).web_slots();
        assert_eq!([80, 1024, u64::MAX].map(web_slots), [11, 256, MOST_ACCEPTED_WEB]);
    }

    /// All listeners together leave the daemon the descriptors of its work, and root has its slots.
    #[test]
    fn all_listeners_together_are_within_the_limit_of_open_files() {
        for files in [64, 80, 96, 128, 256, 500, 760, 1024, 32_768] {
            let budget = DescriptorBudget::of(files);
            let sockets = [LaneSizes::FULL, LaneSizes::READ_ONLY].map(|sizes| budget.lanes(sizes));
            for sizes in sockets {
                assert!(sizes.reserved >= 4 && sizes.common >= 2, "{files}: {sizes:?}");
                assert!(
                    sizes.share <= sizes.common && sizes.narrow_share <= sizes.narrow,
                    "{files}"
                );
            }
            let of_sockets: usize = sockets.iter().map(LaneSizes::all).sum();
            let used = of_sockets + budget.slots() + budget.web_slots();
            let left = files - u64::try_from(used).unwrap();
            assert!(left >= DESCRIPTORS_OF_WORK, "{files}: {sockets:?}, {used} used");
            assert!(budget.slots() >= 4, "{files}");
        }
    }

    #[test]
    fn all_is_allowed_where_there_are_descriptors_enough() {
        for files in [760, 1024, u64::MAX] {
            let budget = DescriptorBudget::of(files);
            assert_eq!(budget.lanes(LaneSizes::FULL), LaneSizes::FULL);
            assert_eq!(budget.lanes(LaneSizes::READ_ONLY), LaneSizes::READ_ONLY);
            assert_eq!(budget.kernel_queries(4), 4);
        }
        assert_eq!(DescriptorBudget::of(255).kernel_queries(4), 2);
    }
}
