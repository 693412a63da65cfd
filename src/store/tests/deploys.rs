//! Deploys in the store: begun, followed, superseded, and forgotten in the end.

use super::*;

fn step(id: u64, phase: DeployPhase, reason: Option<&str>) -> DeployStep {
    DeployStep {
        id,
        phase,
        reason: reason.map(str::to_owned),
    }
}

#[test]
fn a_deploy_begins_together_with_the_end_of_another() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let first = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    let next = NewDeploy {
        ends: vec![
            step(first, DeployPhase::Failed, Some("no room")),
            step(99, DeployPhase::Failed, None),
        ],
        ..new_deploy("a")
    };
    let second = store.deploy_begin(&next, &by("deploy"), at(11)).unwrap();
    let ended = store.deploy(first).unwrap().unwrap();
    assert_eq!(
        (ended.phase, ended.reason.as_deref()),
        (DeployPhase::Failed, Some("no room"))
    );
    assert_eq!(store.deploy(second).unwrap().unwrap().phase, DeployPhase::Probing);
    // The step is repeated, and is over already.
    let third = NewDeploy {
        ends: vec![
            step(first, DeployPhase::Failed, None),
            step(second, DeployPhase::Undone, None),
        ],
        ..new_deploy("a")
    };
    assert_eq!(store.deploy_begin(&third, &by("deploy"), at(12)).unwrap(), second + 1);
}

#[test]
fn a_deploy_supersedes_those_that_probe_and_no_others() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let first = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    store
        .deploy_update(&step(first, DeployPhase::Switched, None), at(11))
        .unwrap();
    let second = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(12)).unwrap();
    let next = NewDeploy {
        supersedes: vec![first, second, 99],
        ..new_deploy("a")
    };
    let third = store.deploy_begin(&next, &by("deploy"), at(13)).unwrap();
    let mut reported = |id| {
        let deploy = store.deploy(id).unwrap().unwrap();
        (deploy.phase, deploy.reason)
    };
    assert_eq!(reported(first), (DeployPhase::Switched, None));
    assert_eq!(reported(second), (DeployPhase::Undone, Some(superseded_by(third))));
    assert_eq!(reported(third), (DeployPhase::Probing, None));
}

#[test]
fn a_deploy_is_followed_to_its_end() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    set(&mut store, "a", 2000);
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    let error = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap_err();
    assert_eq!(
        error,
        StoreError::Deploying {
            service: "a".into(),
            id
        }
    );
    let other = store.deploy_begin(&new_deploy("b"), &by("deploy"), at(11)).unwrap();
    assert_eq!((id, other), (1, 2));
    store
        .deploy_update(&step(id, DeployPhase::Probing, Some("1 of 2 answer")), at(12))
        .unwrap();
    let switch = StoreChange {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Revision(1))
    };
    assert_eq!(store.commit(&switch, &by("deploy"), at(13)).unwrap().revision, 2);
    let filter = HistoryFilter {
        deploy: Some(id),
        limit: 9,
        ..HistoryFilter::default()
    };
    assert_eq!(store.history(&filter).unwrap().len(), 1);
    drop(store);
    let mut store = Store::open(&place.path).unwrap();
    store.load().unwrap();
    let open: Vec<_> = store
        .unfinished_deploys()
        .unwrap()
        .iter()
        .map(|deploy| (deploy.id, deploy.phase))
        .collect();
    assert_eq!(open, [(1, DeployPhase::Switched), (2, DeployPhase::Probing)]);
    // While the old backends drain the next deploy may begin.
    let next = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(14)).unwrap();
    store
        .deploy_update(&step(id, DeployPhase::Drained, None), at(15))
        .unwrap();
    store
        .deploy_update(&step(other, DeployPhase::Failed, Some("10.2.0.1:80: refused")), at(16))
        .unwrap();
    let expected = StoredDeploy {
        id: 1,
        service: "a".into(),
        targets: ["10.2.0.1:80", "[fd00:2::1]:80"].map(|at| at.parse().unwrap()).into(),
        details: json!({"until": "drained", "was": ["10.2.0.9:80"]}),
        uid: 1000,
        pid: 77,
        what: "deploy".into(),
        phase: DeployPhase::Drained,
        reason: Some("1 of 2 answer".into()),
        began: at(10),
        updated: at(15),
        revision: Some(2),
    };
    assert_eq!(store.deploy(id).unwrap(), Some(expected));
    let listed = |store: &mut Store, service: Option<&str>| -> Vec<u64> {
        store
            .deploys(service, 9)
            .unwrap()
            .iter()
            .map(|deploy| deploy.id)
            .collect()
    };
    assert_eq!(listed(&mut store, Some("a")), [3, 1]);
    assert_eq!(listed(&mut store, None), [3, 2, 1]);
    assert_eq!(store.deploy(4), Ok(None));
    assert_eq!(next, 3);
}

#[test]
fn a_step_that_cannot_be_takes_its_change_with_it() {
    let place = place();
    let mut store = Store::open(&place.path).unwrap();
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(10)).unwrap();
    store
        .deploy_update(&step(id, DeployPhase::Undone, None), at(11))
        .unwrap();
    let late = StoreChange {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Anything)
    };
    let error = store.commit(&late, &by("deploy"), at(12)).unwrap_err();
    assert_eq!(error.to_string(), "deploy 1 is undone, it cannot become switched");
    assert_eq!(names(&mut store), []);
    let unknown = store
        .deploy_update(&step(7, DeployPhase::Undone, None), at(11))
        .unwrap_err();
    assert_eq!(unknown, StoreError::NoDeploy(7));
    // What fails as a change leaves the deploy as it was, too.
    let id = store.deploy_begin(&new_deploy("a"), &by("deploy"), at(13)).unwrap();
    let stale = StoreChange {
        deploy: Some(step(id, DeployPhase::Switched, None)),
        ..put("a", 2001, Expect::Revision(9))
    };
    store.commit(&stale, &by("deploy"), at(14)).unwrap_err();
    assert_eq!(store.deploy(id).unwrap().unwrap().phase, DeployPhase::Probing);
}

#[test]
fn finished_deploys_are_forgotten_unfinished_ones_are_not() {
    let place = place();
    let mut store = Store::open_with(
        &place.path,
        HistoryBounds {
            deploys: 2,
            ..HistoryBounds::default()
        },
    )
    .unwrap();
    for nth in 1..=6 {
        let id = store
            .deploy_begin(&new_deploy(&format!("s{nth}")), &by("deploy"), at(1))
            .unwrap();
        assert_eq!(id, nth);
        if nth != 2 {
            store
                .deploy_update(&step(id, DeployPhase::Failed, None), at(2))
                .unwrap();
        }
    }
    let left: Vec<u64> = store.deploys(None, 9).unwrap().iter().map(|deploy| deploy.id).collect();
    assert_eq!(left, [6, 5, 2]);
}
