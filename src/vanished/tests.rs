use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;

const BOOT_OF_ANOTHER: &str = "00000000-0000-0000-0000-000000000000";
/// The namespaces of the test's processes.
const NET: u64 = 101;
const MOUNT: u64 = 201;
const PID: u64 = 301;

/// A directory that looks like `/proc`.
struct Machine {
    directory: tempfile::TempDir,
    processes: Processes,
}

impl Machine {
    /// Returns a process tree with its first process, and this one.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let processes = Processes {
            proc: directory.path().join("proc"),
            pid_namespace: PID,
        };
        let machine = Self { directory, processes };
        machine.process("1", NET);
        machine.process("7", NET);
        symlink("7", machine.proc("self")).unwrap();
        machine.mounts("7", "22 1 0:21 / /proc rw,relatime - proc proc rw\n");
        machine
    }

    fn proc(&self, path: &str) -> PathBuf {
        self.processes.proc.join(path)
    }

    fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn process(&self, pid: &str, network: u64) {
        fs::create_dir_all(self.proc(&format!("{pid}/task"))).unwrap();
        self.thread(pid, pid, network);
        for file in ["ns", "mountinfo"] {
            symlink(format!("task/{pid}/{file}"), self.proc(&format!("{pid}/{file}"))).unwrap();
        }
    }

    fn thread(&self, pid: &str, thread: &str, network: u64) {
        let of = |path: &str| self.proc(&format!("{pid}/task/{thread}/{path}"));
        for directory in ["ns", "fd", "root"] {
            fs::create_dir_all(of(directory)).unwrap();
        }
        symlink(format!("net:[{network}]"), of("ns/net")).unwrap();
        symlink(format!("mnt:[{MOUNT}]"), of("ns/mnt")).unwrap();
        symlink(format!("pid:[{PID}]"), of("ns/pid")).unwrap();
        fs::write(of("mountinfo"), "").unwrap();
        fs::write(of("stat"), "9 (a) b) S 1 1").unwrap();
    }

    fn mounts(&self, pid: &str, lines: &str) {
        fs::write(self.proc(&format!("{pid}/task/{pid}/mountinfo")), lines).unwrap();
    }

    fn opens(&self, pid: &str, descriptor: &str, link: &str) {
        symlink(link, self.proc(&format!("{pid}/task/{pid}/fd/{descriptor}"))).unwrap();
    }

    fn sees(&self) -> Result<Vec<u64>, String> {
        let seen = self.processes.network_namespaces();
        seen.map(|seen| seen.into_iter().collect()).map_err(|why| why.0)
    }

    /// Leaves the files of a namespace with that cookie and inode.
    fn leave(&self, cookie: u64, inode: u64) {
        let signature = Signature {
            inode: Some(inode),
            ..Signature::own()
        };
        self.leave_signed(cookie, &signature.to_string());
    }

    fn leave_signed(&self, cookie: u64, signature: &str) {
        // Made as tcpgw makes it, with its mode.
        drop(Lock::take(&self.run_dir(), cookie, Duration::ZERO).unwrap());
        fs::write(self.file(cookie, "lock"), signature).unwrap();
        for ending in ENDINGS {
            drop(run_file::create(&self.file(cookie, ending)).unwrap());
        }
    }

    fn file(&self, cookie: u64, ending: &str) -> PathBuf {
        self.run_dir().join(format!("netns-{cookie}.{ending}"))
    }

    /// Returns the number of files of that namespace that are left.
    fn left(&self, cookie: u64) -> usize {
        let endings = ENDINGS.iter().copied().chain(["lock", "other"]);
        endings
            .filter(|ending| self.file(cookie, ending).symlink_metadata().is_ok())
            .count()
    }

    fn remove(&self) -> usize {
        remove_files_of(&self.run_dir(), &self.processes)
    }
}

const ALL: usize = ENDINGS.len() + 1;

#[test]
fn threads_mounts_and_descriptors_name_namespaces() {
    let machine = Machine::new();
    assert_eq!(machine.sees(), Ok(vec![NET]));
    machine.thread("7", "8", 102);
    // The list of mounts is read once per root directory: this process has another one.
    machine.process("9", NET);
    machine.mounts(
        "9",
        "1 1 0:4 / / rw - ext4 x rw\n2 1 0:4 net:[103] /run/netns/a rw shared:200 - nsfs nsfs rw\n3 1 0:4 /net:[999] /b rw - ext4 x rw\n",
    );
    for (descriptor, link) in [
        ("0", "net:[104]"),
        ("1", "/net:[998]"),
        ("5", "/"),
        ("2", "socket:[997]"),
        ("3", "net:[x]"),
        ("4", "mnt:[201]"),
    ] {
        machine.opens("9", descriptor, link);
    }
    // A namespace that was opened at a mount which no longer exists.
    fs::create_dir_all(machine.proc("9/task/9/fdinfo")).unwrap();
    fs::write(
        machine.proc("9/task/9/fdinfo/5"),
        "pos:\t0\nflags:\t02100000\nmnt_id:\t7\nino:\t105\n",
    )
    .unwrap();
    assert_eq!(machine.sees(), Ok(vec![NET, 102, 103, 104, 105]));
}

#[test]
fn nobody_is_sure_who_does_not_see_everything() {
    let why = |change: &dyn Fn(&Machine)| {
        let machine = Machine::new();
        change(&machine);
        machine.leave(5, 500);
        assert_eq!(machine.remove(), 0);
        assert_eq!(machine.left(5), ALL);
        machine.sees().unwrap_err()
    };
    let in_a_container = why(&|machine| {
        let link = machine.proc("7/task/7/ns/pid");
        fs::remove_file(&link).unwrap();
        symlink("pid:[302]", link).unwrap();
    });
    assert!(in_a_container.contains("PID namespace"), "{in_a_container}");
    let not_here = why(&|machine| fs::remove_file(machine.proc("self")).unwrap());
    assert!(not_here.contains("PID namespace"), "{not_here}");
    for options in ["rw,hidepid=invisible", "rw,hidepid=2,gid=5", "rw,subset=pid"] {
        let hidden = why(&|machine| machine.mounts("7", &format!("22 1 0:21 / /proc rw - proc proc {options}\n")));
        assert!(hidden.contains("does not show all"), "{hidden}");
    }
    let first = why(&|machine| fs::remove_dir_all(machine.proc("1")).unwrap());
    assert!(first.contains("/proc/1"), "{first}");
    // A link that may not be read, as for users other than root: a file in its place.
    let forbidden = why(&|machine| {
        machine.process("9", NET);
        fs::remove_dir_all(machine.proc("9/task/9/fd")).unwrap();
        fs::write(machine.proc("9/task/9/fd"), "").unwrap();
    });
    assert!(forbidden.contains("9/fd"), "{forbidden}");
    // A living process that shows no namespace.
    let without = why(&|machine| {
        machine.process("9", NET);
        fs::remove_file(machine.proc("9/task/9/ns/net")).unwrap();
    });
    assert!(without.contains("has no namespaces"), "{without}");
    let unseen = why(&|machine| machine.opens("7", "3", "mnt:[202]"));
    assert_eq!(unseen, "no process is in the mount namespace 202");
}

#[test]
fn who_has_ended_is_left_out() {
    let machine = Machine::new();
    for (pid, state) in [("9", "Z"), ("10", "X")] {
        machine.process(pid, NET);
        fs::remove_file(machine.proc(&format!("{pid}/task/{pid}/ns/net"))).unwrap();
        fs::write(
            machine.proc(&format!("{pid}/task/{pid}/stat")),
            format!("9 (a) b) {state} 1 1"),
        )
        .unwrap();
    }
    fs::create_dir_all(machine.proc("11")).unwrap();
    fs::create_dir_all(machine.proc("12/task/12")).unwrap();
    // The first thread has ended, so that the descriptors cannot be read there.
    machine.process("13", NET);
    machine.thread("13", "14", 102);
    fs::remove_file(machine.proc("13/task/13/ns/net")).unwrap();
    fs::write(machine.proc("13/task/13/stat"), "13 (x) Z").unwrap();
    symlink("net:[103]", machine.proc("13/task/14/fd/3")).unwrap();
    assert_eq!(machine.sees(), Ok(vec![NET, 102, 103]));
}

#[test]
fn files_of_namespaces_that_are_gone_are_removed_and_no_others() {
    let machine = Machine::new();
    machine.opens("7", "3", "net:[502]");
    machine.leave(5, 501);
    machine.leave(6, 502);
    machine.leave(7, NET);
    // This process' own, which the directory of processes does not show.
    drop(Lock::take(&machine.run_dir(), 8, Duration::ZERO).unwrap());
    machine.leave(9, 501);
    let held = Lock::take(&machine.run_dir(), 9, Duration::ZERO).unwrap();
    fs::write(machine.file(9, "lock"), fs::read(machine.file(5, "lock")).unwrap()).unwrap();
    machine.leave_signed(10, "4711");
    machine.leave_signed(11, &format!("4711 501 {BOOT_OF_ANOTHER}"));
    machine.leave_signed(12, "4711 - x");
    fs::write(machine.file(5, "other"), "").unwrap();
    assert_eq!(machine.remove(), 1);
    assert_eq!(machine.left(5), 1, "what tcpgw has not made stays");
    for cookie in [6, 7, 9, 10, 11, 12] {
        assert_eq!(machine.left(cookie), ALL, "{cookie}");
    }
    assert_eq!(machine.left(8), 1);
    drop(held);
    assert_eq!(machine.remove(), 1, "nobody holds it any more");
    assert_eq!((machine.left(9), machine.remove()), (0, 0));
}

#[test]
fn nothing_is_removed_where_a_file_is_not_what_tcpgw_makes() {
    let machine = Machine::new();
    let victim = machine.directory.path().join("victim");
    fs::write(&victim, "precious").unwrap();
    for ending in ["state", "torn-down", "lock"] {
        machine.leave(5, 501);
        fs::remove_file(machine.file(5, ending)).unwrap();
        symlink(&victim, machine.file(5, ending)).unwrap();
        assert_eq!((machine.remove(), machine.left(5)), (0, ALL), "{ending}");
        fs::remove_file(machine.file(5, ending)).unwrap();
    }
    machine.leave(5, 501);
    nix::unistd::mkfifo(&machine.file(6, "lock"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(machine.run_dir().join("netns-+7.lock"), "1 501 x").unwrap();
    fs::write(machine.run_dir().join("netns-.lock"), "1 501 x").unwrap();
    assert_eq!((machine.remove(), machine.left(5), machine.left(6)), (1, 0, 1));
    assert_eq!(fs::read(victim).unwrap(), b"precious");
    assert_eq!(cookie("netns-5.lock"), Some(5));
    for name in [
        "netns-05.lock",
        "netns-5.state",
        "netns-x.lock",
        "netns-99999999999999999999.lock",
    ] {
        assert_eq!(cookie(name), None, "{name}");
    }
}
