//! An inotify instance in an event loop.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd, RawFd};
use std::sync::Arc;

use nix::sys::inotify::{Inotify, InotifyEvent};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An inotify instance that an event loop waits for.
#[derive(Debug)]
pub struct InotifyHandle(Arc<Inotify>);

impl InotifyHandle {
    /// Creates a handle that owns the instance with its watches.
    pub fn new(inotify: Inotify) -> Self {
        Self(Arc::new(inotify))
    }

    /// Registers the instance with the event loop of this thread.
    pub fn listen(self) -> io::Result<AsyncFd<Self>> {
        // SAFETY: the descriptor is that of the instance, which is its only owner, cannot be taken out of the `Arc` while
        // `InotifyHandle` holds it, and is closed after `AsyncFd` has let go of it.
        Ok(unsafe { AsyncFd::register_with_interest(self, Interest::READABLE) }?)
    }

    /// Returns the instance, to add watches elsewhere.
    pub fn inotify(&self) -> Arc<Inotify> {
        Arc::clone(&self.0)
    }

    /// Returns the events that are available now.
    pub fn read_events(&self) -> nix::Result<Vec<InotifyEvent>> {
        self.0.read_events()
    }
}

impl AsRawFd for InotifyHandle {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
