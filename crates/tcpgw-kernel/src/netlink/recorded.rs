//! Recorded answers of a kernel, for tests and for fuzzing of the readers.

use crate::netlink::error::NetlinkError;
use crate::netlink::exchange::NetlinkExchange;
use crate::netlink::tlv::{HEADER_LEN, Message, Messages, NetlinkReply, Writer, align};

/// Answers that were given once. Requests are answered by what comes next, whatever they ask for, up to the next
/// acknowledgement, refusal or end of a dump.
#[derive(Debug, Clone)]
pub struct RecordedAnswers<'a>(&'a [u8]);

impl<'a> RecordedAnswers<'a> {
    /// Messages, one after the other, as they were received.
    pub const fn new(answers: &'a [u8]) -> Self {
        Self(answers)
    }

    /// Returns the answers that were not read yet.
    pub const fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl NetlinkExchange for RecordedAnswers<'_> {
    /// Returns the number of the next answer as that of the request, so that a part of a recording is a recording.
    fn send_request(&mut self, _: &'static str, build: impl FnOnce(&mut Writer, u32)) -> Result<u32, NetlinkError> {
        let seq = Messages::new(self.0)
            .next()
            .and_then(Result::ok)
            .map_or(1, |message| message.seq);
        let mut writer = Writer::new();
        build(&mut writer, seq);
        writer.bytes()?;
        Ok(seq)
    }

    fn recv(&mut self) -> Result<Messages<'_>, NetlinkError> {
        if self.0.is_empty() {
            return Err(NetlinkError::Timeout);
        }
        let mut length = 0;
        for message in Messages::new(self.0) {
            let Ok(message) = message else {
                length = self.0.len();
                break;
            };
            length += align(HEADER_LEN + message.payload.len());
            if is_last(&message) {
                break;
            }
        }
        let (now, later) = self.0.split_at(length.min(self.0.len()));
        self.0 = later;
        Ok(Messages::new(now))
    }
}

fn is_last(message: &Message<'_>) -> bool {
    !matches!(message.reply(), Ok(NetlinkReply::Data(_) | NetlinkReply::Noop))
}

/// A wrapper that records the answers of another exchange.
#[derive(Debug)]
pub struct Recorder<A> {
    from: A,
    answers: Vec<u8>,
}

impl<A: NetlinkExchange> Recorder<A> {
    /// Creates an empty recorder.
    pub const fn new(from: A) -> Self {
        Self {
            from,
            answers: Vec::new(),
        }
    }

    /// Returns all answers since the last call.
    pub fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.answers)
    }
}

impl<A: NetlinkExchange> NetlinkExchange for Recorder<A> {
    fn send_request(&mut self, what: &'static str, build: impl FnOnce(&mut Writer, u32)) -> Result<u32, NetlinkError> {
        self.from.send_request(what, build)
    }

    fn recv(&mut self) -> Result<Messages<'_>, NetlinkError> {
        let messages = self.from.recv()?;
        self.answers.extend_from_slice(messages.bytes());
        Ok(messages)
    }
}
