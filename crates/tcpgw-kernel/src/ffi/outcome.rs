//! Outcome of a call of the C library.

use std::io;

/// Returns the error of a call that returned another value than 0.
pub(super) fn outcome<T: Copy + Default + PartialEq>(returned: T) -> io::Result<()> {
    if returned == T::default() {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
