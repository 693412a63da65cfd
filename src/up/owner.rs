//! Identity of a `tcpgw up` process that owns something. It is more than the process number, which another process may get
//! later.
//!
//! It is written at the object itself: as the alias of a link, as a label of a service, beside the number of a daemon. So the
//! remains of a killed `tcpgw up` are told from the objects of a living one even if the run directory is another one, or was
//! removed.
//!
//! Sources: `proc_pid_stat(5)` (`starttime`), `pid_namespaces(7)`, `net/core/dev.c` (`dev_set_alias`).

use std::fmt;
use std::fs;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::record::boot_id;

/// Prefix of the text, by which an alias of tcpgw is recognized.
const WORDS: &str = "tcpgw-up";
/// Name of the label on the app's service that holds the owner.
pub const LABEL: &str = "tcpgw-up";

/// A process that runs `tcpgw up`, or did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct UpOwner {
    /// Process number.
    pub pid: u32,
    /// Start time of the process, in clock ticks since the boot.
    started: u64,
    /// The namespace in which that is its number.
    namespace: u64,
    /// The kernel's name for the boot.
    boot: String,
}

/// Error of a text that does not identify an owner.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it does not name a process that runs tcpgw up")]
pub struct NoOwner;

impl UpOwner {
    /// Returns the identity of this process.
    ///
    /// # Errors
    /// Fails when `/proc` cannot be read.
    pub fn own() -> io::Result<Self> {
        let pid = std::process::id();
        let (_, started) =
            stat(pid)?.ok_or_else(|| io::Error::other("/proc does not tell when this process was started"))?;
        let boot = boot_id();
        if boot.is_empty() {
            return Err(io::Error::other("/proc/sys/kernel/random/boot_id cannot be read"));
        }
        Ok(Self {
            pid,
            started,
            namespace: namespace()?,
            boot,
        })
    }

    /// Returns whether the process lives. Returns `true`, too, if this cannot be known, as for a process of another container.
    pub fn lives(&self) -> bool {
        let boot = boot_id();
        if !boot.is_empty() && boot != self.boot {
            return false;
        }
        if namespace().ok() != Some(self.namespace) {
            return true;
        }
        match stat(self.pid) {
            // A process that waits to be reaped has ended.
            Ok(Some((state, started))) => started == self.started && !matches!(state, 'Z' | 'X'),
            Ok(None) => true,
            Err(error) => !matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)),
        }
    }
}

impl fmt::Display for UpOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            pid,
            started,
            namespace,
            boot,
        } = self;
        write!(f, "{WORDS} pid={pid} started={started} pidns={namespace} boot={boot}")
    }
}

impl FromStr for UpOwner {
    type Err = NoOwner;

    fn from_str(text: &str) -> Result<Self, NoOwner> {
        let words: Vec<&str> = text.split(' ').collect();
        let [_, pid, started, namespace, boot] = words[..] else {
            return Err(NoOwner);
        };
        let value = |word: &'static str, text: &str| text.strip_prefix(word).unwrap_or_default().to_owned();
        let number = |word, text| value(word, text).parse::<u64>().map_err(|_| NoOwner);
        let owner = Self {
            pid: u32::try_from(number("pid=", pid)?).map_err(|_| NoOwner)?,
            started: number("started=", started)?,
            namespace: number("pidns=", namespace)?,
            boot: value("boot=", boot),
        };
        // As it is written, and in no other way.
        (owner.to_string() == text).then_some(owner).ok_or(NoOwner)
    }
}

impl From<UpOwner> for String {
    fn from(owner: UpOwner) -> Self {
        owner.to_string()
    }
}

impl TryFrom<String> for UpOwner {
    type Error = NoOwner;

    fn try_from(text: String) -> Result<Self, NoOwner> {
        text.parse()
    }
}

/// Returns the inode number of this process's PID namespace.
fn namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt as _;
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Returns the state and the start time of a process; `None`: its text in `/proc` has an unexpected form.
fn stat(pid: u32) -> io::Result<Option<(char, u64)>> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    let text = String::from_utf8_lossy(&text);
    // The command before it may have any characters.
    let Some((_, rest)) = text.rsplit_once(')') else {
        return Ok(None);
    };
    let mut words = rest.split_whitespace();
    let state = words.next().and_then(|word| word.chars().next());
    let started = words.nth(18).and_then(|word| word.parse().ok());
    Ok(state.zip(started))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let own = UpOwner::own().unwrap();
        assert!(own.lives());
        assert_eq!(own.to_string().parse(), Ok(own.clone()));
        let other = |change: &dyn Fn(&mut UpOwner)| {
            let mut owner = own.clone();
            change(&mut owner);
            owner.lives()
        };
        assert!(!other(&|owner| owner.started += 1), "another has its number");
        assert!(!other(&|owner| owner.boot.push('0')), "of an earlier boot");
        assert!(other(&|owner| owner.namespace += 1), "nobody knows");
        // No process has so high a number.
        assert!(!other(&|owner| owner.pid = u32::MAX));
        let mut child = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
        let (_, started) = stat(child.id()).unwrap().unwrap();
        let of_child = UpOwner {
            pid: child.id(),
            started,
            ..own.clone()
        };
        assert!(of_child.lives());
        child.kill().unwrap();
        let begin = std::time::Instant::now();
        // The child is not reaped yet.
        while of_child.lives() && begin.elapsed() < std::time::Duration::from_secs(10) {
            std::thread::yield_now();
        }
        assert!(!of_child.lives());
        child.wait().unwrap();
        assert!(!of_child.lives());
    }

    #[test]
    fn other_texts_are_no_owners() {
        let text = "tcpgw-up pid=7 started=12 pidns=4026531836 boot=0123-4567";
        assert!(text.parse::<UpOwner>().is_ok());
        for other in [
            "",
            "tcpgw-up",
            "tcpgw-up pid=7 started=12 pidns=4026531836",
            "tcpgw-up pid=07 started=12 pidns=4026531836 boot=0123-4567",
            "tcpgw-up pid=7 started=12 pidns=4026531836 boot=0123-4567 more",
            "tcpgw-up pid=99999999999 started=12 pidns=4026531836 boot=0123-4567",
            "tcpgw-up started=12 pid=7 pidns=4026531836 boot=0123-4567",
            "my link",
        ] {
            assert_eq!(other.parse::<UpOwner>(), Err(NoOwner), "{other}");
        }
    }
}
