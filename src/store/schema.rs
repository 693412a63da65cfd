//! Tables of the store and their versions, and the check that their contents are as they were written.

use rusqlite::{Connection, Transaction, TransactionBehavior};

use super::error::{Fault, StoreError};
use super::head::StoreHead;
use super::integer::counter;
use super::seal::compare;
use super::{identity, resources, services};

/// "tgw1" in ASCII: what `file` and SQLite's shell show as the application's id.
const APPLICATION: i64 = 0x7467_7731;

/// Statements of each version of the schema; a store is migrated from one to the next. Never changed once released.
const MIGRATIONS: [&str; 2] = [
    "
CREATE TABLE head (
    id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, services INTEGER NOT NULL,
    sum INTEGER NOT NULL, history_bytes INTEGER NOT NULL, crc INTEGER NOT NULL, opened INTEGER NOT NULL
) STRICT;
CREATE TABLE services (
    name TEXT PRIMARY KEY, revision INTEGER NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE history (
    id INTEGER PRIMARY KEY AUTOINCREMENT, revision INTEGER NOT NULL, at INTEGER NOT NULL, uid INTEGER NOT NULL,
    pid INTEGER NOT NULL, what TEXT NOT NULL, deploy INTEGER, service TEXT NOT NULL, old TEXT, new TEXT,
    bytes INTEGER NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE INDEX history_service ON history (service);
CREATE TABLE deploys (
    id INTEGER PRIMARY KEY AUTOINCREMENT, service TEXT NOT NULL, targets TEXT NOT NULL, details TEXT NOT NULL,
    uid INTEGER NOT NULL, pid INTEGER NOT NULL, what TEXT NOT NULL, phase TEXT NOT NULL, reason TEXT,
    began INTEGER NOT NULL, updated INTEGER NOT NULL, revision INTEGER, crc INTEGER NOT NULL
) STRICT;
CREATE INDEX deploys_service ON deploys (service);
",
    "
CREATE TABLE resources (id TEXT PRIMARY KEY, body TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE removed_resources (
    at INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL
) STRICT;
CREATE TABLE resource_head (
    id INTEGER PRIMARY KEY CHECK (id = 1), resources INTEGER NOT NULL, sum INTEGER NOT NULL, crc INTEGER NOT NULL
) STRICT;
",
];

/// Creates the tables of an empty file.
pub(super) fn create(connection: &mut Connection) -> Result<(), Fault> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
    transaction.pragma_update(None, "application_id", APPLICATION)?;
    upgrade(&transaction, 0, &MIGRATIONS)?;
    transaction.execute("INSERT INTO head VALUES (1, 0, 0, 0, 0, 0, 0)", ())?;
    StoreHead::default().write(&transaction)?;
    identity::ensure(&transaction)?;
    Ok(transaction.commit()?)
}

/// Checks whether the file is a store.
pub(super) fn identify(connection: &Connection) -> Result<(), Fault> {
    if connection.pragma_query_value(None, "application_id", |row| row.get::<_, i64>(0))? == APPLICATION {
        return Ok(());
    }
    Err(Fault::damage("it is not a store of tcpgw"))
}

/// Checks whether the store is whole. Returns its version.
pub(super) fn check(connection: &Connection) -> Result<i64, Fault> {
    let mut problems = connection.prepare("PRAGMA integrity_check(1)")?;
    let problem: String = problems.query_row((), |row| row.get(0))?;
    if problem != "ok" {
        return Err(Fault::damage(problem));
    }
    Ok(connection.pragma_query_value(None, "user_version", |row| row.get(0))?)
}

/// Brings a store to the newest version, all of it or nothing.
pub(super) fn migrate(connection: &mut Connection, version: i64, path: &std::path::Path) -> Result<(), Fault> {
    match usize::try_from(version) {
        Ok(known) if known == MIGRATIONS.len() => Ok(()),
        Ok(older) if (1..MIGRATIONS.len()).contains(&older) => {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
            upgrade(&transaction, older, &MIGRATIONS)?;
            Ok(transaction.commit()?)
        }
        Ok(1..) => Err(Fault::Store(StoreError::Newer {
            path: path.to_owned(),
            version,
            known: i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX),
        })),
        _ => Err(Fault::damage(format!("it has schema {version}"))),
    }
}

fn upgrade(transaction: &Transaction<'_>, from: usize, migrations: &[&str]) -> Result<(), Fault> {
    for migration in migrations.iter().skip(from) {
        transaction.execute_batch(migration)?;
    }
    Ok(transaction.pragma_update(
        None,
        "user_version",
        i64::try_from(migrations.len()).unwrap_or(i64::MAX),
    )?)
}

/// Compares all rows about the desired services with their checksums. The history is compared when it is read.
pub(super) fn verify(connection: &Connection) -> Result<StoreHead, Fault> {
    let head = StoreHead::read(connection)?;
    let (mut count, mut sum) = (0_i64, 0_i64);
    let mut statement = connection.prepare("SELECT name, revision, body, crc FROM services")?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let row = services::ServiceRow::read(row)?;
        if row.revision > head.revision {
            return Err(Fault::damage(format!(
                "service {:?} is of a revision that was never made",
                row.name
            )));
        }
        (count, sum) = (count + 1, sum.wrapping_add(row.crc()));
    }
    compare("services", (count, sum), (head.services, head.sum))?;
    resources::verify(connection)?;
    Ok(head)
}

/// Raises the revision to this one, unless it is higher already. Returns the resulting revision.
pub(super) fn raise_revision(transaction: &Transaction<'_>, revision: i64) -> Result<i64, Fault> {
    let mut head = StoreHead::read(transaction)?;
    if head.revision < revision {
        head.revision = revision;
        head.write(transaction)?;
    }
    Ok(head.revision)
}

/// Moves the log into the file, flushes that, and empties the log.
pub(super) fn checkpoint(connection: &Connection) -> Result<(), Fault> {
    Ok(connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |_| Ok(()))?)
}

/// Writes a value without meaning to the head: the column has the number of writes in its other bits.
pub(super) fn touch(transaction: &Transaction<'_>) -> Result<(), Fault> {
    transaction.execute("UPDATE head SET opened = opened + 1 - 2 * (opened & 1)", ())?;
    Ok(())
}

/// Counts a write, and returns its number.
pub(super) fn count_write(transaction: &Transaction<'_>) -> Result<u64, Fault> {
    transaction.execute("UPDATE head SET opened = opened + 2", ())?;
    written(transaction)
}

/// Returns the number of the last write.
pub(super) fn written(connection: &Connection) -> Result<u64, Fault> {
    let opened: i64 = connection.query_row("SELECT opened FROM head", (), |row| row.get(0))?;
    Ok(counter(opened) / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(connection: &Connection) -> i64 {
        let value = connection.pragma_query_value(None, "user_version", |row| row.get(0));
        value.unwrap()
    }

    #[test]
    fn versions_follow_each_other_and_keep_what_is_there() {
        let mut connection = Connection::open_in_memory().unwrap();
        create(&mut connection).unwrap();
        assert_eq!(check(&connection).unwrap(), 2);
        let mut migrations = MIGRATIONS.to_vec();
        migrations.push("ALTER TABLE services ADD COLUMN note TEXT;");
        migrations.push("UPDATE services SET note = name; CREATE TABLE more (id INTEGER) STRICT;");
        connection
            .execute("INSERT INTO services VALUES ('a', 1, '{}', 0)", ())
            .unwrap();
        let transaction = connection.transaction().unwrap();
        upgrade(&transaction, 2, &migrations).unwrap();
        transaction.commit().unwrap();
        assert_eq!(version(&connection), 4);
        let note: String = connection
            .query_row("SELECT note FROM services", (), |row| row.get(0))
            .unwrap();
        assert_eq!(note, "a");
    }

    #[test]
    fn a_store_of_the_first_version_becomes_one_of_the_newest() {
        let mut connection = Connection::open_in_memory().unwrap();
        let transaction = connection.transaction().unwrap();
        upgrade(&transaction, 0, &MIGRATIONS[..1]).unwrap();
        transaction
            .execute("INSERT INTO head VALUES (1, 0, 0, 0, 0, 0, 0)", ())
            .unwrap();
        StoreHead::default().write(&transaction).unwrap();
        transaction.commit().unwrap();
        migrate(&mut connection, 1, std::path::Path::new("store.db")).unwrap();
        assert_eq!(version(&connection), 2);
        verify(&connection).unwrap();
    }

    #[test]
    fn a_migration_that_fails_leaves_the_version_before() {
        let mut connection = Connection::open_in_memory().unwrap();
        create(&mut connection).unwrap();
        let mut migrations = MIGRATIONS.to_vec();
        migrations.extend(["CREATE TABLE more (id INTEGER) STRICT;", "no SQL"]);
        let transaction = connection.transaction().unwrap();
        assert!(upgrade(&transaction, 2, &migrations).is_err());
        drop(transaction);
        assert_eq!(version(&connection), 2);
        assert!(connection.prepare("SELECT * FROM more").is_err());
        verify(&connection).unwrap();
    }

    #[test]
    fn other_versions_are_named() {
        let mut connection = Connection::open_in_memory().unwrap();
        let path = std::path::Path::new("store.db");
        let mut reported = |version| {
            migrate(&mut connection, version, path)
                .unwrap_err()
                .at(path)
                .to_string()
        };
        assert!(reported(3).starts_with("store.db is of a newer tcpgw (schema 3; known is 2)"));
        assert!(reported(0).starts_with("store.db is damaged: it has schema 0;"));
        assert!(reported(-1).starts_with("store.db is damaged: it has schema -1;"));
    }
}
