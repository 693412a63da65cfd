//! The monitor of `nf_tables` in an event loop.

use std::io;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::nftables::monitor::NftablesMonitor;

impl NftablesMonitor {
    /// Registers the monitor with the event loop of this thread.
    pub fn listen(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the netlink socket, which `NftablesMonitor` owns, keeps to itself, and closes after
        // `AsyncFd` has let go of it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }
}
