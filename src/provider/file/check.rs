//! A check of the file, which may take as long as the disk and the parser do, and never runs in the event loop.

use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags as Flags, Inotify};

use super::watched::{WatchedPlace, WatchedPlaces};
use crate::config::Config;
use crate::provider::chain::PathChain;
use crate::provider::{Bad, News};
use crate::state_file::{self, FilePurpose, SourceError};
use tcpgw_core::model::{self, InputProblems, State};

/// Maximum number of changes of the path while it is being watched, before the next check handles them.
const MOST_WALKS: usize = 8;

/// Fingerprint of a content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Print {
    /// Size and hash of the content.
    Content(usize, u64),
    /// The file does not exist; with the message for people.
    Missing(String),
    /// The file could not be read; with the message for people.
    Unreadable(String),
}

/// Results of earlier checks.
#[derive(Debug, Clone, Default)]
pub(super) struct EarlierChecks {
    /// Path at the last check.
    pub(super) chain: Option<PathChain>,
    /// Path when the file was read.
    pub(super) read: Option<PathChain>,
    /// Fingerprint of what was read then.
    pub(super) print: Option<Print>,
    /// Last state that was reported.
    pub(super) reported: Arc<State>,
}

impl EarlierChecks {
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }
}

/// Condition for reading the file.
#[derive(Debug, Clone, Copy)]
pub(super) enum ReadCondition {
    Read,
    /// The file is read if it differs from what was read, and has not changed since the last check.
    ReadIfChanged,
}

/// Input of a check.
#[derive(Debug)]
pub(super) struct FileCheck {
    pub(super) path: PathBuf,
    pub(super) config: Arc<Config>,
    pub(super) inotify: Option<Arc<Inotify>>,
    pub(super) watched: WatchedPlaces,
    pub(super) seen: EarlierChecks,
    pub(super) wish: ReadCondition,
}

/// Result of a check.
#[derive(Debug)]
pub(super) struct FileCheckResult {
    pub(super) config: Arc<Config>,
    pub(super) watched: WatchedPlaces,
    pub(super) chain: PathChain,
    /// Reason why some part of the path could not be watched.
    pub(super) trouble: Option<String>,
    /// Whether the file differs from what was read, and may still change until the next check.
    pub(super) may_change: bool,
    /// Fingerprint of what was read, and the news if the content differs.
    pub(super) read: Option<(Print, Option<News>)>,
}

impl FileCheck {
    /// Watches the path before it reads the file, so that no later change is missed.
    pub(super) fn run(self) -> FileCheckResult {
        let mut chain = PathChain::walk(&self.path);
        let mut watched = WatchedPlaces::new();
        let mut trouble = None;
        if let Some(inotify) = &self.inotify {
            for _ in 0..MOST_WALKS {
                watched = watch(inotify, &chain, &mut trouble);
                let now = PathChain::walk(&self.path);
                let is_same = now.directories == chain.directories && now.end == chain.end;
                chain = now;
                if is_same {
                    break;
                }
            }
            for old in self.watched.keys().filter(|old| !watched.contains_key(old)) {
                // The kernel has already removed watches whose inode is gone.
                let _ = inotify.rm_watch(*old);
            }
        }
        let is_other = self.seen.read.as_ref() != Some(&chain);
        let is_steady = self.seen.chain.as_ref() == Some(&chain);
        let reads = match self.wish {
            ReadCondition::Read => true,
            ReadCondition::ReadIfChanged => is_other && is_steady,
        };
        let read = reads.then(|| self.read(&chain));
        FileCheckResult {
            config: self.config,
            watched,
            chain,
            trouble,
            may_change: is_other,
            read,
        }
    }

    fn read(&self, chain: &PathChain) -> (Print, Option<News>) {
        let unreadable = |print: fn(String) -> Print, bad: Bad| {
            let print = print(bad.to_string());
            let is_same = self.seen.print.as_ref() == Some(&print);
            (print, (!is_same).then_some(News::Bad(bad)))
        };
        if chain.end.as_ref().is_some_and(|end| !end.is_readable) {
            let text = format!(
                "{}: is a pipe, a socket or a device, not a file",
                tcpgw_core::escape::path(&self.path)
            );
            return unreadable(Print::Unreadable, Bad::Unreadable(text));
        }
        match state_file::read_file(&self.path, FilePurpose::State) {
            Ok(text) => {
                let print = Print::Content(text.len(), hash(&text));
                let is_same = self.seen.print.as_ref() == Some(&print);
                let news = (!is_same).then(|| judge(&self.path, &self.config, &text, &self.seen.reported));
                (print, news)
            }
            Err(error @ SourceError::Missing(_)) => {
                let file = tcpgw_core::escape::path(&self.path);
                let text = format!("{error}; `tcpgw export --provider file > {file}` writes down what is served of it");
                unreadable(Print::Missing, Bad::Unreadable(text))
            }
            Err(error) => unreadable(Print::Unreadable, error.into()),
        }
    }
}

fn judge(path: &Path, config: &Config, text: &[u8], before: &State) -> News {
    let invalid = |problems| {
        News::Bad(Bad::Invalid {
            file: path.to_owned(),
            problems,
        })
    };
    let mut state = match model::parse(text) {
        Ok(state) => state,
        Err(problems) => return invalid(problems),
    };
    let refusals: InputProblems = config.check(&state).into_iter().collect();
    match refusals.into_result() {
        Ok(()) => {
            state.share(before);
            let warnings = model::warnings(&state);
            News::State(Arc::new(state), warnings)
        }
        Err(problems) => invalid(problems),
    }
}

fn hash(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(text);
    hasher.finish()
}

/// Returns whether a writer will close the file that was just created; this is not so for a link.
pub(super) fn will_be_written(path: &Path) -> bool {
    let metadata = path.symlink_metadata();
    metadata.is_ok_and(|metadata| metadata.is_file() && metadata.nlink() == 1)
}

fn watch(inotify: &Inotify, chain: &PathChain, trouble: &mut Option<String>) -> WatchedPlaces {
    let in_directory = Flags::IN_CREATE
        | Flags::IN_DELETE
        | Flags::IN_MOVED_FROM
        | Flags::IN_MOVED_TO
        | Flags::IN_CLOSE_WRITE
        | Flags::IN_ATTRIB
        | Flags::IN_DELETE_SELF
        | Flags::IN_MOVE_SELF
        | Flags::IN_DONT_FOLLOW
        | Flags::IN_ONLYDIR;
    let of_file = Flags::IN_MODIFY
        | Flags::IN_CLOSE_WRITE
        | Flags::IN_ATTRIB
        | Flags::IN_DELETE_SELF
        | Flags::IN_MOVE_SELF
        | Flags::IN_DONT_FOLLOW;
    *trouble = None;
    let mut add = |path: &Path, flags| match inotify.add_watch(path, flags) {
        Ok(watch) => Some(watch),
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => None,
        Err(errno) => {
            trouble.get_or_insert_with(|| format!("failed to watch {}: {errno}", tcpgw_core::escape::path(path)));
            None
        }
    };
    let mut watched = WatchedPlaces::new();
    for (directory, names) in &chain.directories {
        let Some(watch) = add(directory, in_directory) else {
            continue;
        };
        match watched
            .entry(watch)
            .or_insert_with(|| WatchedPlace::Directory(directory.clone(), names.clone()))
        {
            WatchedPlace::Directory(_, known) => {
                for (name, is_file) in names {
                    *known.entry(name.clone()).or_default() |= *is_file;
                }
            }
            WatchedPlace::File => {}
        }
    }
    if let Some(end) = chain.end.as_ref().filter(|end| end.is_readable)
        && let Some(watch) = add(&end.path, of_file)
    {
        watched.entry(watch).or_insert(WatchedPlace::File);
    }
    watched
}
