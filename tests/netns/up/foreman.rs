//! The same Procfile and `.env` print the same lines under foreman.

use std::collections::BTreeMap;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::PATIENCE;
use crate::harness::{Net, wait_until};

const PROCFILE: &str = "# a comment
web: printenv PS PLAIN SINGLE DOUBLE SPACED LATER NOT; printf 'one\\n\\ntwo\\n'; sleep 1000
worker-2: echo \"red \\033[31mcolour\\033[0m\"; echo $PS | tr a-z A-Z; sleep 1000
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

/// Lines by process, without the time and without what tells numbers of processes; `system` is each program's own.
fn lines(printed: &str) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    for line in printed.lines() {
        let Some((_, line)) = line.split_once(' ') else {
            continue;
        };
        let Some((name, text)) = line.split_once('|') else {
            continue;
        };
        if name.trim() == "system" {
            continue;
        }
        let text = match text.split_once("started with pid ") {
            Some((before, _)) => format!("{before}started with pid N"),
            None => text.to_owned(),
        };
        found.entry(name.to_owned()).or_default().push(text);
    }
    // When a program notes the start is chance.
    for lines in found.values_mut() {
        lines.sort();
    }
    found
}

#[test]
fn output_is_that_of_foreman() {
    let net = Net::new();
    let mut app = net.app("app", PROCFILE);
    app.write(".env", ENV);
    let formation = ["-m", "web=2,worker-2=1"];
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
        has("| two\n", 2) && has("| WORKER-2.1\n", 1) && has("started with pid", 3)
    };
    let came = wait_until(PATIENCE, || is_all(&app.printed()) && is_all(&theirs()));
    // Its processes are of its group.
    let group = Pid::from_raw(i32::try_from(foreman.id()).expect("a number"));
    let _ = killpg(group, Signal::SIGKILL);
    drop(foreman.wait());
    assert!(came, "{}\n{}", app.printed(), theirs());
    assert_eq!(
        lines(&app.printed()),
        lines(&theirs()),
        "{}\n{}",
        app.printed(),
        theirs()
    );
    app.stop(Signal::SIGINT);
}
