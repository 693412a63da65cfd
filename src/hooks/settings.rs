//! `[[hooks]]` in the configuration.

use std::collections::BTreeSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use thiserror::Error;

use super::selector::EventSelector;
use crate::outbound::{BaseUrl, UrlError};
use tcpgw_core::model::duration;

/// Largest number of hooks.
pub const MOST_HOOKS: usize = 16;
/// Largest number of arguments of a program, and of bytes of each.
const MOST_ARGUMENTS: usize = 64;
const LONGEST_ARGUMENT: usize = 4096;
/// Longest name of a hook, in bytes.
const LONGEST_NAME: usize = 63;
/// Time that a delivery may take if nothing else is configured.
const TIMEOUT: Duration = Duration::from_secs(10);
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(100);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);

/// A hook as it is written in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HookSection {
    name: Option<String>,
    #[serde(deserialize_with = "selectors")]
    on: Vec<EventSelector>,
    run: Option<Vec<String>>,
    url: Option<String>,
    secret_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    timeout: Option<String>,
}

fn selectors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<EventSelector>, D::Error> {
    let names = Vec::<String>::deserialize(deserializer)?;
    let read = |name: &String| name.parse().map_err(D::Error::custom);
    names.iter().map(read).collect()
}

/// The checked settings of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSettings {
    /// Name in logs and problems. While it stays the same, events that wait are kept at a reload.
    pub name: String,
    /// Events that the hook gets.
    pub on: Vec<EventSelector>,
    /// Receiver of the events.
    pub target: HookTarget,
    /// Maximum time of a delivery, 100 ms to 60 s.
    pub timeout: Duration,
}

/// Receiver of the events of a hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HookTarget {
    /// A program that is run.
    Program(HookProgram),
    /// A URL that is called.
    Url(HookUrl),
}

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookProgram {
    /// Absolute path of the program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A URL, with what is needed to call it. Nothing prints the URL: a path or a query may be a secret of the receiver's.
#[derive(Clone, PartialEq, Eq)]
pub struct HookUrl {
    /// Scheme, host and port.
    pub base: BaseUrl,
    /// Path and query.
    pub target: String,
    /// File of the key by which deliveries are signed; `None`: they are not.
    pub secret: Option<PathBuf>,
    /// File of certificates (PEM) that are trusted instead of the system's.
    pub authorities: Option<PathBuf>,
}

impl std::fmt::Debug for HookUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HookUrl")
            .field("secret", &self.secret)
            .field("authorities", &self.authorities)
            .finish_non_exhaustive()
    }
}

/// Reason why a hook cannot be used. Each message names the key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum HookSettingsError {
    /// There are too many hooks.
    #[error("there are {0} hooks; at most {MOST_HOOKS} are allowed")]
    TooMany(usize),
    /// The name is not usable.
    #[error("name must have 1 to {LONGEST_NAME} letters, digits, -, _ and .")]
    Name,
    /// There is no name, and none can be made from the program or URL.
    #[error("give it a name: none can be made from its program or URL")]
    NoName,
    /// Two hooks have one name.
    #[error("another hook is called {0:?} already: give this one a name of its own")]
    SameName(String),
    /// The hook has chosen no events.
    #[error("on is empty: name at least one event")]
    Nothing,
    /// The hook has neither a program nor a URL, or both.
    #[error("must have either run or url")]
    Target,
    /// The program is no absolute path.
    #[error("run must begin with the absolute path of a program, such as [\"/usr/local/bin/notify\", \"argument\"]")]
    Program,
    /// The arguments are too many or too long.
    #[error("run may have {MOST_ARGUMENTS} arguments of {LONGEST_ARGUMENT} bytes each, without NUL characters")]
    Arguments,
    /// The URL is not usable. Its text is not shown: it may be a secret.
    #[error("url {0}")]
    Url(#[from] UrlError),
    /// A key is for URLs only.
    #[error("{0} is for hooks with url")]
    OnlyUrl(&'static str),
    /// A file is no absolute path.
    #[error("{0} must be an absolute path")]
    Relative(&'static str),
    /// The time is out of range.
    #[error("timeout must be a duration from 100ms to 60s, such as 10s")]
    Timeout,
}

impl HookSection {
    /// Returns the checked hooks.
    ///
    /// # Errors
    /// Fails with the number of the hook, from 1, and the reason, when a hook cannot be used.
    pub fn check_all(sections: Vec<Self>) -> Result<Vec<HookSettings>, (usize, HookSettingsError)> {
        if sections.len() > MOST_HOOKS {
            return Err((MOST_HOOKS + 1, HookSettingsError::TooMany(sections.len())));
        }
        let mut names = BTreeSet::new();
        let checked = sections.into_iter().enumerate().map(|(at, section)| {
            let checked = section.check().and_then(|hook| {
                if names.insert(hook.name.clone()) {
                    Ok(hook)
                } else {
                    Err(HookSettingsError::SameName(hook.name))
                }
            });
            checked.map_err(|error| (at + 1, error))
        });
        checked.collect()
    }

    fn check(self) -> Result<HookSettings, HookSettingsError> {
        if self.on.is_empty() {
            return Err(HookSettingsError::Nothing);
        }
        for (key, path) in [("secret_file", &self.secret_file), ("ca_file", &self.ca_file)] {
            let Some(path) = path else { continue };
            if self.url.is_none() {
                return Err(HookSettingsError::OnlyUrl(key));
            }
            if !path.is_absolute() {
                return Err(HookSettingsError::Relative(key));
            }
        }
        let (target, made) = match (self.run, self.url) {
            (Some(run), None) => program(run)?,
            (None, Some(text)) => url(&text, self.secret_file, self.ca_file)?,
            _ => return Err(HookSettingsError::Target),
        };
        let name = match self.name {
            Some(name) if is_name(&name) => name,
            Some(_) => return Err(HookSettingsError::Name),
            None => Some(made)
                .filter(|made| is_name(made))
                .ok_or(HookSettingsError::NoName)?,
        };
        let timeout = self.timeout.map_or(Ok(TIMEOUT), |text| duration::parse(&text));
        let timeout = timeout
            .ok()
            .filter(|timeout| (SHORTEST_TIMEOUT..=LONGEST_TIMEOUT).contains(timeout));
        Ok(HookSettings {
            name,
            on: self.on,
            target,
            timeout: timeout.ok_or(HookSettingsError::Timeout)?,
        })
    }
}

/// Returns the program of a hook, and a name made from it.
fn program(run: Vec<String>) -> Result<(HookTarget, String), HookSettingsError> {
    let is_odd = |text: &String| text.len() > LONGEST_ARGUMENT || text.contains('\0');
    if run.len() > MOST_ARGUMENTS + 1 || run.iter().any(is_odd) {
        return Err(HookSettingsError::Arguments);
    }
    let mut run = run.into_iter();
    let path = run.next().map(PathBuf::from).filter(|path| path.is_absolute());
    let path = path.ok_or(HookSettingsError::Program)?;
    let name = path.file_name().unwrap_or_default();
    let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
    let program = HookProgram {
        path,
        arguments: run.collect(),
    };
    Ok((HookTarget::Program(program), name))
}

/// Returns the URL of a hook, and a name made from it.
fn url(
    text: &str,
    secret: Option<PathBuf>,
    authorities: Option<PathBuf>,
) -> Result<(HookTarget, String), HookSettingsError> {
    let (rest, query) = text.split_once('?').map_or((text, ""), |(rest, query)| (rest, query));
    let begin = rest.find("://").map_or(0, |at| at + "://".len());
    let end = rest[begin..].find('/').map_or(rest.len(), |at| begin + at);
    let (base, path) = rest.split_at(end);
    let base = BaseUrl::parse(base)?;
    let target = if query.is_empty() {
        path.to_owned()
    } else {
        format!("{}?{query}", if path.is_empty() { "/" } else { path })
    };
    // A request cannot be made with another one.
    let is_plain = target.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_plain || target.contains('#') {
        return Err(UrlError::Form.into());
    }
    let name = base.host().to_owned();
    let url = HookUrl {
        base,
        target,
        secret,
        authorities,
    };
    Ok((HookTarget::Url(url), name))
}

fn is_name(text: &str) -> bool {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LONGEST_NAME).contains(&text.len()) && text.bytes().all(is_good)
}

impl HookSettings {
    /// Returns the files that the hook runs or reads, each with what it is.
    pub fn files(&self) -> Vec<(&'static str, &Path)> {
        match &self.target {
            HookTarget::Program(program) => vec![("the program", &program.path)],
            HookTarget::Url(url) => {
                let secret = url.secret.as_deref().map(|path| ("the key (secret_file)", path));
                let authorities = url
                    .authorities
                    .as_deref()
                    .map(|path| ("the certificates (ca_file)", path));
                secret.into_iter().chain(authorities).collect()
            }
        }
    }

    /// Returns the arguments that the program is run with.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        let arguments: &[String] = match &self.target {
            HookTarget::Program(program) => &program.arguments,
            HookTarget::Url(_) => &[],
        };
        arguments.iter().map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct HooksDocument {
        hooks: Vec<HookSection>,
    }

    fn read(text: &str) -> Result<Vec<HookSettings>, String> {
        let document: HooksDocument = toml::from_str(text).map_err(|error| error.to_string())?;
        HookSection::check_all(document.hooks).map_err(|(at, error)| format!("{at}: {error}"))
    }

    fn one(text: &str) -> Result<HookSettings, String> {
        Ok(read(&format!("[[hooks]]\n{text}"))?.remove(0))
    }

    #[test]
    fn a_hook_has_a_program_or_a_url_and_a_name() {
        let hook = one("on = ['backend_unhealthy', 'started']\nrun = ['/usr/bin/notify', 'a b']").unwrap();
        assert_eq!((hook.name.as_str(), hook.timeout), ("notify", TIMEOUT));
        assert_eq!(hook.on.len(), 2);
        let HookTarget::Program(program) = hook.target else {
            panic!("{:?}", hook.target);
        };
        assert_eq!(
            (program.path, program.arguments),
            ("/usr/bin/notify".into(), vec!["a b".to_owned()])
        );
        for (url, target) in [
            ("https://hooks.example.com/a/b/", "/a/b/"),
            ("https://hooks.example.com", ""),
            ("https://hooks.example.com/?token=x/y", "/?token=x/y"),
            ("https://hooks.example.com?token=x", "/?token=x"),
        ] {
            let hook = one(&format!(
                "on = ['problem']\nurl = '{url}'\ntimeout = '500ms'\nsecret_file = '/s'"
            ))
            .unwrap();
            assert_eq!(
                (hook.name.as_str(), hook.timeout.as_millis()),
                ("hooks.example.com", 500)
            );
            assert_eq!(hook.files(), [("the key (secret_file)", Path::new("/s"))]);
            assert!(!format!("{hook:?}").contains("token"), "{hook:?}");
            let HookTarget::Url(url) = hook.target else { panic!() };
            assert_eq!(url.target, target);
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_place() {
        let (on, run) = ("on = ['problem']", "run = ['/x']");
        for (bad, expected) in [
            (
                format!("{on}\n{run}\nurl = 'http://h'"),
                "1: must have either run or url",
            ),
            (on.to_owned(), "1: must have either run or url"),
            (format!("on = []\n{run}"), "1: on is empty"),
            (run.to_owned(), "missing field `on`"),
            (format!("on = ['no_such']\n{run}"), "known are the events started"),
            (format!("{on}\nrun = []"), "absolute path of a program"),
            (format!("{on}\nrun = ['notify']"), "absolute path of a program"),
            (format!("{on}\nrun = ['/x', \"a\\u0000\"]"), "without NUL"),
            (format!("{on}\nrun = '/x'"), "expected a sequence"),
            (format!("{on}\nurl = 'ftp://h/'"), "1: url must be a URL"),
            (format!("{on}\nurl = 'https://u:p@h/'"), "must not have a user name"),
            (format!("{on}\nurl = 'https://h/a b'"), "1: url must be a URL"),
            (format!("{on}\nurl = \"https://h/a\\r\\nx: y\""), "1: url must be a URL"),
            (
                format!("{on}\n{run}\nsecret_file = '/s'"),
                "secret_file is for hooks with url",
            ),
            (
                format!("{on}\nurl = 'https://h'\nca_file = 's'"),
                "ca_file must be an absolute path",
            ),
            (format!("{on}\n{run}\ntimeout = '61s'"), "timeout must be"),
            (format!("{on}\n{run}\ntimeout = '10'"), "timeout must be"),
            (format!("{on}\n{run}\nname = 'a b'"), "name must have"),
            (format!("{on}\nrun = ['/a b']"), "give it a name"),
            (
                format!("{on}\n{run}\n[[hooks]]\n{on}\n{run}"),
                "2: another hook is called \"x\"",
            ),
            (format!("{on}\n{run}\nretries = 3"), "unknown field"),
        ] {
            let error = one(&bad).unwrap_err();
            assert!(error.contains(expected), "{bad}: {error}");
            assert!(!error.contains("u:p"), "{error}");
        }
        let hooks = (0..=MOST_HOOKS).map(|n| format!("[[hooks]]\n{on}\n{run}\nname = 'h{n}'"));
        let many = hooks.collect::<Vec<_>>().join("\n");
        assert!(read(&many).unwrap_err().contains("there are 17 hooks"));
    }
}
