//! A netlink socket, with a typed error for every way in which it fails.
//!
//! Owns sending, receiving and sequence numbers. The meaning of answers belongs to [`NetlinkExchange`].
//!
//! Source: `net/netlink/af_netlink.c`.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        socket::{MsgFlags, NetlinkAddr, getsockname, recvmsg, sendmsg, setsockopt, sockopt},
        time::{TimeVal, TimeValLike as _},
    },
};

use super::error::{NetlinkError, SEND_OVERHEAD, TIMEOUT_SECONDS};
use crate::ffi::socket::{MnlSocket, attach_filter, set_int_option};
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{Messages, Writer};

const TIMEOUT: Duration = Duration::from_secs(TIMEOUT_SECONDS.cast_unsigned());
/// Size in bytes of the buffer for one receive; dumps come in parts of at most 32 KiB, other answers are smaller.
const PART: usize = 128 * 1024;
/// Number of bytes of answers that may wait in the kernel.
const RECEIVE_BUFFER: usize = 8 * 1024 * 1024;
/// Largest number of parts of one `sendmsg` (`UIO_MAXIOV`).
const MAX_PARTS: usize = 1024;
/// Number of attempts of [`restarting`].
const ATTEMPTS: u32 = 8;

/// Repeats a read a few times as long as its error [is passing](NetlinkError::is_passing).
///
/// # Errors
///
/// Fails with [`NetlinkError::Unsettled`] when the last attempt was interrupted, and otherwise with the error of the
/// last attempt.
pub fn restarting<T>(mut attempt: impl FnMut() -> Result<T, NetlinkError>) -> Result<T, NetlinkError> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(error) if error.is_passing() => {}
            other => return other,
        }
    }
    attempt().map_err(|error| match error {
        NetlinkError::Interrupted => NetlinkError::Unsettled(ATTEMPTS),
        other => other,
    })
}

/// A netlink socket. It belongs to the network namespace of the thread that opened it.
pub struct Netlink {
    socket: MnlSocket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
    send_buffer: usize,
    receive_buffer: usize,
}

impl Netlink {
    /// Opens a socket to netfilter.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn netfilter() -> Result<Self, NetlinkError> {
        Self::open(mnl::Bus::Netfilter)
    }

    /// Opens a socket to addresses, links and routes, with strict checks of dump requests.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn route() -> Result<Self, NetlinkError> {
        let netlink = Self::open(mnl::Bus::Route)?;
        netlink.enable("NETLINK_GET_STRICT_CHK", libc::NETLINK_GET_STRICT_CHK)?;
        Ok(netlink)
    }

    /// Opens a socket to the sockets of the network namespace.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn sock_diag() -> Result<Self, NetlinkError> {
        Self::open(mnl::Bus::SockDiag)
    }

    /// Opens a socket to the policies of IPsec.
    ///
    /// # Errors
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn xfrm() -> Result<Self, NetlinkError> {
        Self::open(mnl::Bus::Xfrm)
    }

    /// Subscribes to this multicast group of the socket's subsystem.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Configure`] when the kernel refuses the subscription.
    pub fn join(&self, group: libc::c_int) -> Result<(), NetlinkError> {
        set_int_option(self.as_fd(), libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group).map_err(|source| {
            NetlinkError::Configure {
                option: "NETLINK_ADD_MEMBERSHIP",
                source,
            }
        })
    }

    /// Attaches a filter (classic BPF): messages that it refuses are not received, answers among them.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Configure`] when the kernel refuses the filter.
    pub fn filter(&self, filter: &[libc::sock_filter]) -> Result<(), NetlinkError> {
        attach_filter(self.as_fd(), filter).map_err(|source| NetlinkError::Configure {
            option: "SO_ATTACH_FILTER",
            source,
        })
    }

    /// Returns the number of the socket in the network namespace: the first one of a process usually has the process'
    /// number.
    pub const fn port(&self) -> u32 {
        self.port
    }

    /// Returns a sequence number that was not used on this socket for a long time; never 0, which notifications have.
    pub fn next_seq(&mut self) -> u32 {
        self.seq = self.seq.checked_add(1).unwrap_or(1);
        self.seq
    }

    /// Records that the numbers up to `seq` were used, so that a late answer to one of them is not taken for the answer
    /// to another request.
    pub fn skip_seq(&mut self, seq: u32) {
        self.seq = self.seq.max(seq);
    }

    /// Returns the number of bytes of answers that may wait in the kernel, as it accounts them (about 2 KiB for a small
    /// one).
    pub const fn receive_buffer(&self) -> usize {
        self.receive_buffer
    }

    /// Sends messages in one `sendmsg`, however long they are: a netfilter batch must not be split.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Send`] when the kernel does not accept all bytes; nothing was done then.
    pub fn send(&mut self, what: &'static str, parts: &[IoSlice<'_>]) -> Result<(), NetlinkError> {
        if parts.len() > MAX_PARTS {
            let whole: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            return self.send(what, &[IoSlice::new(&whole)]);
        }
        let bytes = parts.iter().map(|part| part.len()).sum::<usize>();
        self.grow_send_buffer(bytes);
        let fail = |source| NetlinkError::Send { what, bytes, source };
        loop {
            match sendmsg::<()>(self.socket.as_fd().as_raw_fd(), parts, &[], MsgFlags::empty(), None) {
                Ok(sent) if sent == bytes => return Ok(()),
                Ok(_) => return Err(fail(io::ErrorKind::WriteZero.into())),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(fail(errno.into())),
            }
        }
    }

    /// Returns the answers that are available already, if any.
    ///
    /// # Errors
    ///
    /// Fails as [`NetlinkExchange::recv`] does, without the timeout.
    pub fn try_recv(&mut self) -> Result<Option<Messages<'_>>, NetlinkError> {
        Ok(self
            .receive(MsgFlags::MSG_DONTWAIT)?
            .map(|length| self.received(length)))
    }

    fn open(bus: mnl::Bus) -> Result<Self, NetlinkError> {
        let socket = MnlSocket::open(bus).map_err(NetlinkError::Open)?;
        let mut netlink = Self {
            socket,
            port: 0,
            seq: 0,
            buffer: vec![0; PART],
            send_buffer: 0,
            receive_buffer: 0,
        };
        let fail = |option| {
            move |errno: Errno| NetlinkError::Configure {
                option,
                source: errno.into(),
            }
        };
        let address = getsockname::<NetlinkAddr>(netlink.socket.as_fd().as_raw_fd());
        netlink.port = address.map_err(|errno| NetlinkError::Open(errno.into()))?.pid();
        fcntl(&netlink.socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(fail("FD_CLOEXEC"))?;
        netlink.enable("NETLINK_EXT_ACK", libc::NETLINK_EXT_ACK)?;
        netlink.enable("NETLINK_CAP_ACK", libc::NETLINK_CAP_ACK)?;
        setsockopt(
            &netlink.socket,
            sockopt::ReceiveTimeout,
            &TimeVal::seconds(TIMEOUT_SECONDS),
        )
        .map_err(fail("SO_RCVTIMEO"))?;
        // Root of a user namespace may not force it; then the system's limit is what there is.
        if setsockopt(&netlink.socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&netlink.socket, sockopt::RcvBuf, &RECEIVE_BUFFER).map_err(fail("SO_RCVBUF"))?;
        }
        let get = nix::sys::socket::getsockopt(&netlink.socket, sockopt::RcvBuf);
        netlink.receive_buffer = get.map_err(fail("SO_RCVBUF"))?;
        let get = nix::sys::socket::getsockopt(&netlink.socket, sockopt::SndBuf);
        netlink.send_buffer = get.map_err(fail("SO_SNDBUF"))?;
        Ok(netlink)
    }

    fn enable(&self, name: &'static str, option: libc::c_int) -> Result<(), NetlinkError> {
        set_int_option(self.as_fd(), libc::SOL_NETLINK, option, 1)
            .map_err(|source| NetlinkError::Configure { option: name, source })
    }

    /// Enlarges the send buffer. A failure is no error yet: `sendmsg` fails with EMSGSIZE if it matters.
    fn grow_send_buffer(&mut self, bytes: usize) {
        let needed = bytes.saturating_add(SEND_OVERHEAD);
        if needed <= self.send_buffer {
            return;
        }
        if setsockopt(&self.socket, sockopt::SndBufForce, &needed).is_err() {
            let _ = setsockopt(&self.socket, sockopt::SndBuf, &needed);
        }
        self.send_buffer = nix::sys::socket::getsockopt(&self.socket, sockopt::SndBuf).unwrap_or(self.send_buffer);
    }

    /// Returns the length of what was received; `None` when nothing came in time.
    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>, NetlinkError> {
        let fd = self.socket.as_fd().as_raw_fd();
        loop {
            let mut parts = [IoSliceMut::new(&mut self.buffer)];
            // MSG_TRUNC asks for the real length, also of what does not fit.
            let answer = recvmsg::<NetlinkAddr>(fd, &mut parts, None, flags | MsgFlags::MSG_TRUNC)
                .map(|answer| (answer.bytes, answer.address.is_none_or(|sender| sender.pid() == 0)));
            match answer {
                Ok((length, _)) if length > self.buffer.len() => {
                    self.buffer.resize(length.next_multiple_of(PART), 0);
                    return Err(NetlinkError::Truncated(length));
                }
                Ok((length, true)) => return Ok(Some(length)),
                // A message of another process: only those of the kernel are accepted.
                Ok((_, false)) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::ENOBUFS) => return Err(NetlinkError::Overrun),
                Err(errno) => return Err(NetlinkError::Receive(errno.into())),
            }
        }
    }

    fn received(&self, length: usize) -> Messages<'_> {
        Messages::new(self.buffer.get(..length).unwrap_or_default())
    }
}

impl NetlinkExchange for Netlink {
    fn send_request(&mut self, what: &'static str, build: impl FnOnce(&mut Writer, u32)) -> Result<u32, NetlinkError> {
        let seq = self.next_seq();
        let mut writer = Writer::new();
        build(&mut writer, seq);
        self.send(what, &[IoSlice::new(writer.bytes()?)])?;
        Ok(seq)
    }

    fn recv(&mut self) -> Result<Messages<'_>, NetlinkError> {
        let begin = Instant::now();
        loop {
            match self.receive(MsgFlags::empty())? {
                Some(length) => return Ok(self.received(length)),
                None if begin.elapsed() >= TIMEOUT => return Err(NetlinkError::Timeout),
                None => {}
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl std::fmt::Debug for Netlink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Netlink")
            .field("fd", &self.as_fd().as_raw_fd())
            .field("seq", &self.seq)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::tlv::Nack;

    #[test]
    fn restarts_are_bounded() {
        let mut tries = 0;
        let settled = restarting(|| {
            tries += 1;
            if tries < 3 {
                Err(NetlinkError::Interrupted)
            } else {
                Ok(tries)
            }
        });
        assert_eq!(settled.unwrap(), 3);
        let never: Result<(), _> = restarting(|| Err(NetlinkError::Interrupted));
        assert!(matches!(never, Err(NetlinkError::Unsettled(ATTEMPTS))));
        let mut lost = [true, false].into_iter();
        let found = restarting(|| lost.next().filter(|lost| !lost).ok_or(NetlinkError::Overrun));
        assert!(found.is_ok());
        let never: Result<(), _> = restarting(|| Err(NetlinkError::Overrun));
        assert!(matches!(never, Err(NetlinkError::Overrun)));
        let other: Result<(), _> = restarting(|| Err(NetlinkError::Timeout));
        assert!(matches!(other, Err(NetlinkError::Timeout)));
    }

    #[test]
    fn refusals_say_what_helps() {
        let nack = Nack {
            errno: libc::EPERM,
            seq: 1,
            message: None,
            offset: None,
        };
        let error = NetlinkError::Refused {
            what: "list flows",
            nack,
        };
        assert_eq!(
            error.to_string(),
            "failed to list flows: Operation not permitted (EPERM) (needs CAP_NET_ADMIN)"
        );
        assert_eq!(error.errno(), Some(Errno::EPERM));
    }

    #[test]
    fn a_request_that_does_not_fit_says_what_would_make_it_fit() {
        let error = NetlinkError::Send {
            what: "send the transaction",
            bytes: 1_000_001,
            source: Errno::EMSGSIZE.into(),
        };
        // The kernel doubles what is asked for.
        assert!(
            error.to_string().contains("raise net.core.wmem_max to 500017 or more"),
            "{error}"
        );
    }

    #[test]
    fn sequence_numbers_skip_zero() {
        let mut netlink = Netlink::route().unwrap();
        assert_eq!(netlink.next_seq(), 1);
        netlink.seq = u32::MAX;
        assert_eq!(netlink.next_seq(), 1);
        assert!(crate::ffi::socket::netns_cookie(netlink.as_fd()).unwrap() > 0);
    }
}
