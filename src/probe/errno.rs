//! What the kernel's errors say about a backend.

use nix::errno::Errno;

use tcpgw_core::health::{Outcome, SystemError};

/// `connect` itself failed: nothing was sent.
pub(super) fn of_connect(errno: Errno) -> Outcome {
    match errno {
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN => {
            Outcome::Unreachable(described(errno))
        }
        Errno::ECONNREFUSED => Outcome::Refused,
        Errno::ETIMEDOUT => Outcome::TimedOut,
        // No port, memory or address is left; a rule or a `prohibit` route of ours forbids it.
        _ => local(errno),
    }
}

/// The SYN was sent, and this came of it.
pub(super) fn of_answer(errno: Errno) -> Outcome {
    match errno {
        Errno::ECONNREFUSED => Outcome::Refused,
        Errno::ETIMEDOUT => Outcome::TimedOut,
        // A reset before the handshake is "refused"; this one came after it.
        Errno::ECONNRESET | Errno::EPIPE => Outcome::Accepted,
        // `ECONNABORTED`: somebody killed the socket (`ss -K`).
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ECONNABORTED | Errno::EBADF | Errno::EINVAL => local(errno),
        // ICMP errors, as `icmp_err_convert` and `icmpv6_err_convert` translate them.
        _ => Outcome::Unreachable(described(errno)),
    }
}

/// The gateway itself could not ask.
pub(super) fn local(errno: Errno) -> Outcome {
    Outcome::Local(described(errno))
}

pub(super) fn described(errno: Errno) -> SystemError {
    SystemError {
        number: errno as i32,
        text: errno.desc(),
    }
}
