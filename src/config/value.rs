//! The values of the configuration file that are more than a number.

use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error};

use tcpgw_core::model::{IDLE_TIMEOUTS, duration};

/// Reads a duration that an `idle_timeout` may be.
pub(super) fn deserialize_idle_timeout<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let timeout = duration::parse(&text).map_err(|error| D::Error::custom(format!("{error}, not {text:?}")))?;
    if !IDLE_TIMEOUTS.contains(&timeout) || timeout.subsec_nanos() != 0 {
        let (least, most) = (
            duration::show(*IDLE_TIMEOUTS.start()),
            duration::show(*IDLE_TIMEOUTS.end()),
        );
        return Err(D::Error::custom(format!(
            "must be a duration of whole seconds from {least} to {most}, not {text:?}"
        )));
    }
    Ok(Some(timeout))
}
