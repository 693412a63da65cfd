use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::traffic::flow_record::FlowEnd;

fn record(n: u16) -> FlowRecord {
    FlowRecord {
        client: ([198, 51, 100, 1], n).into(),
        service: Some("web".into()),
        public: ([203, 0, 113, 1], 80).into(),
        backend: ([10, 2, 0, 1], 3000).into(),
        start: Some(1_700_000_000.25),
        seconds: Some(1.5),
        to_backend: None,
        from_backend: None,
        ended: FlowEnd::Closed,
    }
}

fn written(target: FlowLogTarget, records: impl FnOnce(&FlowLog)) -> (MissingLines, Option<String>) {
    let (log, thread) = FlowLog::start(target).unwrap();
    records(&log);
    let watched = log.clone();
    let shared = Arc::clone(&watched.shared);
    drop((log, watched));
    thread.join().unwrap();
    let trouble = shared.trouble.lock().unwrap().clone();
    (shared.missing().clone(), trouble)
}

#[test]
fn lines_are_json_in_a_file_that_others_cannot_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.log");
    let outcome = written(FlowLogTarget::File(path.clone()), |log| {
        (0..3000).for_each(|n| log.add(record(n)));
    });
    assert_eq!(outcome, (MissingLines::default(), None));
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(text.lines().count(), 3000);
    assert_eq!(
        text.lines().next().unwrap(),
        r#"{"client":"198.51.100.1:0","service":"web","public":"203.0.113.1:80","backend":"10.2.0.1:3000","start":1700000000.25,"seconds":1.5,"to_backend":null,"from_backend":null,"ended":"closed"}"#
    );
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777 & !0o640, 0, "{mode:o}");
}

#[test]
fn a_file_that_was_moved_away_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let (path, moved) = (directory.path().join("flows.log"), directory.path().join("flows.log.1"));
    let outcome = written(FlowLogTarget::File(path.clone()), |log| {
        log.add(record(1));
        let begin = Instant::now();
        while std::fs::metadata(&path).map_or(0, |of| of.len()) == 0 {
            assert!(
                begin.elapsed() < Duration::from_secs(30),
                "it is written within a second"
            );
            thread::sleep(Duration::from_millis(20));
        }
        std::fs::rename(&path, &moved).unwrap();
        log.reopen();
        log.add(record(2));
    });
    assert_eq!(outcome, (MissingLines::default(), None));
    for (path, client) in [(moved, "198.51.100.1:1"), (path, "198.51.100.1:2")] {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.lines().count() == 1 && text.contains(client), "{text}");
    }
}

#[test]
fn what_is_no_file_of_its_own_is_refused_and_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.log");
    let many = |log: &FlowLog| (0..1000).for_each(|n| log.add(record(n)));
    let other = directory.path().join("other");
    std::fs::write(&other, "kept").unwrap();
    let tried = |expected: &str| {
        let (missing, trouble) = written(FlowLogTarget::File(path.clone()), many);
        assert!(missing.unwritten > 0 && missing.late == 0, "{expected}: {missing}");
        assert!(missing.reason.contains(expected), "{missing}");
        assert!(
            trouble.as_ref().is_some_and(|why| why.contains(expected)),
            "{trouble:?}"
        );
    };
    std::os::unix::fs::symlink(&other, &path).unwrap();
    tried("symbolic link");
    std::fs::remove_file(&path).unwrap();
    std::fs::hard_link(&other, &path).unwrap();
    tried("several names");
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
    tried("no regular file");
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    tried("directory");
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "kept");
}

#[test]
fn records_that_nobody_can_take_are_counted() {
    let (records, _received) = sync_channel(1);
    let log = FlowLog {
        records,
        shared: Arc::default(),
    };
    (0..5).for_each(|n| log.add(record(n)));
    log.overrun(2);
    let missing = MissingLines {
        late: 4,
        unread: 2,
        ..MissingLines::default()
    };
    assert_eq!(log.state(), (missing, None));
}

/// A file on a disk with room for so many bytes.
struct FullDisk {
    text: Vec<u8>,
    room: usize,
    can_cut: bool,
}

impl io::Write for FullDisk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A short write comes first, and the error with the next one.
        let taken = bytes.len().min(self.room - self.text.len());
        if taken == 0 {
            return Err(nix::errno::Errno::ENOSPC.into());
        }
        self.text.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl output::LineFile for FullDisk {
    fn cut(&mut self, bytes: usize) -> io::Result<()> {
        if !self.can_cut {
            return Err(nix::errno::Errno::EIO.into());
        }
        self.text.truncate(self.text.len() - bytes);
        Ok(())
    }
}

#[test]
fn of_a_full_disk_whole_lines_are_left() {
    let lines = b"{1}\n{22}\n{333}\n";
    for room in 0..=lines.len() {
        let mut disk = FullDisk {
            text: Vec::new(),
            room,
            can_cut: true,
        };
        let (written, result) = append(&mut disk, lines);
        let expected = [0, 4, 9, 15].into_iter().rfind(|end| *end <= room).unwrap();
        assert_eq!((written, &*disk.text), (expected, &lines[..expected]), "{room}");
        match result {
            Ok(()) => assert_eq!(room, lines.len()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(nix::libc::ENOSPC), "{room}"),
        }
        // The rest follows when there is room again.
        disk.room = lines.len();
        assert!(append(&mut disk, &lines[written..]).1.is_ok());
        assert_eq!(disk.text, lines);
    }
    let mut disk = FullDisk {
        text: Vec::new(),
        room: 6,
        can_cut: false,
    };
    assert_eq!(append(&mut disk, lines).0, 4, "a part of a line is no line");
}

#[test]
fn a_line_that_was_torn_is_ended_before_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("flows.log");
    std::fs::write(&path, "{\"client\":\"1\"}\n{\"cli").unwrap();
    let outcome = written(FlowLogTarget::File(path.clone()), |log| log.add(record(1)));
    assert_eq!(outcome, (MissingLines::default(), None));
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[1]), (3, "{\"cli"));
    assert!(lines[2].starts_with("{\"client\":\"198.51.100.1:1\""), "{text}");
}
