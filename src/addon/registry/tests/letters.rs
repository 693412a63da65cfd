//! Ids that differ in the case of their letters only.

use super::*;

const LOWER: &str = "5f0e3bd2-8f0c-4a5e-9f6f-0d2f6a4a1c11";
const UPPER: &str = "5F0E3BD2-8F0C-4A5E-9F6F-0D2F6A4A1C11";
const MIXED: &str = "5f0e3bd2-8F0C-4a5e-9f6f-0d2f6a4a1c11";

fn of(dialect: Dialect, app: &str) -> ResourceTarget {
    ResourceTarget::App(dialect, id(app))
}

/// A resource that an earlier version has stored, under the letters that it was provisioned with.
fn stored(app: &str, number: u16) -> Resource {
    Resource {
        id: ResourceId::from_random(number.into()),
        dialect: Dialect::Heroku,
        app: id(app),
        uuid: None,
        owner: None,
        plan: "free".parse().unwrap(),
        plan_id: None,
        port: port(20_000 + number),
        status: ResourceStatus::Active,
        bindings: BTreeMap::new(),
        created: NOW,
        asked: None,
    }
}

fn restarted(resources: impl IntoIterator<Item = Resource>) -> World {
    let mut world = World::new(20_009);
    let range = PortRange::new(port(20_000), port(20_009)).unwrap();
    world.registry = Registry::new(range, HOUR, resources, [], NOW);
    world
}

/// In Heroku's dialect the id is a UUID: one in capitals names the same resource from its provision to the time after its removal.
#[test]
fn a_uuid_names_one_resource_in_all_letters() {
    let mut world = restarted([stored(UPPER, 0)]);
    let first = Arc::clone(world.registry.find(&of(Dialect::Heroku, UPPER)).unwrap());
    for letters in [UPPER, LOWER, MIXED] {
        let again = world.provision(Dialect::Heroku, letters);
        assert_eq!(again, Ok(AddonOutcome::Unchanged(Arc::clone(&first))), "{letters}");
        for target in [of(Dialect::Heroku, letters), ResourceTarget::Any(id(letters))] {
            assert_eq!(world.registry.find(&target), Ok(&first), "{target:?}");
        }
        assert_eq!(world.registry.all_of_app(&id(letters), 9), [first.id], "{letters}");
        let other_plan = Provision {
            plan: plan("large"),
            ..wanted(Dialect::Heroku, letters)
        };
        let refused = world.request(&AddonRequest::Provision(other_plan)).unwrap_err();
        assert!(refused.to_string().contains("with plan free"), "{refused}");
        // The app is named as it was asked for.
        let refused = world.provision(Dialect::Local, letters).unwrap_err();
        assert!(refused.to_string().contains(letters), "{refused}");
    }
    world
        .request(&AddonRequest::Deprovision(of(Dialect::Heroku, MIXED)))
        .unwrap();
    for letters in [UPPER, LOWER, MIXED] {
        assert_eq!(
            world.provision(Dialect::Heroku, letters),
            Err(Refusal::Gone),
            "{letters}"
        );
        for target in [of(Dialect::Heroku, letters), ResourceTarget::Any(id(letters))] {
            assert_eq!(world.registry.find(&target), Err(Refusal::Gone), "{target:?}");
        }
        assert_eq!(world.registry.all_of_app(&id(letters), 9), [first.id], "{letters}");
    }
}

/// Scalingo's `uuid` tells requests apart in the same way.
#[test]
fn a_repeated_request_is_known_by_its_uuid_in_all_letters() {
    let mut world = World::new(20_009);
    let with_uuid = |app: &str, uuid: &str| {
        AddonRequest::Provision(Provision {
            uuid: Some(id(uuid)),
            ..wanted(Dialect::Scalingo, app)
        })
    };
    let first = created(world.request(&with_uuid("my-app", LOWER)));
    let again = world.request(&with_uuid("my-app", UPPER));
    assert_eq!(again, Ok(AddonOutcome::Unchanged(first)));
    let refused = world.request(&with_uuid("other", UPPER)).unwrap_err();
    assert!(refused.to_string().contains("app my-app has a resource"), "{refused}");
    // Older clients send nothing else, so that it is the app, too.
    let old = created(world.request(&with_uuid(&LOWER.replace('5', "6"), &LOWER.replace('5', "6"))));
    let again = world.request(&with_uuid(&UPPER.replace('5', "6"), &UPPER.replace('5', "6")));
    assert_eq!(again, Ok(AddonOutcome::Unchanged(old)));
}

/// An id of another dialect, or one that is no UUID, is compared by its letters.
#[test]
fn other_ids_are_compared_by_their_letters() {
    let mut world = World::new(20_009);
    let ids: Vec<ResourceId> = [
        (Dialect::Osb, LOWER),
        (Dialect::Osb, UPPER),
        (Dialect::CleverCloud, MIXED),
        (Dialect::Heroku, "my-app"),
        (Dialect::Heroku, "My-App"),
        (Dialect::Scalingo, "MY-APP"),
    ]
    .map(|(dialect, app)| created(world.provision(dialect, app)).id)
    .to_vec();
    let distinct: BTreeSet<&ResourceId> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    // The same letters name one resource, whatever the dialect.
    let refused = world.provision(Dialect::Heroku, UPPER).unwrap_err();
    assert!(refused.to_string().contains("provisioned through osb"), "{refused}");
}

/// Resources of an earlier version that differ in case only stay apart: each is found by its own letters, and by no others.
#[test]
fn resources_that_an_earlier_version_has_told_apart_stay_apart() {
    let mut world = restarted([stored(UPPER, 0), stored(LOWER, 1)]);
    for (letters, number) in [(UPPER, 0), (LOWER, 1)] {
        let expected = ResourceId::from_random(number);
        let found = world.registry.find(&of(Dialect::Heroku, letters)).unwrap();
        assert_eq!(found.id, expected, "{letters}");
        let again = world.provision(Dialect::Heroku, letters).unwrap();
        assert_eq!(again.resource().id, expected, "{letters}");
    }
    let found = world.registry.find(&of(Dialect::Heroku, MIXED));
    assert_eq!(found, Err(Refusal::NotFound));
    // When one has gone, all letters name the other one.
    world
        .request(&AddonRequest::Deprovision(of(Dialect::Heroku, UPPER)))
        .unwrap();
    let found = world.registry.find(&of(Dialect::Heroku, MIXED)).unwrap();
    assert_eq!(found.id, ResourceId::from_random(1));
}
