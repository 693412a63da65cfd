//! Slots for connections, in three lanes with limits of their own.
//!
//! Root and the daemon's own user have a lane that no other user can fill. All others share the common lane, each user up to a
//! share of it. A connection that finds no slot there gets one in the narrow lane, which answers `GET /v1/healthz` and refuses all else.
//! No connection waits for a slot: one that finds none is closed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use super::limits::LaneSizes;
use crate::locked::locked;

/// Lane that a connection is served in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Lane {
    /// Lane of root and the daemon's user alone.
    Reserved,
    /// Lane of all users.
    Common,
    /// Lane of connections for which the others have no room.
    Narrow,
}

/// The lanes of a socket, with the slots that are taken.
#[derive(Debug)]
pub(super) struct Lanes {
    privileged: Vec<u32>,
    sizes: LaneSizes,
    taken: Mutex<BTreeMap<(Lane, u32), usize>>,
}

/// A slot for one connection, free again when it is dropped.
#[derive(Debug)]
pub(super) struct LaneSlot {
    lanes: Arc<Lanes>,
    lane: Lane,
    uid: u32,
}

impl Lanes {
    /// Returns lanes without connections. The reserved lane is for these users.
    pub(super) fn new(privileged: Vec<u32>, sizes: LaneSizes) -> Arc<Self> {
        Arc::new(Self {
            privileged,
            sizes,
            taken: Mutex::default(),
        })
    }

    /// Returns a slot for a connection of that user; `None`: none is free.
    pub(super) fn enter(self: &Arc<Self>, uid: u32) -> Option<LaneSlot> {
        let is_privileged = self.privileged.contains(&uid);
        let mut taken = locked(&self.taken);
        let all = |lane| -> usize {
            let of = taken.iter().filter(|((of, _), _)| *of == lane);
            of.map(|(_, count)| count).sum()
        };
        let own = |lane| taken.get(&(lane, uid)).copied().unwrap_or(0);
        let sizes = &self.sizes;
        let lane = if is_privileged && all(Lane::Reserved) < sizes.reserved {
            Lane::Reserved
        } else if all(Lane::Common) < sizes.common && (is_privileged || own(Lane::Common) < sizes.share) {
            Lane::Common
        } else if all(Lane::Narrow) < sizes.narrow && own(Lane::Narrow) < sizes.narrow_share {
            Lane::Narrow
        } else {
            return None;
        };
        *taken.entry((lane, uid)).or_default() += 1;
        let lanes = Arc::clone(self);
        Some(LaneSlot { lanes, lane, uid })
    }
}

impl LaneSlot {
    /// Returns the lane of the slot.
    pub(super) fn lane(&self) -> Lane {
        self.lane
    }
}

impl Drop for LaneSlot {
    fn drop(&mut self) {
        let mut taken = locked(&self.lanes.taken);
        if let Some(count) = taken.get_mut(&(self.lane, self.uid)) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&(self.lane, self.uid));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::descriptors::DescriptorBudget;
    use crate::api::limits::{CONNECTIONS, NARROW, NARROW_SHARE, RESERVED, SHARE};

    fn lanes_of(lanes: &Arc<Lanes>, uid: u32, count: usize) -> (Vec<LaneSlot>, usize) {
        let slots: Vec<LaneSlot> = (0..count).map_while(|_| lanes.enter(uid)).collect();
        let narrow = slots.iter().filter(|slot| slot.lane() == Lane::Narrow).count();
        (slots, narrow)
    }

    #[test]
    fn one_user_cannot_take_all_slots() {
        let lanes = Lanes::new(vec![0], LaneSizes::FULL);
        let (first, narrow) = lanes_of(&lanes, 1000, 300);
        assert_eq!((first.len(), narrow), (SHARE + NARROW_SHARE, NARROW_SHARE));
        let (second, narrow) = lanes_of(&lanes, 1001, 5);
        assert_eq!((second.len(), narrow), (5, 0));
        drop((first, second));
        assert!(
            lanes.taken.lock().unwrap().is_empty(),
            "nothing is kept of who has left"
        );
    }

    #[test]
    fn all_others_together_leave_room_for_root() {
        let lanes = Lanes::new(vec![0, 7], LaneSizes::FULL);
        let mut held: Vec<LaneSlot> = Vec::new();
        for uid in 1000..1300 {
            held.extend(lanes_of(&lanes, uid, 3).0);
        }
        assert_eq!(held.len(), CONNECTIONS + NARROW);
        assert!(lanes.enter(1000).is_none());
        let (root, narrow) = lanes_of(&lanes, 0, 300);
        assert_eq!((root.len(), narrow), (RESERVED, 0));
        let alone = Lanes::new(vec![0], LaneSizes::FULL);
        assert_eq!(lanes_of(&alone, 0, 300).0.len(), RESERVED + CONNECTIONS + NARROW_SHARE);
        drop(root);
        assert_eq!(lanes.enter(7).map(|slot| slot.lane()), Some(Lane::Reserved));
        held.pop();
        assert_eq!(lanes.enter(1000).map(|slot| slot.lane()), Some(Lane::Narrow));
    }

    /// Root has its slots also where the limit of open files is low.
    #[test]
    fn a_crowd_leaves_root_its_slots_where_there_are_few() {
        let lanes = Lanes::new(vec![0], DescriptorBudget::of(80).lanes(LaneSizes::FULL));
        let crowd = lanes_of(&lanes, 1000, 300);
        let root = lanes_of(&lanes, 0, 4);
        assert_eq!((root.0.len(), root.1), (4, 0), "{crowd:?}");
    }
}
