//! A client's socket, as it is opened.

use std::io;
use std::net::SocketAddr;

use nix::errno::Errno;
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::IpBindAddressNoPort;
use socket2::{Domain, Socket, Type};

use crate::To;
use crate::targets::{Sources, Targets};

/// Opens sockets from the clients' addresses, in turn, to targets chosen at random.
pub(crate) struct Opener {
    targets: Targets,
    sources: Option<Sources>,
    turn: usize,
}

impl Opener {
    /// Returns an opener. `thread` makes the choices of several threads differ.
    pub(crate) fn new(to: &To, thread: usize) -> Self {
        Self {
            targets: Targets::new(&to.targets, to.seed, thread),
            sources: to.sources,
            turn: thread * 7919,
        }
    }

    /// Returns a socket bound to its client's address, and the address to connect to.
    pub(crate) fn next(&mut self, blocking: bool) -> io::Result<(Socket, SocketAddr)> {
        let target = self.targets.pick();
        let kind = if blocking {
            Type::STREAM
        } else {
            Type::STREAM.nonblocking()
        };
        let socket = Socket::new(Domain::for_address(target), kind, None)?;
        if let Some(sources) = self.sources {
            self.turn += 1;
            // Without it bind() takes a port for all targets at once, and 28,000 connections are the end.
            setsockopt(&socket, IpBindAddressNoPort, &true)?;
            socket.bind(&SocketAddr::new(sources.at(self.turn), 0).into())?;
        }
        Ok((socket, target))
    }

    /// Returns a socket whose handshake is in progress.
    pub(crate) fn begin(&mut self) -> io::Result<Socket> {
        let (socket, target) = self.next(false)?;
        match socket.connect(&target.into()) {
            Err(error) if error.raw_os_error() != Some(Errno::EINPROGRESS as i32) => Err(error),
            _ => Ok(socket),
        }
    }
}
