//! The part of a probe after its handshake: its question, and the answer.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use tcpgw_core::health::{AnswerFault, MAX_ANSWER};
use tcpgw_core::model::ProbeQuestion;

/// Question of a probe in flight.
pub(super) struct Talk {
    question: Arc<ProbeQuestion>,
    /// Whether the handshake was answered.
    is_open: bool,
    /// Bytes that are still to be sent.
    unsent: Vec<u8>,
    /// Bytes of the answer so far, at most [`MAX_ANSWER`].
    answer: Vec<u8>,
}

impl Talk {
    pub(super) fn new(question: &Arc<ProbeQuestion>, endpoint: SocketAddr) -> Self {
        Self {
            question: Arc::clone(question),
            is_open: false,
            unsent: question.request(endpoint),
            answer: Vec::new(),
        }
    }

    /// Returns whether the handshake was answered.
    pub(super) const fn is_open(&self) -> bool {
        self.is_open
    }

    /// Records that the handshake was answered.
    pub(super) const fn open(&mut self) {
        self.is_open = true;
    }

    /// Sends and reads as much as the socket allows. Returns the verdict on the answer; `None` while it is not known.
    pub(super) fn go_on(&mut self, socket: &OwnedFd) -> Option<Result<(), AnswerFault>> {
        // A backend may answer, and close, before it has read everything: its answer counts.
        let sent = self.send(socket);
        // A connection that was reset has ended, too.
        let has_ended = self.read(socket).unwrap_or(true);
        self.question
            .judge(&self.answer, has_ended)
            .or_else(|| sent.is_err().then_some(Err(AnswerFault::Closed)))
    }

    fn send(&mut self, socket: &OwnedFd) -> Result<(), Errno> {
        while !self.unsent.is_empty() {
            match send(
                socket.as_raw_fd(),
                &self.unsent,
                MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT,
            ) {
                Ok(count) => drop(self.unsent.drain(..count.min(self.unsent.len()))),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }

    /// Reads until nothing more is there. Returns whether the backend has closed the connection.
    fn read(&mut self, socket: &OwnedFd) -> Result<bool, Errno> {
        let mut buffer = [0; 1024];
        while self.answer.len() < MAX_ANSWER {
            match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(0) => return Ok(true),
                Ok(count) => {
                    let room = MAX_ANSWER - self.answer.len();
                    self.answer.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(false)
    }
}

#[cfg(test)]
#[path = "talk_tests.rs"]
mod tests;
