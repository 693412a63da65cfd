//! File of last services: the services that were desired last, and the add-on's resources, beside the store. A machine
//! that boots without its state file, or with a lost store, continues with these.
//!
//! It is a second copy, which is not used while the state file and the store exist.

mod document;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::addon::id::{PlatformId, ResourceId};
use crate::addon::{Removed, Resource};
use crate::record::{RecordedPause, RecordedStore, StoreIdentity, StoreLineage};
use crate::run_file;
use tcpgw_core::model::Service;
use tcpgw_core::owner::Owner;
use tcpgw_core::problem::{Problem, ProblemKind, Severity};

/// Upper bound of the size of the file, in bytes.
const MOST_BYTES: u64 = 256 << 20;

/// Endings of files that were set aside, after the name of the file of last services.
const ASIDE: [&str; 4] = [".damaged", ".damaged.1", ".damaged.2", ".damaged.3"];

/// Contents of the file of last services.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LastServices {
    /// The kernel's name for the boot in which it was written.
    pub boot: String,
    /// The cookie of the network namespace.
    pub namespace: u64,
    /// Time since the machine's start (`CLOCK_BOOTTIME`) at which the contents were current. Zero if the version that
    /// wrote it did not store it.
    pub known: Duration,
    /// The revision of the store when this was written, or the last one that was known.
    pub revision: u64,
    /// Identity of that store; `None` if the version that wrote it did not store it.
    pub identity: Option<StoreIdentity>,
    /// Lineage of that store, as far as it is known.
    pub lineage: StoreLineage,
    /// The state file that the services of the provider `file` come from.
    pub origin: Option<PathBuf>,
    /// Services with their owners.
    pub services: Vec<(Owner, Arc<Service>)>,
    /// Names of services that the kernel did not hold when this was written, for example because they were held back.
    pub unserved: BTreeSet<Box<str>>,
    /// Services that are in effect in an older form while a change of them is held back.
    pub kept: Vec<KeptService>,
    /// Services that this version does not accept; they are kept for one that does.
    pub refused: Vec<RefusedService>,
    /// The add-on's resources; `None` if the version that wrote the file did not know them, or this version does not
    /// accept them.
    pub resources: Option<LastResources>,
    /// The apps of services of the add-on whose resources are not among [`LastServices::resources`].
    pub apps: BTreeMap<ResourceId, PlatformId>,
    /// Pauses in effect when this was written: a second copy of what the record of that boot says.
    pub pauses: Vec<RecordedPause>,
    /// Facts that a later start has to report, or to compare with what it finds.
    pub notes: LastNotes,
}

/// Facts beside the services, for a later start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastNotes {
    /// Whether this file was missing at a start beside a store that was not new, and the daemon was not reloaded since.
    #[serde(default)]
    pub was_missing: bool,
    /// Consequences of a record that was missing or damaged at a start in this boot, if the daemon was not reloaded since.
    #[serde(default)]
    pub record_lost: Option<String>,
    /// Whether there was a configuration at its default path with other settings than the defaults, or its loss was not
    /// confirmed by a reload.
    #[serde(default)]
    pub is_configured: bool,
}

impl LastNotes {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A service as it is served while a change of it is held back.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptService {
    /// Effective form of the service, under the name of the desired one.
    pub service: Arc<Service>,
    /// The kernel did not hold it when this was written: it was not possible either since the machine booted.
    pub is_unserved: bool,
}

/// The add-on's resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastResources {
    /// Present resources.
    pub resources: Vec<Arc<Resource>>,
    /// The last [`MOST_REMOVED`] that were deprovisioned, in the order in which they were.
    pub removed: Vec<Removed>,
}

/// Largest number of deprovisioned resources that are kept.
pub const MOST_REMOVED: usize = 1000;

/// A service that this version does not accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedService {
    owner: Owner,
    text: String,
    /// Reason why it is not accepted.
    pub problems: String,
}

/// Reason why the file was not read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LastServicesError {
    /// The file exists and could not be read.
    #[error("failed to read {}: {message}", tcpgw_core::escape::path(path))]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The system's answer.
        message: String,
    },
    /// The file is damaged.
    #[error("{} is damaged: the services that were served last cannot be read from it", tcpgw_core::escape::path(.0))]
    Damaged(PathBuf),
}

impl LastServices {
    /// Returns the path of the file that belongs to a store.
    pub fn path(store: &Path) -> PathBuf {
        run_file::with_suffix(store, ".last")
    }

    /// Reads the file; `None` if it does not exist.
    ///
    /// # Errors
    ///
    /// Fails when the file exists and cannot be read, or is damaged.
    pub fn load(path: &Path) -> Result<Option<Self>, LastServicesError> {
        let failed = |error: io::Error| LastServicesError::Io {
            path: path.to_owned(),
            message: error.to_string(),
        };
        let bytes = match run_file::read(path, MOST_BYTES) {
            Ok(content) => content.bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        Self::decode(&bytes)
            .map(Some)
            .ok_or_else(|| LastServicesError::Damaged(path.to_owned()))
    }

    /// Renames a file that could not be read, so that it is not overwritten. At most four are kept.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be renamed.
    pub fn set_aside(path: &Path) -> io::Result<PathBuf> {
        let mut names = aside(path);
        let free = names.clone().find(|name| name.symlink_metadata().is_err());
        let name = free.or_else(|| names.next_back()).unwrap_or_else(|| path.to_owned());
        fs::rename(path, &name)?;
        Ok(name)
    }

    /// Returns the problem that there are files beside the store that were set aside. Where nothing is served it may be because
    /// of that.
    pub fn problem(store: &Path, is_serving: bool) -> Option<Problem> {
        let path = Self::path(store);
        let names = aside(&path).filter(|name| name.symlink_metadata().is_ok());
        let names: Vec<String> = names.map(|name| tcpgw_core::escape::path(&name)).collect();
        let (file, verb) = match names.len() {
            0 => return None,
            1 => ("it", "was"),
            _ => ("them", "were"),
        };
        let message = format!(
            "{}: the services that were served last could not be read from {file}, and {file} {verb} set aside: check whether any are \
             missing, order these anew, and remove {file}",
            names.join(", ")
        );
        let severity = if is_serving { Severity::Warning } else { Severity::Error };
        Some(Problem::new(ProblemKind::LastServices, message).with_severity(severity))
    }

    /// Returns whether the file is newer than what was known of a network namespace in a boot: services that it does
    /// not name have been removed since.
    pub fn is_newer(&self, known: Duration, boot: &str, namespace: u64) -> bool {
        // A service that this version does not accept may be in effect nevertheless.
        let is_complete = self.refused.is_empty();
        is_complete && self.boot == boot && self.namespace == namespace && self.known > known
    }

    /// Returns the facts of the record about the store without those that this file knows better, because it is newer.
    #[must_use]
    pub fn amended(&self, recorded: RecordedStore, boot: &str, namespace: u64) -> RecordedStore {
        let is_outdated = self.is_newer(recorded.known, boot, namespace);
        if is_outdated {
            return RecordedStore {
                known: recorded.known,
                ..RecordedStore::default()
            };
        }
        recorded
    }

    /// Returns the contents without the services of these names.
    #[must_use]
    pub fn without(&self, names: &BTreeSet<Box<str>>) -> Self {
        let mut left = self.clone();
        left.services.retain(|(_, service)| !names.contains(&service.name));
        left.kept.retain(|kept| !names.contains(&kept.service.name));
        left.unserved.retain(|name| !names.contains(name));
        left
    }

    /// Writes the file, whole or not at all; it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        run_file::replace_durably(path, self.encode()?.as_bytes())
    }
}

fn aside(path: &Path) -> impl DoubleEndedIterator<Item = PathBuf> + Clone + use<> {
    let path = path.to_owned();
    ASIDE.iter().map(move |ending| run_file::with_suffix(&path, ending))
}

#[cfg(test)]
mod tests {
    use super::document::MAGIC;
    use super::*;
    use crate::record::StoreEpoch;
    use tcpgw_core::model::parse_service;

    const RESOURCE: &str = r#"{"id": "baaaaaaaaaaa", "dialect": "scalingo", "app": "my-app", "uuid": null, "owner": null, "plan": "small",
        "port": 20000, "status": "suspended", "bindings": {}, "created": {"secs": 1, "nanos": 0}}"#;
    const REMOVED: &str = r#"{"id": "caaaaaaaaaaa", "dialect": "heroku", "app": "other", "port": {"port": 20001,
        "until": {"secs": 2, "nanos": 0}}, "at": {"secs": 1, "nanos": 0}}"#;

    fn resource() -> Resource {
        let mut resource: Resource = serde_json::from_str(RESOURCE).unwrap();
        resource.asked = Some(crate::addon::Fingerprint::of(&serde_json::json!({"foo": 1})));
        resource.plan_id = Some("5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11".parse().unwrap());
        resource
    }

    fn last() -> LastServices {
        let service = br#"{"name": "a", "port": 2001, "backends": ["10.2.0.11:80"], "labels": {"k": "v"}}"#;
        let kept = br#"{"name": "a", "port": 2002, "backends": ["10.2.0.12:80"]}"#;
        LastServices {
            boot: "b".into(),
            namespace: 7,
            known: Duration::from_millis(1001),
            revision: 5,
            identity: Some(String::from("00c0ffee00c0ffee").try_into().unwrap()),
            lineage: StoreLineage {
                epoch: Some(StoreEpoch::new(u64::MAX)),
                contents: Some(i64::MIN),
            },
            origin: Some("/s.json".into()),
            services: vec![(Owner::Api, Arc::new(parse_service(service).unwrap()))],
            unserved: ["a".into()].into(),
            kept: vec![KeptService {
                service: Arc::new(parse_service(kept).unwrap()),
                is_unserved: true,
            }],
            refused: Vec::new(),
            resources: Some(LastResources {
                resources: vec![Arc::new(resource())],
                removed: vec![serde_json::from_str(REMOVED).unwrap()],
            }),
            apps: [("daaaaaaaaaaa".parse().unwrap(), "third".parse().unwrap())].into(),
            pauses: vec![RecordedPause {
                service: "a".into(),
                since: 1,
                uid: 2,
                browser: None,
                until: Duration::from_secs(3),
                time: Duration::from_secs(4),
            }],
            notes: LastNotes {
                was_missing: true,
                record_lost: Some("words".into()),
                is_configured: true,
            },
        }
    }

    #[test]
    fn it_is_read_as_it_was_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = LastServices::path(&directory.path().join("tcpgw.db"));
        assert_eq!(path.file_name().unwrap(), "tcpgw.db.last");
        assert_eq!(LastServices::load(&path), Ok(None));
        last().save(&path).unwrap();
        assert_eq!(LastServices::load(&path), Ok(Some(last())));
        let mut bytes = fs::read(&path).unwrap();
        for at in 0..bytes.len() {
            bytes[at] ^= 1;
            assert_eq!(LastServices::decode(&bytes), None, "byte {at}");
            assert_eq!(LastServices::decode(&bytes[..at]), None);
            bytes[at] ^= 1;
        }
    }

    #[test]
    fn a_service_that_is_not_accepted_takes_no_other_with_it() {
        let text = last().encode().unwrap();
        let (_, json) = text.split_once('\n').unwrap();
        let bad = r#"{"owner":"api","service":{"name":"b","port":0}},"#;
        let json = json.replace(r#""services":["#, &format!(r#""services":[{bad}"#));
        let checksum = crc32fast::hash(json.as_bytes());
        let read = LastServices::decode(format!("{MAGIC}{checksum:08x}\n{json}").as_bytes()).unwrap();
        assert_eq!((&read.services, read.refused.len()), (&last().services, 1));
        // A version that accepts it finds it.
        assert!(read.encode().unwrap().contains(r#"{"name":"b","port":0}"#));
    }

    #[test]
    fn no_part_of_what_is_torn_changed_or_too_large_is_believed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db.last");
        last().save(&path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(
                LastServices::load(&path),
                Err(LastServicesError::Damaged(path.clone())),
                "{length} bytes"
            );
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(
                LastServices::load(&path),
                Err(LastServicesError::Damaged(path.clone())),
                "byte {at}"
            );
        }
        fs::write(&path, [&whole[..], b"{}"].concat()).unwrap();
        assert_eq!(LastServices::load(&path), Err(LastServicesError::Damaged(path.clone())));
        fs::File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(MOST_BYTES + 1)
            .unwrap();
        LastServices::load(&path).unwrap_err();
        fs::write(&path, whole).unwrap();
        assert_eq!(LastServices::load(&path), Ok(Some(last())));
    }

    #[test]
    fn what_is_damaged_is_kept_beside_and_is_a_problem_until_somebody_removes_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("db");
        let path = LastServices::path(&store);
        assert_eq!(LastServices::problem(&store, false), None);
        for round in 0..6 {
            fs::write(&path, format!("damaged {round}")).unwrap();
            LastServices::set_aside(&path).unwrap();
            assert!(!path.exists());
        }
        let kept: Vec<_> = aside(&path).map(|name| fs::read_to_string(name).unwrap()).collect();
        assert_eq!(kept, ["damaged 0", "damaged 1", "damaged 2", "damaged 5"]);
        let problem = LastServices::problem(&store, false).unwrap();
        assert!(problem.message.contains("db.last.damaged,"), "{}", problem.message);
        assert_eq!(problem.severity, Severity::Error);
        assert_eq!(LastServices::problem(&store, true).unwrap().severity, Severity::Warning);
        for name in aside(&path) {
            fs::remove_file(name).unwrap();
        }
        assert_eq!(LastServices::problem(&store, true), None);
    }

    #[test]
    fn what_another_user_planted_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let (path, other) = (directory.path().join("db.last"), directory.path().join("other"));
        last().save(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(matches!(LastServices::load(&path), Err(LastServicesError::Io { .. })));
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(LastServices::load(&path), Err(LastServicesError::Io { .. })));
    }
}
