//! Parameters with which resources and bindings were requested, and the ids of plans: a table of its own, created when
//! it is needed, so that a version that does not know it reads and writes the store as before.
//!
//! A row has the checksum of the resource that it was written with. If another version has changed the resource since,
//! the row is ignored.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension as _, Transaction};
use serde::{Deserialize, Serialize};

use super::error::Fault;
use super::seal::RowChecksum;
use crate::addon::id::{Guid, PlatformId, ResourceId};
use crate::addon::{Fingerprint, Resource};

const TABLE: &str = "
CREATE TABLE IF NOT EXISTS resource_asked (
    id TEXT PRIMARY KEY, resource INTEGER NOT NULL, body TEXT NOT NULL, crc INTEGER NOT NULL
) STRICT;
";

/// Parameters with which one resource and its bindings were requested, and the id of its plan.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestedParameters {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    plan: Option<Guid>,
    instance: Option<Fingerprint>,
    bindings: BTreeMap<PlatformId, Fingerprint>,
}

impl RequestedParameters {
    /// Returns the parameters of a resource; `None` if they are not known.
    pub(super) fn known_of(resource: &Resource) -> Option<Self> {
        let parameters = Self::of(resource);
        (parameters != Self::default()).then_some(parameters)
    }

    /// Adds the parameters to the resource.
    pub(super) fn complete(self, resource: &mut Resource) {
        resource.plan_id = self.plan;
        resource.asked = self.instance;
        for (id, fingerprint) in self.bindings {
            if let Some(binding) = resource.bindings.get_mut(&id) {
                binding.asked = Some(fingerprint);
            }
        }
    }

    fn of(resource: &Resource) -> Self {
        let of_bindings = resource.bindings.iter();
        Self {
            plan: resource.plan_id.clone(),
            instance: resource.asked.clone(),
            bindings: of_bindings
                .filter_map(|(id, binding)| Some((id.clone(), binding.asked.clone()?)))
                .collect(),
        }
    }
}

/// Writes the parameters of this resource, which has this checksum.
pub(super) fn put(transaction: &Transaction<'_>, resource: &Resource, of: i64) -> Result<(), Fault> {
    let parameters = RequestedParameters::of(resource);
    if parameters == RequestedParameters::default() {
        return remove(transaction, resource.id);
    }
    let id = resource.id.as_str();
    let body = serde_json::to_string(&parameters).map_err(|error| Fault::damage(error.to_string()))?;
    transaction.execute_batch(TABLE)?;
    let query = "INSERT OR REPLACE INTO resource_asked (id, resource, body, crc) VALUES (?, ?, ?, ?)";
    transaction.execute(query, (id, of, &body, crc(id, of, &body)))?;
    Ok(())
}

pub(super) fn remove(transaction: &Transaction<'_>, id: ResourceId) -> Result<(), Fault> {
    if is_there(transaction)? {
        transaction.execute("DELETE FROM resource_asked WHERE id = ?", [id.as_str()])?;
    }
    Ok(())
}

/// Adds the known parameters to resources.
pub(super) fn complete(connection: &Connection, resources: &mut [Resource]) -> Result<(), Fault> {
    if !is_there(connection)? {
        return Ok(());
    }
    let query = "SELECT asked.id, asked.resource, asked.body, asked.crc FROM resource_asked AS asked
        JOIN resources ON resources.id = asked.id AND resources.crc = asked.resource";
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query(())?;
    while let Some(row) = rows.next()? {
        let (id, of, body): (String, i64, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        if row.get::<_, i64>(3)? != crc(&id, of, &body) {
            return Err(Fault::damage(format!(
                "the checksum of the parameters of resource {id:?} is wrong"
            )));
        }
        let parameters: RequestedParameters = serde_json::from_str(&body)
            .map_err(|error| Fault::damage(format!("the parameters of resource {id:?}: {error}")))?;
        let Ok(at) = resources.binary_search_by(|resource| resource.id.as_str().cmp(&id)) else {
            continue;
        };
        if let Some(resource) = resources.get_mut(at) {
            parameters.complete(resource);
        }
    }
    Ok(())
}

fn is_there(connection: &Connection) -> Result<bool, Fault> {
    let query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'resource_asked'";
    let row = connection.query_row(query, (), |_| Ok(()));
    Ok(row.optional()?.is_some())
}

fn crc(id: &str, of: i64, body: &str) -> i64 {
    RowChecksum::new("asked").text(id).int(of).text(body).end()
}

#[cfg(test)]
mod tests {
    use super::super::{resources, schema};
    use super::*;
    use crate::addon::{Binding, Dialect, ResourceChange, ResourceStatus};
    use serde_json::json;
    use std::num::NonZeroU16;
    use std::sync::Arc;
    use std::time::Duration;

    fn asked(number: u32) -> Fingerprint {
        Fingerprint::of(&json!({"foo": number}))
    }

    fn resource(id: u64, number: Option<u32>) -> Resource {
        let binding = |number| Binding {
            app: None,
            asked: number,
        };
        Resource {
            id: ResourceId::from_random(id),
            dialect: Dialect::Osb,
            app: format!("app-{id}").parse().unwrap(),
            uuid: None,
            owner: None,
            plan: "free".parse().unwrap(),
            plan_id: None,
            port: NonZeroU16::new(20_000).unwrap(),
            status: ResourceStatus::Active,
            bindings: [
                ("a".parse().unwrap(), binding(number.map(asked))),
                ("b".parse().unwrap(), binding(None)),
            ]
            .into(),
            created: Duration::ZERO,
            asked: number.map(asked),
        }
    }

    /// Reads the id from beside the resource, whose own text has the form that an earlier version reads and writes.
    #[test]
    fn the_id_of_a_plan_is_read_as_it_was_written() {
        let mut connection = store();
        let with_plan = Resource {
            plan_id: Some("5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11".parse().unwrap()),
            ..resource(1, None)
        };
        put(&mut connection, &with_plan);
        let loaded = |connection: &Connection| resources::load(connection).unwrap().resources;
        assert_eq!(loaded(&connection), [with_plan]);
        let body = "SELECT body FROM resources";
        let body: String = connection.query_row(body, (), |row| row.get(0)).unwrap();
        assert!(!body.contains("5f0e3bd2"), "{body}");
        // An earlier version knows nothing of it, and changes the resource.
        connection.execute("DELETE FROM resource_asked", ()).unwrap();
        assert_eq!(loaded(&connection), [resource(1, None)]);
    }

    fn store() -> Connection {
        let mut connection = Connection::open_in_memory().unwrap();
        schema::create(&mut connection).unwrap();
        connection
    }

    fn put(connection: &mut Connection, resource: &Resource) {
        let transaction = connection.transaction().unwrap();
        resources::commit(&transaction, &ResourceChange::Put(Arc::new(resource.clone()))).unwrap();
        transaction.commit().unwrap();
    }

    fn rows(connection: &Connection) -> i64 {
        let query = "SELECT count(*) FROM resource_asked";
        connection.query_row(query, (), |row| row.get(0)).unwrap()
    }

    #[test]
    fn what_was_asked_for_is_read_as_it_was_written() {
        let mut connection = store();
        let none = resource(1, None);
        put(&mut connection, &none);
        assert!(!is_there(&connection).unwrap(), "made when it is needed");
        let some = [resource(2, Some(2)), resource(3, Some(3))];
        for one in &some {
            put(&mut connection, one);
        }
        let loaded = |connection: &Connection| resources::load(connection).unwrap().resources;
        assert_eq!(loaded(&connection), [none.clone(), some[0].clone(), some[1].clone()]);
        put(&mut connection, &resource(3, None));
        assert_eq!((loaded(&connection)[2].asked.clone(), rows(&connection)), (None, 1));
        remove(&connection.transaction().unwrap(), some[0].id).unwrap();
        schema::verify(&connection).unwrap();
    }

    /// Lets a version that knows neither the table nor the members read and write resources.
    #[test]
    fn another_version_reads_the_store_and_its_changes_hold() {
        let mut connection = store();
        let before = resource(1, Some(1));
        put(&mut connection, &before);
        let body: String = connection
            .query_row("SELECT body FROM resources", (), |row| row.get(0))
            .unwrap();
        assert!(!body.contains("asked"), "{body}");
        assert_eq!(schema::check(&connection).unwrap(), 2);
        // The other version removes a binding; this one then knows nothing of the parameters.
        let row = "SELECT id, resource, body, crc FROM resource_asked";
        let read = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
        let kept: (String, i64, String, i64) = connection.query_row(row, (), read).unwrap();
        let mut changed = resource(1, None);
        changed.bindings.clear();
        put(&mut connection, &changed);
        let insert = "INSERT INTO resource_asked (id, resource, body, crc) VALUES (?, ?, ?, ?)";
        connection.execute(insert, kept).unwrap();
        assert_eq!(resources::load(&connection).unwrap().resources, [changed]);
    }

    #[test]
    fn a_row_that_is_not_what_was_written_is_damage() {
        let mut connection = store();
        put(&mut connection, &resource(1, Some(1)));
        connection.execute("UPDATE resource_asked SET body = '{}'", ()).unwrap();
        let fault = resources::load(&connection).unwrap_err();
        let text = fault.at(std::path::Path::new("store.db")).to_string();
        assert!(text.contains("the checksum of the parameters of resource"), "{text}");
    }
}
