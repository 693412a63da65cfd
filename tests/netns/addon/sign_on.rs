//! Single sign-on, and the page that it leads to.

use std::collections::BTreeMap;

use tcpgw::addon::{Dialect, sso};

use super::platform::{
    Reply, SALT, ask, ask_with, configure, daemon, deprovision, now, provision, provisioned, resource,
};
use crate::harness::Net;

/// Returns the fields that sign on to a resource, at a time.
pub(super) fn fields(dialect: Dialect, id: &str, at: u64) -> Vec<(&'static str, String)> {
    let (key, at) = match dialect {
        Dialect::Heroku => ("resource_id", at),
        Dialect::CleverCloud => ("id", at * 1000),
        _ => ("id", at),
    };
    let mut fields = vec![(key, id.to_owned()), ("timestamp", at.to_string())];
    let known: BTreeMap<String, String> = fields
        .iter()
        .map(|(key, value)| ((*key).into(), value.clone()))
        .collect();
    let (name, token) = sso::token(dialect, &known, SALT).expect("a token");
    fields.push((name, token));
    fields
}

pub(super) fn form(fields: &[(&str, String)]) -> String {
    let pairs: Vec<String> = fields.iter().map(|(key, value)| format!("{key}={value}")).collect();
    pairs.join("&")
}

fn sign_on(net: &Net, dialect: Dialect, fields: &[(&str, String)]) -> Reply {
    let form = form(fields);
    let headers = "content-type: application/x-www-form-urlencoded\r\n";
    match dialect {
        Dialect::Heroku => ask_with(net, "POST", "/heroku/sso", headers, &form),
        Dialect::CleverCloud => ask_with(net, "POST", "/clever-cloud/sso", headers, &form),
        _ => ask_with(net, "GET", &format!("/scalingo/sso?{form}"), "", ""),
    }
}

/// Returns the page of a resource, as its owner gets it after signing on.
#[track_caller]
pub(super) fn page_of(net: &Net, dialect: Dialect, id: &str) -> String {
    let reply = sign_on(net, dialect, &fields(dialect, id, now()));
    assert_eq!(reply.status, 303, "{reply:?}");
    let cookie = reply.header("set-cookie").and_then(|cookie| cookie.split(';').next());
    let opened = open(
        net,
        reply.header("location").expect("a page"),
        cookie.expect("a cookie"),
    );
    assert_eq!(opened.status, 200, "{opened:?}");
    opened.body
}

fn open(net: &Net, page: &str, cookie: &str) -> Reply {
    ask_with(net, "GET", page, &format!("cookie: other=1; {cookie}\r\n"), "")
}

#[test]
fn a_user_is_signed_on_to_the_page_of_one_app() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let mut pages = Vec::new();
    for dialect in [Dialect::Scalingo, Dialect::Heroku, Dialect::CleverCloud] {
        let app = format!("app-of-{dialect:?}");
        let (method, path, body) = provision(dialect, &app, "small");
        let made = ask(&net, method, &path, body);
        let id = if dialect == Dialect::Heroku {
            app.clone()
        } else {
            made.json()["id"].as_str().expect("an id").to_owned()
        };
        let reply = sign_on(&net, dialect, &fields(dialect, &id, now()));
        assert_eq!(reply.status, 303, "{reply:?}");
        let cookie = reply.header("set-cookie").expect("a cookie");
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Lax"),
            "{cookie}"
        );
        let cookie = cookie.split(';').next().expect("a cookie").to_owned();
        let page = reply.header("location").expect("a page").to_owned();
        let opened = open(&net, &page, &cookie);
        assert_eq!(opened.status, 200, "{opened:?}");
        assert!(opened.body.contains(">tcp://gateway.example.com:2000"), "{opened:?}");
        assert!(opened.body.contains(&app), "{opened:?}");
        let policy = opened.header("content-security-policy").expect("a policy");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert_eq!(ask_with(&net, "GET", &page, "", "").status, 403, "without a session");

        // Six minutes ago, sixteen, from the future, of another salt, of another app, not at all.
        let other = match dialect {
            Dialect::Heroku => "another-app".to_owned(),
            _ => "aaaaaaaaaaaa".to_owned(),
        };
        let mut stolen = fields(dialect, &id, now());
        stolen[0].1 = other.clone();
        let mut wrong = fields(dialect, &id, now());
        wrong[2].1 = "0".repeat(40);
        for refused in [
            fields(dialect, &id, now() - 16 * 60),
            fields(dialect, &id, now() + 60),
            fields(dialect, &other, now()),
            fields(dialect, &id, now())[..2].to_vec(),
            fields(dialect, &id, now())[1..].to_vec(),
            stolen,
            wrong,
        ] {
            let reply = sign_on(&net, dialect, &refused);
            assert_eq!(reply.status, 403, "{refused:?}: {reply:?}");
            assert_eq!(reply.header("set-cookie"), None);
        }
        if dialect != Dialect::CleverCloud {
            assert_eq!(
                sign_on(&net, dialect, &fields(dialect, &id, now() - 6 * 60)).status,
                403
            );
        }
        pages.push((page, cookie, resource(dialect, &app, &made)));
    }
    // The session of one app opens no other's page.
    assert_eq!(open(&net, &pages[0].0, &pages[1].1).status, 403);
    assert_eq!(open(&net, "/apps/..%2fassets", &pages[0].1).status, 403);
    assert_eq!(ask_with(&net, "GET", "/assets/page.css", "", "").status, 200);
    assert_eq!(deprovision(&net, &pages[0].2).status, 204);
    assert_eq!(open(&net, &pages[0].0, &pages[0].1).status, 410);
}

/// A token can be used repeatedly while it is valid, because browsers go back, and never for a removed resource.
#[test]
fn nothing_signs_on_to_what_was_removed() {
    let net = Net::new();
    let _daemon = daemon(&net, &configure(&net, "20000-20009", ""));
    let (path, _) = provisioned(&net, Dialect::Heroku, "my-app");
    let token = fields(Dialect::Heroku, "my-app", now());
    for _ in 0..2 {
        assert_eq!(sign_on(&net, Dialect::Heroku, &token).status, 303);
    }
    assert_eq!(deprovision(&net, &path).status, 204);
    assert_eq!(sign_on(&net, Dialect::Heroku, &token).status, 403);
}
