//! A daemon that `tcpgw up` starts where there is none, and the configuration that it writes for it.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::num::NonZeroU16;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use thiserror::Error;

use super::container::{DAEMON, THIS};
use crate::api::client::{Client, ClientError};
use crate::run_file;
use crate::store;

/// The plan of an app in the configuration that `tcpgw up` writes, if no other is asked for.
pub const PLAN: &str = "up";
/// Public ports in that configuration.
const PORTS: (u16, u16) = (20_000, 29_999);
/// Maximum time for a daemon to start, and to end.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);
/// Longest line of its log that is passed on, in bytes.
const LONGEST_LINE: u64 = 8 << 10;

/// Reason why no daemon runs.
#[derive(Debug, Error)]
pub enum OwnDaemonError {
    /// The daemon's files could not be written, or it could not be started.
    #[error("failed to {what} of tcpgw up: {source}")]
    Start {
        /// Operation that failed.
        what: &'static str,
        /// Error of the operating system.
        source: io::Error,
    },
    /// The daemon has ended.
    #[error("the daemon that tcpgw up has started has ended: {0}")]
    Ended(String),
    /// The daemon does not answer.
    #[error("the daemon that tcpgw up has started does not answer within {wait}: {0}", wait = tcpgw_core::model::duration::show(PATIENCE))]
    Silent(ClientError),
}

/// Files and directories of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DaemonFiles {
    /// Its configuration; `None`: the usual one.
    pub config: Option<PathBuf>,
    /// Path of its socket.
    pub socket: PathBuf,
    /// Its run directory.
    pub run_dir: PathBuf,
}

/// A daemon that is a child of this process.
#[derive(Debug)]
pub struct OwnDaemon {
    child: Child,
}

/// Returns the text of an existing configuration with a section `[addon]` added.
pub fn configuration(
    before: &str,
    host: Ipv4Addr,
    listen: u16,
    credentials: &Path,
    port: Option<NonZeroU16>,
) -> String {
    let (mut first, mut last) = PORTS;
    if let Some(port) = port {
        first = first.min(port.get());
        last = last.max(port.get());
    }
    let credentials = toml::Value::String(credentials.to_string_lossy().into_owned());
    let has_key = |key: &str| before.parse::<toml::Table>().is_ok_and(|table| table.contains_key(key));
    // The rules of the app's network do this already; the setting keeps the daemon from reporting a problem.
    let mut text = if has_key("protect_backends") {
        String::new()
    } else {
        "protect_backends = true\n".to_owned()
    };
    text.push_str(before);
    let _ = write!(
        text,
        "\n[addon]\nlisten = \"127.0.0.1:{listen}\"\nhost = \"{host}\"\nports = \"{first}-{last}\"\nquarantine = \"0s\"\n\
         credentials = {credentials}\n"
    );
    let plans = [
        (PLAN, "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c10", 100_000),
        ("free", "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11", 512),
        ("starter", "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c12", 5_120),
    ];
    for (name, id, pps) in plans {
        let _ = write!(
            text,
            "\n[[addon.plans]]\nname = \"{name}\"\nid = \"{id}\"\npps = {pps}\n"
        );
    }
    text
}

/// Writes a configuration with random credentials into a directory, and returns its path.
///
/// # Errors
/// Fails with [`OwnDaemonError::Start`] when a file cannot be written.
pub fn write_configuration(
    directory: &Path,
    before: &str,
    host: Ipv4Addr,
    port: Option<NonZeroU16>,
) -> Result<PathBuf, OwnDaemonError> {
    let fail = |source| OwnDaemonError::Start {
        what: "write the daemon's configuration",
        source,
    };
    // Takes a port that is free now. If another program takes it meanwhile, only the provider API is missing, whose address was
    // given to no platform.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(fail)?;
    let listen = listener.local_addr().map_err(fail)?.port();
    drop(listener);
    let secret = || {
        let words = [(); 4].map(|()| getrandom::u64());
        let words: Result<Vec<u64>, _> = words.into_iter().collect();
        let words = words.map_err(|_| fail(io::Error::other("the system gave no random numbers")))?;
        let words: Vec<String> = words.into_iter().map(|word| format!("{word:016x}")).collect();
        Ok::<String, OwnDaemonError>(words.concat())
    };
    let credentials = directory.join("credentials.toml");
    let text = format!(
        "username = \"tcpgw-up\"\npassword = \"{}\"\nsso_salt = \"{}\"\n",
        secret()?,
        secret()?
    );
    let write = |path: &Path, text: &str| run_file::create(path).and_then(|mut file| file.write_all(text.as_bytes()));
    write(&credentials, &text).map_err(fail)?;
    let config = directory.join("config.toml");
    write(&config, &configuration(before, host, listen, &credentials, port)).map_err(fail)?;
    Ok(config)
}

impl OwnDaemon {
    /// Starts a daemon, and waits until it answers; returns it with its log. The daemon ends with the thread that calls this.
    ///
    /// # Errors
    /// Fails with [`OwnDaemonError`] when the daemon cannot be started, ends at once, or does not answer in time.
    pub fn start(wanted: &DaemonFiles) -> Result<(Self, DaemonLog), OwnDaemonError> {
        let mut command = Command::new(THIS);
        command.arg0(DAEMON).arg(std::process::id().to_string());
        if let Some(config) = &wanted.config {
            command.arg("--config").arg(config);
        }
        command.arg("--socket").arg(&wanted.socket);
        command.args(["daemon", "--log-level", "warn"]);
        command.env("TCPGW_RUN_DIR", &wanted.run_dir).env("NO_COLOR", "1");
        // Lines without the time, which is printed before them.
        command.env("JOURNAL_STREAM", "0:0");
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|source| OwnDaemonError::Start {
            what: "start the daemon",
            source,
        })?;
        let log = child.stderr.take();
        let mut daemon = Self { child };
        let mut log = DaemonLog(log.map(BufReader::new));
        let begin = Instant::now();
        loop {
            let Err(error) = Client::connect(&wanted.socket) else {
                return Ok((daemon, log));
            };
            if daemon.has_ended() {
                let mut words = Vec::new();
                while let Some(line) = log.next_line() {
                    words.push(line);
                    words.drain(..words.len().saturating_sub(5));
                }
                return Err(OwnDaemonError::Ended(words.join("; ")));
            }
            if begin.elapsed() >= PATIENCE {
                return Err(OwnDaemonError::Silent(error));
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Returns its process number.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns whether the daemon has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the daemon in good order, or by force if that takes too long.
    pub fn stop(mut self) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGTERM);
        let begin = Instant::now();
        while !self.has_ended() && begin.elapsed() < PATIENCE {
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for OwnDaemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Log output of a daemon.
#[derive(Debug)]
pub struct DaemonLog(Option<BufReader<ChildStderr>>);

impl DaemonLog {
    /// Returns the next line, safe to show; `None` when the daemon has ended.
    pub fn next_line(&mut self) -> Option<String> {
        let reader = self.0.as_mut()?;
        let mut line = Vec::new();
        match reader.take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(tcpgw_core::escape::text(String::from_utf8_lossy(&line).trim_end())),
        }
    }
}

/// Removes a store with the files beside it.
pub fn remove_store(store: &Path) {
    for path in store::files_of(store) {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_configuration_is_one_of_the_daemon() {
        let before = "flow_mark = \"0x10000\"\n[fences]\nports = [\"1024-40000\"]\n[daemon]\nmax_probes = 7";
        let host = Ipv4Addr::new(10, 213, 7, 1);
        let text = configuration(
            before,
            host,
            9443,
            Path::new("/run/a \"b/c.toml"),
            NonZeroU16::new(1883),
        );
        let config = Config::parse("c.toml".as_ref(), text.as_bytes()).unwrap();
        let addon = config.addon.unwrap();
        assert_eq!(addon.ports.to_string(), "1883-29999");
        assert_eq!(addon.credentials, Path::new("/run/a \"b/c.toml"));
        assert_eq!(addon.host, "10.213.7.1");
        assert!(addon.quarantine.is_zero());
        assert!(config.protect_backends);
        assert_eq!(
            crate::config::daemon::DaemonSettings::from(config.daemon)
                .max_probes
                .get(),
            7
        );
        let fenced = configuration("[fences]\nports = [\"1024-2000\"]", host, 9443, Path::new("/c"), None);
        let error = Config::parse("c.toml".as_ref(), fenced.as_bytes())
            .unwrap_err()
            .to_string();
        assert!(error.contains("fences.ports"), "{error}");
    }
}
