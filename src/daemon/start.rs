//! Check whether a daemon could start with the present files: for commands while no daemon runs, and for a daemon that
//! runs with what it has read before.
//!
//! It reads files, and changes nothing.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::api_socket::group_of;
use super::error::DaemonError;
use super::hook_delivery::{HookEndpoint, HookError};
use super::readonly_task::{ReadonlySocketError, readonly_settings};
use crate::api::listener::FileError;
use crate::api::provider::{ProviderApi, ProviderError};
use crate::api::web::Web;
use crate::config::daemon::DaemonSettings;
use crate::config::given::SettingsSources;
use crate::config::web::WebSettings;
use crate::config::{Config, ConfigError};
use crate::hooks::settings::HookSettings;
use crate::secrets::Owners;
use crate::state_file::SourceError;
use tcpgw_core::problem::{Problem, ProblemKind};

/// Reason why a daemon would not start, or would start without serving the provider API.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration is not accepted.
    #[error("{}", .0.line())]
    Config(#[from] ConfigError),
    /// The daemon itself could not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The provider API could not be served.
    #[error(transparent)]
    Provider(#[from] ProviderError),
    /// Metrics could not be served.
    #[error(transparent)]
    Web(FileError),
    /// The read-only socket could not be served.
    #[error(transparent)]
    ReadonlySocket(#[from] ReadonlySocketError),
    /// A hook could not be told anything.
    #[error(transparent)]
    Hook(#[from] HookError),
}

impl StartError {
    /// Returns whether the cause is that this user may not read a file, which the user of the daemon may.
    pub fn is_by_user(&self) -> bool {
        match self {
            Self::Config(ConfigError::Source(SourceError::Unreadable { source, .. })) => {
                source.kind() == io::ErrorKind::PermissionDenied
            }
            Self::Provider(ProviderError::File(error)) | Self::Web(error) => error.is_denied(),
            Self::Hook(error) => error.is_denied(),
            _ => false,
        }
    }

    /// Returns it as a problem of a gateway where no daemon runs.
    pub fn problem(&self) -> Problem {
        match self {
            Self::Provider(_) => Problem::new(
                ProblemKind::ProviderApi,
                format!("a daemon that starts would not serve the add-on's provider API: {self}"),
            ),
            Self::Web(_) => Problem::new(
                ProblemKind::Web,
                format!("a daemon that starts would not serve metrics: {self}"),
            ),
            Self::ReadonlySocket(_) => Problem::new(
                ProblemKind::SocketReadonly,
                format!("a daemon that starts would not serve the read-only socket: {self}"),
            ),
            Self::Hook(_) => Problem::new(
                ProblemKind::Hooks,
                format!("a daemon that starts could not use a hook: {self}"),
            ),
            Self::Config(_) | Self::Daemon(_) => Problem::new(
                ProblemKind::RejectedConfiguration,
                format!("no daemon starts with the configuration as it is: {self}"),
            )
            .with_severity(tcpgw_core::problem::Severity::Error),
        }
    }
}

/// Checks that a starting daemon would find what the configuration names: the groups of its sockets, and the
/// files of the provider API, of the web listener and of hooks, which must belong to these owners.
///
/// # Errors
/// Fails when one of them is missing or not accepted.
pub fn judge(settings: &DaemonSettings, config: &Config, owners: &Owners) -> Result<(), StartError> {
    group_of(settings)?;
    readonly_settings(settings)?;
    if let Some(addon) = &config.addon {
        ProviderApi::load(addon, owners)?;
    }
    if let Some(web) = &config.web {
        Web::load(web, owners).map_err(StartError::Web)?;
    }
    for hook in &config.hooks {
        HookEndpoint::load(hook, owners)?;
    }
    Ok(())
}

/// The files that a start depends on, as a running daemon watches them.
#[derive(Debug)]
pub(super) struct StartFiles {
    /// Files besides the configuration.
    named: Vec<PathBuf>,
    known: Vec<Option<FileVersion>>,
}

/// Identity and version of a file: device, inode, size, change and modification time.
type FileVersion = (u64, u64, u64, (i64, i64), (i64, i64));

impl StartFiles {
    /// Returns the files of a configuration that has just been read.
    pub(super) fn new(given: &SettingsSources, config: &Config) -> Self {
        let mut files = Self {
            named: named(config),
            known: Vec::new(),
        };
        files.known = files.versions(given);
        files
    }

    /// Checks the files if one of them was changed since the last call; `None`: none was.
    pub(super) fn judge_changed(
        &mut self,
        given: &SettingsSources,
        settings: &DaemonSettings,
        config: &Config,
    ) -> Option<Result<(), StartError>> {
        let now = self.versions(given);
        if now == self.known {
            return None;
        }
        let judged = given.reload(settings, config).map_err(StartError::from);
        let judged = judged.and_then(|(settings, config)| {
            self.named = named(&config);
            judge(&settings, &config, &Owners::of_daemon())
        });
        self.known = self.versions(given);
        Some(judged)
    }

    fn versions(&self, given: &SettingsSources) -> Vec<Option<FileVersion>> {
        let others = self.named.iter().map(PathBuf::as_path);
        [given.file()].into_iter().chain(others).map(identity).collect()
    }
}

/// Returns the files that the configuration names and that a start reads.
fn named(config: &Config) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(addon) = &config.addon {
        files.push(addon.credentials.clone());
        files.extend(addon.transport.files());
    }
    files.extend(config.web.iter().flat_map(WebSettings::files));
    let of_hooks = config.hooks.iter().flat_map(HookSettings::files);
    files.extend(of_hooks.map(|(_, path)| path.to_owned()));
    files
}

fn identity(path: &Path) -> Option<FileVersion> {
    let of = fs::metadata(path).ok()?;
    Some((
        of.dev(),
        of.ino(),
        of.len(),
        (of.ctime(), of.ctime_nsec()),
        (of.mtime(), of.mtime_nsec()),
    ))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use tcpgw_core::problem::Severity;

    const ADDON: &str = r#"
        [addon]
        listen = "127.0.0.1:9443"
        host = "gateway.example.com"
        ports = "20000-20009"
        credentials = "CREDENTIALS"
        plans = [{name = "small", id = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11", pps = 512}]
    "#;

    /// A configuration with the add-on, in a directory of its own.
    struct Place {
        directory: tempfile::TempDir,
        given: SettingsSources,
    }

    impl Place {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let given = SettingsSources {
                config: Some(directory.path().join("config.toml")),
                ..SettingsSources::default()
            };
            let place = Self { directory, given };
            place.put(
                "username = 'tcpgw'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'",
                0o600,
            );
            place.configure(&place.good());
            place
        }

        fn credentials(&self) -> PathBuf {
            self.directory.path().join("credentials.toml")
        }

        fn good(&self) -> String {
            ADDON.replace("CREDENTIALS", self.credentials().to_str().unwrap())
        }

        fn configure(&self, text: &str) {
            fs::write(self.given.file(), text).unwrap();
        }

        fn put(&self, credentials: &str, mode: u32) {
            fs::write(self.credentials(), credentials).unwrap();
            fs::set_permissions(self.credentials(), fs::Permissions::from_mode(mode)).unwrap();
        }

        fn problem(&self) -> Problem {
            let judged = self.given.load().map_err(StartError::from);
            let judged = judged.and_then(|(settings, config)| judge(&settings, &config, &Owners::of_daemon()));
            judged.unwrap_err().problem()
        }
    }

    #[test]
    fn whatever_stops_a_start_is_an_error_with_its_place() {
        let place = Place::new();
        let (settings, config) = place.given.load().unwrap();
        judge(&settings, &config, &Owners::of_daemon()).unwrap();
        let rejected = (ProblemKind::RejectedConfiguration, Severity::Error);
        for (text, words) in [
            (
                "flow_marc = 1".to_owned(),
                "config.toml: TOML parse error at line 1, column 1",
            ),
            (place.good().replace("20000-20009", "80-90"), "does not allow 80"),
            ("[daemon]\nsocket_group = \"nobody-here\"".into(), "socket_group"),
        ] {
            place.configure(&text);
            let problem = place.problem();
            assert_eq!((problem.kind, problem.severity), rejected, "{text}");
            let line = &problem.message;
            assert!(line.contains(words) && !line.contains('\n'), "{text}: {line}");
        }
        fs::remove_file(place.given.file()).unwrap();
        assert!(place.problem().message.contains("no such file"));
    }

    #[test]
    fn what_the_provider_api_lacks_is_a_problem_of_it() {
        let place = Place::new();
        place.put("username = 'tcpgw'", 0o644);
        let problem = place.problem();
        assert_eq!(
            (problem.kind, problem.severity),
            (ProblemKind::ProviderApi, Severity::Warning)
        );
        assert!(problem.message.contains("mode 0644"), "{}", problem.message);
        fs::remove_file(place.credentials()).unwrap();
        assert!(place.problem().message.contains("addon.credentials"));
    }

    #[test]
    fn files_are_judged_when_one_of_them_was_changed() {
        let place = Place::new();
        let (settings, config) = place.given.load().unwrap();
        let mut files = StartFiles::new(&place.given, &config);
        let mut judged = || {
            let judged = files.judge_changed(&place.given, &settings, &config);
            judged.map(|judged| judged.map_err(|error| error.to_string()))
        };
        assert_eq!(judged(), None);
        place.configure("[fences");
        assert!(judged().unwrap().unwrap_err().contains("line 1"));
        assert_eq!(judged(), None);
        place.configure(&place.good());
        assert_eq!(judged(), Some(Ok(())));
        place.put("password = 1", 0o644);
        assert!(judged().unwrap().unwrap_err().contains("0644"));
        fs::remove_file(place.given.file()).unwrap();
        assert!(judged().unwrap().is_err());
        assert_eq!(judged(), None);
    }
}
