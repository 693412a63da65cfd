//! Network namespaces that exist, as far as processes, mounts and open descriptors refer to them.
//!
//! Source: `namespaces(7)` (what keeps a namespace alive), `proc_pid_mountinfo(5)`, `proc_pid_fdinfo(5)`, `proc(5)` (`hidepid`), `d_path` in
//! `fs/d_path.c`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

/// The PID namespace that the machine has started with, which contains all processes: `PROC_PID_INIT_INO` of the kernel's
/// `include/linux/proc_ns.h`, the same on all machines since Linux 3.8.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Threads, open descriptors, and bytes of lists of mounts that are examined: more would take longer than half a second.
const MOST_THREADS: usize = 16_384;
const MOST_DESCRIPTORS: usize = 131_072;
const MOST_BYTES: usize = 32 << 20;

/// Number of times that a thread which is ending is examined again, and the pause before that.
const LOOKS: u32 = 50;
const PAUSE: Duration = Duration::from_millis(1);

/// The process file system through which all processes are visible.
#[derive(Debug, Clone)]
pub struct Processes {
    /// Path of the process file system.
    pub proc: PathBuf,
    /// Inode of the PID namespace that contains all processes.
    pub pid_namespace: u64,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            proc: "/proc".into(),
            pid_namespace: FIRST_PID_NAMESPACE,
        }
    }
}

/// Reason why the existing namespaces cannot be determined.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unsure(pub(super) String);

impl Processes {
    /// Returns the inodes of the network namespaces that a thread is in, a mount or an open descriptor names.
    ///
    /// A namespace that only a socket, or a descriptor that is on its way from one process to another, keeps alive is not among them: no
    /// command can enter it. Nor is one that only a thread with descriptors of its own (`unshare(CLONE_FILES)`) names.
    ///
    /// # Errors
    /// Fails when it is not certain that all of them were seen.
    pub(super) fn network_namespaces(&self) -> Result<BTreeSet<u64>, Unsure> {
        self.see_all()?;
        let mut scan = ProcessScan::default();
        for entry in entries(&self.proc)? {
            let is_process = |name: &str| name.bytes().all(|letter| letter.is_ascii_digit());
            if entry.file_name().to_str().is_some_and(is_process) {
                scan.process(&entry.path())?;
            }
        }
        // Mounts of a mount namespace that no process is in cannot be read.
        if let Some(unseen) = scan.named_mounts.difference(&scan.mounts).next() {
            return Err(Unsure(format!("no process is in the mount namespace {unseen}")));
        }
        Ok(scan.networks)
    }

    /// Checks that `/proc` shows all processes. In a PID namespace of its own (a container), and with a process file system
    /// that hides processes, some are missing, and with them the namespaces that they refer to; the first PID namespace has
    /// all. A process without a number in the PID namespace of a process file system has no `self` there.
    fn see_all(&self) -> Result<(), Unsure> {
        let own = read_link(&self.proc.join("self/ns/pid")).ok();
        let own = own.and_then(|link| inode(&link, "pid"));
        if own != Some(self.pid_namespace) {
            return Err(Unsure("this process is in a PID namespace of its own".into()));
        }
        let mounts = read(&self.proc.join("self/mountinfo"))?;
        if mounts.lines().any(hides_processes) {
            return Err(Unsure("/proc does not show all processes".into()));
        }
        // Where processes of others are hidden from this user, the first one is.
        read_link(&self.proc.join("1/ns/net")).map_err(|error| unsure(&self.proc.join("1"), &error))?;
        Ok(())
    }
}

#[derive(Default)]
struct ProcessScan {
    networks: BTreeSet<u64>,
    /// Mount namespaces of processes.
    mounts: BTreeSet<u64>,
    /// Mount namespaces that mounts and descriptors name.
    named_mounts: BTreeSet<u64>,
    /// Mount lists that were read: the namespace, and the root directory, which bounds the list.
    listed: BTreeSet<(u64, u64, u64)>,
    threads: usize,
    descriptors: usize,
    bytes: usize,
}

impl ProcessScan {
    fn process(&mut self, process: &Path) -> Result<(), Unsure> {
        let threads = match fs::read_dir(process.join("task")) {
            Ok(threads) => threads,
            Err(error) if is_gone(&error) => return Ok(()),
            Err(error) => return Err(unsure(process, &error)),
        };
        let mut knows_descriptors = false;
        for thread in threads {
            let thread = match thread {
                Ok(thread) => thread.path(),
                Err(error) if is_gone(&error) => return Ok(()),
                Err(error) => return Err(unsure(process, &error)),
            };
            self.threads += 1;
            within(self.threads, MOST_THREADS, "threads")?;
            if !self.thread(&thread)? {
                continue;
            }
            // All threads of a process share its descriptors.
            if !knows_descriptors {
                knows_descriptors = self.descriptors(&thread)?;
            }
        }
        Ok(())
    }

    /// Reads a thread. Returns whether the thread lives.
    fn thread(&mut self, thread: &Path) -> Result<bool, Unsure> {
        for look in 0..LOOKS {
            if look > 0 {
                std::thread::sleep(PAUSE);
            }
            let seen = self.try_thread(thread);
            match seen {
                Ok(()) => return Ok(true),
                // A thread that is ending loses its namespaces before its state says so.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(unsure(thread, &error)),
            }
            if is_dead(thread) {
                return Ok(false);
            }
        }
        Err(Unsure(format!(
            "{} has no namespaces",
            tcpgw_core::escape::path(thread)
        )))
    }

    fn try_thread(&mut self, thread: &Path) -> io::Result<()> {
        let of = |kind: &str| {
            let link = read_link(&thread.join("ns").join(kind))?;
            inode(&link, kind).ok_or_else(|| io::Error::other("names no namespace"))
        };
        let (network, mount) = (of("net")?, of("mnt")?);
        let root = fs::metadata(thread.join("root"))?;
        self.networks.insert(network);
        self.mounts.insert(mount);
        if self.listed.insert((mount, root.dev(), root.ino())) {
            let text = fs::read(thread.join("mountinfo"))?;
            self.bytes += text.len();
            if self.bytes > MOST_BYTES {
                return Err(io::Error::from(Errno::E2BIG));
            }
            for line in String::from_utf8_lossy(&text).lines() {
                // The fourth field is the root of the mount: of one of a namespace, the namespace.
                self.named(line.split(' ').nth(3).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// Reads the descriptors of a thread. Returns whether they could be read: a thread that has just ended has none.
    fn descriptors(&mut self, thread: &Path) -> Result<bool, Unsure> {
        let directory = thread.join("fd");
        let open = match fs::read_dir(&directory) {
            Ok(open) => open,
            Err(error) if is_gone(&error) => return Ok(false),
            Err(error) => return Err(unsure(&directory, &error)),
        };
        for descriptor in open {
            self.descriptors += 1;
            within(self.descriptors, MOST_DESCRIPTORS, "open descriptors")?;
            match descriptor.and_then(|descriptor| self.descriptor(thread, &descriptor)) {
                Ok(()) => {}
                // The descriptor was closed meanwhile.
                Err(error) if is_gone(&error) => {}
                Err(error) => return Err(unsure(&directory, &error)),
            }
        }
        Ok(true)
    }

    /// Collects the namespace of an open descriptor. A namespace that was opened at a mount (`/run/netns/NAME`) has the name of
    /// that place, and none if it is not mounted there any more. Its inode is read without asking a file system, which may not
    /// answer. Another file with the same inode number does no harm.
    fn descriptor(&mut self, thread: &Path, descriptor: &fs::DirEntry) -> io::Result<()> {
        let link = read_link(&descriptor.path())?;
        if link.starts_with(['/', '(']) {
            let text = fs::read(thread.join("fdinfo").join(descriptor.file_name()))?;
            let text = String::from_utf8_lossy(&text);
            let number = text.lines().find_map(|line| line.strip_prefix("ino:"));
            self.networks
                .extend(number.and_then(|number| number.trim().parse::<u64>().ok()));
        } else {
            self.named(&link);
        }
        Ok(())
    }

    fn named(&mut self, link: &str) {
        self.networks.extend(inode(link, "net"));
        self.named_mounts.extend(inode(link, "mnt"));
    }
}

/// Returns whether a line of `mountinfo` is a process file system at `/proc` that does not show all processes. A mount that is
/// covered by a later one counts, too, which is on the safe side.
fn hides_processes(line: &str) -> bool {
    let Some((mount, system)) = line.split_once(" - ") else {
        return false;
    };
    let mut system = system.split(' ');
    let is_proc = mount.split(' ').nth(4) == Some("/proc") && system.next() == Some("proc");
    let options = system.nth(1).unwrap_or_default();
    is_proc
        && options.split(',').any(|option| match option.split_once('=') {
            Some(("hidepid", value)) => !matches!(value, "0" | "off"),
            Some(("subset", _)) => true,
            _ => false,
        })
}

/// Returns the inode in `net:[4026531840]`.
pub(super) fn inode(link: &str, kind: &str) -> Option<u64> {
    let number = link.strip_prefix(kind)?.strip_prefix(":[")?.strip_suffix(']')?;
    number.parse().ok()
}

/// Returns whether a thread has ended: it is no longer there, or waits for its parent to collect its exit status (`Z`, `X`).
fn is_dead(thread: &Path) -> bool {
    match fs::read(thread.join("stat")) {
        Err(error) => is_gone(&error),
        Ok(text) => {
            // The name of the program may have parentheses, too.
            let after = text.iter().rposition(|byte| *byte == b')').map(|at| at + 2);
            after
                .and_then(|at| text.get(at))
                .is_some_and(|state| b"ZXx".contains(state))
        }
    }
}

/// Returns whether an error of reading a file of a process or thread means that it is ending, or has ended.
fn is_gone(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(errno, Some(Errno::ENOENT | Errno::ESRCH | Errno::EINVAL))
}

fn within(number: usize, most: usize, what: &str) -> Result<(), Unsure> {
    if number > most {
        return Err(Unsure(format!("there are more than {most} {what}")));
    }
    Ok(())
}

fn unsure(path: &Path, error: &io::Error) -> Unsure {
    Unsure(format!("{}: {error}", tcpgw_core::escape::path(path)))
}

fn read_link(path: &Path) -> io::Result<String> {
    Ok(fs::read_link(path)?.to_string_lossy().into_owned())
}

fn read(path: &Path) -> Result<String, Unsure> {
    let bytes = fs::read(path).map_err(|error| unsure(path, &error))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn entries(directory: &Path) -> Result<Vec<fs::DirEntry>, Unsure> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect);
    entries.map_err(|error| unsure(directory, &error))
}
