//! Sockets: options, and handles of libmnl.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};

use super::outcome::outcome;

/// A socket of libmnl, which may move between threads and lend its descriptor.
pub(crate) struct MnlSocket(mnl::Socket);

// SAFETY: `struct mnl_socket` is a descriptor and an address on the heap, with no tie to the thread that made it;
// `MnlSocket` is its only owner and is not `Sync`.
unsafe impl Send for MnlSocket {}

impl MnlSocket {
    /// Opens and binds a socket in the network namespace of the calling thread.
    pub(crate) fn open(bus: mnl::Bus) -> io::Result<Self> {
        mnl::Socket::new(bus).map(Self)
    }
}

impl AsFd for MnlSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor stays open as long as the socket that is borrowed with it.
        unsafe { BorrowedFd::borrow_raw(self.0.as_raw_fd()) }
    }
}

/// Sets a socket option that is an `int`.
pub fn set_int_option(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = socklen_t::try_from(size_of::<c_int>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of `value`, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast::<c_void>(),
            length,
        )
    };
    outcome(result)
}

/// Attaches a filter (classic BPF) to a socket: what it refuses is not received.
///
/// # Errors
/// Fails with the errno of `setsockopt`: `EINVAL` when the filter is no valid program.
pub fn attach_filter(fd: BorrowedFd<'_>, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len()).map_err(io::Error::other)?,
        filter: filter.as_ptr().cast_mut(),
    };
    let length = socklen_t::try_from(size_of::<libc::sock_fprog>()).map_err(io::Error::other)?;
    // SAFETY: the program and the instructions that it points to outlive the call; the kernel copies them and does not
    // write to them.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast::<c_void>(),
            length,
        )
    };
    outcome(result)
}

/// Disconnects a TCP socket, with a reset if it is connected, so that it can be used again: connect(2), on `AF_UNSPEC`.
///
/// # Errors
/// Fails with the errno of `connect`.
pub fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers, for which all zeroes is `AF_UNSPEC` and no address.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = socklen_t::try_from(size_of::<libc::sockaddr>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live local.
    let result = unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, length) };
    outcome(result)
}

/// Takes over a descriptor that this process was started with; each number once, before any other file is opened.
///
/// # Errors
///
/// Fails with `EBADF` when no descriptor has that number.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: an integer and no pointers.
    if number <= libc::STDERR_FILENO || unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: it is open, and nothing else in this process owns what it was started with beside the three standard streams.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns the cookie of the network namespace that a socket belongs to: unique until the machine restarts.
///
/// # Errors
///
/// Fails with the errno of `getsockopt(SO_NETNS_COOKIE)`; `ENOPROTOOPT` before Linux 5.14.
pub fn netns_cookie(fd: BorrowedFd<'_>) -> io::Result<u64> {
    let mut cookie = 0u64;
    let mut length = socklen_t::try_from(size_of::<u64>()).map_err(io::Error::other)?;
    // SAFETY: both pointers are to live locals, and `length` is the size of `cookie`.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast::<c_void>(),
            &raw mut length,
        )
    };
    outcome(result)?;
    Ok(cookie)
}
