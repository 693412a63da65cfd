//! Limits of the API. A request beyond a limit gets an error, and does not harm other clients.

use std::time::Duration;

use tcpgw_core::model::MAX_STATE_BYTES;

/// Largest number of connections, idle ones included, of all users but root and the daemon's user together.
pub const CONNECTIONS: usize = 128;
/// Largest number of these connections per user.
pub const SHARE: usize = 96;
/// Number of further connections for root and the daemon's user.
pub const RESERVED: usize = 32;
/// Number of connections beyond those: requests for health are answered, all others are refused (503). Further
/// connections are closed.
pub const NARROW: usize = 32;
/// Largest number of these connections per user.
pub const NARROW_SHARE: usize = 16;
/// Largest number of connections to the read-only socket, of all users but root and the daemon's user together.
pub const READ_ONLY_CONNECTIONS: usize = 32;
/// Largest number of these connections per user.
pub const READ_ONLY_SHARE: usize = 24;
/// Number of further connections to the read-only socket for root and the daemon's user.
pub const READ_ONLY_RESERVED: usize = 8;
/// Number of connections to the read-only socket beyond those, on which only requests for health are answered.
pub const READ_ONLY_NARROW: usize = 8;
/// Largest number of these connections per user.
pub const READ_ONLY_NARROW_SHARE: usize = 4;
/// Largest number of questions from the read-only socket that wait for the daemon's loop.
pub const READ_ONLY_QUESTIONS: usize = 4;
/// Largest number of concurrent queries of the kernel from the read-only socket.
pub const READ_ONLY_KERNEL_QUERIES: usize = 2;
/// Largest number of concurrent followers of events.
pub const FOLLOWERS: usize = 32;
/// Largest number of requests that wait for a service or a deploy.
pub const WAITERS: usize = 64;
/// Longest time that one request waits for a service or a deploy.
pub const MAX_WAIT: Duration = Duration::from_secs(600);
/// Interval between two checks of a waiting request, if nothing happens.
pub const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longest time for which new connections can be held back.
pub const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// Longest time that the targets of a deploy can be given to answer.
pub const MAX_DEPLOY: Duration = Duration::from_secs(3600);
/// Default number of entries that a list gives at once.
pub const PAGE: usize = 100;
/// Maximum number of entries that a list gives at once.
pub const MAX_PAGE: usize = 1000;
/// Largest number of dashboard pages, of up to some hundred kilobytes each, that are written or sent at once.
pub const PAGES: usize = 32;
/// Largest number of concurrent queries of the kernel; each has a thread and sockets.
pub const KERNEL_QUERIES: usize = 4;
/// Largest size of a body, in bytes.
pub const BODY: usize = MAX_STATE_BYTES;
/// Size in bytes up to which a body is accepted at any time.
pub const SMALL_BODY: usize = 1 << 20;
/// Largest number of larger bodies at once.
pub const LARGE_BODIES: usize = 2;
/// Largest size of the head of a request (request line and headers), in bytes.
pub const HEAD: usize = 32 << 10;
/// Largest number of headers of a request.
pub const HEADERS: usize = 64;
/// Largest size of the path and query of a request, in bytes.
pub const URI: usize = 16 << 10;
/// Number of pieces that are written ahead of a slow reader, each of [`PIECE`] bytes.
pub const PIECES: usize = 4;
/// Size of one piece of a long answer, in bytes.
pub const PIECE: usize = 64 << 10;
/// Longest time over which rates can be measured.
pub const INTERVAL: Duration = Duration::from_secs(60);
/// Longest time that backends can be given to drain: that of `drain_timeout` in a state.
pub const MAX_DRAIN: Duration = Duration::from_secs(24 * 3600);
/// Longest origin of an apply, as given by the caller, in bytes.
pub const LONGEST_ORIGIN: usize = 4096;

/// Numbers of connections of a socket that are served at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LaneSizes {
    /// Largest number of connections of all users together, but root and the daemon's user.
    pub(super) common: usize,
    /// Largest number of these connections per user.
    pub(super) share: usize,
    /// Number of further connections for root and the daemon's user.
    pub(super) reserved: usize,
    /// Number of connections beyond those.
    pub(super) narrow: usize,
    /// Largest number of these connections per user.
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

    /// Returns the number of connections in all lanes together.
    pub(super) fn all(&self) -> usize {
        self.common + self.reserved + self.narrow
    }
}

/// Number of connections to the read-only socket in all lanes together.
pub const READ_ONLY_ALL: usize = READ_ONLY_CONNECTIONS + READ_ONLY_RESERVED + READ_ONLY_NARROW;

/// Longest times of the steps of a request.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Longest time until the head of a request is complete; an idle connection is closed after this time, too.
    pub head: Duration,
    /// Longest time until the head of a request is complete on a connection for which there is no room.
    pub narrow_head: Duration,
    /// Longest time until the next piece of a body arrives.
    pub body_piece: Duration,
    /// Longest time until all of a body has arrived.
    pub body: Duration,
    /// Longest time until the client takes more of an answer.
    pub write: Duration,
    /// Longest time until a place is free: in the loop's queue, for a query of the kernel, for a large body.
    pub place: Duration,
    /// Longest time until the loop answers a question.
    pub answer: Duration,
    /// Longest time until the loop has carried out an order.
    pub order: Duration,
    /// Longest time until a query of the kernel begins to write its answer, besides its interval.
    pub kernel: Duration,
    /// Interval between two messages to a follower of events, if there are no events.
    pub keep_alive: Duration,
    /// Longest time until the connections that are being served have their answers, when the daemon ends; longer than
    /// the daemon's loop takes for them.
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
            place: seconds(5),
            answer: seconds(10),
            order: seconds(120),
            kernel: seconds(60),
            keep_alive: seconds(15),
            goodbye: seconds(8),
        }
    }
}
