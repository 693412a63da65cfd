//! An answer of the daemon, which ends in time and is no larger than its kind may be.

use super::limits::{MOST_OBJECTS, MOST_VALUES};
use crate::api::client::Client;
use crate::api::client::error::ClientError;
use crate::api::client::limits::PATIENCE;
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::{Bytes, Incoming};
use tokio::time::timeout;

/// Longest line of an answer that comes line by line.
const LONGEST_LINE: usize = 1 << 20;

/// Answer of a daemon. Its time and its size are limited; an answer beyond a limit is an error.
#[derive(Debug)]
pub struct DaemonResponse<'a> {
    pub(super) client: &'a Client,
    pub(super) body: Incoming,
    pub(super) deadline: Instant,
    pub(super) most: usize,
}

impl DaemonResponse<'_> {
    /// Returns the next piece within that time; `None` at the end.
    fn next(&mut self, left: Duration) -> Result<Option<Bytes>, ClientError> {
        let begin = Instant::now();
        loop {
            let remaining = left.saturating_sub(begin.elapsed());
            let frame = async { timeout(remaining, self.body.frame()).await };
            return match self.client.runtime.block_on(frame) {
                Err(_) => Err(self.client.late()),
                Ok(None) => Ok(None),
                Ok(Some(Err(error))) => Err(self.client.failed(&format!("its answer ends in the middle: {error}"))),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => Ok(Some(data)),
                    Err(_) => continue,
                },
            };
        }
    }

    /// Returns the whole body.
    ///
    /// # Errors
    /// Fails with [`ClientError::Late`] when the answer does not end in time, and with [`ClientError::Connection`] when
    /// it was cut off or is too large.
    pub fn text(mut self) -> Result<Vec<u8>, ClientError> {
        let mut text = Vec::new();
        loop {
            let remaining = self.deadline.saturating_duration_since(Instant::now());
            if remaining.is_zero() {
                return Err(self.client.late());
            }
            let Some(piece) = self.next(remaining)? else {
                return Ok(text);
            };
            if text.len() + piece.len() > self.most {
                return Err(self.client.too_large(self.most));
            }
            text.extend_from_slice(&piece);
        }
    }

    /// Returns the whole body, read as JSON.
    ///
    /// # Errors
    /// Fails as [`DaemonResponse::text`] does, and with [`ClientError::Connection`] when the JSON does not have the
    /// expected form.
    pub fn json<T: serde::de::DeserializeOwned>(self) -> Result<T, ClientError> {
        let client = self.client;
        let text = self.text()?;
        if !is_modest(&text) {
            return Err(client.failed(&"its answer has more values than any that a tcpgw daemon gives"));
        }
        client.understand(&text)
    }

    /// Passes on lines as they arrive, without their ends, until `each` breaks off or there are no more. Of an answer
    /// that has no end (`endless`), each line has to arrive within [`PATIENCE`]; of any other, all lines together, not
    /// counting the time that `each` takes.
    ///
    /// # Errors
    /// Fails as [`DaemonResponse::text`] does, and with the first error of `each`.
    pub fn lines<E: From<ClientError>>(
        mut self,
        endless: bool,
        mut each: impl FnMut(&[u8]) -> Result<bool, E>,
    ) -> Result<(), E> {
        let mut rest = Vec::new();
        let mut remaining = PATIENCE;
        loop {
            let begin = Instant::now();
            let piece = self.next(remaining)?;
            remaining = remaining.saturating_sub(begin.elapsed());
            let Some(piece) = piece else { break };
            rest.extend_from_slice(&piece);
            let mut begin = 0;
            while let Some(length) = rest[begin..].iter().position(|byte| *byte == b'\n') {
                if !each(&rest[begin..begin + length])? {
                    return Ok(());
                }
                begin += length + 1;
                remaining = if endless { PATIENCE } else { remaining };
            }
            rest.drain(..begin);
            if rest.len() > LONGEST_LINE {
                return Err(self.client.too_large(LONGEST_LINE).into());
            }
        }
        if !rest.is_empty() {
            each(&rest)?;
        }
        Ok(())
    }
}

/// Returns whether JSON takes no more memory, once read, than an answer may.
pub(super) fn is_modest(text: &[u8]) -> bool {
    let (mut objects, mut values) = (0_usize, 0_usize);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if in_string => is_escaped = true,
            b'"' => in_string = !in_string,
            b'{' if !in_string => objects += 1,
            b'[' | b',' if !in_string => values += 1,
            _ => {}
        }
    }
    objects <= MOST_OBJECTS && values <= MOST_VALUES
}

impl Client {
    fn late(&self) -> ClientError {
        ClientError::Late {
            path: self.path.clone(),
        }
    }

    fn too_large(&self, most: usize) -> ClientError {
        self.failed(&format!(
            "its answer is larger than {} MiB, which none of a tcpgw daemon is",
            most >> 20
        ))
    }
}
