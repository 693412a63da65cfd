//! Meaning of the kernel's errors for a backend.

use nix::errno::Errno;

use tcpgw_core::health::{ProbeOutcome, SystemError};

/// Returns the outcome when `connect` itself fails, so that nothing was sent.
pub(super) fn of_connect(errno: Errno) -> ProbeOutcome {
    match errno {
        Errno::EHOSTUNREACH | Errno::ENETUNREACH | Errno::ENETDOWN | Errno::EHOSTDOWN => {
            ProbeOutcome::Unreachable(described(errno))
        }
        Errno::ECONNREFUSED => ProbeOutcome::Refused,
        Errno::ETIMEDOUT => ProbeOutcome::TimedOut,
        // No port, memory or address is left, or a rule or a `prohibit` route of the gateway forbids it.
        _ => local(errno),
    }
}

/// Returns the outcome of an error after the SYN was sent.
pub(super) fn of_answer(errno: Errno) -> ProbeOutcome {
    match errno {
        Errno::ECONNREFUSED => ProbeOutcome::Refused,
        Errno::ETIMEDOUT => ProbeOutcome::TimedOut,
        // A reset before the end of the handshake is "refused"; this one came after it.
        Errno::ECONNRESET | Errno::EPIPE => ProbeOutcome::Accepted,
        // `ECONNABORTED`: another process killed the socket (`ss -K`).
        Errno::ENOBUFS | Errno::ENOMEM | Errno::ECONNABORTED | Errno::EBADF | Errno::EINVAL => local(errno),
        // ICMP errors, as `icmp_err_convert` and `icmpv6_err_convert` translate them.
        _ => ProbeOutcome::Unreachable(described(errno)),
    }
}

/// Returns the outcome when the gateway itself could not probe.
pub(super) fn local(errno: Errno) -> ProbeOutcome {
    ProbeOutcome::Local(described(errno))
}

pub(super) fn described(errno: Errno) -> SystemError {
    SystemError {
        number: errno as i32,
        text: errno.desc(),
    }
}
