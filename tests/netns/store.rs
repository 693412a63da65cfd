//! The store where the disk is full or read-only, killed at each system call that writes, and after a power cut.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;
use tcpgw::store::{ChangeAuthor, Expect, HistoryFilter, Store, StoreChange, StoreEdit, StoreError};
use tcpgw_core::model;

#[path = "../store/child.rs"]
mod child;

use child::{Acknowledged, command};

/// Runs a test with mounts that no other process sees, and that end with it.
pub(crate) fn with_own_mounts(test: impl FnOnce() + Send + 'static) {
    let run = move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("a new mount namespace (it needs CAP_SYS_ADMIN)");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).expect("mounts become private");
        test();
    };
    if let Err(panic) = std::thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) fn tmpfs(at: &Path, size: &str) {
    let options = format!("size={size},mode=0700");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some(&*options)).expect("a tmpfs");
}

/// Unmounts a file system, lazily, because processes that other tests are starting may have its files open until they run.
pub(crate) fn unmount(at: &Path) {
    umount2(at, MntFlags::MNT_DETACH).expect("it is mounted");
}

fn put(name: &str, backends: u16) -> StoreChange {
    let backends: Vec<String> = (0..backends).map(|at| format!("10.2.0.{at}:80")).collect();
    let json = json!({"name": name, "port": 2000, "backends": backends});
    let service = Arc::new(model::parse_service(json.to_string().as_bytes()).expect("it is valid"));
    StoreChange {
        edits: vec![StoreEdit::Put(service, Expect::Anything)],
        ..StoreChange::default()
    }
}

fn commit(store: &mut Store, change: &StoreChange) -> Result<u64, StoreError> {
    let by = ChangeAuthor {
        uid: 0,
        pid: 1,
        what: "test".into(),
    };
    store
        .commit(change, &by, Duration::ZERO)
        .map(|committed| committed.revision)
}

fn history(store: &mut Store) -> u64 {
    let all = HistoryFilter {
        limit: 100_000,
        ..HistoryFilter::default()
    };
    store.history(&all).expect("it can be read").len() as u64
}

#[test]
fn a_full_disk_refuses_changes_and_goes_on_when_there_is_room() {
    with_own_mounts(|| {
        let directory = tempfile::tempdir().expect("a directory");
        tmpfs(directory.path(), "400k");
        let path = directory.path().join("store.db");
        let mut store = Store::open(&path).expect("there is room");
        let mut done = 0;
        let error = loop {
            // Two in turn, so that each is a change.
            let error = commit(&mut store, &put("a", 100 + u16::try_from(done % 2).expect("0 or 1"))).err();
            if let Some(error) = error {
                break error;
            }
            done += 1;
            assert!(done < 10_000);
        };
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        assert_eq!(store.trouble(), Some(&error));
        let loaded = store.load().expect("it can be read");
        assert_eq!((loaded.revision, history(&mut store)), (done, done));
        let again = commit(&mut store, &put("b", 200)).expect_err("there is no room");
        assert!(matches!(again, StoreError::Full(_)), "{again}");
        drop(store);

        // The remaining room is filled, too: nothing at all can be written.
        let filler = directory.path().join("filler");
        let _ = fs::write(&filler, vec![0; 400 << 10]);
        let mut store = Store::open(&path).expect("it can be read");
        assert!(
            matches!(store.trouble(), Some(StoreError::Full(_))),
            "{:?}",
            store.trouble()
        );
        assert_eq!(store.load(), Ok(loaded.clone()));
        let other = Store::open(&directory.path().join("other.db")).expect_err("there is no room");
        assert!(matches!(other, StoreError::Full(_)), "{other}");
        let left = fs::read_dir(directory.path()).expect("a directory").flatten();
        let left: Vec<_> = left
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().contains("new"))
            .collect();
        assert!(left.is_empty(), "{left:?}");

        fs::remove_file(&filler).expect("it was written");
        let none = None::<&str>;
        let options = Some("size=4m");
        mount(none, directory.path(), none, MsFlags::MS_REMOUNT, options).expect("more room");
        assert_eq!(commit(&mut store, &put("b", 200)), Ok(done + 1));
        assert!(store.is_writable());
        drop(store);
        let mut store = Store::open(&path).expect("it is whole");
        assert_eq!(store.load().expect("it is whole").revision, done + 1);
        drop(store);
        unmount(directory.path());
    });
}

/// Changes fill the store's file rather than its log: the log is written into the file while there is room for both.
#[test]
fn the_log_does_not_fill_a_small_disk() {
    with_own_mounts(|| {
        const SIZE: u64 = 1 << 20;
        let directory = tempfile::tempdir().expect("a directory");
        tmpfs(directory.path(), &SIZE.to_string());
        let path = directory.path().join("store.db");
        let mut store = Store::open(&path).expect("there is room");
        let mut done = 0;
        let error = loop {
            if let Err(error) = commit(&mut store, &put("a", 100 + u16::try_from(done % 2).expect("0 or 1"))) {
                break error;
            }
            done += 1;
            assert!(done < 50_000);
        };
        assert!(matches!(error, StoreError::Full(_)), "{error}");
        let length = |name| fs::metadata(directory.path().join(name)).map_or(0, |file| file.len());
        let (file, log) = (length("store.db"), length("store.db-wal"));
        assert!(
            file > SIZE / 2 && log < SIZE / 8,
            "{done} changes: {file} and {log} bytes"
        );
        drop(store);
        let mut store = Store::open(&path).expect("it is whole");
        assert_eq!(store.load().expect("it is whole").revision, done);
        drop(store);
        unmount(directory.path());
    });
}

#[test]
fn a_read_only_file_system_is_read_and_written_again_when_it_can_be() {
    with_own_mounts(|| {
        let directory = tempfile::tempdir().expect("a directory");
        tmpfs(directory.path(), "4m");
        let path = directory.path().join("store.db");
        let mut store = Store::open(&path).expect("it can be written");
        commit(&mut store, &put("a", 1)).expect("it can be written");
        let loaded = store.load();
        drop(store);
        let remount = |flags| {
            let none = None::<&str>;
            mount(none, directory.path(), none, MsFlags::MS_REMOUNT | flags, none).expect("it can be remounted");
        };
        remount(MsFlags::MS_RDONLY);
        let mut store = Store::open(&path).expect("it can be read");
        let text = store.trouble().expect("it cannot be written").to_string();
        assert!(
            text.contains("cannot be written: its file system is mounted read-only"),
            "{text}"
        );
        assert_eq!(store.load(), loaded);
        for _ in 0..2 {
            let error = commit(&mut store, &put("a", 2)).expect_err("it cannot be written");
            assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
            assert_eq!(store.load(), loaded);
        }
        let other = Store::open(&directory.path().join("other.db")).expect_err("it cannot be made");
        assert!(matches!(other, StoreError::ReadOnly { .. }), "{other}");
        remount(MsFlags::empty());
        assert_eq!(commit(&mut store, &put("a", 2)), Ok(2));
        assert_eq!(store.trouble(), None);
        drop(store);
        unmount(directory.path());
    });
}

/// The store is complete when its process is killed at any call that writes, from the creation of the file on.
#[test]
fn killed_at_each_call_that_writes_it_is_whole() {
    let mut killed = 0;
    for call in ["pwrite64", "fdatasync", "fsync", "ftruncate", "unlink", "link"] {
        let mut misses = 0;
        for nth in 1..=400 {
            let directory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
            let path = directory.path().join("store.db");
            let inject = format!("inject={call}:signal=KILL:when={nth}");
            let strace = ["strace", "-f", "-o", "/dev/null", "-e", &inject];
            let output = command(&strace, &path, 6).output().expect("strace runs");
            let is_killed = output.status.code() != Some(0);
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(!is_killed || stderr.is_empty(), "{call} {nth}: {stderr}");
            let mut acknowledged = Acknowledged::default();
            acknowledged.read(&String::from_utf8_lossy(&output.stdout));
            let revision = acknowledged.check(&path);
            assert!(is_killed || revision == 6, "{call} {nth}: {revision}");
            // The next one finishes the work.
            assert!(command(&[], &path, 9).output().expect("it runs").status.success());
            acknowledged.committed = 9;
            assert_eq!(acknowledged.check(&path), 9);
            let names = fs::read_dir(directory.path()).expect("a directory").flatten();
            let names: Vec<_> = names.map(|entry| entry.file_name()).collect();
            assert!(names.len() <= 2, "{call} {nth}: {names:?}");
            killed += usize::from(is_killed);
            misses += usize::from(!is_killed);
            if misses > 1 {
                break;
            }
        }
    }
    eprintln!("killed {killed} times");
    assert!(killed >= 100, "{killed}");
}

/// A file of a disk that loses in a power cut whatever was not flushed.
#[derive(Clone, Default)]
struct Flushed {
    /// Contents that are certainly on the disk.
    sure: Vec<u8>,
    /// Later writes, in order.
    unsure: Vec<Done>,
    /// True when its name is in the directory, and the directory was flushed.
    is_named: bool,
}

#[derive(Clone)]
enum Done {
    Wrote(usize, Vec<u8>),
    Truncated(usize),
}

impl Done {
    fn to(&self, content: &mut Vec<u8>) {
        match self {
            Self::Wrote(at, bytes) => {
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Self::Truncated(length) => content.resize(*length, 0),
        }
    }
}

impl Flushed {
    fn flush(&mut self) {
        for done in self.unsure.drain(..) {
            done.to(&mut self.sure);
        }
    }

    /// Returns the contents with those later writes that have reached the disk.
    fn content(&self, mut has_reached: impl FnMut() -> bool) -> Vec<u8> {
        let mut content = self.sure.clone();
        for done in self.unsure.iter().filter(|_| has_reached()) {
            done.to(&mut content);
        }
        content
    }
}

/// Decodes `\x2f` and so on, as strace writes bytes with `-xx`.
fn bytes(text: &str) -> Vec<u8> {
    let digits = text.split("\\x").skip(1);
    digits
        .map(|digits| u8::from_str_radix(&digits[..2], 16).expect("two digits"))
        .collect()
}

/// Applies a line of strace to the disk. Returns the text when the line wrote to the test.
fn replay(line: &str, disk: &mut BTreeMap<String, Flushed>) -> Option<String> {
    let (_, line) = line.split_once(' ').expect("a process");
    let (call, rest) = line.trim_start().split_once('(')?;
    let (arguments, result) = rest.rsplit_once(" = ")?;
    if result.starts_with('-') {
        return None;
    }
    let name = |text: &str| {
        let path = String::from_utf8(bytes(text)).expect("a path");
        path.rsplit('/').next().expect("a name").to_owned()
    };
    if call == "openat" {
        let path = arguments.split('"').nth(1).expect("a path");
        if arguments.contains("O_CREAT") {
            disk.entry(name(path)).or_default();
        }
        return None;
    }
    if call == "unlink" {
        // The removal was not flushed: the file may still exist.
        return None;
    }
    let (opened, rest) = arguments.split_once('>').expect("a file");
    let name = name(opened);
    let number = |text: &str| text.trim_matches([',', ' ', ')']).parse().expect("a number");
    match call {
        "write" => return Some(String::from_utf8(bytes(rest)).expect("text")),
        "pwrite64" => {
            let mut parts = rest.split('"').skip(1);
            let (text, place) = (parts.next().expect("what"), parts.next().expect("where"));
            let at = number(place.rsplit(',').next().expect("an offset"));
            let wrote = Done::Wrote(at, bytes(text));
            disk.entry(name).or_default().unsure.push(wrote);
        }
        "ftruncate" => disk.entry(name).or_default().unsure.push(Done::Truncated(number(rest))),
        "fdatasync" | "fsync" => match disk.get_mut(&name) {
            Some(file) => file.flush(),
            // The directory.
            None => disk.values_mut().for_each(|file| file.is_named = true),
        },
        other => panic!("{other}"),
    }
    None
}

/// Acknowledged changes were flushed before, and any part of the rest that has reached the disk does no harm. The disk may write
/// in any order.
#[test]
fn what_was_acknowledged_outlives_a_power_cut() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("store.db");
    assert!(command(&[], &path, 4).output().expect("it runs").status.success());
    let begin = Flushed {
        sure: fs::read(&path).expect("a store"),
        is_named: true,
        ..Flushed::default()
    };
    let mut disk = BTreeMap::from([("store.db".to_owned(), begin)]);
    let trace = directory.path().join("trace");
    let calls = "trace=openat,pwrite64,write,ftruncate,fdatasync,fsync,unlink";
    let trace_path = trace.to_str().expect("a path");
    let strace = [
        "strace", "-f", "-y", "-xx", "-s", "1000000", "-e", calls, "-o", trace_path,
    ];
    assert!(
        command(&strace, &path, 24)
            .output()
            .expect("strace runs")
            .status
            .success()
    );

    let lines = fs::read_to_string(&trace).expect("a trace");
    // Opening it flushes, which is not what is tested here.
    let memory = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let cut = memory.path().join("cut");
    let (mut acknowledged, mut cuts, mut seed) = (Acknowledged::default(), 0, 1_u64);
    acknowledged.read("\nc 4 .\nb 1 .\nd 1 .\n");
    for line in lines.lines() {
        if let Some(said) = replay(line, &mut disk) {
            acknowledged.read(&said);
        }
        let touches_store = ["pwrite64(", "ftruncate(", "fdatasync(", "fsync("]
            .iter()
            .any(|call| line.contains(call));
        if !touches_store {
            continue;
        }
        // Nothing of the rest, or some of it.
        for chance in [0, 50, 90] {
            fs::create_dir(&cut).expect("a directory");
            let mut random = || {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                (seed >> 33) % 100 < chance
            };
            for (name, file) in &disk {
                if file.is_named || random() {
                    fs::write(cut.join(name), file.content(&mut random)).expect("room");
                }
            }
            acknowledged.check(&cut.join("store.db"));
            fs::remove_dir_all(&cut).expect("it is there");
            cuts += 1;
        }
    }
    eprintln!("{cuts} power cuts");
    assert!(acknowledged.committed == 24 && cuts > 300, "{cuts}: {acknowledged:?}");
}
