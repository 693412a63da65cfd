//! The delivery of one event to one hook: a program that is run, or a request that is sent.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use thiserror::Error;
use tokio::sync::Semaphore;

use super::hook_process::{self, ProcessLimits, Variables};
use crate::control::events::Event;
use crate::date::since_1970;
use crate::hooks::settings::{HookProgram, HookSettings, HookTarget, HookUrl};
use crate::hooks::signature::{HookKey, NotASecret};
use crate::outbound::{Failed, OutboundClient, OutboundError};
use crate::secrets::{self, Owners, SecretError};
use crate::writers::{Trusted, exposed};
use tcpgw_core::escape;

/// Most characters of a program's output in one line of the log.
const MOST_LOGGED: usize = 1000;

/// Reason why a hook cannot be used as it is configured.
#[derive(Debug, Error)]
pub enum HookError {
    /// The file of the key is not used.
    #[error("hook {hook}: secret_file {}: {source}", escape::path(path))]
    Secret {
        /// Name of the hook.
        hook: String,
        /// Path of the file.
        path: PathBuf,
        /// Reason why it is not used.
        source: Box<SecretError>,
    },
    /// The contents of the file of the key are none.
    #[error("hook {hook}: secret_file {}: {source}", escape::path(path))]
    Key {
        /// Name of the hook.
        hook: String,
        /// Path of the file.
        path: PathBuf,
        /// Description of what is accepted.
        source: NotASecret,
    },
    /// The certificates cannot be used.
    #[error("hook {hook}: {}", by_key(source))]
    Certificates {
        /// Name of the hook.
        hook: String,
        /// Reason why they cannot be used.
        source: Box<OutboundError>,
    },
    /// The program cannot be run.
    #[error("hook {hook}: run {}: {why}", escape::path(path))]
    Program {
        /// Name of the hook.
        hook: String,
        /// Path of the program.
        path: PathBuf,
        /// Reason, and what to do.
        why: String,
    },
}

impl HookError {
    /// Returns whether the cause is that this user may not read a file.
    pub fn is_denied(&self) -> bool {
        match self {
            Self::Secret { source, .. } => {
                matches!(&**source, SecretError::Unreadable(error) if error.kind() == io::ErrorKind::PermissionDenied)
            }
            _ => false,
        }
    }
}

/// A hook with the contents of its files.
pub(super) struct HookEndpoint {
    settings: HookSettings,
    /// Client and key of a URL.
    url: Option<(OutboundClient, Option<HookKey>)>,
}

/// Processes of a hook: places for those of all hooks that run at once, and whether its own are to be killed.
#[derive(Debug, Clone)]
pub(super) struct HookProcesses {
    pub(super) places: Arc<Semaphore>,
    pub(super) stop: Arc<AtomicBool>,
}

impl HookEndpoint {
    /// Reads the files that a hook names, if their owners are among these, and looks at its program.
    ///
    /// # Errors
    /// Fails with [`HookError`] when a file cannot be read or used, or the program cannot be run.
    pub(super) fn load(settings: &HookSettings, owners: &Owners) -> Result<Self, HookError> {
        let hook = || settings.name.clone();
        let url = match &settings.target {
            HookTarget::Program(program) => {
                let path = || program.path.clone();
                look_at(&program.path).map_err(|why| HookError::Program {
                    hook: hook(),
                    path: path(),
                    why,
                })?;
                None
            }
            HookTarget::Url(url) => {
                let key = url
                    .secret
                    .as_ref()
                    .map(|path| read_key(path, owners, hook))
                    .transpose()?;
                let client = OutboundClient::new([&url.base], url.authorities.as_deref(), settings.timeout);
                let client = client.map_err(|source| HookError::Certificates {
                    hook: hook(),
                    source: Box::new(source),
                })?;
                Some((client.without_bodies(), key))
            }
        };
        Ok(Self {
            settings: settings.clone(),
            url,
        })
    }

    /// Delivers an event. A program waits for a place among `processes`.
    ///
    /// # Errors
    /// Fails with the reason in words when the receiver has not accepted the event.
    pub(super) async fn deliver(
        self: Arc<Self>,
        event: Arc<Event>,
        attempt: usize,
        processes: HookProcesses,
    ) -> Result<(), String> {
        let body = serde_json::to_vec(&*event).map_err(|error| error.to_string())?;
        match (&self.settings.target, &self.url) {
            (HookTarget::Program(program), _) => {
                let variables = self.variables(&event, attempt);
                let (name, program) = (self.settings.name.clone(), program.clone());
                let timeout = self.settings.timeout;
                let place = processes.places.acquire_owned().await;
                let place = place.map_err(|error| error.to_string())?;
                if processes.stop.load(Ordering::Relaxed) {
                    return Err("the hook was removed, or the daemon ends".to_owned());
                }
                let run = tokio::task::spawn_blocking(move || {
                    let _place = place;
                    let limits = ProcessLimits {
                        timeout,
                        stop: processes.stop,
                    };
                    run(&name, &program, variables, body, &limits)
                });
                run.await.unwrap_or_else(|error| Err(error.to_string()))
            }
            (HookTarget::Url(url), Some((client, key))) => send(url, client, key.as_ref(), &event, body).await,
            (HookTarget::Url(_), None) => Err("its URL was not prepared".to_owned()),
        }
    }

    fn variables(&self, event: &Event, attempt: usize) -> Variables {
        let mut variables = vec![
            ("TCPGW_HOOK", self.settings.name.clone()),
            ("TCPGW_EVENT", event.what.kind().to_owned()),
            ("TCPGW_EVENT_ID", event.id.to_string()),
            ("TCPGW_ATTEMPT", attempt.to_string()),
        ];
        // A name of a service has no characters that a variable cannot have.
        variables.extend(
            event
                .what
                .service()
                .map(|service| ("TCPGW_SERVICE", service.to_owned())),
        );
        variables
    }
}

/// Returns an error of the client, with the key of the configuration in place of the option of a command.
fn by_key(error: &impl std::fmt::Display) -> String {
    error.to_string().replace("--cacert", "ca_file")
}

fn read_key(path: &Path, owners: &Owners, hook: impl Fn() -> String) -> Result<HookKey, HookError> {
    let text = secrets::read(path, owners).map_err(|source| HookError::Secret {
        hook: hook(),
        path: path.to_owned(),
        source: Box::new(source),
    })?;
    HookKey::parse(&text).map_err(|source| HookError::Key {
        hook: hook(),
        path: path.to_owned(),
        source,
    })
}

/// Fails with the reason why a program cannot be run, or root should not run it.
fn look_at(path: &Path) -> Result<(), String> {
    const EXECUTABLE: u32 = 0o111;
    let file = fs::metadata(path).map_err(|error| error.to_string())?;
    if !file.is_file() || file.mode() & EXECUTABLE == 0 {
        return Err("it is no file that may be executed: name an executable program, or `chmod +x` it".to_owned());
    }
    let exposed = exposed(path, &file, &Trusted::here()).filter(|_| nix::unistd::geteuid().is_root());
    match exposed.filter(|exposed| exposed.is_to_everybody() || exposed.is_of_another()) {
        Some(exposed) => Err(format!(
            "other users may change it, and root would run it: {}",
            exposed.remedy()
        )),
        None => Ok(()),
    }
}

/// Runs a program, and logs its output.
fn run(
    hook: &str,
    program: &HookProgram,
    variables: Variables,
    mut input: Vec<u8>,
    limits: &ProcessLimits,
) -> Result<(), String> {
    input.push(b'\n');
    let ended = hook_process::run(program, variables, &input, limits);
    let ended = ended.map_err(|error| format!("{} could not be started: {error}", escape::path(&program.path)))?;
    let failure = ended.failure(limits.timeout);
    if !ended.output.is_empty() {
        let output = String::from_utf8_lossy(&ended.output);
        let output: String = output.trim_end().chars().take(MOST_LOGGED).collect();
        let output = escape::text(&output);
        if failure.is_none() {
            tracing::info!(hook, %output, "output of a hook");
        } else {
            tracing::warn!(hook, %output, "output of a hook that failed");
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Sends an event to a URL. Every answer but 2xx is a failure; redirections are not followed.
async fn send(
    url: &HookUrl,
    client: &OutboundClient,
    key: Option<&HookKey>,
    event: &Event,
    body: Vec<u8>,
) -> Result<(), String> {
    let (id, time) = (event.id.to_string(), since_1970().as_secs());
    let mut headers = vec![
        ("content-type", "application/json".to_owned()),
        ("webhook-id", id.clone()),
        ("webhook-timestamp", time.to_string()),
    ];
    headers.extend(key.map(|key| ("webhook-signature", key.sign(&id, time, &body))));
    let answer = client.send(&url.base, "POST", &url.target, &headers, body).await;
    let answer = answer.map_err(|error| match error {
        Failed::Late(time) => format!("no answer within {} s", time.as_secs_f32()),
        Failed::Unconnected(time) => format!("no connection within {} s", time.as_secs_f32()),
        error => by_key(&error),
    })?;
    match answer.status {
        200..=299 => Ok(()),
        status @ 300..=399 => Err(format!("the answer is {status}, a redirection, which is not followed")),
        status => Err(format!("the answer is {status}")),
    }
}
