//! `tcpgw addon manifest`

use std::fmt::Display;

use clap::Args;

use super::platform::Platform;
use crate::addon::{Dialect, dialect};
use crate::api::provider::read_credentials;
use crate::cli::failure::{Code, Failure, Outcome};
use crate::cli::global::Global;
use crate::cli::print::print_json;
use crate::outbound::BaseUrl;
use crate::secrets::Owners;
use tcpgw_core::model::Word as _;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The dialect of the provider API
    #[arg(long, value_enum)]
    dialect: Platform,
    /// The URL at which the platform reaches the provider API [default: from addon.host and addon.listen]
    #[arg(long, value_name = "URL")]
    url: Option<String>,
}

pub(super) fn run(global: &Global, arguments: &Arguments) -> Outcome {
    let config = global.config()?;
    let Some(settings) = &config.addon else {
        return Err(Failure::Usage(
            "the add-on is off: the configuration has no [addon]".into(),
        ));
    };
    let dialect = arguments.dialect.dialect();
    let base = match &arguments.url {
        Some(url) => {
            let (base, is_readable) = base_of(dialect, url)?;
            if is_readable {
                global.warn(&"the URL is not https: the credentials can be read on the way");
            }
            base
        }
        None => settings.base_url(),
    };
    let credentials = read_credentials(settings, &Owners::beside_daemon(&global.run_dir))
        .map_err(|error| Failure::Usage(error.to_string()))?;
    if arguments.url.is_none() && settings.listen.ip().is_loopback() {
        let listen = settings.listen;
        global.warn(&format!(
            "addon.listen is {listen}, where only this machine gets to: no platform elsewhere reaches {base}; name the address of the \
             proxy in front with --url, or let the provider API listen on another address"
        ));
    }
    if let Some(objection) = dialect::objection(dialect, &credentials) {
        global.warn(&objection);
    }
    print_json(&dialect::manifest(dialect, &settings.plans, &credentials, &base))?;
    Ok(Code::Success)
}

/// Returns the URL that a manifest begins with, without the path of the dialect, which the manifest adds; and whether requests to it can
/// be read on the way.
fn base_of(dialect: Dialect, text: &str) -> Result<(String, bool), Failure> {
    let wrong = |why: &dyn Display| Failure::Usage(format!("--url {why}"));
    let url = BaseUrl::parse(text).map_err(|error| wrong(&error))?;
    let before = dialect::path_before(dialect, url.path()).map_err(|end| {
        wrong(&format_args!(
            "ends with {end}, which is the path of another dialect than {}: give the URL before it",
            dialect.word()
        ))
    })?;
    let text = text.trim_end_matches('/');
    let end = text.len().saturating_sub(url.path().len() - before.len());
    let base = text.get(..end).unwrap_or(text).trim_end_matches('/');
    Ok((base.to_owned(), url.is_readable_by_others()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_begins_with_a_url_that_platforms_can_ask() {
        for (dialect, url, expected) in [
            (Dialect::Scalingo, "https://gw", "https://gw"),
            (Dialect::Scalingo, "https://gw/scalingo/resources", "https://gw"),
            (
                Dialect::Scalingo,
                "https://gw:8443/x/scalingo/resources/",
                "https://gw:8443/x",
            ),
            (Dialect::Osb, "https://v2/", "https://v2"),
            (Dialect::Osb, "https://gw/v2/catalog", "https://gw"),
            (Dialect::Heroku, "https://[::1]:9443//", "https://[::1]:9443"),
        ] {
            assert_eq!(base_of(dialect, url).unwrap(), (expected.to_owned(), false), "{url}");
        }
        assert!(base_of(Dialect::Osb, "http://gw").unwrap().1);
        for (url, why) in [
            ("https://gw/heroku/resources", "another dialect than scalingo"),
            ("https://gw:99999", "port"),
            ("http://[::1", "must be a URL"),
            ("https://gw?x=1", "query"),
            ("https://gw/#a", "fragment"),
            ("https://u:p@gw", "user name"),
            ("https://g w", "must be a URL"),
        ] {
            let Err(Failure::Usage(refused)) = base_of(Dialect::Scalingo, url) else {
                panic!("{url} is refused");
            };
            assert!(
                refused.starts_with("--url") && refused.contains(why),
                "{url}: {refused}"
            );
        }
    }
}
