//! What the kernel's errors say about a backend.

use nix::errno::Errno;

use tcpgw_core::health::{ProbeOutcome, SystemError};

/// `connect` itself failed: nothing was sent.
pub(super) fn of_connect(errno: Errno) -> ProbeOutcome {
    match errno {
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN => {
            ProbeOutcome::Unreachable(described(errno))
        }
        Errno::ECONNREFUSED => ProbeOutcome::Refused,
        Errno::ETIMEDOUT => ProbeOutcome::TimedOut,
        // No port, memory or address is left; a rule or a `prohibit` route of ours forbids it.
        _ => local(errno),
    }
}

/// The SYN was sent, and this came of it.
pub(super) fn of_answer(errno: Errno) -> ProbeOutcome {
    match errno {
        Errno::ECONNREFUSED => ProbeOutcome::Refused,
        Errno::ETIMEDOUT => ProbeOutcome::TimedOut,
        // A reset before the handshake is "refused"; this one came after it.
        Errno::ECONNRESET | Errno::EPIPE => ProbeOutcome::Accepted,
        // `ECONNABORTED`: somebody killed the socket (`ss -K`).
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ECONNABORTED | Errno::EBADF | Errno::EINVAL => local(errno),
        // ICMP errors, as `icmp_err_convert` and `icmpv6_err_convert` translate them.
        _ => ProbeOutcome::Unreachable(described(errno)),
    }
}

/// The gateway itself could not ask.
pub(super) fn local(errno: Errno) -> ProbeOutcome {
    ProbeOutcome::Local(described(errno))
}

pub(super) fn described(errno: Errno) -> SystemError {
    SystemError {
        number: errno as i32,
        text: errno.desc(),
    }
}
