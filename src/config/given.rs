//! Settings from the command line and the configuration together, read at a start and again at a reload.

use std::path::{Path, PathBuf};

use super::daemon::{DEFAULT_STATE, DaemonSection, DaemonSettings};
use super::{Config, ConfigError, DEFAULT_PATH, copy, files};

/// Sources of settings, from which they can be read again.
#[derive(Debug, Clone, Default)]
pub struct SettingsSources {
    /// The configuration that was named.
    pub config: Option<PathBuf>,
    /// Settings of the command line and the environment, which take precedence over the file.
    pub section: DaemonSection,
    /// The run directory, where the daemon keeps files of its own; `None` where that is not known.
    pub run_dir: Option<PathBuf>,
}

impl SettingsSources {
    /// Reads the configuration and completes the given settings by it.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or is not accepted, or when the daemon would write a file that is used
    /// otherwise; nothing of it is used then.
    pub fn load(&self) -> Result<(DaemonSettings, Config), ConfigError> {
        let (settings, config) = self.with(Config::load_beside(self.config.as_deref(), &self.copy())?);
        let Err(error) = self.check_files(&settings, &config) else {
            return Ok((settings, config));
        };
        if self.config.is_some() || config.gone.is_some() {
            return Err(error);
        }
        let copied = copy::instead_of(self.file(), &self.copy(), error)?;
        let (settings, config) = self.with(copied);
        self.check_files(&settings, &config)?;
        Ok((settings, config))
    }

    /// Reads the configuration for a check: one that is not accepted is an error, even if it has a copy.
    ///
    /// # Errors
    ///
    /// Fails like [`SettingsSources::load`].
    pub fn load_strictly(&self) -> Result<Config, ConfigError> {
        let (settings, config) = self.with(Config::load_strictly_beside(self.config.as_deref(), &self.copy())?);
        self.check_files(&settings, &config)?;
        Ok(config)
    }

    fn check_files(&self, settings: &DaemonSettings, config: &Config) -> Result<(), ConfigError> {
        let copy = self.copy();
        let places = files::Places {
            configuration: self.file(),
            copy: &copy,
            run_dir: self.run_dir.as_deref(),
        };
        files::check(places, settings, config).map_err(|source| ConfigError::Files {
            path: self.file().to_owned(),
            source,
        })
    }

    fn with(&self, config: Config) -> (DaemonSettings, Config) {
        let mut settings = self.merge(&config);
        settings.state = settings
            .state
            .map(|path| std::path::absolute(&path).unwrap_or(path))
            .or_else(|| default_state(Path::new(DEFAULT_STATE)));
        (settings, config)
    }

    /// Reads the configuration again, for a daemon that runs with these settings. A missing file changes nothing: a
    /// default state file that was followed is still followed, and a configuration that existed must still exist.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read or is not accepted, when the daemon would write a file that is used otherwise,
    /// and with [`ConfigError::Gone`] when it does not exist any more.
    pub fn reload(&self, settings: &DaemonSettings, config: &Config) -> Result<(DaemonSettings, Config), ConfigError> {
        let (mut new, read) = self.with(Config::load_strictly_beside(self.config.as_deref(), &self.copy())?);
        let is_gone = read.file.is_none() || read.gone.is_some();
        if let Some(path) = config.file.as_ref().filter(|_| is_gone) {
            return Err(ConfigError::Gone(path.clone()));
        }
        let default = settings.state.as_ref().filter(|path| **path == *DEFAULT_STATE);
        new.state = new.state.or_else(|| default.cloned());
        self.check_files(&new, &read)?;
        // Some paths stay in use until a restart.
        self.check_files(&settings.reloaded(new.clone()).0, &read)?;
        Ok((new, read))
    }

    /// Returns the given settings, completed by those of the file, then by the defaults.
    #[must_use]
    pub fn merge(&self, config: &Config) -> DaemonSettings {
        self.section.clone().or(config.daemon.clone()).into()
    }

    /// Returns the path of the copy of the configuration at its default path.
    #[must_use]
    pub fn copy(&self) -> PathBuf {
        copy::path(self.section.store.as_deref())
    }

    /// Returns whether the configuration has a copy, which a start uses if the file is not accepted then.
    #[must_use]
    pub fn has_copy(&self) -> bool {
        self.config.is_none() && self.copy().symlink_metadata().is_ok()
    }

    /// Returns the file that [`SettingsSources::load`] reads.
    #[must_use]
    pub fn file(&self) -> &Path {
        self.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
    }
}

/// Returns the default path of the state file if a file exists there, readable or not.
fn default_state(path: &Path) -> Option<PathBuf> {
    path.symlink_metadata().is_ok().then(|| path.to_owned())
}
