//! Bytes per second, one way.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use socket2::Socket;

use crate::opened::Opener;
use crate::outcome::Errors;
use crate::protocol::LoadRequest;
use crate::{Direction, To, clock};

const CHUNK: usize = 256 * 1024;

/// Number of bytes that one connection moved.
struct Moved {
    bytes: u64,
    took: Duration,
}

/// Runs for this many seconds on this many connections at a time, each with a thread of its own. Bytes are counted by their
/// receiver.
pub(crate) fn run(
    to: &To,
    seconds: Duration,
    connections: usize,
    direction: Direction,
) -> Result<Value, Box<dyn Error>> {
    let mut errors = Errors::default();
    let mut opener = Opener::new(to, 0);
    let mut open = Vec::new();
    for _ in 0..connections {
        match connected(&mut opener) {
            Ok(socket) => open.push(socket),
            Err(error) => errors.count_io(&error),
        }
    }
    let results: Vec<io::Result<Moved>> = thread::scope(|scope| {
        let threads: Vec<_> = open
            .iter()
            .map(|socket| {
                scope.spawn(move || match direction {
                    Direction::Up => up(socket, seconds),
                    Direction::Down => down(socket, seconds),
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(io::Error::other("a thread ended")))
            })
            .collect()
    });
    let (mut bytes, mut per_second) = (0, 0);
    for result in results {
        match result {
            Ok(moved) => {
                bytes += moved.bytes;
                per_second += u128::from(moved.bytes) * 1_000_000_000 / moved.took.as_nanos().max(1);
            }
            Err(error) => errors.count_io(&error),
        }
    }
    Ok(json!({
        "bytes": bytes,
        "seconds": seconds.as_secs_f64(),
        "bytes_per_second": u64::try_from(per_second)?,
        "connections": open.len(),
        "errors": errors,
        "cpu": clock::cpu()?,
    }))
}

fn connected(opener: &mut Opener) -> io::Result<Socket> {
    let (socket, target) = opener.next(true)?;
    socket.set_write_timeout(Some(Duration::from_secs(5)))?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    socket.connect(&target.into())?;
    Ok(socket)
}

fn up(mut socket: &Socket, seconds: Duration) -> io::Result<Moved> {
    let zeros = vec![0; CHUNK];
    socket.write_all(&LoadRequest::Take.to_bytes())?;
    let begin = Instant::now();
    while begin.elapsed() < seconds {
        socket.write_all(&zeros)?;
    }
    socket.shutdown(Shutdown::Write)?;
    let mut taken = [0; 8];
    socket.read_exact(&mut taken)?;
    Ok(Moved {
        bytes: u64::from_be_bytes(taken),
        took: begin.elapsed(),
    })
}

fn down(mut socket: &Socket, seconds: Duration) -> io::Result<Moved> {
    let mut buffer = vec![0; CHUNK];
    socket.write_all(&LoadRequest::Send.to_bytes())?;
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < seconds {
        match socket.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => bytes += got as u64,
        }
    }
    Ok(Moved {
        bytes,
        took: begin.elapsed(),
    })
}
