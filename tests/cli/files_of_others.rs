//! Files that another user owns or may write, given to root.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};

use crate::{GOOD, command, command_with_config, err, write};

#[test]
fn root_takes_no_orders_from_files_of_others() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let state = write(dir.path(), "state.json", GOOD.as_bytes());
    let config = write(dir.path(), "config.toml", b"");
    let check = || {
        command_with_config(&config, &["check", &state])
            .output()
            .expect("the program runs")
    };
    assert_eq!(check().status.code(), Some(0), "{}", err(&check()));
    let refused = |words: &str| {
        let output = check();
        assert_eq!(output.status.code(), Some(2), "{}", err(&output));
        assert!(err(&output).contains(words), "{}", err(&output));
    };
    // Settings are root's.
    chown(&config, Some(59_123), None).expect("changed");
    refused(&format!(
        "{config}: the file belongs to uid 59123, and root does what the file says: chown root {config}"
    ));
    chown(&config, Some(0), Some(59_123)).expect("changed");
    fs::set_permissions(&config, fs::Permissions::from_mode(0o664)).expect("changed");
    refused(&format!(
        "may be written by its group (59123), and root does what the file says: chmod g-w {config}"
    ));
    fs::set_permissions(&config, fs::Permissions::from_mode(0o644)).expect("changed");
    // A state file may be given to another, whom the warning names.
    chown(&state, Some(59_123), Some(59_123)).expect("changed");
    assert_eq!(check().status.code(), Some(0), "{}", err(&check()));
    assert!(
        err(&check()).contains(&format!("{state}: the file belongs to uid 59123")),
        "{}",
        err(&check())
    );
    chown(&state, Some(0), None).expect("changed");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o664)).expect("changed");
    assert!(
        err(&check()).contains("may be written by its group (59123)"),
        "{}",
        err(&check())
    );
    fs::set_permissions(&state, fs::Permissions::from_mode(0o646)).expect("changed");
    refused(&format!(
        "{state}: the file may be written by everybody, and root does what the file says: chmod o-w {state}"
    ));
    fs::set_permissions(&state, fs::Permissions::from_mode(0o644)).expect("changed");
    // As in /tmp: one's own file is right, another's is not.
    let shared = dir.path().join("shared");
    fs::create_dir(&shared).expect("a directory");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o1777)).expect("changed");
    let own = write(dir.path(), "shared/own.json", GOOD.as_bytes());
    let check_own = || command(&["check", &own]).output().expect("the program runs");
    assert_eq!(
        (check_own().status.code(), err(&check_own()).contains("uid")),
        (Some(0), false),
        "{}",
        err(&check_own())
    );
    chown(&own, Some(59_123), None).expect("changed");
    assert_eq!(check_own().status.code(), Some(2), "{}", err(&check_own()));
    assert!(
        err(&check_own()).contains("in a directory that everybody may write"),
        "{}",
        err(&check_own())
    );
    fs::create_dir(dir.path().join("open")).expect("a directory");
    fs::set_permissions(dir.path().join("open"), fs::Permissions::from_mode(0o777)).expect("changed");
    let other = write(dir.path(), "open/other.json", GOOD.as_bytes());
    let link = dir.path().join("link.json");
    std::os::unix::fs::symlink(&other, &link).expect("a link");
    let through = command(&["check", link.to_str().expect("text")])
        .output()
        .expect("the program runs");
    assert_eq!(through.status.code(), Some(2));
    assert!(
        err(&through).contains("/open may be written by everybody"),
        "{}",
        err(&through)
    );
    // A file that the caller has opened is trusted.
    let piped = command(&["check", "/dev/stdin"])
        .stdin(fs::File::open(&other).expect("it is there"))
        .output()
        .expect("the program runs");
    assert_eq!(piped.status.code(), Some(0), "{}", err(&piped));
    // Under sudo the order is given by the calling user.
    let sudo = command(&["check", &own])
        .env("SUDO_UID", "59123")
        .output()
        .expect("the program runs");
    assert_eq!(sudo.status.code(), Some(0), "{}", err(&sudo));
}
