//! Deploys: one at a time for each service, which ends as a whole and is known by its end.

use std::sync::Arc;
use std::time::Duration;

use tcpgw::control::events::{After, EventContent};
use tcpgw::store::{DeployPhase, superseded_by};
use tcpgw_core::model::Endpoint;

use super::{Event, World, endpoint};

/// A deploy whose switch meets a full store has failed: its clients are told at once, and the store gets the result later.
#[test]
fn a_deploy_whose_switch_cannot_be_stored_fails() {
    let mut world = probing();
    let deploy = |world: &World| world.core.deploys(world.time()).pop();
    assert_eq!(deploy(&world).unwrap().phase, "probing");
    world.happen(Event::Full(20));
    world.containers.down.clear();
    world.wait(Duration::from_secs(5));
    let over = deploy(&world).unwrap();
    assert_eq!(over.phase, "failed");
    assert!(
        over.reason
            .as_ref()
            .is_some_and(|reason| reason.contains("no space is left")),
        "{over:?}"
    );
    let reported = |world: &World| {
        let events = world.core.follow(&After::Start).kept;
        events
            .iter()
            .filter(|event| matches!(&event.what, EventContent::Deploy { phase: "failed", .. }))
            .count()
    };
    assert_eq!(reported(&world), 1);
    world.wait(Duration::from_secs(60));
    assert_eq!(deploy(&world), None);
    assert_eq!(reported(&world), 1, "it is told once");
    assert_eq!(world.store().deploys(None, 1).unwrap()[0].phase, DeployPhase::Failed);
    world.end().unwrap();
}

/// A deploy that has failed because the store is full does not block the next one: that is refused while the store is full, and
/// begins as soon as there is room.
#[test]
fn a_failed_deploy_does_not_block_the_next_one_of_its_service() {
    let mut world = failed_in_a_full_store();
    let phases = |world: &World| -> Vec<std::borrow::Cow<'static, str>> {
        let deploys = world.core.deploys(world.time()).into_iter();
        deploys.map(|deploy| deploy.phase).collect()
    };
    assert_eq!(phases(&world), ["failed"]);
    world.deploy(0, &[4], None);
    let mut answer = world.clients.deploys.pop().unwrap();
    world.run();
    let refused = answer.try_recv().unwrap().unwrap_err();
    assert!(
        refused.lines().concat().contains("no space is left"),
        "not for the one that is over: {refused:?}"
    );
    // Before the end of the first one is written for itself.
    world.storage().full_until = None;
    world.containers.down.insert(endpoint(4));
    world.deploy(0, &[4], None);
    let mut answer = world.clients.deploys.pop().unwrap();
    world.run();
    let second = answer.try_recv().unwrap().unwrap();
    assert_eq!(phases(&world), ["probing"]);
    let stored = |world: &mut World| -> Vec<(u64, DeployPhase)> {
        let deploys = world.store().deploys(None, 2).unwrap();
        deploys.iter().map(|deploy| (deploy.id, deploy.phase)).collect()
    };
    assert_eq!(
        stored(&mut world),
        [(second, DeployPhase::Probing), (second - 1, DeployPhase::Failed)]
    );
    world.containers.down.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(stored(&mut world)[0], (second, DeployPhase::Drained));
    world.end().unwrap();
}

/// The end of a deploy that could not be stored is written together with the next deploy, and not once more: the store would refuse
/// that, and would have to be read anew.
#[test]
fn an_end_that_the_next_deploy_has_written_is_not_written_again() {
    let mut world = failed_in_a_full_store();
    assert_eq!(world.core.deploys(world.time())[0].phase, "failed");
    world.storage().full_until = None;
    // After this change the store is read, and known for certain: the first deploy still probes there.
    world.happen(Event::Patch(1, 3));
    world.run();
    let phases = |world: &mut World| -> Vec<DeployPhase> {
        let deploys = world.store().deploys(None, 2).unwrap();
        deploys.iter().map(|deploy| deploy.phase).collect()
    };
    assert_eq!(phases(&mut world), [DeployPhase::Probing]);
    world.containers.down.insert(endpoint(4));
    world.deploy(0, &[4], None);
    world.run();
    assert_eq!(phases(&mut world), [DeployPhase::Probing, DeployPhase::Failed]);
    world.wait(Duration::from_secs(10));
    assert_eq!(world.storage().steps_too_late, 0);
    world.containers.down.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(phases(&mut world), [DeployPhase::Drained, DeployPhase::Failed]);
    world.end().unwrap();
}

/// A new deploy supersedes one that probes. Targets of both are still probed, those of the first only are not.
#[test]
fn a_deploy_supersedes_one_that_probes() {
    let mut world = World::new();
    world.containers.down.extend([endpoint(3), endpoint(4)]);
    world.deploy(0, &[3, 4], None);
    world.run();
    let first = world.core.deploys(world.time())[0].id;
    world.deploy(0, &[4, 5], None);
    let mut answer = world.clients.deploys.pop().unwrap();
    world.run();
    let refused = answer.try_recv().unwrap().unwrap_err().lines().concat();
    assert!(
        refused.contains("is under way") && refused.contains("--supersede"),
        "{refused}"
    );
    world.deploy_as(0, &[4, 5], None, true);
    let mut answer = world.clients.deploys.pop().unwrap();
    world.run();
    let second = answer.try_recv().unwrap().unwrap();
    let live: Vec<u64> = world
        .core
        .deploys(world.time())
        .iter()
        .map(|deploy| deploy.id)
        .collect();
    assert_eq!(live, [second]);
    let stored = world.store().deploy(first).unwrap().unwrap();
    assert_eq!(
        (stored.phase, stored.reason),
        (DeployPhase::Undone, Some(superseded_by(second)))
    );
    let events = world.core.follow(&After::Start).kept;
    let reported = |wanted: u64, word: &str| {
        let is_it = |event: &&Arc<tcpgw::control::events::Event>| matches!(&event.what, EventContent::Deploy { id, phase, .. } if *id == wanted && *phase == word);
        events.iter().filter(is_it).count()
    };
    assert_eq!((reported(first, "undone"), reported(second, "probing")), (1, 1));
    let is_probed = |world: &mut World, last| world.core.health().get(endpoint(last)).is_some();
    assert!(!is_probed(&mut world, 3) && is_probed(&mut world, 4) && is_probed(&mut world, 5));
    // Late results of the first deploy change nothing.
    world.containers.down.clear();
    world.wait(Duration::from_secs(60));
    let phases: Vec<DeployPhase> = world
        .store()
        .deploys(None, 2)
        .unwrap()
        .iter()
        .map(|deploy| deploy.phase)
        .collect();
    assert_eq!(phases, [DeployPhase::Drained, DeployPhase::Undone]);
    let serving: Vec<Endpoint> = world.core.membership().serving()["a"]
        .backends
        .iter()
        .map(|backend| backend.endpoint)
        .collect();
    assert_eq!(serving, [4, 5].map(|last| Endpoint::try_from(endpoint(last)).unwrap()));
    world.check().unwrap();
    world.end().unwrap();
}

/// While the store is full a new deploy does not supersede the running one, which is not reported as ended.
#[test]
fn a_deploy_that_cannot_be_stored_supersedes_nothing() {
    let mut world = probing();
    world.happen(Event::Full(5));
    world.deploy_as(0, &[4], None, true);
    world.run();
    let live = world.core.deploys(world.time());
    assert_eq!((live.len(), &*live[0].phase), (1, "probing"));
    world.wait(Duration::from_secs(10));
    world.containers.down.clear();
    world.wait(Duration::from_secs(60));
    assert_eq!(
        world.core.membership().serving()["a"].backends[0].endpoint,
        Endpoint::try_from(endpoint(3)).unwrap()
    );
    world.end().unwrap();
}

/// A repeated deploy of the backends that already serve changes nothing.
#[test]
fn a_deploy_of_backends_that_serve_already_changes_nothing() {
    let mut world = World::new();
    let mut last = |targets: &[u8]| {
        world.deploy(0, targets, None);
        world.wait(Duration::from_secs(30));
        let mut deploys = world.store().deploys(None, 1).unwrap();
        let deploy = deploys.remove(0);
        assert_eq!(deploy.phase, DeployPhase::Drained, "{deploy:?}");
        deploy.reason.unwrap()
    };
    assert_eq!(last(&[3, 4]), "the old backends have left");
    assert_eq!(last(&[3, 4]), "nothing changed: these backends serve already");
    assert_eq!(last(&[3, 4, 5]), "there were no other backends, so none had to leave");
    world.end().unwrap();
}

/// Returns a world with a deploy of 3, which does not answer.
fn probing() -> World {
    let mut world = World::new();
    world.containers.down.insert(endpoint(3));
    world.deploy(0, &[3], None);
    world.run();
    world
}

/// Returns a world with a deploy that has failed, because its switch met a full store.
fn failed_in_a_full_store() -> World {
    let mut world = probing();
    world.happen(Event::Full(5));
    world.containers.down.clear();
    world.wait(Duration::from_secs(1));
    world
}
