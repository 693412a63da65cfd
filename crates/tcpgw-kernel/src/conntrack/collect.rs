//! Removal of conntrack entries whose time is over. conntrack counts them until its own collector comes by, which takes
//! up to a minute where most entries live long (`gc_worker` in `net/netfilter/nf_conntrack_core.c`), or until a look-up
//! meets them.

use std::io::IoSlice;
use std::net::SocketAddr;

use super::wire;
use crate::netlink::error::NetlinkError;
use crate::netlink::socket::Netlink;
use crate::netlink::tlv::Writer;

/// Number of requests that are sent at once: their answers fit into the socket's buffer.
const AT_ONCE: usize = 64;

/// A socket that looks entries up, so that conntrack drops those that have expired. Other entries stay as they are.
#[derive(Debug)]
pub struct Collector {
    netlink: Netlink,
}

impl Collector {
    /// Opens a socket, in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Open`] when the socket cannot be opened, and with [`NetlinkError::Configure`] when it
    /// cannot be set up.
    pub fn open() -> Result<Self, NetlinkError> {
        Ok(Self {
            netlink: Netlink::netfilter()?,
        })
    }

    /// Looks up the flows of these TCP connections, each given by client and destination.
    ///
    /// # Errors
    ///
    /// Fails when a request cannot be encoded or sent, or its answer cannot be read: with [`NetlinkError::Encode`],
    /// [`NetlinkError::Send`] or [`NetlinkError::Receive`].
    pub fn collect(&mut self, flows: &[(SocketAddr, SocketAddr)]) -> Result<(), NetlinkError> {
        for flows in flows.chunks(AT_ONCE) {
            let mut writer = Writer::new();
            for (from, to) in flows {
                let seq = self.netlink.next_seq();
                wire::get(&mut writer, seq, *from, *to);
            }
            let requests = writer.finish()?;
            self.netlink
                .send("look up flows that are over", &[IoSlice::new(&requests)])?;
            self.discard_answers()?;
        }
        Ok(())
    }

    fn discard_answers(&mut self) -> Result<(), NetlinkError> {
        loop {
            match self.netlink.try_recv() {
                Ok(None) => return Ok(()),
                Ok(Some(_)) | Err(NetlinkError::Overrun | NetlinkError::Truncated(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
