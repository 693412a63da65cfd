//! Limits of the API. A request beyond a limit gets an error, and does not harm other clients.

use std::time::Duration;

use tcpgw_core::model::MAX_STATE_BYTES;

/// Connections that are served at once, of all users but root and the daemon's user. Idle ones count.
pub const CONNECTIONS: usize = 128;
/// Maximum number of these connections per user.
pub const SHARE: usize = 96;
/// Connections of root and the daemon's user besides.
pub const RESERVED: usize = 32;
/// Connections beyond those: requests for health are answered, all others refused (503). Still more connections are closed.
pub const NARROW: usize = 32;
/// Maximum number of these connections per user.
pub const NARROW_SHARE: usize = 16;
/// Connections of the read-only socket that are served at once, of all users but root and the daemon's user.
pub const READ_ONLY_CONNECTIONS: usize = 32;
/// Maximum number of these connections per user.
pub const READ_ONLY_SHARE: usize = 24;
/// Connections of root and the daemon's user to the read-only socket besides.
pub const READ_ONLY_RESERVED: usize = 8;
/// Connections to the read-only socket beyond those, where only health is told.
pub const READ_ONLY_NARROW: usize = 8;
/// Maximum number of these connections per user.
pub const READ_ONLY_NARROW_SHARE: usize = 4;
/// Questions of users of the read-only socket that the daemon's loop has at once.
pub const READ_ONLY_QUESTIONS: usize = 4;
/// Queries of the kernel for users of the read-only socket at once.
pub const READ_ONLY_KERNEL_QUERIES: usize = 2;
/// Followers of events at once.
pub const FOLLOWERS: usize = 32;
/// Requests that wait for a service or a deploy at once.
pub const WAITERS: usize = 64;
/// The longest time that one request waits for a service or a deploy.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// Interval between two looks of a waiting request, if nothing happens.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// The longest time that new connections can be held back.
pub const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// The longest time that the targets of a deploy can be given to answer.
pub const MAX_DEPLOY: Duration = Duration::from_secs(3600);
/// Default number of entries that a list gives at once.
pub const PAGE: usize = 100;
/// Maximum number of entries that a list gives at once.
pub const MAX_PAGE: usize = 1000;
/// Pages of the dashboard that are written or being sent at once, each of up to some hundred kilobytes.
pub const PAGES: usize = 32;
/// Queries of the kernel at once; each has a thread and sockets.
pub const KERNEL_QUERIES: usize = 4;
/// The largest body.
pub const BODY: usize = MAX_STATE_BYTES;
/// A body up to this size is taken at any time.
pub const SMALL_BODY: usize = 1 << 20;
/// Larger bodies at once.
pub const LARGE_BODIES: usize = 2;
/// The head of a request: request line and headers.
pub const HEAD: usize = 32 << 10;
/// Headers of a request.
pub const HEADERS: usize = 64;
/// Path and query of a request.
pub const URI: usize = 16 << 10;
/// Number of pieces that are written ahead of a slow reader, each of [`PIECE`] bytes.
pub const PIECES: usize = 4;
/// One piece of a long answer.
pub const PIECE: usize = 64 << 10;
/// The longest time that rates can be taken over.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// The longest time that backends can be given to drain: that of `drain_timeout` in a state.
pub const MAX_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// Longest origin of an apply, as given by the caller, in bytes.
pub const LONGEST_ORIGIN: usize = 4096;

/// Connections of a socket that are served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneSizes {
    /// Connections of all users.
    pub(super) common: usize,
    /// Maximum number of these per user.
    pub(super) share: usize,
    /// Connections of root and the daemon's user besides.
    pub(super) reserved: usize,
    /// Connections beyond those.
    pub(super) narrow: usize,
    /// Maximum number of these per user.
    pub(super) narrow_share: usize,
}

impl LaneSizes {
    /// Sizes of the socket of the whole API.
    pub(super) const FULL: Self = Self {
        common: CONNECTIONS,
        share: SHARE,
        reserved: RESERVED,
        narrow: NARROW,
        narrow_share: NARROW_SHARE,
    };
    /// Sizes of the read-only socket.
    pub(super) const READ_ONLY: Self = Self {
        common: READ_ONLY_CONNECTIONS,
        share: READ_ONLY_SHARE,
        reserved: READ_ONLY_RESERVED,
        narrow: READ_ONLY_NARROW,
        narrow_share: READ_ONLY_NARROW_SHARE,
    };
}

/// Connections of the read-only socket together.
pub const READ_ONLY_ALL: usize = READ_ONLY_CONNECTIONS + READ_ONLY_RESERVED + READ_ONLY_NARROW;

/// Maximum times of the steps of a request.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Until the head of a request is complete; an idle connection is closed after this time, too.
    pub head: Duration,
    /// The same where there is no room for more connections.
    pub narrow_head: Duration,
    /// Until the next piece of a body is there.
    pub body_piece: Duration,
    /// Until all of a body is there.
    pub body: Duration,
    /// Until the client takes more of an answer.
    pub write: Duration,
    /// Until a place is free: in the loop's queue, for a query of the kernel, for a large body.
    pub turn: Duration,
    /// Until the loop answers a question.
    pub answer: Duration,
    /// Until the loop has carried out an order.
    pub order: Duration,
    /// Until a query of the kernel begins to show something, besides its interval.
    pub kernel: Duration,
    /// Between two signs of life to a follower of events.
    pub keep_alive: Duration,
    /// Until the connections that are being served have their answers, when the daemon ends; longer than the daemon's loop
    /// takes for them.
    pub goodbye: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            head: seconds(10),
            narrow_head: seconds(1),
            body_piece: seconds(10),
            body: seconds(60),
            write: seconds(30),
            turn: seconds(5),
            answer: seconds(10),
            order: seconds(120),
            kernel: seconds(60),
            keep_alive: seconds(15),
            goodbye: seconds(8),
        }
    }
}
