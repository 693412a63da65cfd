//! A request and its answers: meaning of dumps, ACKs and refusals, independent of where the answers come from.
//!
//! Knows neither sockets nor the subject of requests.

use std::cell::Cell;
use std::ops::ControlFlow;

use crate::netlink::error::NetlinkError;
use crate::netlink::tlv::{Message, Messages, Nack, NetlinkReply, Writer};

/// `NLM_F_DUMP_INTR`.
const DUMP_INTERRUPTED: u16 = 0x10;

/// Source of answers: a socket, or a recording.
pub trait NetlinkExchange {
    /// Sends the one request that `build` writes with the sequence number that it gets. Returns that number.
    ///
    /// # Errors
    ///
    /// Fails when the request cannot be encoded or sent; nothing was done then.
    fn send_request(&mut self, what: &'static str, build: impl FnOnce(&mut Writer, u32)) -> Result<u32, NetlinkError>;

    /// Waits for answers.
    ///
    /// # Errors
    ///
    /// Fails with [`NetlinkError::Timeout`], [`NetlinkError::Overrun`], [`NetlinkError::Truncated`] and
    /// [`NetlinkError::Receive`].
    fn recv(&mut self) -> Result<Messages<'_>, NetlinkError>;

    /// Sends the dump request that `build` writes (with the given sequence number) and calls `each` with each answer.
    ///
    /// After an error of `each` the rest of the dump is read and dropped, so that the socket stays usable.
    ///
    /// # Errors
    ///
    /// Fails with the first error of `each`, with [`NetlinkError::Interrupted`] when the kernel reports that its answer
    /// is inconsistent (see [`restarting`](crate::netlink::socket::restarting)), with [`NetlinkError::Refused`], and as
    /// [`NetlinkExchange::send_request`] and [`NetlinkExchange::recv`] do.
    fn dump(
        &mut self,
        what: &'static str,
        build: impl FnOnce(&mut Writer, u32),
        mut each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError>
    where
        Self: Sized,
    {
        let seq = self.send_request(what, build)?;
        let mut failure = None;
        loop {
            match answers(self, what, seq, &mut failure, &mut each) {
                Ok(false) => {}
                Ok(true) => return failure.map_or(Ok(()), Err),
                Err(error @ (NetlinkError::Overrun | NetlinkError::Truncated(_) | NetlinkError::Malformed(_))) => {
                    failure.get_or_insert(error);
                }
                // What made it miss the end says more.
                Err(NetlinkError::Timeout) => return Err(failure.unwrap_or(NetlinkError::Timeout)),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a dump request as [`NetlinkExchange::dump`] does, until `each` breaks off. Nothing of the dump is read
    /// after that, or after an error, so the socket cannot be used again: closing it ends the dump.
    ///
    /// # Errors
    ///
    /// Fails when the dump cannot be read: see [`NetlinkExchange::dump`].
    fn dump_until(
        mut self,
        what: &'static str,
        build: impl FnOnce(&mut Writer, u32),
        mut each: impl FnMut(&Message<'_>) -> Result<ControlFlow<()>, NetlinkError>,
    ) -> Result<(), NetlinkError>
    where
        Self: Sized,
    {
        let seq = self.send_request(what, build)?;
        let (mut failure, over) = (None, Cell::new(false));
        let mut until = |message: &Message<'_>| {
            over.set(over.get() || each(message)?.is_break());
            Ok(())
        };
        while !answers(&mut self, what, seq, &mut failure, &mut until)? && failure.is_none() && !over.get() {}
        failure.map_or(Ok(()), Err)
    }

    /// Sends the one request that `build` writes, which must ask for an ACK, and calls `each` with its answers.
    ///
    /// # Errors
    ///
    /// Fails when the kernel refuses the request, or its answers cannot be read: see [`NetlinkExchange::dump`].
    fn request(
        &mut self,
        what: &'static str,
        build: impl FnOnce(&mut Writer, u32),
        mut each: impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError>
    where
        Self: Sized,
    {
        let seq = self.send_request(what, build)?;
        let mut failure = None;
        while !answers(self, what, seq, &mut failure, &mut each)? {}
        failure.map_or(Ok(()), Err)
    }

    /// Reads refusals until the message `last`, which must ask for an ACK, is answered.
    ///
    /// `refused` gets every NACK, including that of `last` and those of earlier requests. Without `CAP_NET_ADMIN`
    /// netfilter refuses all messages of a `sendmsg` by one NACK, of the first message: there an error of `refused`
    /// ends the waiting.
    ///
    /// # Errors
    ///
    /// Fails as [`NetlinkExchange::recv`] does, and then the request may have been carried out; and with the first
    /// error of `refused`.
    fn acks(
        &mut self,
        last: u32,
        mut refused: impl FnMut(Nack) -> Result<(), NetlinkError>,
    ) -> Result<(), NetlinkError> {
        loop {
            for message in self.recv()? {
                let message = message?;
                match message.reply()? {
                    NetlinkReply::Ack if message.seq == last => return Ok(()),
                    NetlinkReply::Nack(nack) => {
                        refused(nack)?;
                        if message.seq == last {
                            return Ok(());
                        }
                    }
                    NetlinkReply::Overrun => return Err(NetlinkError::Overrun),
                    _ => {}
                }
            }
        }
    }
}

/// Receives answers to `seq` once and returns whether they were the last. Failures are stored in `failure`.
fn answers(
    from: &mut impl NetlinkExchange,
    what: &'static str,
    seq: u32,
    failure: &mut Option<NetlinkError>,
    each: &mut impl FnMut(&Message<'_>) -> Result<(), NetlinkError>,
) -> Result<bool, NetlinkError> {
    for message in from.recv()? {
        let message = message?;
        if message.seq != seq {
            continue;
        }
        if message.flags & DUMP_INTERRUPTED != 0 {
            failure.get_or_insert(NetlinkError::Interrupted);
        }
        match message.reply()? {
            NetlinkReply::Data(data) if failure.is_none() => *failure = each(&data).err(),
            NetlinkReply::Ack | NetlinkReply::Done(None) => return Ok(true),
            NetlinkReply::Nack(nack) | NetlinkReply::Done(Some(nack)) => {
                return Err(NetlinkError::Refused { what, nack });
            }
            NetlinkReply::Overrun => return Err(NetlinkError::Overrun),
            NetlinkReply::Data(_) | NetlinkReply::Noop => {}
        }
    }
    Ok(false)
}
