//! The same Procfile and `.env` print the same lines under foreman, in the same order for each process, to the end.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::PATIENCE;
use crate::harness::{Net, wait_until};

const PROCFILE: &str = "# a comment
web: printenv PS PLAIN SINGLE DOUBLE SPACED LATER NOT; printf 'one\\n\\ntwo\\n'; sleep 1000
worker-2: echo \"red \\033[31mcolour\\033[0m\"; echo $PS | tr a-z A-Z; trap 'echo bye; exit 3' TERM; sleep 1000 & echo ready; wait
killed: trap 'kill -KILL $$' TERM; echo waits; sleep 1000 & wait
 indented: echo never
not a line
";
const ENV: &str = "PLAIN=plain # and this
SINGLE='single $PLAIN \\n'
DOUBLE=\"double \\\"quoted\\\" \\\\ end\"
SPACED= spaced 
export NOT=there
LATER=first
LATER=second
";

/// Printed lines, without times and process numbers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Printed {
    /// Lines of each process and about it, in order.
    lines: BTreeMap<String, Vec<String>>,
    /// Start messages of each process. Their order relative to the process's first lines varies.
    starts: BTreeMap<String, Vec<String>>,
    /// The program's own lines from the signal on, with `END` for each end of a process. Earlier lines differ between the
    /// programs.
    shutdown: Vec<String>,
}

fn parse(printed: &str) -> Printed {
    let mut found = Printed::default();
    for line in printed.lines() {
        let Some((_, line)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, text)) = line.split_once('|') else {
            continue;
        };
        if name.trim() == "system" {
            if text.contains(" received, ") || !found.shutdown.is_empty() {
                found.shutdown.push(text.to_owned());
            }
            continue;
        }
        if let Some((before, _)) = text.split_once("started with pid ") {
            found.starts.entry(name.to_owned()).or_default().push(before.to_owned());
            continue;
        }
        if [" exited with ", " terminated by "]
            .iter()
            .any(|word| text.starts_with(word))
        {
            found.shutdown.push("END".into());
        }
        found.lines.entry(name.to_owned()).or_default().push(text.to_owned());
    }
    found
}

/// Waits until a child has ended, and leaves it unreaped, so that its process number cannot be reused.
fn has_ended(process: Pid) -> bool {
    let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    let is_over = || !matches!(waitid(Id::Pid(process), flags), Ok(WaitStatus::StillAlive));
    wait_until(PATIENCE, is_over)
}

#[test]
fn output_is_that_of_foreman() {
    let net = Net::new();
    let mut app = net.app("app", PROCFILE);
    app.write(".env", ENV);
    let formation = ["-m", "web=2,worker-2=1,killed=1"];
    let log = net.file("foreman.log");
    let file = std::fs::File::create(&log).expect("a file");
    let mut foreman = Command::new("foreman")
        .arg("start")
        .args(formation)
        .current_dir(app.directory())
        .stdin(Stdio::null())
        .stdout(file)
        .process_group(0)
        .spawn()
        .expect("foreman must be installed: vagrant/provision does that");
    app.launch(&formation);
    let theirs = || std::fs::read_to_string(&log).unwrap_or_default();
    let is_all = |printed: &str| {
        let has = |text: &str, times: usize| printed.matches(text).count() == times;
        has("| two\n", 2)
            && has("| WORKER-2.1\n", 1)
            && has("| ready\n", 1)
            && has("| waits\n", 1)
            && has("started with pid", 4)
    };
    let came = wait_until(PATIENCE, || is_all(&app.printed()) && is_all(&theirs()));
    let foremans = Pid::from_raw(i32::try_from(foreman.id()).expect("a number"));
    let _ = kill(foremans, Signal::SIGINT);
    let has_ended = has_ended(foremans);
    // Processes that it leaves are in its process group.
    let _ = killpg(foremans, Signal::SIGKILL);
    drop(foreman.wait());
    app.stop(Signal::SIGINT);
    let both = format!("{}\n{}", app.printed(), theirs());
    assert!(came && has_ended, "{both}");
    let (ours, theirs) = (parse(&app.printed()), parse(&theirs()));
    assert_eq!(ours, theirs, "{both}");
    let last = |name: &str| ours.lines[name].last().map(String::as_str);
    assert_eq!(last("web.1      "), Some(" terminated by SIGTERM"), "{both}");
    assert_eq!(last("worker-2.1 "), Some(" exited with code 3"), "{both}");
    assert_eq!(last("killed.1   "), Some(" terminated by SIGKILL"), "{both}");
    assert_eq!(ours.shutdown[2..], ["END", "END", "END", "END"], "{both}");
}
