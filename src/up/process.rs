//! A process of an app, as `tcpgw up` holds it: the helper that it is started by, the pipes to it, and the terminal that its output
//! comes from.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::{OutputFlags, SetArg, tcgetattr, tcsetattr};
use nix::unistd::pipe2;

use super::container::{GO, HOLDER, HelperReport, Spec, TERMINATE, THIS};

/// Size that programs see on the terminal.
const SIZE: Winsize = Winsize {
    ws_row: 24,
    ws_col: 80,
    ws_xpixel: 0,
    ws_ypixel: 0,
};
/// Longest line that a helper writes.
const LONGEST_REPORT: u64 = 16 << 10;

/// Standard streams of a process.
#[derive(Debug)]
pub enum Streams {
    /// A terminal of its own, whose other end is [`Started::output`].
    Terminal,
    /// The streams of this process.
    Inherited,
}

/// A process that was started.
#[derive(Debug)]
pub struct Started {
    /// Handle of the process, to end it.
    pub process: Process,
    /// Reports of its helpers.
    pub reports: Reports,
    /// Output of the process; `None`: it is inherited.
    pub output: Option<ProcessOutput>,
}

/// A process with its helpers. Dropping it kills all of them.
#[derive(Debug)]
pub struct Process {
    holder: Child,
    /// Pipe to the helper: closing it ends all processes within.
    control: Option<File>,
}

/// Receiver of the helpers' reports.
#[derive(Debug)]
pub struct Reports(BufReader<File>);

/// The output of a process.
#[derive(Debug)]
pub struct ProcessOutput(File);

/// Starts the helper, which makes the namespaces and waits; `spec` is completed with the pipes.
///
/// It dies with the thread that calls this.
///
/// # Errors
/// Fails when the pipes or the terminal cannot be opened, or the helper cannot be started.
pub fn start(
    mut spec: Spec,
    variables: &BTreeMap<String, String>,
    directory: &Path,
    streams: &Streams,
) -> io::Result<Started> {
    let (control_out, control) = pipe2(OFlag::O_CLOEXEC)?;
    let (reports, report_in) = pipe2(OFlag::O_CLOEXEC)?;
    spec.control = control_out.as_raw_fd();
    spec.report = report_in.as_raw_fd();
    let mut command = Command::new(THIS);
    command.arg0(HOLDER).arg(serde_json::to_string(&spec)?);
    command.current_dir(directory).envs(variables);
    let output = match streams {
        Streams::Inherited => None,
        Streams::Terminal => {
            let (master, slave) = terminal()?;
            command
                .stdin(slave.try_clone()?)
                .stdout(slave.try_clone()?)
                .stderr(Stdio::from(slave));
            Some(ProcessOutput(master.into()))
        }
    };
    // Only this thread starts processes, so that these two go to this one alone.
    for pipe in [&control_out, &report_in] {
        fcntl(pipe, FcntlArg::F_SETFD(FdFlag::empty()))?;
    }
    let holder = command.spawn()?;
    Ok(Started {
        process: Process {
            holder,
            control: Some(control.into()),
        },
        reports: Reports(BufReader::new(reports.into())),
        output,
    })
}

/// Opens a pseudo-terminal that passes output on unchanged.
fn terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    let OpenptyResult { master, slave } = openpty(&SIZE, None)?;
    for end in [&master, &slave] {
        fcntl(end, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    }
    let mut modes = tcgetattr(&slave)?;
    modes.output_flags.remove(OutputFlags::OPOST);
    tcsetattr(&slave, SetArg::TCSANOW, &modes)?;
    Ok((master, slave))
}

impl Process {
    /// Returns the number of its first helper, which is in the process's network namespace.
    pub fn id(&self) -> u32 {
        self.holder.id()
    }

    /// Returns the network namespace, as a file that keeps it.
    ///
    /// # Errors
    /// Fails when the namespace cannot be opened, for example because the process has ended.
    pub fn namespace(&self) -> io::Result<File> {
        File::open(format!("/proc/{}/ns/net", self.id()))
    }

    /// Tells the helper that the network is ready.
    ///
    /// # Errors
    /// Fails when the helper has ended.
    pub fn go(&mut self) -> io::Result<()> {
        self.say(GO)
    }

    /// Sends SIGTERM to its process group.
    pub fn terminate(&mut self) {
        // The process has ended if the pipe has no reader.
        let _ = self.say(TERMINATE);
    }

    fn say(&mut self, byte: u8) -> io::Result<()> {
        match &mut self.control {
            Some(control) => control.write_all(&[byte]),
            None => Ok(()),
        }
    }

    /// Kills the process with everything that it has started.
    pub fn kill(&mut self) {
        self.control = None;
        let _ = self.holder.kill();
    }

    /// Waits for the end of the helper.
    ///
    /// # Errors
    /// Fails when the system does not tell the exit status.
    pub fn wait(&mut self) -> io::Result<std::process::ExitStatus> {
        self.holder.wait()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        let _ = self.wait();
    }
}

impl AsFd for Reports {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.get_ref().as_fd()
    }
}

impl Reports {
    /// Returns the next report; `None` when the helpers have ended.
    pub fn next_report(&mut self) -> Option<HelperReport> {
        let mut line = String::new();
        let read = (&mut self.0).take(LONGEST_REPORT).read_line(&mut line).ok()?;
        if read == 0 {
            return None;
        }
        serde_json::from_str(&line).ok()
    }
}

impl ProcessOutput {
    /// Passes on the process's output until the last process with its terminal has ended.
    pub fn read(mut self, mut each: impl FnMut(&[u8])) {
        let mut buffer = [0; 16 << 10];
        loop {
            match self.0.read(&mut buffer) {
                Ok(0) => return,
                Ok(length) => each(buffer.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // EIO: no process has the other end open (`pty(7)`).
                Err(_) => return,
            }
        }
    }
}

/// Returns the path by which another process finds an open file of this one.
pub fn path_of(file: &impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_fd().as_raw_fd()))
}

/// Returns a sentence for people that a process has started, with its number if that is above 0.
pub fn started_with(pid: i32) -> String {
    if pid > 0 {
        format!("started with pid {pid}")
    } else {
        "started".into()
    }
}

/// Returns the words by which foreman reports the end of a process.
pub fn words_of(report: Option<&HelperReport>) -> String {
    match report {
        Some(HelperReport::Exited(code)) => format!("exited with code {code}"),
        Some(HelperReport::Signaled(signal)) => match nix::sys::signal::Signal::try_from(*signal) {
            Ok(signal) => format!("terminated by {}", signal.as_str()),
            Err(Errno::EINVAL | _) => format!("terminated by signal {signal}"),
        },
        Some(HelperReport::Failed(why)) => format!("could not be started: {why}"),
        _ => "terminated by SIGKILL".into(),
    }
}
