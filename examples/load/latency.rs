//! Latency of `connect()`, one connection after the other: the time until a client gets its first answer.

use std::error::Error;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::opened::Opener;
use crate::outcome::{Durations, Errors};
use crate::protocol::LoadRequest;
use crate::{To, clock};

/// Opens this many connections. Each requests one byte, and is closed by the server before the next one is opened.
pub(crate) fn run(to: &To, samples: usize, patience: Duration) -> Result<Value, Box<dyn Error>> {
    let mut opener = Opener::new(to, 0);
    let (mut connects, mut errors) = (Durations::default(), Errors::default());
    for _ in 0..samples {
        match once(&mut opener, patience) {
            Ok(connect) => connects.push(connect),
            Err(error) => errors.count_io(&error),
        }
    }
    Ok(json!({
        "samples": samples,
        "connect_us": connects.percentiles(),
        "errors": errors,
        "cpu": clock::cpu()?,
    }))
}

fn once(opener: &mut Opener, patience: Duration) -> io::Result<Duration> {
    let (mut socket, target) = opener.next(true)?;
    // In Linux the time to send also bounds connect() (socket(7), SO_SNDTIMEO).
    socket.set_write_timeout(Some(patience))?;
    socket.set_read_timeout(Some(patience))?;
    let target = target.into();
    let begin = Instant::now();
    socket.connect(&target)?;
    let connect = begin.elapsed();
    socket.write_all(&LoadRequest::AnswerAndClose(1).to_bytes())?;
    let mut answer = Vec::with_capacity(8);
    socket.read_to_end(&mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(connect)
}
