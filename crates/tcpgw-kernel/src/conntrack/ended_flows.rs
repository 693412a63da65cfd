//! Ended flows, as the kernel reports them.
//!
//! Source: `ctnetlink_conntrack_event` in `net/netfilter/nf_conntrack_netlink.c`. The report is sent before the flow
//! leaves conntrack's table, and has its last counters. With `net.netfilter.nf_conntrack_events` = 2 (the default since
//! Linux 5.19) the kernel reports only flows that began while a listener existed, and nothing with 0.

use std::os::fd::{AsFd, BorrowedFd};

use nix::libc::{self, sock_filter};

use super::{Flow, owns, wire};
use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use tcpgw_core::model::FlowMark;

/// `NFNLGRP_CONNTRACK_DESTROY`
const GROUP: libc::c_int = 3;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`
const DELETE: u16 = 0x102;
/// Bytes before the attributes of a message: `struct nlmsghdr` and `struct nfgenmsg`.
const HEADERS: u32 = 16 + 4;
/// Bytes of an attribute before its value.
const ATTRIBUTE_HEADER: u32 = 4;

/// Numbers of one [`EndMonitor::drain`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Number of messages.
    pub messages: usize,
    /// Number of times that the kernel had no room for a message; each lost one message or more.
    pub overruns: u64,
}

/// Monitor of ended flows, in the network namespace of the thread that opened it. While one is open, each connection
/// through this host costs the kernel one message; those that are not read in time are lost once 8 MiB wait, some 6,000
/// messages. The kernel drops messages about flows without the mark at once.
#[derive(Debug)]
pub struct EndMonitor {
    socket: Netlink,
    mark: FlowMark,
}

impl EndMonitor {
    /// Opens the monitor in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn open(mark: FlowMark) -> Result<Self, NetlinkError> {
        let socket = Netlink::netfilter()?;
        socket.filter(&of_mark(mark))?;
        socket.join(GROUP)?;
        Ok(Self { socket, mark })
    }

    /// Calls `each` with tcpgw's flows that have ended, and the time of their end in nanoseconds since 1970 where
    /// `net.netfilter.nf_conntrack_timestamp` is on, until no message is left or `most` were read.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Receive`].
    pub fn drain(&mut self, most: usize, mut each: impl FnMut(&Flow, Option<u64>)) -> Result<Drained, NetlinkError> {
        let mut drained = Drained::default();
        while drained.messages < most {
            match self.socket.try_recv() {
                Ok(None) => break,
                Ok(Some(messages)) => {
                    drained.messages += 1;
                    for message in messages.filter_map(Result::ok).filter(|message| message.kind == DELETE) {
                        // What cannot be read is a flow of something else.
                        if let Ok(Some(flow)) = Flow::decode(&message)
                            && owns(self.mark, &flow)
                        {
                            each(&flow, stopped(&message));
                        }
                    }
                }
                Err(NetlinkError::Overrun | NetlinkError::Truncated(_)) => drained.overruns += 1,
                Err(error) => return Err(error),
            }
        }
        Ok(drained)
    }
}

impl AsFd for EndMonitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn stopped(message: &crate::netlink::tlv::Message<'_>) -> Option<u64> {
    let (_, attrs) = message.family().ok()?;
    let times = attrs.first(wire::CTA_TIMESTAMP).ok()??;
    times.nested().first(wire::CTA_TIMESTAMP_STOP).ok()??.be64().ok()
}

/// Returns a filter for messages about flows with the mark (`net/core/filter.c`, `SKF_AD_NLATTR`). A message without
/// the attribute is about a flow whose mark is 0, which is never tcpgw's.
fn of_mark(mark: FlowMark) -> [sock_filter; 10] {
    let statement = |code: u32, k: u32| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k,
    };
    let jump_if_equal = |k: u32, jt: u8, jf: u8| sock_filter {
        jt,
        jf,
        ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, k)
    };
    let (load, find) = (libc::BPF_LD, (libc::SKF_AD_OFF + libc::SKF_AD_NLATTR).cast_unsigned());
    [
        statement(load | libc::BPF_IMM, HEADERS),
        statement(libc::BPF_LDX | libc::BPF_IMM, u32::from(wire::CTA_MARK)),
        statement(load | libc::BPF_W | libc::BPF_ABS, find),
        jump_if_equal(0, 4, 0),
        statement(libc::BPF_MISC | libc::BPF_TAX, 0),
        statement(load | libc::BPF_W | libc::BPF_IND, ATTRIBUTE_HEADER),
        statement(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mark.mask()),
        jump_if_equal(mark.value(), 1, 0),
        statement(libc::BPF_RET | libc::BPF_K, 0),
        statement(libc::BPF_RET | libc::BPF_K, u32::MAX),
    ]
}
