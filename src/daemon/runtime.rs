//! Runtimes of the daemon, whose tasks go on where the system gives no more threads.
//!
//! tokio panics when blocking work is given to a pool without any thread and none can be started, as when what hooks have left
//! running uses up the unit's `TasksMax`. In a pool that has a thread, the work waits for it instead.

use std::io;
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

/// Time for which an idle thread is kept: as long as any daemon runs.
const KEPT: Duration = Duration::from_secs(1 << 32);
/// Maximum number of threads for blocking work, which leaves the programs of hooks some of the unit's `TasksMax`. More work waits:
/// most of it reads the kernel, of which 7 readings are made at once, or writes a page.
const MOST_THREADS: usize = 24;

/// Returns a runtime of one thread, and starts a thread for its blocking work, which stays.
///
/// # Errors
/// Fails when the system gives no thread, or no descriptors for the runtime.
pub(super) fn runtime() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .thread_keep_alive(KEPT)
        .max_blocking_threads(MOST_THREADS)
        .build()?;
    // tokio panics where this fails.
    let first = thread::Builder::new().spawn(|| ())?;
    let _ = first.join();
    drop(runtime.spawn_blocking(|| ()));
    Ok(runtime)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::sys::resource::{Resource, setrlimit};
    use nix::unistd::{Uid, geteuid, setuid};

    use super::*;

    const CHILD: &str = "TCPGW_TEST_WITHOUT_THREADS";

    /// Limits hold for a whole process, so that the test runs in one of its own.
    #[test]
    fn work_waits_for_a_thread_where_none_can_be_started() {
        if std::env::var_os(CHILD).is_none() {
            let program = std::env::current_exe().unwrap();
            let name = thread::current().name().unwrap().to_owned();
            let child = Command::new(program)
                .args(["--exact", &name, "--test-threads=2"])
                .env(CHILD, "1")
                .output()
                .unwrap();
            assert!(
                child.status.success(),
                "{}{}",
                String::from_utf8_lossy(&child.stdout),
                String::from_utf8_lossy(&child.stderr)
            );
            return;
        }
        let runtime = runtime().unwrap();
        // The limit does not hold for root.
        if geteuid().is_root() {
            setuid(Uid::from_raw(65_534)).unwrap();
        }
        setrlimit(Resource::RLIMIT_NPROC, 0, 0).unwrap();
        thread::Builder::new().spawn(|| ()).unwrap_err();
        let sum = runtime.block_on(async {
            let work = (0..10_u32).map(|number| {
                tokio::task::spawn_blocking(move || {
                    thread::sleep(Duration::from_millis(5));
                    number
                })
            });
            let work: Vec<_> = work.collect();
            let mut sum = 0;
            for work in work {
                sum += work.await.unwrap();
            }
            sum
        });
        assert_eq!(sum, 45);
    }
}
