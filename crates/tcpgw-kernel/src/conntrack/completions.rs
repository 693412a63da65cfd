//! Completed handshakes, as the kernel reports them.
//!
//! A connection that ends with a reset is forgotten at once, so that a list of flows may contain none of them. Source:
//! `ctnetlink_conntrack_event` in `net/netfilter/nf_conntrack_netlink.c`. With `net.netfilter.nf_conntrack_events` = 2
//! (the default since Linux 5.19) the kernel reports only flows that began while a listener existed, and nothing with
//! 0.

use std::fs;
use std::net::SocketAddr;

use nix::libc;

use super::{Flow, TcpState, owns};
use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use tcpgw_core::model::FlowMark;

/// `NFNLGRP_CONNTRACK_UPDATE`: each change of a flow's state, but not its start and end.
const GROUP: libc::c_int = 2;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`
const NEW: u16 = 0x100;
/// Sysctl that enables events, of the reader's network namespace.
const EVENTS: &str = "/proc/sys/net/netfilter/nf_conntrack_events";
/// Largest number of messages that one [`CompletionMonitor::drain`] reads. The rest waits in the kernel, or is lost
/// there.
const AT_ONCE: usize = 20_000;

/// A handshake that was completed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Address of the client.
    pub client: SocketAddr,
    /// Address that the client connected to.
    pub public: SocketAddr,
}

/// Monitor of completed handshakes, in the network namespace of the thread that opened it. While one is open, each
/// connection through this host costs the kernel four or five messages; those that are not read in time are lost once 8
/// MiB wait.
#[derive(Debug)]
pub struct CompletionMonitor {
    socket: Netlink,
    mark: FlowMark,
}

impl CompletionMonitor {
    /// Opens the monitor in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn open(mark: FlowMark) -> Result<Self, NetlinkError> {
        let socket = Netlink::netfilter()?;
        socket.join(GROUP)?;
        Ok(Self { socket, mark })
    }

    /// Returns whether the kernel reports completed handshakes in the network namespace of this thread: it was built
    /// so, and `net.netfilter.nf_conntrack_events` is not 0.
    pub fn is_supported() -> bool {
        fs::read_to_string(EVENTS).is_ok_and(|value| value.trim() != "0")
    }

    /// Calls `each` with the handshakes of tcpgw's flows that were completed since the last call, as far as the kernel
    /// could keep them. Returns the number of messages that were read.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Receive`] when the socket cannot be read.
    pub fn drain(&mut self, mut each: impl FnMut(Completion)) -> Result<usize, NetlinkError> {
        for read in 0..AT_ONCE {
            match self.socket.try_recv() {
                Ok(None) => return Ok(read),
                // One message in each: this group never gets several at once.
                Ok(Some(messages)) => {
                    let changed = messages.filter_map(Result::ok).filter(|message| message.kind == NEW);
                    // What cannot be read is a flow of something else.
                    let flows = changed.filter_map(|message| Flow::decode(&message).ok().flatten());
                    flows
                        .filter(|flow| is_completed(self.mark, flow))
                        .map(|flow| Completion {
                            client: flow.client,
                            public: flow.public,
                        })
                        .for_each(&mut each);
                }
                Err(NetlinkError::Overrun | NetlinkError::Truncated(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(AT_ONCE)
    }
}

/// Returns whether a flow of tcpgw has just been completed: a message contains the state only when that changed.
fn is_completed(mark: FlowMark, flow: &Flow) -> bool {
    owns(mark, flow) && flow.status.assured() && flow.tcp_state == Some(TcpState::Established)
}
