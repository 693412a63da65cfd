//! Access to the store: owners, one process at a time, stores that can only be read, and files that are no store.

use super::*;

#[test]
fn it_is_private_and_waits_for_the_disk() {
    let place = place();
    let store = Store::open(&place.path).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    let directory = place.path.parent().unwrap();
    assert_eq!((mode(&place.path), mode(directory)), (0o600, 0o700));
    let connection = store.connection.as_ref().unwrap();
    let pragma = |name: &str| -> String {
        let value = connection.pragma_query_value(None, name, |row| row.get::<_, rusqlite::types::Value>(0));
        match value.unwrap() {
            rusqlite::types::Value::Text(text) => text,
            other => format!("{other:?}"),
        }
    };
    let settings = ["journal_mode", "synchronous", "locking_mode", "trusted_schema"].map(pragma);
    assert_eq!(settings, ["wal", "Integer(2)", "exclusive", "Integer(0)"]);
    let files = || {
        let files = fs::read_dir(directory).unwrap().flatten();
        let mut files: Vec<_> = files
            .map(|entry| (entry.file_name().into_string().unwrap(), mode(&entry.path())))
            .collect();
        files.sort();
        files
    };
    let file = |name: &str| (name.to_owned(), 0o600);
    assert_eq!(files(), [file("store.db"), file("store.db-wal")]);
    drop(store);
    assert_eq!(files(), [file("store.db")], "one at rest is one file");
    let store = Store::open(&place.path).unwrap();
    assert_eq!(files(), [file("store.db"), file("store.db-wal")], "a later one, too");
    drop(store);
    fs::set_permissions(&place.path, Permissions::from_mode(0o644)).unwrap();
    Store::open(&place.path).unwrap();
    assert_eq!(mode(&place.path), 0o600);
}

#[test]
fn one_process_at_a_time_has_it() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let Err(StoreError::Locked { holder, .. }) = Store::open(&place.path) else {
        panic!("two have it");
    };
    assert!(
        holder.starts_with(&format!("process {} (", std::process::id())),
        "{holder}"
    );
    set(&mut store, "a", 2001);
    drop(store);
    Store::open(&place.path).unwrap();
}

#[test]
fn what_may_not_be_written_is_read() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    drop(store);
    let directory = place.path.parent().unwrap();
    let chmod = |directory_mode, file_mode| {
        fs::set_permissions(&place.path, Permissions::from_mode(file_mode)).unwrap();
        fs::set_permissions(directory, Permissions::from_mode(directory_mode)).unwrap();
    };
    fs::set_permissions(
        place.path.parent().unwrap().parent().unwrap(),
        Permissions::from_mode(0o755),
    )
    .unwrap();
    chmod(0o555, 0o444);
    let path = place.path.clone();
    as_nobody(move || {
        let mut store = Store::open(&path).unwrap();
        assert!(!store.is_writable());
        let text = store.trouble().unwrap().to_string();
        assert!(
            text.contains("cannot be written: its file or its directory may not be written"),
            "{text}"
        );
        assert_eq!(names(&mut store), [("a".into(), 1)]);
        let error = store
            .commit(&put("a", 9, Expect::Anything), &by("x"), at(1))
            .unwrap_err();
        assert!(matches!(error, StoreError::ReadOnly { .. }), "{error}");
        assert_eq!(names(&mut store), [("a".into(), 1)]);
        let absent = Store::open(&path.with_file_name("other.db")).unwrap_err();
        assert!(matches!(absent, StoreError::ReadOnly { .. }), "{absent}");
    });
    chmod(0o700, 0o600);
    let mut store = Store::open(&place.path).unwrap();
    assert!(store.is_writable());
    assert_eq!(set(&mut store, "a", 2001), 2);
}

#[test]
fn one_that_becomes_writable_is_written_again() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    // As it is after a start on a read-only file system.
    store.connection = None;
    store.read_only = true;
    assert_eq!(set(&mut store, "a", 2001), 2);
    // Another process has changed it meanwhile.
    store.connection = None;
    let mut other = Store::open(&place.path).unwrap();
    other.load().unwrap();
    set(&mut other, "b", 2002);
    drop(other);
    for _ in 0..2 {
        let error = store
            .commit(&put("a", 9, Expect::Anything), &by("x"), at(1))
            .unwrap_err();
        assert!(matches!(error, StoreError::Moved { known: 2, found: 3, .. }), "{error}");
    }
    store.load().unwrap();
    assert_eq!(set(&mut store, "a", 2003), 4);
}

#[test]
fn what_is_no_store_says_what_to_do() {
    let place = place();
    fs::create_dir_all(place.path.parent().unwrap()).unwrap();
    let reported = |content: &[u8]| {
        fs::write(&place.path, content).unwrap();
        let error = Store::open(&place.path).unwrap_err();
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
        assert!(fs::read(&place.path).unwrap() == content, "it is left alone");
        error.to_string()
    };
    let lost = reported(b"");
    assert!(
        lost.contains(
            "store.db is damaged: it is not a store of tcpgw; write down what is served (`tcpgw export > FILE`), move "
        ),
        "{lost}"
    );
    assert!(lost.ends_with("bring the services back (`tcpgw apply FILE`)"), "{lost}");
    let text = reported(&b"no database at all\n".repeat(500));
    assert!(text.contains("file is not a database"), "{text}");
    fs::remove_file(&place.path).unwrap();
    let connection = Connection::open(&place.path).unwrap();
    connection.execute_batch("CREATE TABLE other (id INTEGER)").unwrap();
    drop(connection);
    let other = Store::open(&place.path).unwrap_err().to_string();
    assert!(other.contains("it is not a store of tcpgw"), "{other}");
    fs::remove_file(&place.path).unwrap();
    fs::create_dir(&place.path).unwrap();
    let error = Store::open(&place.path).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
}
