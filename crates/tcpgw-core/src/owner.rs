//! Whose a service is, and what of it no rule tells: what the record and the file of last services keep, so that a provider
//! that is lost takes nothing with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Service, Word as _, write};

/// Fields that the summary in a record has.
const SUMMARIZED: [&str; 12] = [
    "name",
    "port",
    "addresses",
    "backends",
    "balance",
    "limit",
    "on_retire",
    "on_empty",
    "source",
    "source_addresses",
    "allow",
    "deny",
];

/// Who defines a service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum Owner {
    /// A state file: the daemon's, or one that `tcpgw apply` put into the kernel without a daemon.
    #[default]
    File,
    /// The API of the daemon.
    Api,
    /// Nobody any more; it is served until somebody says otherwise.
    Orphan,
    /// Nobody that is known: an orphan of which the kernel alone tells, so that what no rule tells of it is not known.
    Found,
    /// Nobody; it was removed and its backends drain.
    Removed,
}

impl Owner {
    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => Self::Orphan.word(),
            other => other.word(),
        }
    }

    /// As records call it.
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Orphan => "orphan",
            Self::Found => "found",
            Self::Removed => "removed",
        }
    }

    /// Whether no provider defines it, and it is served.
    pub fn is_orphan(self) -> bool {
        matches!(self, Self::Orphan | Self::Found)
    }

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl From<Owner> for &'static str {
    fn from(owner: Owner) -> Self {
        owner.word()
    }
}

impl From<String> for Owner {
    /// An owner that only a newer version knows has no provider here.
    fn from(name: String) -> Self {
        let all = [Self::File, Self::Api, Self::Found, Self::Removed];
        let known = all.into_iter().find(|owner| owner.word() == name);
        known.unwrap_or(Self::Orphan)
    }
}

/// Whose a service is, and what its provider wants beyond what the rules and the summary tell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Its owner.
    #[serde(rename = "o", default, skip_serializing_if = "Owner::is_default")]
    pub owner: Owner,
    /// Members of its JSON: those that no summary has, and those that are served otherwise than its provider wants.
    #[serde(rename = "f", default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Whether it is served without backends because the resource of the add-on that it belongs to is suspended.
    #[serde(rename = "s", default, skip_serializing_if = "is_false")]
    pub is_suspended: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Details by the service's name; a service that is in the same record and not here has the default ones.
pub type AllDetails = BTreeMap<Box<str>, Details>;

/// The owners of services that do not belong to a state file.
pub fn owners(details: &AllDetails) -> BTreeMap<Box<str>, Owner> {
    let owned = details.iter().filter(|(_, details)| details.owner != Owner::File);
    owned.map(|(name, details)| (name.clone(), details.owner)).collect()
}

impl Details {
    /// Of a service that is wanted like this, and served like that.
    pub fn new(owner: Owner, wanted: &Service, serving: &Service) -> Self {
        let Value::Object(mut fields) = write::service_value(wanted) else {
            return Self {
                owner,
                ..Self::default()
            };
        };
        let backends = fields
            .remove("backends")
            .filter(|_| wanted.backends != serving.backends);
        fields.retain(|name, _| !SUMMARIZED.contains(&name.as_str()));
        fields.extend(backends.map(|backends| ("backends".to_owned(), backends)));
        if wanted.on_empty != serving.on_empty {
            fields.insert("on_empty".into(), wanted.on_empty.word().into());
        }
        Self {
            owner,
            fields,
            is_suspended: false,
        }
    }

    /// The same of a service that is suspended, or not.
    #[must_use]
    pub fn suspended(self, is_suspended: bool) -> Self {
        Self { is_suspended, ..self }
    }

    /// Whether a record need not say it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// A service as it was wanted, out of one that was read from rules and summary. `None` if what is kept is not accepted by
    /// this version.
    pub fn complete(&self, service: &Service) -> Option<Service> {
        if self.fields.is_empty() {
            return Some(service.clone());
        }
        let patch = Value::Object(self.fields.clone()).to_string();
        crate::model::patch_service(service, patch.as_bytes()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(text: &str) -> Service {
        crate::model::parse_service(text.as_bytes()).unwrap()
    }

    #[test]
    fn an_owner_that_is_not_known_is_none() {
        for owner in [Owner::File, Owner::Api, Owner::Orphan, Owner::Found, Owner::Removed] {
            assert_eq!(Owner::from(owner.word().to_owned()), owner);
        }
        assert_eq!(Owner::from("docker".to_owned()), Owner::Orphan);
    }

    #[test]
    fn what_is_served_otherwise_comes_back_as_it_was_wanted() {
        let wanted = service(
            r#"{"name": "a", "port": 2001, "backends": ["10.0.0.1:1", {"address": "10.0.0.2", "port": 1, "weight": 3}],
                "drain_timeout": "5m", "labels": {"k": "v"}, "health": {"fall": 9}}"#,
        );
        // Paused, and one backend is unhealthy and gone.
        let serving = service(
            r#"{"name": "a", "port": 2001, "on_empty": "drop",
                "backends": [{"address": "10.0.0.1", "port": 1, "state": "draining"}]}"#,
        );
        let details = Details::new(Owner::Api, &wanted, &serving);
        let read: Details = serde_json::from_str(&serde_json::to_string(&details).unwrap()).unwrap();
        assert_eq!(read.complete(&serving), Some(wanted.clone()));
        assert!(Details::new(Owner::File, &serving, &serving).is_default());
        assert_eq!(Details::new(Owner::Api, &serving, &serving).fields, Map::new());
    }
}
