//! The one file with `unsafe` in it: socket options and libmnl handles for which no safe wrapper exists.
#![expect(
    unsafe_code,
    reason = "system calls and C libraries without a safe wrapper; nowhere else in the crate"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use libc::{c_int, c_void, socklen_t};

/// libmnl's socket, which may move between threads and lend its descriptor.
pub(crate) struct MnlSocket(mnl::Socket);

// SAFETY: `struct mnl_socket` is a descriptor and an address on the heap, with no tie to the thread that made it;
// `MnlSocket` is its only owner and is not `Sync`.
unsafe impl Send for MnlSocket {}

impl MnlSocket {
    /// Opens and binds one, in the network namespace of the calling thread.
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
pub(crate) fn set_int_option(fd: BorrowedFd<'_>, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
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
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The cookie of the network namespace that a socket belongs to: unique until the machine restarts.
///
/// # Errors
/// The errno of `getsockopt(SO_NETNS_COOKIE)`; `ENOPROTOOPT` before Linux 5.14.
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
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}
