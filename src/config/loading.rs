//! Reading of the file, or of its copy.

use std::path::Path;

use super::{Config, ConfigError, DEFAULT_PATH, copy};
use crate::state_file::SourceError;

impl Config {
    /// Reads the file at `path`, which must exist and be accepted, or else the one at [`DEFAULT_PATH`]: if that is
    /// missing or not accepted, its copy is used, if there is one.
    ///
    /// # Errors
    ///
    /// Fails when a file at `path`, or one without a copy, cannot be read or is not accepted. The reason why a copy is
    /// used, and the problem with the copy, are in [`Config::gone`].
    pub fn load(path: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load_beside(path, &copy::path(None))
    }

    /// Loads the configuration as [`Config::load`] does, with this path of the copy.
    pub(super) fn load_beside(path: Option<&Path>, copy: &Path) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::read(path),
            None => Self::accepted_or_copy(Path::new(DEFAULT_PATH), copy),
        }
    }

    /// Reads the file at `path`, or at the default path, for a check: one that is not accepted is an error, even if it
    /// has a copy.
    pub(super) fn load_strictly_beside(path: Option<&Path>, copy: &Path) -> Result<Self, ConfigError> {
        match path {
            Some(path) => Self::read(path),
            None => Self::read_or_copy(Path::new(DEFAULT_PATH), copy),
        }
    }

    /// Reads the file as [`Config::read_or_copy`] does, but the copy also replaces a file that is refused.
    pub(super) fn accepted_or_copy(path: &Path, copy: &Path) -> Result<Self, ConfigError> {
        Self::read_or_copy(path, copy).or_else(|error| copy::instead_of(path, copy, error))
    }

    pub(super) fn read_or_copy(path: &Path, copy: &Path) -> Result<Self, ConfigError> {
        match Self::read(path) {
            Err(ConfigError::Source(SourceError::Missing(_))) => Ok(copy::in_place_of(path, copy)),
            outcome => outcome,
        }
    }
}
