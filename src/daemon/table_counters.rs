//! The counters of the table.

use nix::errno::Errno;

use crate::traffic::drop_sets;
use crate::view::totals::ConnectionCounts;
use tcpgw_core::ruleset::name::SetName;
use tcpgw_kernel::{Counted, Kernel, KernelError};

/// Counters of a table, by its handle.
pub(super) type TableCounters = (Option<u64>, Vec<(SetName, Vec<Counted>)>);

/// Reads all counters; `None`: the table was replaced meanwhile, so that they may be of either.
pub(super) fn read_counters(kernel: &mut impl Kernel) -> Result<Option<TableCounters>, KernelError> {
    let table = kernel.identity()?.table;
    let mut sets = Vec::new();
    if table.is_some() {
        for set in drop_sets::sets().into_iter().chain(ConnectionCounts::sets()) {
            match kernel.counted(set) {
                Err(KernelError::Netlink(error)) if error.errno() == Some(Errno::ENOENT) => {}
                counted => sets.push((set, counted?)),
            }
        }
    }
    Ok((kernel.identity()?.table == table).then_some((table, sets)))
}
