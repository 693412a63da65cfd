//! Signals that the daemon waits for.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::run_file;

pub(super) struct Signals {
    pub(super) end: Signal,
    pub(super) interrupt: Signal,
    pub(super) reload: Signal,
    pub(super) reopen: Signal,
}

impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        run_file::survive_size_limit()?;
        Ok(Self {
            end: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            reload: signal(SignalKind::hangup())?,
            reopen: signal(SignalKind::user_defined1())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Arc;
    use std::time::Duration;

    use nix::sys::resource::{Resource, setrlimit};
    use tcpgw_core::model::parse_service;

    use super::*;
    use crate::store::{ChangeAuthor, Expect, Store, StoreChange, StoreEdit, StoreError};

    const CHILD: &str = "TCPGW_TEST_WITH_SIZE_LIMIT";

    /// Limits hold for a whole process, so that the test runs in one of its own.
    #[test]
    fn a_limit_of_file_sizes_is_like_a_full_disk() {
        if std::env::var_os(CHILD).is_none() {
            let program = std::env::current_exe().unwrap();
            let name = std::thread::current().name().unwrap().to_owned();
            let child = Command::new(program).args(["--exact", &name]).env(CHILD, "1").output();
            let child = child.unwrap();
            let output = String::from_utf8_lossy(&child.stdout);
            assert!(child.status.success(), "{}: {output}", child.status);
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let signals = runtime.block_on(async { Signals::new().unwrap() });
        let directory = tempfile::tempdir().unwrap();
        let mut store = Store::open(&directory.path().join("store.db")).unwrap();
        setrlimit(Resource::RLIMIT_FSIZE, 128 << 10, 128 << 10).unwrap();
        let by = ChangeAuthor {
            uid: 0,
            pid: 1,
            what: "test".into(),
        };
        let refused = (1..1000).find_map(|number| {
            let service = format!(r#"{{"name": "s{number}", "port": {number}, "backends": []}}"#);
            let service = parse_service(service.as_bytes()).unwrap();
            let change = StoreChange {
                edits: vec![StoreEdit::Put(Arc::new(service), Expect::Absent)],
                ..StoreChange::default()
            };
            let refused = store.commit(&change, &by, Duration::ZERO).err()?;
            Some((number, refused))
        });
        let (number, refused) = refused.expect("the limit is met");
        assert!(matches!(refused, StoreError::Full(_)), "{refused:?}");
        assert_eq!(store.load().unwrap().services.len(), number - 1);
        let large = std::fs::write(directory.path().join("large"), vec![0; 200 << 10]);
        assert_eq!(large.unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        drop(signals);
    }
}
