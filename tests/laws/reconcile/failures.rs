//! Runs that die, fail, or are disturbed by others: the next run finishes what they left.

use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::*;
use tcpgw::reconcile::{ReconcileError, ReconcileOptions};
use tcpgw_kernel::KernelError;
use tcpgw_kernel::fake::{Crash, Fail, KernelCall};

use super::{Gateway, flows, small};
use crate::state;

proptest! {
    // Each case is a run for every call.
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_run_that_dies_anywhere_is_finished_by_the_next(
        have in state(), want in state(), flows in flows(), drain: bool, done: bool,
    ) {
        let options = ReconcileOptions { drain: Duration::from_secs(u64::from(drain)) };
        for call in 0.. {
            let mut gateway = Gateway::with(&have, &flows);
            let before = gateway.fake.flows.clone();
            gateway.fake.crash_at(Crash { call, done });
            let died = gateway.apply_with(&want, &options).is_err();
            gateway.fake.restart();
            gateway.apply(&want).unwrap();
            gateway.check(&want, &before)?;
            prop_assert_eq!(gateway.fake_table(), gateway.table, "the table was made anew");
            if !died {
                break;
            }
        }
    }
}

#[test]
fn a_refusal_changes_nothing_and_names_the_service() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    let before = gateway.fake.ruleset();
    gateway.fake.fail_next(KernelCall::Commit, Fail::Refused(Errno::ENOSPC));
    let error = gateway.apply(&small("10.2.0.12:3000")).unwrap_err();
    let ReconcileError::Kernel {
        source: KernelError::Refused(_),
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert_eq!(gateway.fake.ruleset(), before);
}

#[test]
fn who_writes_all_the_time_is_given_up_on() {
    let mut gateway = Gateway::with(&small("10.2.0.11:3000"), &[]);
    for _ in 0..100 {
        gateway.fake.fail_next(KernelCall::Commit, Fail::Outdated);
    }
    let error = gateway.apply(&small("10.2.0.12:3000")).unwrap_err();
    assert!(matches!(error, ReconcileError::Busy), "{error}");
}
