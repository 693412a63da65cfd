//! The text of the file of last services.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{KeptService, LastNotes, LastResources, LastServices, RefusedService};
use crate::addon::{Removed, Resource};
use crate::record::RecordedPause;
use crate::record::{StoreIdentity, StoreLineage};
use crate::store::requested::RequestedParameters;
use tcpgw_core::model::{parse_service, write};
use tcpgw_core::owner::Owner;

/// The first line: the format, and the checksum of what follows.
pub(super) const MAGIC: &str = "tcpgw last services 1 ";

#[derive(Serialize, Deserialize)]
struct LastDocument<T> {
    boot: String,
    namespace: u64,
    #[serde(default)]
    known: Duration,
    #[serde(default)]
    revision: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<StoreIdentity>,
    #[serde(default, skip_serializing_if = "StoreLineage::is_unknown")]
    lineage: StoreLineage,
    origin: Option<PathBuf>,
    services: Vec<LastEntry<T>>,
    #[serde(default = "Vec::new", skip_serializing_if = "Vec::is_empty")]
    kept: Vec<KeptEntry<T>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resources: Option<Box<RawValue>>,
    /// Apps, by the id of the resource.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    apps: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pauses: Vec<RecordedPause>,
    #[serde(default, skip_serializing_if = "LastNotes::is_empty")]
    notes: LastNotes,
}

/// The resources as they are written.
#[derive(Serialize, Deserialize)]
struct ResourcesDocument<R, D> {
    resources: Vec<R>,
    removed: Vec<D>,
    /// Parameters with which the resources were requested, by id.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    asked: BTreeMap<String, RequestedParameters>,
}

#[derive(Serialize, Deserialize)]
struct LastEntry<T> {
    owner: Owner,
    service: T,
    #[serde(default, skip_serializing_if = "is_false")]
    unserved: bool,
}

#[derive(Serialize, Deserialize)]
struct KeptEntry<T> {
    service: T,
    #[serde(default, skip_serializing_if = "is_false")]
    unserved: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

impl LastResources {
    /// Reads resources; `None` if this version does not accept them.
    fn decode(text: &str) -> Option<Self> {
        let read: serde_json::Result<ResourcesDocument<Resource, Removed>> = serde_json::from_str(text);
        let read = read.inspect_err(|error| tracing::error!("resources of the add-on are not accepted: {error}"));
        let ResourcesDocument {
            mut resources,
            removed,
            mut asked,
        } = read.ok()?;
        for resource in &mut resources {
            if let Some(asked) = asked.remove(resource.id.as_str()) {
                asked.complete(resource);
            }
        }
        Some(Self {
            resources: resources.into_iter().map(Arc::new).collect(),
            removed,
        })
    }

    fn encode(&self) -> serde_json::Result<Box<RawValue>> {
        let asked = self.resources.iter();
        let asked = asked.filter_map(|resource| {
            Some((
                resource.id.as_str().to_owned(),
                RequestedParameters::known_of(resource)?,
            ))
        });
        serde_json::value::to_raw_value(&ResourcesDocument {
            asked: asked.collect(),
            resources: self.resources.iter().map(AsRef::as_ref).collect(),
            removed: self.removed.iter().collect(),
        })
    }
}

impl LastServices {
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (checksum, json) = text.strip_prefix(MAGIC)?.split_once('\n')?;
        if u32::from_str_radix(checksum, 16).ok()? != crc32fast::hash(json.as_bytes()) {
            return None;
        }
        let document: LastDocument<Box<RawValue>> = serde_json::from_str(json).ok()?;
        let mut last = Self {
            boot: document.boot,
            namespace: document.namespace,
            known: document.known,
            revision: document.revision,
            identity: document.identity,
            lineage: document.lineage,
            origin: document.origin,
            resources: document.resources.and_then(|text| LastResources::decode(text.get())),
            apps: document
                .apps
                .iter()
                .filter_map(|(id, app)| Some((id.parse().ok()?, app.parse().ok()?)))
                .collect(),
            pauses: document.pauses,
            notes: document.notes,
            ..Self::default()
        };
        for entry in document.services {
            let LastEntry {
                owner,
                service,
                unserved,
            } = entry;
            match parse_service(service.get().as_bytes()) {
                Ok(service) => {
                    if unserved {
                        last.unserved.insert(service.name.clone());
                    }
                    last.services.push((owner, Arc::new(service)));
                }
                Err(problems) => last.refused.push(RefusedService {
                    owner,
                    text: service.get().to_owned(),
                    problems: problems.to_string(),
                }),
            }
        }
        for entry in document.kept {
            let service = parse_service(entry.service.get().as_bytes());
            match service {
                Ok(service) => last.kept.push(KeptService {
                    service: Arc::new(service),
                    is_unserved: entry.unserved,
                }),
                Err(problems) => tracing::error!(
                    "a service of the file of last services is left out, because this version of tcpgw does not accept it: {problems}"
                ),
            }
        }
        Some(last)
    }

    pub(super) fn encode(&self) -> io::Result<String> {
        let services = self.services.iter().map(|(owner, service)| {
            let unserved = self.unserved.contains(&service.name);
            (*owner, write::service_text(service), unserved)
        });
        let refused = self
            .refused
            .iter()
            .map(|refused| (refused.owner, refused.text.clone(), true));
        let services = services.chain(refused).map(|(owner, text, unserved)| {
            let service = RawValue::from_string(text)?;
            Ok(LastEntry {
                owner,
                service,
                unserved,
            })
        });
        let kept = self.kept.iter().map(|kept| {
            let service = RawValue::from_string(write::service_text(&kept.service))?;
            Ok(KeptEntry {
                service,
                unserved: kept.is_unserved,
            })
        });
        let document = LastDocument {
            boot: self.boot.clone(),
            namespace: self.namespace,
            known: self.known,
            revision: self.revision,
            identity: self.identity,
            lineage: self.lineage,
            origin: self.origin.clone(),
            services: services.collect::<serde_json::Result<Vec<_>>>()?,
            kept: kept.collect::<serde_json::Result<Vec<_>>>()?,
            resources: self.resources.as_ref().map(LastResources::encode).transpose()?,
            apps: self
                .apps
                .iter()
                .map(|(id, app)| (id.to_string(), app.to_string()))
                .collect(),
            pauses: self.pauses.clone(),
            notes: self.notes.clone(),
        };
        let json = serde_json::to_string(&document)?;
        let checksum = crc32fast::hash(json.as_bytes());
        Ok(format!("{MAGIC}{checksum:08x}\n{json}"))
    }
}
