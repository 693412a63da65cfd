//! Owner of a service, and those of its settings that the rules do not contain. The record and the file of last
//! services keep them, so that a service survives the loss of its provider.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::model::{Service, Word as _, write};

/// Fields that the summary in a record contains.
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

/// Owner of a service: what defines it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String", into = "&'static str")]
pub enum Owner {
    /// A state file: the daemon's, or one that `tcpgw apply` wrote to the kernel without a daemon.
    #[default]
    File,
    /// The API of the daemon.
    Api,
    /// Docker's containers, which the daemon follows.
    Docker,
    /// No provider any more. The service stays in effect until a provider or an operator changes it.
    Orphan,
    /// No known provider: an orphan that is known from the kernel alone, so that settings which rules do not contain
    /// are lost.
    Found,
    /// No provider: the service was removed, and its backends drain.
    Removed,
}

impl Owner {
    /// Returns the name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Found => Self::Orphan.word(),
            other => other.word(),
        }
    }

    /// Returns the name in records.
    fn word(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "api",
            Self::Docker => "docker",
            Self::Orphan => "orphan",
            Self::Found => "found",
            Self::Removed => "removed",
        }
    }

    /// Returns whether the service is in effect and no provider defines it.
    pub fn is_orphan(self) -> bool {
        matches!(self, Self::Orphan | Self::Found)
    }

    /// Returns whether a provider of the daemon other than a state file defines the service.
    pub fn is_of_daemon(self) -> bool {
        matches!(self, Self::Api | Self::Docker)
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
    /// Reads a name of a record. An owner that only a newer version knows counts as an orphan.
    fn from(name: String) -> Self {
        let all = [Self::File, Self::Api, Self::Docker, Self::Found, Self::Removed];
        let known = all.into_iter().find(|owner| owner.word() == name);
        known.unwrap_or(Self::Orphan)
    }
}

/// Owner of a service, and the settings that its provider wants beyond those in the rules and the summary.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Details {
    /// Owner of the service.
    #[serde(rename = "o", default, skip_serializing_if = "Owner::is_default")]
    pub owner: Owner,
    /// Members of the service's JSON: those that summaries do not contain, and those that are in effect with other
    /// values than its provider wants.
    #[serde(rename = "f", default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
    /// Whether the service is in effect without backends because the add-on resource that it belongs to is suspended.
    #[serde(rename = "s", default, skip_serializing_if = "is_false")]
    pub is_suspended: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Details by name of the service; a service of the same record without an entry has the default ones.
pub type AllDetails = BTreeMap<Box<str>, Details>;

/// Returns the owners of the services that do not belong to a state file.
pub fn owners(details: &AllDetails) -> BTreeMap<Box<str>, Owner> {
    let owned = details.iter().filter(|(_, details)| details.owner != Owner::File);
    owned.map(|(name, details)| (name.clone(), details.owner)).collect()
}

impl Details {
    /// Creates the details of a service from its wanted and its effective form.
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

    /// Returns the details with this value of `is_suspended`.
    #[must_use]
    pub fn suspended(self, is_suspended: bool) -> Self {
        Self { is_suspended, ..self }
    }

    /// Returns whether all details are defaults, so that a record may leave them out.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a service as it was wanted, from one that was read from rules and summary. Returns `None` if this
    /// version does not accept the kept fields.
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
        for owner in [
            Owner::File,
            Owner::Api,
            Owner::Docker,
            Owner::Orphan,
            Owner::Found,
            Owner::Removed,
        ] {
            assert_eq!(Owner::from(owner.word().to_owned()), owner);
        }
        assert_eq!(Owner::from("etcd".to_owned()), Owner::Orphan);
    }

    #[test]
    fn what_is_served_otherwise_comes_back_as_it_was_wanted() {
        let wanted = service(
            r#"{"name": "a", "port": 2001, "backends": ["10.0.0.1:1", {"address": "10.0.0.2", "port": 1, "weight": 3}],
                "drain_timeout": "5m", "labels": {"k": "v"}, "health": {"fall": 9}}"#,
        );
        // Paused, and one unhealthy backend is left out.
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
