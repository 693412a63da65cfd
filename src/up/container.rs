//! The two helper processes around a process of an app.
//!
//! The **holder** is a child of `tcpgw up`. It makes the namespaces (network, mounts, process ids), waits until the network is
//! there, and starts the **init**, the first process of the new process ids. That starts the command in a session and a process
//! group of its own, collects what has lost its parent, and ends: with it the kernel kills everything that the command has started.
//! Both die when their parent does, and the init when the pipe from `tcpgw up` is closed: nothing outlives `tcpgw up`.
//!
//! Sources: `pid_namespaces(7)`, `prctl(2)` (`PR_SET_PDEATHSIG`).

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Pid, getppid, setsid};
use serde::{Deserialize, Serialize};

use tcpgw_kernel::ffi::socket;

/// Name of the holder process (`argv[0]`), by which the program knows what to do.
pub const HOLDER: &str = "tcpgw-up-holder";
const INIT: &str = "tcpgw-up-init";
/// Name of the process that starts the daemon of `tcpgw up`.
pub const DAEMON: &str = "tcpgw-up-daemon";
/// Path of this program, also when its file was replaced or removed.
pub const THIS: &str = "/proc/self/exe";

/// Message on the pipe from `tcpgw up`: the network is ready.
pub const GO: u8 = b'g';
/// Message on the pipe from `tcpgw up`: end the process group by SIGTERM.
pub const TERMINATE: u8 = b't';

/// Instructions for the helpers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The process id of `tcpgw up`.
    pub parent: i32,
    /// The network namespace that the process had before, as a path; `None`: a new one.
    pub join: Option<PathBuf>,
    /// Address of the process.
    pub address: Ipv4Addr,
    /// Address of the gateway.
    pub gateway: Ipv4Addr,
    /// The file that takes the place of `/etc/resolv.conf`, if that will not do.
    pub resolver: Option<PathBuf>,
    /// The pipe from `tcpgw up`.
    pub control: RawFd,
    /// The pipe to it, for [`HelperReport`]s, one a line.
    pub report: RawFd,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Whether the process keeps the terminal and the session of its caller.
    pub interactive: bool,
}

/// Report of a helper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HelperReport {
    /// The network namespace is there.
    Ready,
    /// The command runs, by this number in the namespace of `tcpgw up`.
    Started(i32),
    /// The process has ended by itself, with this exit code.
    Exited(i32),
    /// The process was ended by this signal.
    Signaled(i32),
    /// The process could not be started.
    Failed(String),
}

/// Runs a helper if the program was started as one; returns its exit code.
pub fn run_if_asked() -> Option<ExitCode> {
    let mut words = std::env::args_os();
    let name = words.next()?;
    let arguments: Vec<OsString> = words.collect();
    match name.to_str()? {
        HOLDER => Some(helper(&arguments, hold)),
        INIT => Some(helper(&arguments, init)),
        DAEMON => Some(become_daemon(&arguments)),
        _ => None,
    }
}

/// The pipes from and to `tcpgw up`.
struct Pipes {
    control: File,
    report: File,
}

impl Pipes {
    fn of(spec: &Spec) -> io::Result<Self> {
        Ok(Self {
            control: socket::inherited(spec.control)?.into(),
            report: socket::inherited(spec.report)?.into(),
        })
    }

    fn tell(&mut self, report: &HelperReport) {
        // If the pipe has no reader, `tcpgw up` has ended, and this process ends, too.
        if let Ok(mut line) = serde_json::to_vec(report) {
            line.push(b'\n');
            let _ = self.report.write_all(&line);
        }
    }
}

fn helper(arguments: &[OsString], run: fn(&Spec, &mut Pipes) -> Result<(), String>) -> ExitCode {
    let spec = arguments
        .first()
        .and_then(|spec| serde_json::from_str::<Spec>(spec.to_str()?).ok());
    let Some(spec) = spec else {
        return ExitCode::from(2);
    };
    let Ok(mut pipes) = Pipes::of(&spec) else {
        return ExitCode::from(2);
    };
    match run(&spec, &mut pipes) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            pipes.tell(&HelperReport::Failed(why));
            ExitCode::FAILURE
        }
    }
}

fn failed<E: std::fmt::Display>(what: &str) -> impl Fn(E) -> String {
    move |error| format!("failed to {what}: {error}")
}

/// Makes this process die with its parent. Fails if the parent is not this one.
fn die_with(parent: Option<i32>) -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(failed("ask for a signal at the end of tcpgw up"))?;
    match parent {
        Some(parent) if getppid() != Pid::from_raw(parent) => Err("tcpgw up has ended".into()),
        _ => Ok(()),
    }
}

fn hold(spec: &Spec, pipes: &mut Pipes) -> Result<(), String> {
    die_with(Some(spec.parent))?;
    // The terminal sends its signals to this process, too.
    SigSet::all().thread_block().map_err(failed("block signals"))?;
    match &spec.join {
        None => unshare(CloneFlags::CLONE_NEWNET).map_err(failed("make a network namespace"))?,
        Some(path) => {
            let file = File::open(path).map_err(failed("open the network namespace"))?;
            setns(&file, CloneFlags::CLONE_NEWNET).map_err(failed("enter the network namespace"))?;
        }
    }
    pipes.tell(&HelperReport::Ready);
    let mut byte = [0];
    match pipes.control.read(&mut byte) {
        Ok(1) if byte == [GO] => {}
        _ => return Ok(()),
    }
    if spec.join.is_none() {
        super::network::set_up_inside(spec.address, spec.gateway)
            .map_err(failed("set up the network of the process"))?;
    }
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID).map_err(failed("make namespaces"))?;
    set_mounts(spec)?;
    let text = serde_json::to_string(spec).map_err(failed("describe the process"))?;
    let mut child = Command::new(THIS)
        .arg0(INIT)
        .arg(text)
        .spawn()
        .map_err(failed("start the first process of the namespace"))?;
    child.wait().map_err(failed("wait for the process"))?;
    Ok(())
}

/// Makes the mounts receive later mounts of the machine, keeps own mounts inside, and mounts the resolver's file.
fn set_mounts(spec: &Spec) -> Result<(), String> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none).map_err(failed("separate the mounts"))?;
    if let Some(file) = &spec.resolver {
        mount(Some(file.as_path()), "/etc/resolv.conf", none, MsFlags::MS_BIND, none)
            .map_err(failed("mount /etc/resolv.conf"))?;
    }
    Ok(())
}

fn init(spec: &Spec, pipes: &mut Pipes) -> Result<(), String> {
    die_with(None)?;
    SigSet::all().thread_unblock().map_err(failed("unblock signals"))?;
    for pipe in [&pipes.control, &pipes.report] {
        fcntl(pipe, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(failed("keep the pipes from the command"))?;
    }
    // Numbers of processes as they are outside can be read there, and nowhere else once the new one is mounted.
    let outside = open("/proc/self", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty()).ok();
    let own = std::fs::read_link("/proc/self").ok();
    mount(
        Some("proc"),
        "/proc",
        Some("proc"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        None::<&str>,
    )
    .map_err(failed("mount /proc"))?;
    let [program, arguments @ ..] = spec.command.as_slice() else {
        return Err("there is no command".into());
    };
    let mut command = Command::new(program);
    command.args(arguments);
    if !spec.interactive {
        setsid().map_err(failed("make a session"))?;
        command.process_group(0);
    }
    let child = command
        .spawn()
        .map_err(|error| format!("failed to run {}: {error}", tcpgw_core::escape::text(program)))?;
    drop(command);
    let pid = Pid::from_raw(child.id().cast_signed());
    let number = seen_outside(outside.as_ref(), own.as_deref()).unwrap_or_default();
    pipes.tell(&HelperReport::Started(number));
    let is_ending = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&is_ending);
    let control = pipes
        .control
        .try_clone()
        .map_err(failed("share the pipe from tcpgw up"))?;
    let watch = move || obey(control, pid, &watched);
    std::thread::Builder::new()
        .spawn(watch)
        .map_err(failed("start a thread"))?;
    collect(pipes, pid, &is_ending);
    Ok(())
}

/// Returns the process id of the only child of this process, in the outer process namespace.
fn seen_outside(outside: Option<&OwnedFd>, own: Option<&Path>) -> Option<i32> {
    let (outside, own) = (outside?, own?);
    let path = format!("task/{}/children", own.to_str()?);
    let file = nix::fcntl::openat(
        outside,
        path.as_str(),
        OFlag::O_RDONLY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )
    .ok()?;
    let mut text = String::new();
    File::from(file).take(4096).read_to_string(&mut text).ok()?;
    text.split_whitespace().next()?.parse().ok()
}

/// Executes the orders of `tcpgw up` from the pipe, and exits when it is closed, which ends all processes of the namespace.
fn obey(mut pipe: File, group: Pid, is_ending: &AtomicBool) {
    let mut byte = [0];
    loop {
        match pipe.read(&mut byte) {
            Ok(1) if byte == [TERMINATE] => {
                is_ending.store(true, Ordering::SeqCst);
                let _ = killpg(group, Signal::SIGTERM);
            }
            Ok(1) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // The first process of the namespace takes all others with it.
            _ => std::process::exit(0),
        }
    }
}

/// Collects processes until the command has ended, and, if all are told to end, until all have.
fn collect(pipes: &mut Pipes, pid: Pid, is_ending: &AtomicBool) {
    loop {
        let ended = match waitpid(None, None) {
            Err(Errno::EINTR) => continue,
            Err(_) => return,
            Ok(WaitStatus::Exited(of, code)) if of == pid => HelperReport::Exited(code),
            Ok(WaitStatus::Signaled(of, signal, _)) if of == pid => HelperReport::Signaled(signal as i32),
            Ok(_) => continue,
        };
        pipes.tell(&ended);
        if !is_ending.load(Ordering::SeqCst) {
            return;
        }
    }
}

/// Becomes the daemon, which ends in good order when `tcpgw up` ends, whose process number comes first.
fn become_daemon(arguments: &[OsString]) -> ExitCode {
    let [parent, arguments @ ..] = arguments else {
        return ExitCode::from(2);
    };
    let Some(parent) = parent.to_str().and_then(|parent| parent.parse().ok()) else {
        return ExitCode::from(2);
    };
    // The signals of the terminal are for `tcpgw up`.
    let _ = setsid();
    if set_pdeathsig(Signal::SIGTERM).is_err() || getppid() != Pid::from_raw(parent) {
        return ExitCode::FAILURE;
    }
    let error = Command::new(THIS).arg0("tcpgw").args(arguments).exec();
    let _ = writeln!(io::stderr(), "failed to start the daemon: {error}");
    ExitCode::FAILURE
}

/// Returns the exit code as a shell has it: the code, or 128 and the signal.
pub fn code_of(status: std::process::ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}
