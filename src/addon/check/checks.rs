//! The checks of each dialect.

use super::definition::Check;
use super::resources::rules;
use super::{osb, resources};
use crate::addon::Dialect;

/// Returns the checks of a dialect, in their order.
pub(super) fn checks(dialect: Dialect) -> Vec<Check> {
    match dialect {
        Dialect::Osb => osb::CHECKS.concat(),
        Dialect::Heroku => resources::checks(&rules::HEROKU),
        Dialect::CleverCloud => resources::checks(&rules::CLEVER_CLOUD),
        Dialect::Scalingo | Dialect::Local => resources::checks(&rules::SCALINGO),
    }
}
