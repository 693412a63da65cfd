//! Faults that a test can inject into the kernel in memory.

use nix::errno::Errno;

/// A call to the kernel that a test can make fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelCall {
    /// [`Kernel::identity`](crate::Kernel::identity)
    Identity,
    /// [`Kernel::observe`](crate::Kernel::observe)
    Observe,
    /// [`Kernel::comment`](crate::Kernel::comment)
    Comment,
    /// [`Kernel::about`](crate::Kernel::about)
    About,
    /// [`Kernel::adopt`](crate::Kernel::adopt), where the table is to be owned
    Adopt,
    /// [`Kernel::commit`](crate::Kernel::commit)
    Commit,
    /// [`Kernel::remove`](crate::Kernel::remove)
    Remove,
    /// [`Kernel::counted`](crate::Kernel::counted) and [`Kernel::counters`](crate::Kernel::counters)
    Counted,
    /// [`Kernel::flows`](crate::Kernel::flows), [`Kernel::select`](crate::Kernel::select) and [`Kernel::who`](crate::Kernel::who)
    Flows,
    /// [`Kernel::sweep`](crate::Kernel::sweep) and [`Kernel::flush_pairs`](crate::Kernel::flush_pairs)
    Sweep,
    /// [`Kernel::settle`](crate::Kernel::settle)
    Settle,
}

/// Way in which a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Another program commits just before it.
    Outdated,
    /// The call does nothing, and its answer is lost.
    UnknownBefore,
    /// The call is carried out, and its answer is lost.
    UnknownAfter,
    /// The kernel refuses it.
    Refused(Errno),
    /// Netlink fails: nothing is done.
    Netlink,
}

/// Moment at which the calling process is killed: no call is answered after it, until
/// [`Fake::restart`](super::Fake::restart).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crash {
    /// Number of the call, from 0 since the last restart.
    pub call: usize,
    /// Whether the kernel still does what was asked.
    pub done: bool,
}
