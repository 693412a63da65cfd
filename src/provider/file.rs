//! Follower of the state file: by inotify where the filesystem supports it, and by checks every few seconds
//! everywhere.

mod check;
mod watched;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags as Flags, InitFlags, Inotify, InotifyEvent};
use tokio::io::unix::AsyncFd;
use tokio::task::JoinHandle;

use self::check::{EarlierChecks, FileCheck, FileCheckResult, Print, ReadCondition};
use self::watched::{WatchedPlace, WatchedPlaces};
use super::pace::{FileEvent, Pace, Reason};
use super::{Bad, News};
use crate::config::Config;
use tcpgw_kernel::ffi::inotify::InotifyHandle;

/// Maximum number of consecutive contents that are ignored because they were written to while being read.
const PATIENCE: u32 = 50;
/// Largest number of reads from inotify before other work is done.
const HEARD_AT_ONCE: usize = 64;

/// Follower of one state file. Each content that differs from the last one is reported once, when it is not being
/// written; changes in a burst are reported as one.
#[derive(Debug)]
pub struct FileProvider {
    path: PathBuf,
    config: Arc<Config>,
    inotify: Option<AsyncFd<InotifyHandle>>,
    watched: WatchedPlaces,
    pace: Pace,
    seen: EarlierChecks,
    job: Option<JoinHandle<FileCheckResult>>,
    passed_over: u32,
    unconfirmed: Option<Print>,
    trouble: Option<String>,
}

impl FileProvider {
    /// Begins to follow the file, which need not exist; the fences are those of the configuration. The first news
    /// describe the present content.
    ///
    /// Without inotify (no instance is left: `fs.inotify.max_user_instances`) the file is checked every 5 s.
    ///
    /// # Panics
    /// Panics outside of a tokio runtime with I/O and time.
    pub fn watch(path: &Path, config: Arc<Config>) -> Self {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        pace.note(FileEvent::Written, now);
        let mut provider = Self {
            path: std::path::absolute(path).unwrap_or_else(|_| path.to_owned()),
            config,
            inotify: None,
            watched: WatchedPlaces::new(),
            pace,
            seen: EarlierChecks::default(),
            job: None,
            passed_over: 0,
            unconfirmed: None,
            trouble: None,
        };
        match listen() {
            Ok(inotify) => provider.inotify = Some(inotify),
            Err(error) => provider.complain(format!("failed to start inotify: {error}")),
        }
        provider.begin_check(now);
        provider
    }

    /// Returns the absolute path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Sets other fences: the content is judged again, and reported in any case.
    pub fn reload(&mut self, config: Arc<Config>) {
        self.config = config;
        self.seen.forget();
        self.pace.note(FileEvent::Moved, Instant::now());
    }

    /// Waits for the next news. The future may be dropped at any time without loss. While it is not awaited, nothing
    /// is read, and afterwards only the last content.
    pub async fn next(&mut self) -> News {
        loop {
            let due = tokio::time::Instant::from_std(self.pace.due());
            let step = tokio::select! {
                biased;
                events = next_events(self.inotify.as_ref()) => Step::Events(events),
                check = finish(&mut self.job) => Step::Checked(check.map(Box::new)),
                () = tokio::time::sleep_until(due), if self.job.is_none() => Step::Due,
            };
            match step {
                Step::Events(events) => self.events_arrived(events),
                Step::Checked(check) => {
                    // Events that arrived while the file was read tell whether it was being written.
                    self.drain();
                    self.job = None;
                    let news = match check {
                        Ok(check) => self.check_ended(*check),
                        Err(error) => Some(self.lost(&error)),
                    };
                    if let Some(news) = news {
                        return news;
                    }
                }
                Step::Due => self.begin_check(Instant::now()),
            }
        }
    }

    fn begin_check(&mut self, now: Instant) {
        let request = FileCheck {
            path: self.path.clone(),
            config: Arc::clone(&self.config),
            inotify: self.inotify.as_ref().map(|inotify| inotify.get_ref().inotify()),
            watched: self.watched.clone(),
            seen: self.seen.clone(),
            wish: match self.pace.begin(now) {
                Reason::Hint => ReadCondition::Read,
                Reason::Poll => ReadCondition::ReadIfChanged,
            },
        };
        self.job = Some(tokio::task::spawn_blocking(move || request.run()));
    }

    fn check_ended(&mut self, check: FileCheckResult) -> Option<News> {
        let now = Instant::now();
        self.watched = check.watched;
        if let Some(trouble) = check.trouble {
            self.complain(trouble);
        }
        if !Arc::ptr_eq(&check.config, &self.config) {
            self.pace.retry(now);
            return None;
        }
        self.seen.chain = Some(check.chain.clone());
        let Some((print, news)) = check.read else {
            if check.may_change {
                self.pace.again(now);
            }
            return None;
        };
        let is_bad = matches!(news, Some(News::Bad(_)));
        let was_written = self.pace.was_written();
        if self.passed_over < PATIENCE && (was_written || is_bad && self.needs_confirmation(&print)) {
            self.passed_over += 1;
            self.pace.read_later(now);
            return None;
        }
        self.passed_over = 0;
        self.unconfirmed = None;
        self.seen.read = Some(check.chain);
        self.seen.print = Some(print);
        if let Some(News::State(state, _)) = &news {
            self.seen.reported = Arc::clone(state);
        }
        news
    }

    /// Returns whether an error is to be checked again: it counts when it is still the same a while later and nothing
    /// was written in between. An editor moves the old file away before it writes the new one; and a file that a
    /// writer has truncated can be read before the event arrives.
    fn needs_confirmation(&mut self, print: &Print) -> bool {
        self.seen.print.is_some() && self.unconfirmed.replace(print.clone()).as_ref() != Some(print)
    }

    fn lost(&mut self, error: &tokio::task::JoinError) -> News {
        self.seen.forget();
        News::Bad(Bad::Unreadable(format!(
            "{}: failed to read: {error}",
            tcpgw_core::escape::path(&self.path)
        )))
    }

    fn drain(&mut self) {
        for _ in 0..HEARD_AT_ONCE {
            let Some(inotify) = &self.inotify else {
                return;
            };
            match inotify.get_ref().read_events() {
                Ok(events) => self.events_arrived(Ok(events)),
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return,
                Err(errno) => return self.events_arrived(Err(errno.into())),
            }
        }
    }

    fn events_arrived(&mut self, events: io::Result<Vec<InotifyEvent>>) {
        let now = Instant::now();
        match events {
            Ok(events) => {
                for event in events {
                    if let Some(change) = self.means(&event) {
                        if matches!(change, FileEvent::Writing | FileEvent::Written) {
                            self.unconfirmed = None;
                        }
                        self.pace.note(change, now);
                    }
                }
            }
            Err(error) => {
                self.inotify = None;
                self.watched.clear();
                self.complain(format!("failed to read from inotify: {error}"));
            }
        }
    }

    fn means(&self, event: &InotifyEvent) -> Option<FileEvent> {
        let gone = Flags::IN_DELETE_SELF | Flags::IN_MOVE_SELF | Flags::IN_UNMOUNT | Flags::IN_IGNORED;
        let mask = event.mask;
        if mask.contains(Flags::IN_Q_OVERFLOW) {
            return Some(FileEvent::Moved);
        }
        match self.watched.get(&event.wd) {
            // The place of a watch is not known before the check that created it has ended.
            None if self.job.is_none() || mask.contains(Flags::IN_IGNORED) => None,
            Some(_) if mask.intersects(gone) => Some(FileEvent::Moved),
            None | Some(WatchedPlace::File) if mask.contains(Flags::IN_MODIFY) => Some(FileEvent::Writing),
            None | Some(WatchedPlace::File) if mask.contains(Flags::IN_CLOSE_WRITE) => Some(FileEvent::Written),
            None | Some(WatchedPlace::File) => Some(FileEvent::Moved),
            Some(WatchedPlace::Directory(directory, names)) => {
                let name = event.name.as_ref()?;
                if !*names.get(name)? || mask.contains(Flags::IN_ATTRIB) {
                    Some(FileEvent::Moved)
                } else if mask.contains(Flags::IN_CREATE) && check::will_be_written(&directory.join(name)) {
                    Some(FileEvent::Writing)
                } else if mask.contains(Flags::IN_CLOSE_WRITE) {
                    Some(FileEvent::Written)
                } else {
                    Some(FileEvent::Replaced)
                }
            }
        }
    }

    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            tracing::warn!(
                file = %tcpgw_core::escape::path(&self.path),
                "{trouble}; changes of the state file are seen after some seconds"
            );
            self.trouble = Some(trouble);
        }
    }
}

enum Step {
    Events(io::Result<Vec<InotifyEvent>>),
    Checked(Result<Box<FileCheckResult>, tokio::task::JoinError>),
    Due,
}

fn listen() -> io::Result<AsyncFd<InotifyHandle>> {
    InotifyHandle::new(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?).listen()
}

async fn next_events(inotify: Option<&AsyncFd<InotifyHandle>>) -> io::Result<Vec<InotifyEvent>> {
    let Some(inotify) = inotify else {
        return std::future::pending().await;
    };
    loop {
        let mut ready = inotify.readable().await?;
        match ready.try_io(|inotify| Ok(inotify.get_ref().read_events()?)) {
            Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(events) => return events,
            Err(_would_block) => {}
        }
    }
}

async fn finish(job: &mut Option<JoinHandle<FileCheckResult>>) -> Result<FileCheckResult, tokio::task::JoinError> {
    match job {
        Some(job) => job.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
