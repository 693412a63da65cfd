//! Provider APIs, as options name them.

use clap::ValueEnum;

use crate::addon::Dialect;
use tcpgw_core::model::Word as _;

/// The dialects of platforms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Platform {
    /// Open Service Broker, whose manifest is the catalog
    Osb,
    /// Scalingo
    Scalingo,
    /// Heroku, version 3
    Heroku,
    /// Clever Cloud
    CleverCloud,
}

impl Platform {
    pub(super) fn dialect(self) -> Dialect {
        match self {
            Self::Osb => Dialect::Osb,
            Self::Scalingo => Dialect::Scalingo,
            Self::Heroku => Dialect::Heroku,
            Self::CleverCloud => Dialect::CleverCloud,
        }
    }

    pub(super) fn word(self) -> &'static str {
        self.dialect().word()
    }
}
