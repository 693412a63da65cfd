//! The programs of `examples/mqtt`, in a host.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use super::shell::Running;
use super::{Net, wait_until};

/// Directory of the sample.
pub(crate) const SAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/mqtt");
/// Longest time to wait for any step of the sample; each takes much less.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Text that a client prints when its connection was reset.
pub(crate) const RESET: &str = "ECONNRESET";
/// Text that a client prints when it has received nothing for 1.5 times its keepalive.
pub(crate) const UNHEARD: &str = "Keepalive timeout";

/// Returns the directory of the sample's libraries, which `scripts/test-libraries` installs.
pub(crate) fn libraries() -> PathBuf {
    super::libraries::libraries("mqtt-sample/node_modules", "aedes", "mqtt")
}

/// A running program of the sample, with its output.
pub(crate) struct Program {
    pub(crate) running: Running,
    log: PathBuf,
}

impl Program {
    pub(crate) fn start(net: &Net, host: &str, name: &str, variables: &str, command: &str) -> Self {
        let log = net.file(&format!("{name}.log"));
        let line = format!(
            "cd {SAMPLE} && exec env NODE_PATH='{}' {variables} {command} >'{}' 2>&1",
            libraries().to_string_lossy(),
            log.to_string_lossy()
        );
        let running = net.spawn(host, &["sh", "-c", &line]);
        Self { running, log }
    }

    pub(crate) fn printed(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Returns how many complete lines begin with a word.
    pub(crate) fn count(&self, word: &str) -> usize {
        self.printed()
            .lines()
            .filter(|line| line.split(' ').next() == Some(word))
            .count()
    }

    #[track_caller]
    pub(crate) fn prints(&self, word: &str, times: usize) {
        let is_there = || self.count(word) >= times;
        assert!(
            wait_until(PATIENCE, is_there),
            "no {times} times {word:?}: {}",
            self.printed()
        );
    }

    /// Returns the publishers and numbers of the lines that begin with a word.
    pub(crate) fn readings(&self, word: &str) -> BTreeSet<String> {
        let printed = self.printed();
        let lines = printed.lines().filter_map(|line| line.strip_prefix(word));
        lines.map(str::to_owned).collect()
    }
}

/// Waits until the publisher has ended, and checks that all of its readings arrived, each that was acknowledged among them. Returns
/// those.
#[track_caller]
pub(crate) fn all_arrive(publisher: &mut Program, subscriber: &Program, readings: usize) -> BTreeSet<String> {
    assert!(
        wait_until(PATIENCE, || publisher.running.ended()),
        "{}",
        publisher.printed()
    );
    assert!(publisher.printed().contains("\ndone: "), "{}", publisher.printed());
    let [acknowledged, received] = [publisher.readings("acknowledged "), subscriber.readings("received ")];
    let lost: Vec<&String> = acknowledged.difference(&received).collect();
    assert_eq!(lost, Vec::<&String>::new(), "acknowledged, and lost");
    assert_eq!(received.len(), readings);
    acknowledged
}
