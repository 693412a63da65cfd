//! Connections to the file of a store.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};

use super::error::{Fault, StoreError, read_only};
use super::file::{LOGS, tidy};
use super::{identity, schema};
use crate::run_file::with_suffix;

/// Time for which opening waits for another process to release the store.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);

/// Writes a value without meaning, and an identity if there is none, and moves the log into the file, with what a killed process has left in it.
pub(super) fn try_to_write(connection: &mut Connection) -> Result<(), Fault> {
    in_transaction(connection, |transaction| {
        identity::ensure(transaction)?;
        schema::touch(transaction)
    })?;
    schema::checkpoint(connection)
}

/// Opens a store for changes, and takes its lock, which stays taken.
pub(super) fn open_locked(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    if connection.is_readonly("main")? {
        return Err(read_only(path).into());
    }
    connection.busy_timeout(LOCK_TIMEOUT)?;
    // A file that is no store, or is damaged, is left as it is, and so is its log.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    // Before anything is read, which some settings do: it keeps the log's index in memory.
    connection.pragma_update_and_check(None, "locking_mode", "exclusive", |_| Ok(()))?;
    settle(&connection)?;
    in_transaction_of(&mut connection, TransactionBehavior::Exclusive, |transaction| {
        schema::identify(transaction)
    })?;
    tidy(path);
    // Each change is flushed before it is acknowledged; what SQLite does by default of a log flushes at checkpoints only.
    connection.pragma_update(None, "synchronous", "full")?;
    let mode: String = connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
    if mode != "wal" {
        return Err(Fault::Store(StoreError::Io {
            path: path.to_owned(),
            what: format!("its journal mode stays {mode}"),
        }));
    }
    Ok(connection)
}

/// Opens a store for reading that cannot be opened for changes because of `fault`. If its log has changes, which cannot
/// be read without writing, it is not opened.
pub(super) fn open_unwritable(path: &Path, fault: Fault) -> Result<(Connection, StoreError), Fault> {
    let error = fault.at(path);
    let may_be_read = matches!(
        error,
        StoreError::ReadOnly { .. } | StoreError::Full(_) | StoreError::Io { .. }
    );
    if !may_be_read {
        return Err(error.into());
    }
    let log = LOGS.iter().map(|end| with_suffix(path, end));
    let mut log = log.filter(|log| fs::metadata(log).is_ok_and(|log| log.len() > 0));
    match (log.next(), error) {
        (None, error) => {
            let connection = open_as_it_is(path)?;
            settle(&connection)?;
            schema::identify(&connection)?;
            Ok((connection, error))
        }
        (Some(log), StoreError::ReadOnly { path, why }) => Err(Fault::Store(StoreError::ReadOnly {
            path,
            why: format!(
                "{why}, and the last changes, in {}, cannot be read before it can be written",
                tcpgw_core::escape::path(&log)
            ),
        })),
        (Some(_), error) => Err(error.into()),
    }
}

/// Opens the file alone, whatever files are beside it, and takes no lock.
fn open_as_it_is(path: &Path) -> Result<Connection, Fault> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    Ok(Connection::open_with_flags(as_uri(path, "immutable=1"), flags)?)
}

/// Returns the path as a URI of SQLite, with these parameters.
fn as_uri(path: &Path, parameters: &str) -> String {
    use std::fmt::Write as _;

    let mut uri = String::from("file:");
    for byte in path.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => uri.push(char::from(*byte)),
            _ => drop(write!(uri, "%{byte:02X}")),
        }
    }
    uri.push('?');
    uri.push_str(parameters);
    uri
}

/// Size of the page cache in KiB, negative as SQLite has it (`cache_size`): a change touches some pages, and the system
/// caches the others.
const CACHE: i64 = -512;

fn settle(connection: &Connection) -> Result<(), Fault> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    connection.pragma_update(None, "temp_store", "memory")?;
    Ok(connection.pragma_update(None, "cache_size", CACHE)?)
}

pub(super) fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    in_transaction_of(connection, TransactionBehavior::Immediate, work)
}

fn in_transaction_of<T>(
    connection: &mut Connection,
    behaviour: TransactionBehavior,
    work: impl FnOnce(&Transaction<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let transaction = connection.transaction_with_behavior(behaviour)?;
    let done = work(&transaction)?;
    transaction.commit()?;
    Ok(done)
}

/// Runs `work` within a transaction, and reverts its changes if it fails.
pub(super) fn or_nothing<T>(
    transaction: &Transaction<'_>,
    work: impl FnOnce() -> Result<T, Fault>,
) -> Result<T, Fault> {
    transaction.execute_batch("SAVEPOINT part")?;
    let done = work();
    if done.is_err() && !transaction.is_autocommit() {
        transaction.execute_batch("ROLLBACK TO part")?;
    }
    if !transaction.is_autocommit() {
        transaction.execute_batch("RELEASE part")?;
    }
    done
}
