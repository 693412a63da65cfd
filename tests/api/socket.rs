//! Properties of the socket file.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use tcpgw::api::{Socket, SocketError, SocketSettings};

use crate::harness::serves;

fn settings(path: &Path) -> SocketSettings {
    SocketSettings {
        path: path.to_owned(),
        mode: 0o660,
        group: Some(nix::unistd::getgid().as_raw()),
    }
}

#[test]
fn mode_and_group_are_as_asked_and_nothing_is_left() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("a/b/tcpgw.sock");
    let socket = Socket::bind(&settings(&path)).expect("a socket");
    let there = fs::symlink_metadata(&path).expect("it is there");
    assert!(there.file_type().is_socket());
    assert_eq!(
        (there.mode() & 0o7777, there.gid()),
        (0o660, nix::unistd::getgid().as_raw())
    );
    let parent = fs::metadata(directory.path().join("a/b"))
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(parent & 0o022, 0, "nobody else may put another socket there");
    UnixStream::connect(&path).expect("it is listened on");
    drop(socket);
    let left: Vec<_> = fs::read_dir(path.parent().expect("a parent"))
        .expect("it is there")
        .collect();
    assert_eq!(left.len(), 1, "only the lock: {left:?}");
}

#[test]
fn whoever_serves_there_is_left_alone() {
    let server = serves();
    let error = Socket::bind(&settings(&server.path)).expect_err("a second daemon");
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    assert_eq!(server.get("/v1/healthz").status, 200);
    // One that knows nothing of the lock.
    let foreign = server.directory.path().join("foreign.sock");
    let listener = UnixListener::bind(&foreign).expect("a socket");
    let error = Socket::bind(&settings(&foreign)).expect_err("somebody is there");
    assert!(matches!(error, SocketError::InUse(_)), "{error}");
    drop(listener);
    Socket::bind(&settings(&foreign)).expect("what a dead one left is replaced");
}

#[test]
fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    fs::write(&file, "precious").expect("written");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&file, &link).expect("linked");
    for path in [&file, &link, &directory.path().to_owned()] {
        let error = Socket::bind(&settings(path)).expect_err("no socket");
        assert!(matches!(error, SocketError::NotASocket(_)), "{error}");
    }
    assert_eq!(fs::read_to_string(&file).expect("it is there"), "precious");
    let long = directory.path().join("x".repeat(120));
    let error = Socket::bind(&settings(&long)).expect_err("too long");
    assert!(matches!(error, SocketError::TooLong(_)), "{error}");
    let below = file.join("tcpgw.sock");
    assert!(matches!(Socket::bind(&settings(&below)), Err(SocketError::File { .. })));
}

#[test]
fn a_daemon_that_ends_takes_only_its_own_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tcpgw.sock");
    let socket = Socket::bind(&settings(&path)).expect("a socket");
    fs::remove_file(&path).expect("somebody cleaned up");
    let other = UnixListener::bind(&path).expect("somebody else serves there");
    drop(socket);
    UnixStream::connect(&path).expect("still");
    drop(other);
}

#[test]
fn two_daemons_at_the_same_moment_are_one() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("tcpgw.sock");
    for _ in 0..20 {
        let bound = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| Socket::bind(&settings(&path)))).collect();
            let ended = threads.into_iter().map(|thread| thread.join().expect("it ends"));
            ended.filter_map(Result::ok).collect::<Vec<_>>()
        });
        assert!(!bound.is_empty());
        // Those that came one after the other had it one after the other; here all that got it still have it.
        assert_eq!(bound.len(), 1);
    }
}
