//! The write-ahead log beside the store, and damage of both.

use super::*;

#[test]
fn a_log_that_was_left_behind_is_not_played_into_a_new_store() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "lost", 3000);
    let log = fs::read(with_suffix(&place.path, "-wal")).unwrap();
    drop(store);
    fs::remove_file(&place.path).unwrap();
    fs::write(with_suffix(&place.path, "-wal"), log).unwrap();
    fs::write(
        with_suffix(&place.path, "-journal"),
        [b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7".as_slice(), &[1; 9000]].concat(),
    )
    .unwrap();
    let left = with_suffix(&place.path, ".new-1");
    fs::write(&left, "of somebody who was killed").unwrap();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    assert_eq!(names(&mut store), [("a".into(), 1)]);
    assert!(!left.exists());
}

/// Creates a store in the form from before there was a log.
fn with_journal(path: &Path) {
    let connection = Connection::open(path).unwrap();
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "truncate", |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "truncate");
}

#[test]
fn one_of_a_version_that_had_no_log_is_taken_and_given_back() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    drop(store);
    with_journal(&place.path);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(set(&mut store, "b", 2001), 2);
    drop(store);
    with_journal(&place.path);
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1), ("b".into(), 2)]);
}

/// Returns the file and the log of a process that is killed now.
fn files(path: &Path) -> [Vec<u8>; 2] {
    ["", "-wal"].map(|end| fs::read(with_suffix(path, end)).unwrap_or_default())
}

fn put_back(path: &Path, [file, log]: &[Vec<u8>; 2]) {
    fs::write(path, file).unwrap();
    fs::write(with_suffix(path, "-wal"), log).unwrap();
}

#[test]
fn a_damaged_one_is_left_as_it_is_with_its_log() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let [file, log] = files(&place.path);
    drop(store);
    assert!(!log.is_empty());
    let foreign = vec![7; file.len()];
    let mut header = file.clone();
    header[..32].fill(b'x');
    let mut page = file.clone();
    let middle = page.len() / 2;
    page[middle..middle + 4096].fill(0x55);
    for damaged in [foreign, header, page] {
        let left = [damaged, log.clone()];
        put_back(&place.path, &left);
        let error = Store::open(&place.path);
        if error.is_ok() {
            // The log has the page that is damaged.
            continue;
        }
        assert!(matches!(error, Err(StoreError::Corrupt { .. })), "{error:?}");
        assert!(files(&place.path) == left, "it is changed");
    }
}

#[test]
fn what_a_killed_one_left_in_its_log_is_there_and_in_the_file_after_a_checkpoint() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let killed = files(&place.path);
    assert!(killed[1].len() > 4096, "{}", killed[1].len());
    store.checkpoint().unwrap();
    let [file, log] = files(&place.path);
    assert_eq!(log.len(), 0);
    drop(store);
    for (files, expected) in [
        (&killed, 1),
        (&[file, Vec::new()], 1),
        (&[killed[0].clone(), Vec::new()], 0),
    ] {
        put_back(&place.path, files);
        let mut store = Store::open(&place.path).unwrap();
        assert_eq!(store.load().unwrap().revision, expected);
        assert_eq!(
            fs::metadata(with_suffix(&place.path, "-wal")).unwrap().len(),
            0,
            "opening is a checkpoint"
        );
    }
}

/// Replaces an open store by another one with its log, while the daemon still runs.
#[test]
fn the_log_of_another_store_survives_the_end_of_the_one_before() {
    let (place, other) = (place(), place());
    let mut store = Store::open(&other.path).unwrap();
    set(&mut store, "other", 3000);
    let files_of_other = files(&other.path);
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let away = place.path.with_file_name("away.db");
    for end in ["", "-wal"] {
        fs::rename(with_suffix(&place.path, end), with_suffix(&away, end)).unwrap();
    }
    put_back(&place.path, &files_of_other);
    set(&mut store, "b", 2001);
    drop(store);
    assert_eq!(files(&place.path), files_of_other, "they are left alone");
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("other".into(), 1)]);
    let mut store = Store::open(&away).unwrap();
    assert_eq!(
        names(&mut store),
        [("a".into(), 1), ("b".into(), 2)],
        "nor has the other lost anything"
    );
}

#[test]
fn a_log_with_changes_is_not_left_out_where_nothing_can_be_written() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let killed = files(&place.path);
    drop(store);
    put_back(&place.path, &killed);
    let directory = place.path.parent().unwrap();
    let parent = directory.parent().unwrap();
    fs::set_permissions(parent, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o555)).unwrap();
    let path = place.path.clone();
    fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
    as_nobody(move || {
        let error = Store::open(&path).unwrap_err();
        assert!(
            matches!(error, StoreError::ReadOnly { .. }) && error.may_pass(),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains("the last changes, in ")
                && text.contains("store.db-wal, cannot be read before it can be written"),
            "{text}"
        );
    });
    fs::set_permissions(directory, Permissions::from_mode(0o700)).unwrap();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1)]);
}

#[test]
fn what_was_changed_by_hand_is_found() {
    for (sql, told) in [
        (
            "UPDATE services SET body = replace(body, '2000', '2001')",
            "the checksum of service \"a\" is wrong",
        ),
        (
            "UPDATE services SET name = 'z' WHERE name = 'a'",
            "the checksum of service \"z\" is wrong",
        ),
        (
            "DELETE FROM services WHERE name = 'a'",
            "it has 1 services, of those that were written it should have 2",
        ),
        ("UPDATE head SET revision = 1", "the head's checksum is wrong"),
        ("DELETE FROM head", "Query returned no rows"),
        ("DROP TABLE services", "no such table: services"),
    ] {
        let place = place();
        let mut store = Store::open(&place.path).unwrap();
        set(&mut store, "a", 2000);
        set(&mut store, "b", 3000);
        drop(store);
        Connection::open(&place.path).unwrap().execute_batch(sql).unwrap();
        let error = Store::open(&place.path).unwrap_err().to_string();
        assert!(error.contains(told), "{sql}: {error}");
    }
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    store.deploy_begin(&new_deploy("a"), &by("deploy"), at(1)).unwrap();
    drop(store);
    let past = "UPDATE history SET uid = 0; UPDATE deploys SET phase = 'failed'";
    Connection::open(&place.path).unwrap().execute_batch(past).unwrap();
    let mut store = Store::open(&place.path).unwrap();
    assert_eq!(names(&mut store), [("a".into(), 1)]);
    let all = HistoryFilter {
        limit: 9,
        ..HistoryFilter::default()
    };
    let error = store.history(&all).unwrap_err().to_string();
    assert!(error.contains("the checksum of history entry 1 is wrong"), "{error}");
    assert!(
        store
            .deploy(1)
            .unwrap_err()
            .to_string()
            .contains("deploy 1 is not what was written")
    );
}

/// Restores a backup beside the log of the later store, whose pages belong to another file.
#[test]
fn the_log_of_a_later_store_beside_a_backup_is_damage() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    set(&mut store, "b", 2001);
    drop(store);
    let [backup, _] = files(&place.path);
    for added in 1_u16..8 {
        put_back(&place.path, &[backup.clone(), Vec::new()]);
        let mut store = Store::open(&place.path).unwrap();
        for n in 0..added {
            set(&mut store, &format!("later-{n}"), 3000 + n);
        }
        drop(store);
        let mut store = Store::open(&place.path).unwrap();
        set(&mut store, "b", 2002);
        let [_, log] = files(&place.path);
        drop(store);
        put_back(&place.path, &[backup.clone(), log]);
        fs::remove_file(with_suffix(&place.path, ".written")).unwrap();
        let error = Store::open(&place.path).err();
        assert!(matches!(error, Some(StoreError::Corrupt { .. })), "{added}: {error:?}");
    }
}

/// A row with contents of another store agrees with its checksum.
#[test]
fn a_row_with_a_right_checksum_that_was_not_written_is_found() {
    let (place, other) = (place(), place());
    for (path, port) in [(&place.path, 2000), (&other.path, 2001)] {
        let mut store = Store::open(path).unwrap();
        set(&mut store, "a", port);
        set(&mut store, "b", 3000);
    }
    let sql = format!(
        "ATTACH '{}' AS other; UPDATE services SET (revision, body, crc) = \
         (SELECT revision, body, crc FROM other.services WHERE name = 'a') WHERE name = 'a'",
        tcpgw_core::escape::path(&other.path)
    );
    Connection::open(&place.path).unwrap().execute_batch(&sql).unwrap();
    let error = Store::open(&place.path).unwrap_err().to_string();
    assert!(
        error.contains("services in it were changed by another program"),
        "{error}"
    );
}
