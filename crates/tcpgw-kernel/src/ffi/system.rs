//! Calls of the system that belong to no descriptor of tcpgw.

use std::io;
use std::os::fd::AsRawFd as _;

use super::outcome::outcome;

/// Returns the hour, minute and second of the day in the machine's time zone.
pub fn local_time(seconds_since_1970: i64) -> (i32, i32, i32) {
    // SAFETY: integers and a pointer, for which all zeroes is valid.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    let time: libc::time_t = seconds_since_1970;
    // SAFETY: both pointers are to live locals.
    unsafe { libc::localtime_r(&raw const time, &raw mut parts) };
    (parts.tm_hour, parts.tm_min, parts.tm_sec)
}

/// Waits until every packet that the kernel works on at this moment, on any CPU, has left it or waits in a queue: they
/// read the rules under RCU, and this is the system call that waits for RCU's readers.
///
/// Source: `kernel/sched/membarrier.c` (`MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu`, since 4.3),
/// `net/core/dev.c` (`netif_receive_skb` holds `rcu_read_lock`), `net/ipv4/ip_output.c` (`__ip_queue_xmit`, too).
///
/// # Errors
/// Fails with `EINVAL` on a kernel with `nohz_full`, and with `ENOSYS` or `EPERM` when a sandbox forbids it.
pub(crate) fn await_rcu_readers() -> io::Result<()> {
    // SAFETY: three integers and no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    outcome(result)
}

/// Clears the ambient capabilities of this thread: programs that it starts afterwards do not have the capabilities of this process,
/// unless they run as root. Those of the thread itself stay.
///
/// Source: `capabilities(7)`, "Ambient".
///
/// # Errors
/// Fails with the errno of `prctl(2)`.
pub fn clear_ambient_capabilities() -> io::Result<()> {
    // SAFETY: five integers and no pointers.
    let result = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    outcome(result)
}

/// Closes all files that this process has open, but for the standard streams, in the programs that it starts afterwards. Files
/// that a parent has left open are among them.
///
/// # Errors
/// Fails with the errno of `close_range(2)`, which Linux has since 5.11 in this form.
pub fn close_files_on_exec() -> io::Result<()> {
    const FIRST: libc::c_uint = 3;
    let flags = libc::c_int::try_from(libc::CLOSE_RANGE_CLOEXEC).map_err(io::Error::other)?;
    // SAFETY: three integers and no pointers.
    let result = unsafe { libc::close_range(FIRST, libc::c_uint::MAX, flags) };
    outcome(result)
}

/// Reads one of the old `ethtool_value` settings of an interface.
///
/// # Errors
///
/// Fails with the errno of `SIOCETHTOOL`; `EOPNOTSUPP` where the interface does not have the setting.
pub(crate) fn ethtool_value(interface: &str, command: u32) -> io::Result<u32> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

    /// `struct ethtool_value` (`include/uapi/linux/ethtool.h`).
    #[repr(C)]
    struct Setting {
        command: u32,
        data: u32,
    }
    /// `struct ifreq`, as long as the kernel reads it: a name, and a union whose longest member has 24 bytes.
    #[repr(C)]
    struct Request {
        name: [u8; libc::IFNAMSIZ],
        data: *mut Setting,
        rest: [u64; 2],
    }
    const SIOCETHTOOL: libc::c_ulong = 0x8946;

    let mut name = [0; libc::IFNAMSIZ];
    let room = name.len() - 1;
    let bytes = interface.as_bytes();
    if bytes.len() > room {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    name[..bytes.len()].copy_from_slice(bytes);
    let mut setting = Setting { command, data: 0 };
    let mut request = Request {
        name,
        data: &raw mut setting,
        rest: [0; 2],
    };
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: the kernel reads `request` and writes to the setting that it points to; both outlive the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL as _, &raw mut request) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(setting.data)
}
