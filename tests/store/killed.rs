//! A store whose process is killed at any moment: acknowledged changes are there, and no change is there in part.

use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use proptest::prelude::any;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};

use crate::child::{Acknowledged, command};

const KILLS: usize = 100;

#[test]
fn a_store_whose_process_is_killed_has_all_that_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store.db");
    let mut runner = TestRunner::new(Config::default());
    let moments = (0..40_u32, 0..20_000_u64, any::<bool>());
    let (mut acknowledged, mut revisions) = (Acknowledged::default(), 0);
    for _ in 0..KILLS {
        let (lines, micros, early) = moments.new_tree(&mut runner).unwrap().current();
        let mut child = command(&[], &path, u64::MAX).spawn().expect("it starts");
        let mut output = BufReader::new(child.stdout.take().expect("it has a pipe"));
        let mut text = String::new();
        // From while it opens the store on, or in the middle of its work.
        for _ in 0..if early { 0 } else { lines } {
            output.read_line(&mut text).expect("it speaks");
        }
        std::thread::sleep(Duration::from_micros(micros));
        child.kill().expect("it runs");
        child.wait().expect("it ends");
        output.read_to_string(&mut text).expect("it has spoken");
        acknowledged.read(&text);
        let revision = if acknowledged.committed == 0 && !path.exists() {
            0
        } else {
            acknowledged.check(&path)
        };
        acknowledged.committed = revision;
        revisions = revision;
    }
    eprintln!("{KILLS} kills, {revisions} revisions");
    assert!(revisions >= 100, "{revisions}");
}
