//! Manifests: what a provider tells a platform of itself before it is asked for anything.
//!
//! Sources: Scalingo's "Addon definition manifest", and the manifest that its add-on API tester takes; Heroku's "Add-on Manifest" of
//! 2024; Clever Cloud's, which has its form.

use serde_json::{Value, json};

use super::catalog;
use crate::addon::credentials::Credentials;
use crate::addon::plan::Plans;
use crate::addon::resource::Dialect;
use crate::secrets::Secret;

const NAME: &str = "TCP gateway";
const DESCRIPTION: &str = "A public TCP port for an app, balanced and rate-limited in the gateway's kernel";
/// The variable that an app gets.
const VARIABLE: &str = "TCP_URL";

/// Returns the manifest for a platform; Open Service Broker has its catalog instead. `base` is where the platform reaches the provider
/// API, without a slash at its end. It shows the credentials.
pub fn manifest(dialect: Dialect, plans: &Plans, credentials: &Credentials, base: &str) -> Value {
    let [username, password, sso_salt] =
        [&credentials.username, &credentials.password, &credentials.sso_salt].map(Secret::expose);
    let production = |prefix: &str| json!({"base_url": format!("{base}/{prefix}/resources"), "sso_url": format!("{base}/{prefix}/sso")});
    match dialect {
        Dialect::Osb => catalog(plans),
        Dialect::Scalingo | Dialect::Local => json!({
            "name": NAME,
            "username": username,
            "password": password,
            "sso_salt": sso_salt,
            "logo_url": "",
            "short_description": NAME,
            "description": DESCRIPTION,
            "log_drain": false,
            "config_vars": [VARIABLE],
            "production": production("scalingo"),
            "test": production("scalingo"),
            "plans": plans.iter().map(|plan| json!({
                "name": plan.name,
                "display_name": plan.name,
                "price": plan.price.amount(),
                "description": plan.description,
            })).collect::<Vec<_>>(),
        }),
        Dialect::Heroku => json!({
            "id": username,
            "name": NAME,
            "api": {
                "version": "3",
                "config_vars_prefix": "TCP",
                "config_vars": [VARIABLE],
                "password": password,
                "sso_salt": sso_salt,
                "regions": ["*"],
                "requires": [],
                "production": production("heroku"),
            },
        }),
        Dialect::CleverCloud => json!({
            "id": username,
            "name": NAME,
            "api": {
                "config_vars": [VARIABLE],
                "password": password,
                "sso_salt": sso_salt,
                "regions": ["eu"],
                "production": production("clever-cloud"),
            },
        }),
    }
}

/// Ends of the paths at which platforms of a dialect ask.
const ENDS: [(Dialect, [&str; 3]); 4] = [
    (Dialect::Osb, ["/v2/catalog", "/v2", "/v2/service_instances"]),
    (Dialect::Scalingo, ["/scalingo/resources", "/scalingo/sso", "/scalingo"]),
    (Dialect::Heroku, ["/heroku/resources", "/heroku/sso", "/heroku"]),
    (
        Dialect::CleverCloud,
        ["/clever-cloud/resources", "/clever-cloud/sso", "/clever-cloud"],
    ),
];

/// Returns the part of a path before that of the dialect, which a manifest adds: an operator may have named that at which the platform
/// asks. The path has no slash at its end.
///
/// # Errors
/// Fails with the end of the path when that belongs to another dialect.
pub fn path_before(dialect: Dialect, path: &str) -> Result<&str, &'static str> {
    let mut ends = ENDS
        .iter()
        .flat_map(|(of, ends)| ends.iter().map(move |end| (*of, *end)));
    match ends.find_map(|(of, end)| Some((of, end, path.strip_suffix(end)?))) {
        None => Ok(path),
        Some((of, _, before)) if of == dialect => Ok(before),
        Some((_, end, _)) => Err(end),
    }
}

/// Returns why a platform refuses the manifest that [`manifest`] makes of these credentials.
pub fn objection(dialect: Dialect, credentials: &Credentials) -> Option<&'static str> {
    let username = credentials.username.expose();
    let is_id = username
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if dialect == Dialect::Heroku && !is_id {
        return Some(
            "Heroku refuses this manifest: its id, which is username of addon.credentials, may have lower-case letters, digits and - only; \
             write another one there (it holds for the other dialects, too), and reload the daemon",
        );
    }
    (dialect == Dialect::CleverCloud && username != "tcp").then_some(
        "Clever Cloud refuses this manifest: its variables must begin with the manifest's id in capitals, and that id is username of \
         addon.credentials; for TCP_URL write username = \"tcp\" there (it holds for the other dialects, too), and reload the daemon",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addon::plan::{AddonPlan, Price};
    use tcpgw_core::model::{Limit, LimitDirection};

    #[test]
    fn the_path_of_a_dialect_is_not_added_twice() {
        for (dialect, path, before) in [
            (Dialect::Scalingo, "", Ok("")),
            (Dialect::Scalingo, "/scalingo/resources", Ok("")),
            (Dialect::Scalingo, "/below/scalingo", Ok("/below")),
            (Dialect::Heroku, "/below/heroku/sso", Ok("/below")),
            (Dialect::CleverCloud, "/clever-cloud/resources", Ok("")),
            (Dialect::Osb, "/broker/v2/catalog", Ok("/broker")),
            (Dialect::Scalingo, "/myscalingo", Ok("/myscalingo")),
            (Dialect::Scalingo, "/heroku/resources", Err("/heroku/resources")),
            (Dialect::Heroku, "/v2", Err("/v2")),
        ] {
            assert_eq!(path_before(dialect, path), before, "{dialect:?} {path}");
        }
    }

    #[test]
    fn each_platform_is_told_where_and_with_what_to_ask() {
        let limit = Limit {
            pps: 512,
            burst: 5120,
            direction: LimitDirection::Each,
            mtu: 1500,
        };
        let plan = AddonPlan {
            name: "free".parse().unwrap(),
            id: "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11".parse().unwrap(),
            limit,
            price: Price::try_from(2.5).unwrap(),
            description: "For trying it out".into(),
        };
        let plans = Plans::new(vec![plan]).unwrap();
        let credentials = "username = 'gw'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'";
        let credentials = Credentials::parse(credentials).unwrap();
        for dialect in [Dialect::Osb, Dialect::Scalingo, Dialect::Heroku] {
            assert_eq!(objection(dialect, &credentials), None);
        }
        assert!(objection(Dialect::CleverCloud, &credentials).is_some());
        let capital = Credentials {
            username: Credentials::parse(
                "username = 'My_GW'\npassword = '0123456789abcdef'\nsso_salt = 'fedcba9876543210'",
            )
            .unwrap()
            .username,
            ..credentials.clone()
        };
        assert!(objection(Dialect::Heroku, &capital).is_some_and(|why| why.contains("lower-case letters")));
        assert_eq!(objection(Dialect::Scalingo, &capital), None);
        let of = |dialect| manifest(dialect, &plans, &credentials, "https://gw.example.com:9443");
        assert_eq!(of(Dialect::Osb), catalog(&plans));
        let scalingo = of(Dialect::Scalingo);
        assert_eq!(
            (&scalingo["name"], &scalingo["username"]),
            (&json!("TCP gateway"), &json!("gw"))
        );
        assert_eq!(
            (&scalingo["log_drain"], &scalingo["test"]),
            (&json!(false), &scalingo["production"])
        );
        let words = ["password", "sso_salt", "short_description", "description"];
        assert!(
            words
                .iter()
                .all(|word| scalingo[word].as_str().is_some_and(|text| !text.is_empty()))
        );
        assert_eq!(
            scalingo["production"],
            json!({
                "base_url": "https://gw.example.com:9443/scalingo/resources",
                "sso_url": "https://gw.example.com:9443/scalingo/sso",
            })
        );
        assert_eq!(
            scalingo["plans"],
            json!([{"name": "free", "display_name": "free", "price": 2.5, "description": "For trying it out"}])
        );
        assert_eq!(scalingo["config_vars"], json!(["TCP_URL"]));
        for (dialect, prefix) in [(Dialect::Heroku, "heroku"), (Dialect::CleverCloud, "clever-cloud")] {
            let manifest = of(dialect);
            let api = &manifest["api"];
            assert_eq!(
                (&manifest["id"], &api["password"]),
                (&json!("gw"), &json!("0123456789abcdef"))
            );
            assert_eq!(api["sso_salt"], "fedcba9876543210");
            let base = format!("https://gw.example.com:9443/{prefix}/resources");
            assert_eq!(api["production"]["base_url"], base);
            let starts = |variable: &Value| variable.as_str().is_some_and(|name| name.starts_with("TCP_"));
            assert!(api["config_vars"].as_array().unwrap().iter().all(starts));
        }
    }
}
