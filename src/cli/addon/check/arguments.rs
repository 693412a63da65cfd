//! Arguments of `tcpgw addon check`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use crate::cli::addon::platform::Platform;
use crate::cli::arguments::parse_duration;

/// Check a provider of add-ons against the rules of its dialect; exit with 1 if a rule is broken
///
/// The command works with any provider and needs no daemon. It creates real resources there (one, with Open Service Broker also a
/// binding), changes their plan and removes them again, also when a check fails or the command is interrupted (Ctrl-C; a second
/// Ctrl-C ends it at once). It names the resources that it could not remove. Each check is reported with a verdict: PASS, WARN (the
/// document only recommends the rule, or does not mention it), FAIL, or SKIP with the reason.
#[derive(Debug, Args)]
pub(in crate::cli::addon) struct Arguments {
    /// The URL of the provider API: with osb the part before /v2/catalog, otherwise the `base_url` of the manifest
    #[arg(value_name = "URL")]
    pub(super) url: String,
    /// The dialect of the provider API
    #[arg(long, value_enum)]
    pub(super) dialect: Platform,
    /// A TOML file, mode 0600, with `username`, `password`, and `sso_salt` for single sign-on
    #[arg(long, value_name = "FILE")]
    pub(super) credentials: PathBuf,
    /// The plan to provision, by name (with osb by name or id) [default: the first of the catalog or manifest]
    #[arg(long, value_name = "PLAN", value_parser = not_empty)]
    pub(super) plan: Option<String>,
    /// The plan to change to [default: another one of the catalog or manifest]
    #[arg(long, value_name = "PLAN", value_parser = not_empty)]
    pub(super) other_plan: Option<String>,
    /// A JSON file with the manifest that the provider gives its platform; it is checked, and answers are compared with it
    #[arg(long, value_name = "FILE")]
    pub(super) manifest: Option<PathBuf>,
    /// The URL of single sign-on [default: the `sso_url` of the manifest]; without both, single sign-on is not checked
    #[arg(long, value_name = "URL")]
    pub(super) sso_url: Option<String>,
    /// The service offering, by name or id (osb only) [default: the first one]
    #[arg(long, value_name = "NAME", value_parser = not_empty)]
    pub(super) offering: Option<String>,
    /// The organization that provisions (osb only)
    #[arg(long, value_name = "GUID", default_value = "4f1d2c0e-6a8b-4c1d-9e57-0b6f3a7d2e10", value_parser = not_empty)]
    pub(super) organization: String,
    /// The space that provisions (osb only)
    #[arg(long, value_name = "GUID", default_value = "b7c9a5d4-20f3-4f6e-8a31-5d2e9c8b7f04", value_parser = not_empty)]
    pub(super) space: String,
    /// A JSON file with an object to provision with: `parameters` with osb, otherwise `options`
    #[arg(long, value_name = "FILE")]
    pub(super) parameters: Option<PathBuf>,
    /// Longest time for one answer
    #[arg(long, value_name = "T", default_value = "30s", value_parser = some_time)]
    pub(super) timeout: Duration,
    /// Longest time for an asynchronous operation (osb only)
    #[arg(long, value_name = "T", default_value = "10m", value_parser = some_time)]
    pub(super) poll_timeout: Duration,
    /// A PEM file with certificates to trust instead of the system's
    #[arg(long, value_name = "FILE")]
    pub(super) cacert: Option<PathBuf>,
    /// Exit with 1 on warnings also
    #[arg(long)]
    pub(super) strict: bool,
}

fn not_empty(text: &str) -> Result<String, &'static str> {
    let is_empty = text.trim().is_empty();
    (!is_empty).then(|| text.to_owned()).ok_or("must not be empty")
}

/// Reads a time in which something can be answered.
fn some_time(text: &str) -> Result<Duration, String> {
    let time = parse_duration(text).map_err(|error| error.to_string())?;
    (!time.is_zero())
        .then_some(time)
        .ok_or_else(|| "must be longer than 0s".into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    #[test]
    fn what_can_be_no_value_is_refused() {
        let line = |more: &[&str]| {
            let given = ["check", "http://gw", "--dialect", "osb", "--credentials", "c.toml"];
            Line::try_parse_from(given.iter().chain(more)).map_err(|error| error.to_string())
        };
        assert_eq!(line(&[]).unwrap().arguments.timeout, Duration::from_secs(30));
        for (option, value, why) in [
            ("--timeout", "0s", "longer than 0s"),
            ("--poll-timeout", "0s", "longer than 0s"),
            ("--organization", "", "must not be empty"),
            ("--space", " ", "must not be empty"),
            ("--plan", "", "must not be empty"),
            ("--other-plan", "", "must not be empty"),
            ("--offering", "", "must not be empty"),
        ] {
            let refused = line(&[option, value]).unwrap_err();
            assert!(refused.contains(why) && refused.contains(option), "{refused}");
        }
    }
}
