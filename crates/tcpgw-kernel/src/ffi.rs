//! The one file with `unsafe` in it: socket options and libmnl handles for which no safe wrapper exists.
#![expect(
    unsafe_code,
    reason = "system calls and C libraries without a safe wrapper; nowhere else in the crate"
)]

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    ptr::NonNull,
    sync::Arc,
};

use libc::{c_int, c_void, socklen_t};
use nftnl_sys as sys;
use nix::sys::inotify::{Inotify, InotifyEvent};
use tokio::io::{Interest, unix::AsyncFd};

use crate::nftables::expr::{Expr, Value};
use crate::nftables::monitor::NftablesMonitor;

/// Makes all threads use one heap; call it before there is a second thread. With a heap for each thread, which is the
/// default, memory of a large change stays with the thread that allocated it: [`release_memory`] returns the end of the
/// first heap only (glibc's malloc/malloc.c, `mtrim`).
pub fn share_heap() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes two numbers, and locks what it changes (glibc's malloc/malloc.c).
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Returns freed memory to the system. The allocator keeps what a large change used for a moment, as long as memory
/// above it is in use.
pub fn release_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` takes a number, and locks what it touches (glibc's malloc/malloc.c).
    unsafe {
        libc::malloc_trim(0);
    }
}

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

/// An inotify instance that an event loop waits for.
#[derive(Debug)]
pub struct InotifyHandle(Arc<Inotify>);

impl InotifyHandle {
    /// Takes over the watches.
    pub fn new(inotify: Inotify) -> Self {
        Self(Arc::new(inotify))
    }

    /// Registers it with the event loop of this thread.
    pub fn listen(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the instance, which is its only owner, cannot be taken out of the `Arc` while
        // `InotifyHandle` holds it, and is closed after `AsyncFd` has let go of it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Returns the instance, to add watches elsewhere.
    pub fn inotify(&self) -> Arc<Inotify> {
        Arc::clone(&self.0)
    }

    /// Returns the events that are available now.
    pub fn read_events(&self) -> nix::Result<Vec<InotifyEvent>> {
        self.0.read_events()
    }
}

impl AsRawFd for InotifyHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl NftablesMonitor {
    /// Registers it with the event loop of this thread.
    pub fn listen(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the netlink socket, which `NftablesMonitor` owns, keeps to itself, and closes after
        // `AsyncFd` has let go of it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
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
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes a TCP socket back from its connection, with a reset if there is one, so that it can be used again: connect(2), on
/// `AF_UNSPEC`.
///
/// # Errors
/// The errno of `connect`.
pub fn disconnect(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers, for which all zeroes is `AF_UNSPEC` and no address.
    let nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    let length = socklen_t::try_from(size_of::<libc::sockaddr>()).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length are those of a live local.
    let result = unsafe { libc::connect(fd.as_raw_fd(), &raw const nowhere, length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
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

/// Returns the hour, minute and second of the day in the machine's time zone.
pub fn local_time(seconds_since_1970: i64) -> (i32, i32, i32) {
    // SAFETY: integers and a pointer, for which all zeroes is valid.
    let mut parts: libc::tm = unsafe { std::mem::zeroed() };
    let time: libc::time_t = seconds_since_1970;
    // SAFETY: both pointers are to live locals.
    unsafe { libc::localtime_r(&raw const time, &raw mut parts) };
    (parts.tm_hour, parts.tm_min, parts.tm_sec)
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
    if result == 0 {
        Ok(cookie)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Waits until every packet that the kernel works on at this moment, on any CPU, has left it or waits in a queue: they
/// read the rules under RCU, and this is the system call that waits for RCU's readers.
///
/// Source: `kernel/sched/membarrier.c` (`MEMBARRIER_CMD_GLOBAL` is `synchronize_rcu`, since 4.3),
/// `net/core/dev.c` (`netif_receive_skb` holds `rcu_read_lock`), `net/ipv4/ip_output.c` (`__ip_queue_xmit`, too).
///
/// # Errors
/// `EINVAL` on a kernel with `nohz_full`, `ENOSYS` and `EPERM` where a sandbox forbids it.
pub(crate) fn await_rcu_readers() -> io::Result<()> {
    // SAFETY: three integers and no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// An expression made through libnftnl's generic setters: the kinds that `nftnl` has no type for.
struct Generic<'a>(&'a Expr);

impl nftnl::expr::Expression for Generic<'_> {
    fn to_expr(&self, _rule: &nftnl::Rule<'_>) -> NonNull<sys::nftnl_expr> {
        // SAFETY: the name is a C string; libnftnl copies what it is given, and lengths are those of the values.
        unsafe {
            let expr = NonNull::new(sys::nftnl_expr_alloc(self.0.kind.as_ptr()));
            // Out of memory, or a kind that this libnftnl does not know; the process cannot continue in either case.
            let expr = expr.unwrap_or_else(|| std::process::abort());
            for (number, value) in &self.0.attributes {
                match value {
                    Value::U8(value) => sys::nftnl_expr_set_u8(expr.as_ptr(), *number, *value),
                    Value::U32(value) => sys::nftnl_expr_set_u32(expr.as_ptr(), *number, *value),
                    Value::Bytes(bytes) => {
                        let length = u32::try_from(bytes.len()).unwrap_or(0);
                        sys::nftnl_expr_set(expr.as_ptr(), *number, bytes.as_ptr().cast(), length);
                    }
                    Value::Text(text) => {
                        sys::nftnl_expr_set_str(expr.as_ptr(), *number, text.as_ptr());
                    }
                }
            }
            expr
        }
    }
}

/// Adds an expression to a rule.
pub fn add_expression(rule: &mut nftnl::Rule<'_>, expr: &Expr) {
    rule.add_expr(&Generic(expr));
}

/// Returns the netlink message for an object of `nftnl`.
pub(crate) fn message(object: &impl nftnl::NlMsg, seq: u32, kind: nftnl::MsgType) -> Vec<u8> {
    let room = usize::try_from(nftnl::nft_nlmsg_maxsize()).unwrap_or(1 << 17);
    // Words, because the headers within must be aligned.
    let mut words = vec![0_u64; room / 8 + 1];
    // SAFETY: the buffer has at least the size that `write` asks for, is aligned, and was initialised.
    let bytes = unsafe {
        object.write(words.as_mut_ptr().cast(), seq, kind);
        std::slice::from_raw_parts(words.as_ptr().cast::<u8>(), words.len() * 8)
    };
    let length = bytes.first_chunk().map_or(0, |length| u32::from_ne_bytes(*length));
    bytes
        .get(..usize::try_from(length).unwrap_or(0))
        .unwrap_or_default()
        .to_vec()
}

/// Makes the allocator keep freed memory in one piece: a run is short, and returning memory to the kernel only to fault
/// it in again takes a third of its time.
pub fn keep_memory() {
    const LARGEST_PIECE: c_int = 32 << 20;
    const AT_ONCE: c_int = 16 << 20;
    for (option, value) in [
        (libc::M_MMAP_THRESHOLD, LARGEST_PIECE),
        (libc::M_TRIM_THRESHOLD, c_int::MAX),
        (libc::M_TOP_PAD, AT_ONCE),
    ] {
        // SAFETY: no pointers; an allocator that does not know the option returns an error and changes nothing.
        unsafe {
            libc::mallopt(option, value);
        }
    }
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
