//! Configuration file of the operator: fences for states, the flow mark, and the daemon's settings.
//!
//! Owns the file's format and the fences. The rules about states themselves belong to [`tcpgw_core::model`].

pub mod copy;
pub mod daemon;
pub mod docker;
mod files;
pub mod given;
mod loading;
mod value;
pub mod web;

use std::fmt;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use thiserror::Error;

use self::daemon::DaemonSection;
pub use self::files::{FileClash, SOCKET_DIRECTORY, SOCKET_LOCK};
use self::value::deserialize_idle_timeout;
use crate::addon;
use crate::hooks::settings::{HookSection, HookSettings, HookSettingsError};
use crate::state_file::{self, FilePurpose, SourceError};
use tcpgw_core::model::{Endpoint, Fences, FlowMark, InputProblem, PortRange, Service, State};
use tcpgw_core::problem;

/// Path of the file if none is given.
pub const DEFAULT_PATH: &str = "/etc/tcpgw/config.toml";

/// The operator's settings.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    /// The file that was read; `None` when there was none and all is default.
    pub file: Option<PathBuf>,
    /// Bounds for states.
    pub fences: Fences,
    /// Mark of tcpgw's flows.
    pub flow_mark: FlowMark,
    /// Whether new connections from outside reach backends through services only.
    pub protect_backends: bool,
    /// Time for which a silent connection stays up, for services without an `idle_timeout`.
    pub idle_timeout: Option<Duration>,
    /// Section about the daemon.
    pub daemon: DaemonSection,
    /// The add-on; `None`: it is off.
    pub addon: Option<addon::settings::AddonSettings>,
    /// Listener for metrics and the operator's pages; `None`: it is off.
    pub web: Option<web::WebSettings>,
    /// Programs and URLs that get events.
    pub hooks: Vec<HookSettings>,
    /// The engine whose containers are followed; `None`: none is.
    pub docker: Option<docker::DockerSection>,
    /// Text of the file, as it was read.
    pub text: Option<Arc<str>>,
    /// Problem that the file is missing or not accepted, and what is in effect instead.
    pub gone: Option<problem::Problem>,
}

/// Reason why the file cannot be used.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("failed to read the configuration: {0}")]
    Source(#[from] SourceError),
    /// The file existed when the daemon started, and does not any more.
    #[error(
        "{}: the file existed before and does not exist any more: put it back, or create an empty file to use the defaults",
        tcpgw_core::escape::path(.0)
    )]
    Gone(PathBuf),
    /// The file is not text in UTF-8.
    #[error("{}: must be TOML in UTF-8", tcpgw_core::escape::path(.0))]
    Encoding(PathBuf),
    /// The file is not TOML, or has a value that is not accepted. The error has the line and column.
    #[error("{}: {}", tcpgw_core::escape::path(path), explained(source))]
    Invalid {
        /// Path of the file.
        path: PathBuf,
        /// Error of the parser.
        source: Box<toml::de::Error>,
    },
    /// The settings in section `[addon]` contradict each other.
    #[error("{}: {source}", tcpgw_core::escape::path(path))]
    Addon {
        /// Path of the file.
        path: PathBuf,
        /// Error of the section.
        source: Box<addon::settings::AddonSettingsError>,
    },
    /// The daemon would write a file that is used otherwise, too.
    #[error("{}: {source}", tcpgw_core::escape::path(path))]
    Files {
        /// Path of the configuration.
        path: PathBuf,
        /// The two uses.
        source: FileClash,
    },
    /// The settings in section `[web]` contradict each other.
    #[error("{}: {source}", tcpgw_core::escape::path(path))]
    Web {
        /// Path of the file.
        path: PathBuf,
        /// Error of the section.
        source: web::WebSettingsError,
    },
    /// The settings of a hook contradict each other.
    #[error("{}: hook {number} of [[hooks]]: {source}", tcpgw_core::escape::path(path))]
    Hook {
        /// Path of the file.
        path: PathBuf,
        /// Number of the hook in the file, from 1.
        number: usize,
        /// Error of the section.
        source: HookSettingsError,
    },
}

/// Returns the place with the line of the file, and the message on one line: a key in it may have line breaks.
fn explained(error: &toml::de::Error) -> String {
    let text = error.to_string();
    let text = text.trim_end();
    let message = error.message().trim_end();
    match text.strip_suffix(message) {
        Some(place) => format!("{place}{}", tcpgw_core::escape::text(message)),
        None => text.to_owned(),
    }
}

impl ConfigError {
    /// Returns it on one line, for lists of problems and logs: without the lines of the file that it quotes.
    pub fn line(&self) -> String {
        let Self::Invalid { path, source } = self else {
            return self.to_string();
        };
        let text = source.to_string();
        let place = text.lines().next().unwrap_or_default();
        let message = tcpgw_core::escape::text(source.message().trim_end());
        format!("{}: {place}: {message}", tcpgw_core::escape::path(path))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigDocument {
    #[serde(default)]
    fences: Fences,
    #[serde(default)]
    flow_mark: FlowMark,
    #[serde(default)]
    protect_backends: bool,
    #[serde(default, deserialize_with = "deserialize_idle_timeout")]
    idle_timeout: Option<Duration>,
    #[serde(default)]
    daemon: DaemonSection,
    addon: Option<addon::settings::AddonSection>,
    web: Option<web::WebSection>,
    #[serde(default)]
    hooks: Vec<HookSection>,
    docker: Option<docker::DockerSection>,
}

impl Config {
    /// Returns whether all settings are defaults.
    fn says_nothing(&self) -> bool {
        let of_file = Self {
            file: None,
            text: None,
            gone: None,
            ..self.clone()
        };
        of_file == Self::default()
    }

    /// Returns whether it was read from the file at its default path, or from the copy of that, and sets anything.
    pub fn sets_by_default_path(&self) -> bool {
        self.file.as_deref() == Some(Path::new(DEFAULT_PATH)) && !self.says_nothing()
    }

    /// Returns every violation of a fence by a state, with the service and the fence.
    pub fn check(&self, state: &State) -> Vec<InputProblem> {
        let backends = state.services.iter().map(|service| service.backends.len()).sum();
        let mut problems = self.check_sizes(state.services.len(), backends);
        for service in &state.services {
            problems.extend(self.check_service(service));
        }
        problems
    }

    /// Returns every violation of a fence by one service.
    pub fn check_service<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = InputProblem> + 'a {
        let backends = self.refused_backends(service).map(|(_, problem)| problem);
        self.check_port(service).into_iter().chain(backends)
    }

    /// Returns whether the ports are fenced by the file, and not by default.
    pub fn fences_ports(&self) -> bool {
        self.fences.ports.is_some()
    }

    /// Returns the problems of this number of services and of their backends together.
    pub fn check_sizes(&self, services: usize, backends: usize) -> Vec<InputProblem> {
        let sizes = [
            ("services", "max_services", services, self.fences.max_services),
            ("backends", "max_backends", backends, self.fences.max_backends),
        ];
        sizes
            .into_iter()
            .filter_map(|(what, fence, count, most)| {
                Some((what, fence, count, most.filter(|most| count > most.get())?))
            })
            .map(|(what, fence, count, most)| InputProblem {
                place: "services".to_owned(),
                message: format!("there are {count} {what}; {} allows {most}", self.fence(fence, true)),
            })
            .collect()
    }

    /// Returns whether the number of services or of backends is limited.
    pub fn fences_sizes(&self) -> bool {
        self.fences.max_services.is_some() || self.fences.max_backends.is_some()
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(path, &state_file::read_file(path, FilePurpose::Configuration)?)
    }

    /// Parses the contents of the file at `path`.
    ///
    /// # Errors
    ///
    /// Fails with [`ConfigError::Encoding`] when the bytes are not UTF-8, and with another variant when the text is not
    /// TOML or has a value that is not accepted.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self, ConfigError> {
        let text = std::str::from_utf8(bytes).map_err(|_| ConfigError::Encoding(path.to_owned()))?;
        let document: ConfigDocument = toml::from_str(text).map_err(|source| ConfigError::Invalid {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let addon = document
            .addon
            .map(|section| section.check(&document.fences))
            .transpose();
        let addon = addon.map_err(|source| ConfigError::Addon {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let web = document.web.map(web::WebSection::check).transpose();
        let web = web.map_err(|source| ConfigError::Web {
            path: path.to_owned(),
            source,
        })?;
        let hooks = HookSection::check_all(document.hooks).map_err(|(number, source)| ConfigError::Hook {
            path: path.to_owned(),
            number,
            source,
        })?;
        Ok(Self {
            file: Some(path.to_owned()),
            addon,
            web,
            hooks,
            docker: document.docker,
            fences: document.fences,
            flow_mark: document.flow_mark,
            protect_backends: document.protect_backends,
            idle_timeout: document.idle_timeout,
            daemon: document.daemon,
            text: Some(text.into()),
            gone: None,
        })
    }

    /// Returns whether services may have this port.
    pub fn allows_port(&self, port: NonZeroU16) -> bool {
        self.fences.allow_port(port)
    }

    /// Returns the problem with the service's port, if it is outside of the fence.
    pub fn check_port(&self, service: &Service) -> Option<InputProblem> {
        let set = self.fences.ports.as_deref();
        let ranges = set.unwrap_or(&[PortRange::DEFAULT]);
        let is_inside = ranges.iter().any(|range| range.contains(service.port));
        (!is_inside).then(|| InputProblem {
            place: format!("service \"{}\", port", service.name),
            message: format!(
                "{} is refused; {} allows {}",
                service.port,
                self.fence("ports", set.is_some()),
                joined(ranges)
            ),
        })
    }

    /// Returns the backends that are outside of the fence, each with its problem.
    pub fn refused_backends<'a>(&'a self, service: &'a Service) -> impl Iterator<Item = (Endpoint, InputProblem)> + 'a {
        self.fences.backends.iter().flat_map(move |networks| {
            service
                .backends
                .iter()
                .map(|backend| backend.endpoint)
                .filter(|endpoint| !networks.iter().any(|network| network.contains(&endpoint.address)))
                .map(move |endpoint| {
                    let problem = InputProblem {
                        place: format!("service \"{}\", backends", service.name),
                        message: format!(
                            "{endpoint} is refused; {} allows {}",
                            self.fence("backends", true),
                            joined(networks)
                        ),
                    };
                    (endpoint, problem)
                })
        })
    }

    /// Returns the path of the file, as messages name it.
    pub fn path(&self) -> String {
        tcpgw_core::escape::path(self.file.as_deref().unwrap_or(Path::new(DEFAULT_PATH)))
    }

    fn fence(&self, name: &str, is_set: bool) -> String {
        let file = self.path();
        if is_set {
            format!("fences.{name} in {file}")
        } else {
            format!("the default of fences.{name} (not set in {file})")
        }
    }
}

fn joined<T: fmt::Display>(items: &[T]) -> String {
    const MOST: usize = 8;
    let mut text = items
        .iter()
        .take(MOST)
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ");
    if items.len() > MOST {
        text.push_str(", ...");
    }
    text
}

#[cfg(test)]
mod document_tests;
#[cfg(test)]
mod tests;
