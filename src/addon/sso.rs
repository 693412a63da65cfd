//! Single sign-on: a platform sends its user to a resource's page with a token, which shows that the platform did.
//!
//! Each platform computes a token as a digest of the id, a salt that both know, and the time.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq as _;
use thiserror::Error;

use super::digest::hex;
use super::resource::Dialect;

/// Maximum time that a platform's clock may be ahead of this machine's.
const CLOCK_SKEW: Duration = Duration::from_secs(5);

/// Reason why a sign-on is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SsoRefusal {
    /// The provider API has no single sign-on.
    #[error("this provider API has no single sign-on")]
    Unsupported,
    /// A field is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The timestamp is not a whole number of seconds.
    #[error("timestamp must be a whole number")]
    Timestamp,
    /// The token is too old.
    #[error("the token has expired")]
    Expired,
    /// The token's timestamp is in the future.
    #[error("the token's timestamp is in the future; compare the clocks of the platform and of the gateway")]
    Future,
    /// The token is not the expected one.
    #[error("the token is wrong")]
    Wrong,
}

/// The fields of a request.
pub type FormFields = BTreeMap<String, String>;

/// Format of a platform's sign-on request.
struct SignOnFormat {
    /// The field with the resource's id.
    id: &'static str,
    /// The tokens; the first that is sent decides, but those that need all of their fields are passed over without them.
    tokens: &'static [Token],
    /// Units of `timestamp` in a second.
    per_second: u64,
    /// Maximum age of a token.
    max_age: Duration,
}

struct Token {
    field: &'static str,
    digest: fn(&str) -> String,
    /// Parts whose values are joined by colons.
    parts: &'static [TokenPart],
    /// Whether it decides wherever it is sent, also without its fields: then the request is refused.
    decides: bool,
}

enum TokenPart {
    Field(&'static str),
    Salt,
}

const SCALINGO: SignOnFormat = SignOnFormat {
    id: "id",
    tokens: &[Token {
        field: "token",
        digest: hex::<Sha1>,
        decides: false,
        parts: &[TokenPart::Field("id"), TokenPart::Salt, TokenPart::Field("timestamp")],
    }],
    per_second: 1,
    max_age: Duration::from_secs(5 * 60),
};

const HEROKU: SignOnFormat = SignOnFormat {
    id: "resource_id",
    tokens: &[
        Token {
            field: "user_scoped_resource_token",
            digest: hex::<Sha256>,
            decides: false,
            parts: &[
                TokenPart::Field("resource_id"),
                TokenPart::Salt,
                TokenPart::Field("timestamp"),
                TokenPart::Field("user_id"),
                TokenPart::Field("email"),
            ],
        },
        Token {
            field: "resource_token",
            digest: hex::<Sha1>,
            decides: false,
            parts: &[
                TokenPart::Field("resource_id"),
                TokenPart::Salt,
                TokenPart::Field("timestamp"),
            ],
        },
    ],
    per_second: 1,
    max_age: Duration::from_secs(5 * 60),
};

const CLEVER_CLOUD: SignOnFormat = SignOnFormat {
    id: "id",
    tokens: &[
        Token {
            field: "signature",
            digest: hex::<Sha512>,
            decides: true,
            parts: &[
                TokenPart::Field("id"),
                TokenPart::Field("user_id"),
                TokenPart::Field("email"),
                TokenPart::Field("nav-data"),
                TokenPart::Salt,
                TokenPart::Field("timestamp"),
            ],
        },
        Token {
            field: "token",
            digest: hex::<Sha1>,
            decides: false,
            parts: &[TokenPart::Field("id"), TokenPart::Salt, TokenPart::Field("timestamp")],
        },
    ],
    per_second: 1000,
    max_age: Duration::from_secs(15 * 60),
};

/// Returns the id of the resource that a valid request is about, as the platform calls it. `now` is the time since 1970.
///
/// # Errors
/// Fails with [`SsoRefusal`] when the provider API has no single sign-on, a field is missing or wrong, or the token is
/// wrong, too old or from the future.
pub fn verify<'f>(dialect: Dialect, fields: &'f FormFields, salt: &str, now: Duration) -> Result<&'f str, SsoRefusal> {
    let rules = match dialect {
        Dialect::Scalingo => &SCALINGO,
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Osb | Dialect::Local => return Err(SsoRefusal::Unsupported),
    };
    let id = field(fields, rules.id)?;
    let timestamp: u64 = field(fields, "timestamp")?.parse().map_err(|_| SsoRefusal::Timestamp)?;
    let mut refusal = SsoRefusal::Missing(rules.tokens.last().map_or("token", |token| token.field));
    let mut sent = None;
    for token in rules.tokens {
        let Some(given) = fields.get(token.field) else { continue };
        match token.expected(fields, salt) {
            Ok(expected) => {
                sent = Some((expected, given));
                break;
            }
            // A token that decides wherever it is sent is not passed over.
            Err(missing) if token.decides => return Err(missing),
            Err(missing) => refusal = missing,
        }
    }
    let (expected, given) = sent.ok_or(refusal)?;
    if !bool::from(expected.as_bytes().ct_eq(given.to_ascii_lowercase().as_bytes())) {
        return Err(SsoRefusal::Wrong);
    }
    let at = Duration::from_secs(timestamp) / u32::try_from(rules.per_second).unwrap_or(1);
    if at > now.saturating_add(CLOCK_SKEW) {
        return Err(SsoRefusal::Future);
    }
    if now.saturating_sub(at) > rules.max_age {
        return Err(SsoRefusal::Expired);
    }
    Ok(id)
}

/// Returns the token that a platform would send in `fields`: what a test of a provider needs.
///
/// # Errors
/// Fails with [`SsoRefusal::Unsupported`] when the provider API has no single sign-on, and with [`SsoRefusal::Missing`]
/// when a field is missing.
pub fn token(dialect: Dialect, fields: &FormFields, salt: &str) -> Result<(&'static str, String), SsoRefusal> {
    let rules = match dialect {
        Dialect::Scalingo => &SCALINGO,
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Osb | Dialect::Local => return Err(SsoRefusal::Unsupported),
    };
    let token = rules.tokens.last().ok_or(SsoRefusal::Unsupported)?;
    Ok((token.field, token.expected(fields, salt)?))
}

/// Returns all tokens that a platform can compute of these fields, with the names of their own.
pub fn tokens(dialect: Dialect, fields: &FormFields, salt: &str) -> Vec<(&'static str, String)> {
    let rules = match dialect {
        Dialect::Scalingo => &SCALINGO,
        Dialect::Heroku => &HEROKU,
        Dialect::CleverCloud => &CLEVER_CLOUD,
        Dialect::Osb | Dialect::Local => return Vec::new(),
    };
    let tokens = rules.tokens.iter();
    tokens
        .filter_map(|token| Some((token.field, token.expected(fields, salt).ok()?)))
        .collect()
}

impl Token {
    fn expected(&self, fields: &FormFields, salt: &str) -> Result<String, SsoRefusal> {
        let mut text = String::new();
        for (at, part) in self.parts.iter().enumerate() {
            let joint = if at == 0 { "" } else { ":" };
            let value = match part {
                TokenPart::Salt => salt,
                TokenPart::Field(name) => field(fields, name)?,
            };
            let _ = write!(text, "{joint}{value}");
        }
        Ok((self.digest)(&text))
    }
}

fn field<'f>(fields: &'f FormFields, name: &'static str) -> Result<&'f str, SsoRefusal> {
    fields.get(name).map(String::as_str).ok_or(SsoRefusal::Missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &str = "2f97bfa52ca102f8874716e2eb1d3b4920ad0be4";
    const NOW: Duration = Duration::from_secs(1_267_597_772);

    fn fields(pairs: &[(&str, &str)]) -> FormFields {
        pairs
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect()
    }

    /// The example of a token in Heroku's documentation is accepted.
    #[test]
    fn herokus_own_example_is_accepted() {
        let fields = fields(&[
            ("resource_id", "123"),
            ("timestamp", "1267597772"),
            ("resource_token", "bb466eb1d6bc345d11072c3cd25c311f21be130d"),
        ]);
        assert_eq!(verify(Dialect::Heroku, &fields, SALT, NOW), Ok("123"));
        assert_eq!(verify(Dialect::Heroku, &fields, "other", NOW), Err(SsoRefusal::Wrong));
    }

    /// Returns the form of Heroku's single sign-on, with the names that Heroku's own SDK declares.
    fn sent_by_heroku() -> FormFields {
        let sha256 = hex::<Sha256>(&format!("abc:{SALT}:1267597772:user_1:a@b.c"));
        let sha1 = hex::<Sha1>(&format!("abc:{SALT}:1267597772"));
        fields(&[
            ("app", "my-app"),
            ("context_app", "my-app"),
            ("email", "a@b.c"),
            ("id", "1234"),
            ("nav-data", "e30="),
            ("resource_id", "abc"),
            ("resource_token", &sha1),
            ("timestamp", "1267597772"),
            ("token", &hex::<Sha1>(&format!("1234:{SALT}:1267597772"))),
            ("user_id", "user_1"),
            ("user_scoped_resource_token", &sha256),
        ])
    }

    #[test]
    fn the_form_that_heroku_sends_is_accepted() {
        let mut form = sent_by_heroku();
        assert_eq!(verify(Dialect::Heroku, &form, SALT, NOW), Ok("abc"));
        // The newer token decides, also when the older one is right.
        form.insert("email".into(), "other@b.c".into());
        assert_eq!(verify(Dialect::Heroku, &form, SALT, NOW), Err(SsoRefusal::Wrong));
        form.insert("user_scoped_resource_token".into(), "0".repeat(64));
        assert_eq!(verify(Dialect::Heroku, &form, SALT, NOW), Err(SsoRefusal::Wrong));
    }

    #[test]
    fn a_token_whose_fields_are_not_all_sent_does_not_decide() {
        let mut form = sent_by_heroku();
        form.remove("user_id");
        assert_eq!(verify(Dialect::Heroku, &form, SALT, NOW), Ok("abc"));
        form.insert("resource_token".into(), "0".repeat(40));
        assert_eq!(verify(Dialect::Heroku, &form, SALT, NOW), Err(SsoRefusal::Wrong));
        form.remove("resource_token");
        assert_eq!(
            verify(Dialect::Heroku, &form, SALT, NOW),
            Err(SsoRefusal::Missing("user_id"))
        );
    }

    fn signed(dialect: Dialect, at: u64) -> FormFields {
        let id = if dialect == Dialect::Heroku {
            "resource_id"
        } else {
            "id"
        };
        let mut fields = fields(&[(id, "abc"), ("timestamp", &at.to_string())]);
        let (name, value) = token(dialect, &fields, SALT).unwrap();
        fields.insert(name.into(), value);
        fields
    }

    #[test]
    fn a_token_counts_for_its_time_only() {
        for (dialect, per_second, minutes) in [
            (Dialect::Scalingo, 1, 5),
            (Dialect::Heroku, 1, 5),
            (Dialect::CleverCloud, 1000, 15),
        ] {
            let at = |seconds: u64| signed(dialect, seconds * per_second);
            let now = NOW.as_secs();
            assert_eq!(verify(dialect, &at(now), SALT, NOW), Ok("abc"));
            assert_eq!(verify(dialect, &at(now - minutes * 60), SALT, NOW), Ok("abc"));
            let (old, future) = (at(now - minutes * 60 - 1), at(now + 6));
            assert_eq!(
                verify(dialect, &old, SALT, NOW),
                Err(SsoRefusal::Expired),
                "{dialect:?}"
            );
            assert_eq!(
                verify(dialect, &future, SALT, NOW),
                Err(SsoRefusal::Future),
                "{dialect:?}"
            );
        }
    }

    #[test]
    fn a_token_of_another_app_is_wrong() {
        let mut fields = signed(Dialect::Scalingo, NOW.as_secs());
        fields.insert("id".into(), "other".into());
        assert_eq!(verify(Dialect::Scalingo, &fields, SALT, NOW), Err(SsoRefusal::Wrong));
    }

    #[test]
    fn the_signature_decides_where_it_is_sent() {
        let mut fields = signed(Dialect::CleverCloud, NOW.as_secs() * 1000);
        for (name, value) in [
            ("user_id", "user_1"),
            ("email", "a@b.c"),
            ("nav-data", "x"),
            ("signature", "00"),
        ] {
            fields.insert(name.into(), value.into());
        }
        assert_eq!(verify(Dialect::CleverCloud, &fields, SALT, NOW), Err(SsoRefusal::Wrong));
        let right = hex::<Sha512>(&format!("abc:user_1:a@b.c:x:{SALT}:{}", NOW.as_secs() * 1000));
        fields.insert("signature".into(), right);
        fields.insert("token".into(), "00".into());
        assert_eq!(verify(Dialect::CleverCloud, &fields, SALT, NOW), Ok("abc"));
    }

    /// A signature without one of its fields cannot be right, and the token beside it does not count.
    #[test]
    fn a_signature_whose_fields_are_not_all_sent_is_refused() {
        for absent in ["user_id", "email", "nav-data"] {
            for signature in ["00", ""] {
                let mut form = signed(Dialect::CleverCloud, NOW.as_secs() * 1000);
                assert_eq!(verify(Dialect::CleverCloud, &form, SALT, NOW), Ok("abc"));
                for name in ["user_id", "email", "nav-data"].iter().filter(|name| **name != absent) {
                    form.insert((*name).into(), "x".into());
                }
                form.insert("signature".into(), signature.into());
                let refused = verify(Dialect::CleverCloud, &form, SALT, NOW);
                assert_eq!(refused, Err(SsoRefusal::Missing(absent)));
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let at = ("timestamp", "1267597772");
        let cases = [
            (fields(&[at]), SsoRefusal::Missing("id")),
            (fields(&[("id", "abc")]), SsoRefusal::Missing("timestamp")),
            (fields(&[("id", "abc"), ("timestamp", "-1")]), SsoRefusal::Timestamp),
            (fields(&[("id", "abc"), at]), SsoRefusal::Missing("token")),
        ];
        for (fields, refusal) in cases {
            assert_eq!(verify(Dialect::Scalingo, &fields, SALT, NOW), Err(refusal));
        }
    }
}
