//! The one folder with `unsafe` in it: system calls and handles of C libraries for which no safe wrapper exists.
#![expect(
    unsafe_code,
    reason = "system calls and C libraries without a safe wrapper; nowhere else in the crate"
)]

pub mod expression;
pub mod inotify;
pub mod memory;
mod monitor;
mod outcome;
pub mod socket;
pub mod system;
