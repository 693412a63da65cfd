//! Copy of the configuration at its default path as it was last accepted, beside the store. If that file is lost, or is
//! not accepted at a start, the copy stays in effect: fences, protected backends, the flow mark, the daemon's settings,
//! the add-on.
//!
//! A configuration whose path is given must exist, and has no copy.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::daemon::{DEFAULT_STORE, DaemonSection};
use super::{Config, ConfigError};
use crate::run_file;
use tcpgw_core::model::MAX_STATE_BYTES;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// The first line, a comment of TOML, so that the copy can be put in the place of the file: the format, and the checksum of what
/// follows.
const MAGIC: &str = "# tcpgw copy of the configuration 1 ";
/// Size of the largest copy, in bytes: that of the largest configuration with the first line.
const MOST_BYTES: u64 = MAX_STATE_BYTES as u64 + 100;

/// Reason why the copy cannot replace the configuration.
#[derive(Debug, Error)]
enum CopyError {
    /// The copy exists and could not be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The copy is damaged.
    #[error("is damaged")]
    Damaged,
    /// This version does not accept the copy.
    #[error("is not accepted: {}", .0.line())]
    Invalid(ConfigError),
}

/// Returns the path of the copy: beside the store that was named, else beside that of `TCPGW_STORE`, else beside the
/// default one. What the configuration itself says of the store does not count.
#[must_use]
pub fn path(store: Option<&Path>) -> PathBuf {
    let variable = std::env::var_os("TCPGW_STORE").filter(|path| !path.is_empty());
    let variable = variable.map(PathBuf::from);
    let store = store
        .or(variable.as_deref())
        .unwrap_or_else(|| Path::new(DEFAULT_STORE));
    store.with_file_name("config.toml.last")
}

/// Returns the copy, and the file that is written before it is put in its place.
pub(super) fn files_of(copy: &Path) -> [PathBuf; 2] {
    [copy.to_owned(), run_file::with_suffix(copy, ".new")]
}

/// Returns the configuration in the place of a file that is missing: what the copy says, and the defaults where there is none.
pub(super) fn in_place_of(file: &Path, copy: &Path) -> Config {
    let (path, copied) = (tcpgw_core::escape::path(file), tcpgw_core::escape::path(copy));
    let gone = format!("{path}: the file existed before and does not exist any more");
    match load(file, copy) {
        // Nothing was set, so that nothing is lost.
        Ok(None) => Config::default(),
        Ok(Some((config, _))) if config.says_nothing() => Config::default(),
        Ok(Some((config, is_trusted))) => {
            let (mut config, without) = trusted_part(config, is_trusted);
            let message = format!(
                "{gone}; what it said last is in effect, from {copied}{without}: put it back, for example `cp {copied} {path}`, or create \
                 an empty file to use the defaults; where a daemon runs, reload it then"
            );
            config.gone = Some(problem(message).with_severity(Severity::Warning));
            config
        }
        Err(error) => Config {
            gone: Some(problem(format!(
                "{gone}, and the copy of what it said last, {copied}, {error}: the defaults are in effect; put the file back, or remove \
                 the copy and create an empty file to use the defaults; where a daemon runs, reload it then"
            ))),
            ..Config::default()
        },
    }
}

/// Returns the configuration of the copy in place of a file that is refused with `error`. Whatever the file contains,
/// and whatever its permissions are, the copy is what was accepted before.
///
/// # Errors
///
/// Fails with `error` when there is no copy that can be used.
pub(super) fn instead_of(file: &Path, copy: &Path, error: ConfigError) -> Result<Config, ConfigError> {
    let Ok(Some((config, is_trusted))) = load(file, copy) else {
        return Err(error);
    };
    let (mut config, without) = trusted_part(config, is_trusted);
    let message = format!(
        "the configuration is not accepted: {}; what it said when it was accepted last is in effect, from {}{without}: correct the file; \
         where a daemon runs, reload it then",
        error.line(),
        tcpgw_core::escape::path(copy)
    );
    config.gone = Some(problem(message));
    Ok(config)
}

/// Returns the part of a copy that is used, and a note about the rest. Paths of files and sockets are not used if
/// another user may have written the copy.
fn trusted_part(mut config: Config, is_trusted: bool) -> (Config, &'static str) {
    let is_plain = config.addon.is_none() && config.web.is_none() && config.hooks.is_empty();
    if is_trusted || (is_plain && config.daemon == DaemonSection::default()) {
        return (config, "");
    }
    (config.addon, config.web, config.daemon) = (None, None, DaemonSection::default());
    config.hooks = Vec::new();
    let without =
        ", without its [daemon], [addon], [web] and [[hooks]], since it belongs to another user than this process";
    (config, without)
}

fn problem(message: String) -> Problem {
    Problem::new(ProblemKind::RejectedConfiguration, message).with_severity(Severity::Error)
}

/// Reads the copy, and whether root or this user wrote it; `None` where there is none, or where this user may not know.
fn load(file: &Path, copy: &Path) -> Result<Option<(Config, bool)>, CopyError> {
    let is_hidden = |error: &io::Error| {
        let is_denied = error.raw_os_error() == Some(nix::libc::EACCES);
        is_denied && !nix::unistd::geteuid().is_root()
    };
    let content = match run_file::read(copy, MOST_BYTES) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound || is_hidden(&error) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let text = checked(&content.bytes).ok_or(CopyError::Damaged)?;
    let config = Config::parse(file, text).map_err(CopyError::Invalid)?;
    Ok(Some((config, content.trusted)))
}

/// Returns the text after the first line, if the checksum is right.
fn checked(bytes: &[u8]) -> Option<&[u8]> {
    let rest = bytes.strip_prefix(MAGIC.as_bytes())?;
    let (checksum, rest) = rest.split_at_checked(8)?;
    let checksum = u32::from_str_radix(std::str::from_utf8(checksum).ok()?, 16).ok()?;
    let text = rest.strip_prefix(b"\n")?;
    (checksum == crc32fast::hash(text)).then_some(text)
}

/// Writes the copy, whole or not at all, if the configuration was read from the file at its default path and the copy
/// differs. It is on the disk when this returns.
///
/// # Errors
///
/// Fails when the copy cannot be written, with its path.
pub fn keep(config: &Config, copy: &Path) -> Result<(), String> {
    let is_default = config.file.as_deref() == Some(Path::new(super::DEFAULT_PATH));
    match &config.text {
        Some(text) if is_default && config.gone.is_none() => save(text, copy).map_err(|error| {
            format!(
                "failed to write {}, which keeps what the configuration says for the case that it is lost: {error}",
                tcpgw_core::escape::path(copy)
            )
        }),
        _ => Ok(()),
    }
}

fn save(text: &str, copy: &Path) -> io::Result<()> {
    let content = format!("{MAGIC}{:08x}\n{text}", crc32fast::hash(text.as_bytes()));
    if run_file::read(copy, MOST_BYTES).is_ok_and(|there| there.bytes == content.as_bytes()) {
        return Ok(());
    }
    let directory = copy.parent().unwrap_or(Path::new("/"));
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    run_file::replace_durably(copy, content.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;

    const TEXT: &str = "protect_backends = true\n[fences]\nports = [\"2000-3000\"]\n";

    struct Place {
        directory: tempfile::TempDir,
    }

    impl Place {
        fn new() -> Self {
            Self {
                directory: tempfile::tempdir().unwrap(),
            }
        }

        fn file(&self) -> PathBuf {
            self.directory.path().join("config.toml")
        }

        fn copy(&self) -> PathBuf {
            self.directory.path().join("store/config.toml.last")
        }

        fn load(&self) -> Config {
            Config::read_or_copy(&self.file(), &self.copy()).unwrap()
        }

        /// Returns the message about the copy, and whether it is an error.
        fn told(&self) -> Option<(String, bool)> {
            let problem = self.load().gone?;
            assert_eq!(problem.kind, ProblemKind::RejectedConfiguration);
            Some((problem.message, problem.severity == Severity::Error))
        }
    }

    #[test]
    fn what_the_file_said_goes_on_when_it_is_gone() {
        let place = Place::new();
        assert_eq!(place.load(), Config::default(), "there never was one");
        fs::write(place.file(), TEXT).unwrap();
        let config = place.load();
        save(config.text.as_deref().unwrap(), &place.copy()).unwrap();
        assert_eq!(fs::metadata(place.copy()).unwrap().mode() & 0o777, 0o600);
        fs::remove_file(place.file()).unwrap();
        let gone = place.load();
        assert!(gone.protect_backends);
        assert_eq!(gone.fences, config.fences);
        let (message, is_error) = place.told().unwrap();
        assert!(
            message.contains("does not exist any more") && message.contains("empty file"),
            "{message}"
        );
        assert!(!is_error);
        // The copy is a configuration.
        fs::copy(place.copy(), place.file()).unwrap();
        assert_eq!(place.load().fences, config.fences);
        assert_eq!(place.told(), None);
        // One that is meant to be empty is followed, and then nothing is lost with it.
        fs::write(place.file(), "# nothing\n").unwrap();
        let config = place.load();
        assert!(config.gone.is_none() && !config.protect_backends);
        save(config.text.as_deref().unwrap(), &place.copy()).unwrap();
        fs::remove_file(place.file()).unwrap();
        assert_eq!(place.load(), Config::default());
    }

    /// Breaks the file in several ways: a start uses what was accepted before, and a check refuses the file.
    #[test]
    fn what_was_accepted_last_takes_the_place_of_a_file_that_is_not_accepted() {
        let place = Place::new();
        let started = || Config::accepted_or_copy(&place.file(), &place.copy());
        let damaged: [(&[u8], &str); 4] = [
            (b"protect_backends = true\n[fences", "line 2"),
            (b"idle_tmeout = 3", "idle_tmeout"),
            (b"\xff\xfe", "UTF-8"),
            (b"[addon]\nhost = 1", "line 2"),
        ];
        let refused = |words: &str| {
            let error = started().unwrap_err().line();
            assert!(error.contains(words), "{error}");
        };
        fs::write(place.file(), damaged[0].0).unwrap();
        refused("line 2");
        save(TEXT, &place.copy()).unwrap();
        let used = |words: &str| {
            let config = started().unwrap();
            assert!(config.protect_backends && config.fences.ports.is_some());
            let problem = config.gone.unwrap();
            assert_eq!(
                (problem.kind, problem.severity),
                (ProblemKind::RejectedConfiguration, Severity::Error)
            );
            let text = problem.message;
            assert!(
                text.contains(words) && text.contains("correct the file") && text.contains("config.toml.last"),
                "{text}"
            );
            assert!(!text.contains('\n'), "{text}");
            Config::read_or_copy(&place.file(), &place.copy()).unwrap_err();
        };
        for (bytes, words) in damaged {
            fs::write(place.file(), bytes).unwrap();
            used(words);
        }
        fs::remove_file(place.file()).unwrap();
        fs::create_dir(place.file()).unwrap();
        used("is a directory");
        fs::remove_dir(place.file()).unwrap();
        // Others may write it: what it says is not believed.
        fs::write(place.file(), "protect_backends = false").unwrap();
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o666)).unwrap();
        if nix::unistd::geteuid().is_root() {
            used("root does what the file says");
        }
        fs::set_permissions(place.file(), fs::Permissions::from_mode(0o600)).unwrap();
        let config = started().unwrap();
        assert!(
            config.gone.is_none() && !config.protect_backends,
            "it is accepted again"
        );
        // A copy that is damaged, too, is not used.
        fs::write(place.file(), "[fences").unwrap();
        fs::write(place.copy(), TEXT).unwrap();
        refused("line 1");
        // One that was named has to be accepted.
        save(TEXT, &place.copy()).unwrap();
        Config::load_beside(Some(&place.file()), &place.copy()).unwrap_err();
    }

    #[test]
    fn a_copy_that_is_torn_changed_or_planted_is_told_and_not_believed() {
        let place = Place::new();
        save(TEXT, &place.copy()).unwrap();
        let whole = fs::read(place.copy()).unwrap();
        for length in 0..whole.len() {
            fs::write(place.copy(), &whole[..length]).unwrap();
            let (message, is_error) = place.told().unwrap();
            assert!(message.contains("is damaged") && is_error, "{length} bytes: {message}");
            assert!(!place.load().protect_backends);
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(place.copy(), changed).unwrap();
            assert!(place.told().unwrap().1, "byte {at}");
        }
        fs::rename(place.copy(), place.file().with_extension("other")).unwrap();
        symlink(place.file().with_extension("other"), place.copy()).unwrap();
        let (message, is_error) = place.told().unwrap();
        assert!(message.contains("symbolic link") && is_error, "{message}");
        // What an older version accepted, and this one does not.
        save("flow_marc = 1", &place.copy()).unwrap();
        let (message, is_error) = place.told().unwrap();
        assert!(
            message.contains("line 1") && is_error && !message.contains('\n'),
            "{message}"
        );
        save(TEXT, &place.copy()).unwrap();
        assert!(place.load().protect_backends);
    }

    #[test]
    fn it_is_written_only_where_it_differs_and_only_for_the_default_file() {
        let place = Place::new();
        save(TEXT, &place.copy()).unwrap();
        let identity = || fs::metadata(place.copy()).unwrap().ino();
        let before = identity();
        save(TEXT, &place.copy()).unwrap();
        assert_eq!(identity(), before);
        save("", &place.copy()).unwrap();
        assert_ne!(identity(), before);
        let entries = fs::read_dir(place.copy().parent().unwrap()).unwrap();
        let entries: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
        assert_eq!(entries, [OsStr::new("config.toml.last")]);
        // A configuration whose path is given must exist.
        let named = Config::parse(&place.file(), TEXT.as_bytes()).unwrap();
        let other = place.directory.path().join("other");
        keep(&named, &other).unwrap();
        assert!(!other.exists());
        let default = Config::parse(Path::new(super::super::DEFAULT_PATH), TEXT.as_bytes()).unwrap();
        keep(&default, &other).unwrap();
        assert!(other.exists());
        let error = keep(&default, &other.join("below")).unwrap_err();
        assert!(error.contains("failed to write"), "{error}");
    }

    #[test]
    fn it_is_beside_the_store() {
        assert_eq!(path(Some(Path::new("/x/s.db"))), Path::new("/x/config.toml.last"));
    }
}
