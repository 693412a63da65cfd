//! Tests of connection slots and serving slots: which clients get them, and which make room for others.

use tokio::time::timeout;

use super::*;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

fn client(last: u8) -> ListenerClient {
    ListenerClient::at([192, 0, 2, last].into())
}

fn limits(slots: usize, patience: Duration) -> Arc<ConnectionLimits> {
    let limits = ConnectionLimits::new(slots);
    Arc::new(ConnectionLimits { patience, ..limits })
}

async fn taken(limits: &Arc<ConnectionLimits>, client: ListenerClient, count: usize) -> Vec<ConnectionSlot> {
    let mut slots = Vec::new();
    for _ in 0..count {
        slots.push(limits.slot(client).await.unwrap());
    }
    slots
}

/// A client that has its share and gets no answers has further connections closed, and other clients come in.
#[tokio::test]
async fn one_client_leaves_slots_for_others() {
    let limits = limits(100, SHORT);
    let one = taken(&limits, client(1), 75).await;
    assert!(limits.slot(client(1)).await.is_none());
    assert!(
        matches!(limits.admit(client(1), Instant::now()), Admission::Stalled),
        "it is waited for once"
    );
    assert!(limits.slot(client(2)).await.is_some());
    one[0].answered();
    assert!(matches!(limits.admit(client(1), Instant::now()), Admission::Until(_)));
    drop(one);
    let taken = limits.taken();
    assert_eq!(
        (taken.clients(), taken.slots()),
        (0, 0),
        "nothing is kept of who has left"
    );
}

/// A client that has its share and gets answers is waited for, like all clients when no connection slot is left.
#[tokio::test]
async fn who_is_answered_is_waited_for() {
    let limits = limits(4, LONG);
    let mut slots = taken(&limits, client(1), 3).await;
    let (last, all) = (slots.pop(), Arc::clone(&limits));
    let waiting = tokio::spawn(async move { all.slot(client(1)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(last);
    slots.extend(waiting.await.unwrap());
    slots.extend(limits.slot(client(2)).await);
    assert_eq!(slots.len(), 4);
    let (last, all) = (slots.pop(), Arc::clone(&limits));
    let waiting = tokio::spawn(async move { all.slot(client(3)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(last);
    assert!(waiting.await.unwrap().is_some());
}

#[tokio::test]
async fn one_client_leaves_serving_slots_for_others() {
    let limits = limits(MOST_ACCEPTED, SHORT);
    let slots = taken(&limits, client(1), MOST_SERVED_OF_CLIENT + 1).await;
    let mut taken = Vec::new();
    for slot in &slots[..MOST_SERVED_OF_CLIENT] {
        assert!(!slot.is_crowded());
        taken.push(slot.serving_slot(LONG).await.unwrap());
    }
    assert!(slots[0].is_crowded());
    assert!(slots[MOST_SERVED_OF_CLIENT].serving_slot(SHORT).await.is_none());
    let other = limits.slot(client(2)).await.unwrap();
    assert!(other.serving_slot(LONG).await.is_some());
    drop(taken.pop());
    assert!(slots[MOST_SERVED_OF_CLIENT].serving_slot(LONG).await.is_some());
}

/// Clients that hold all connection slots and serving slots with connections that ask nothing, some after their first bytes, do not keep
/// others out.
#[tokio::test]
async fn nobody_waits_for_those_that_ask_nothing() {
    for holders in [2_u8, 3, 40] {
        let limits = ConnectionLimits::new(MOST_ACCEPTED);
        let limits = Arc::new(ConnectionLimits {
            silence: SHORT,
            patience: SHORT,
            ..limits
        });
        let each = MOST_ACCEPTED / usize::from(holders);
        let mut connections = Vec::new();
        for holder in 0..holders {
            let all = Arc::clone(&limits);
            for _ in 0..if holder == 0 {
                MOST_ACCEPTED - each * (usize::from(holders) - 1)
            } else {
                each
            } {
                let slot = all.slot(client(holder)).await.unwrap();
                connections.push(tokio::spawn(async move {
                    tokio::select! {
                        () = slot.evicted() => {}
                        () = async {
                            let _serving_slot = slot.serving_slot(LONG).await;
                            std::future::pending::<()>().await;
                        } => {}
                    }
                }));
            }
        }
        while !limits.taken().is_crowded(client(200).client, MOST_SERVED) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(SHORT * 2).await;
        for newcomer in 100..110 {
            let begin = Instant::now();
            let slot = timeout(LONG, limits.slot(client(newcomer))).await.unwrap().unwrap();
            let serving_slot = timeout(LONG, slot.serving_slot(LONG)).await.unwrap();
            assert!(serving_slot.is_some(), "{holders}");
            assert!(begin.elapsed() < LONG / 4, "{holders}: it waits for the others");
            // Further connections of the holders do not keep others waiting.
            assert!(timeout(LONG, limits.slot(client(0))).await.is_ok());
            connections.push(tokio::spawn(async move { drop((serving_slot, slot)) }));
        }
        for connection in connections {
            connection.abort();
        }
    }
}

#[tokio::test]
async fn who_asks_or_has_just_come_is_not_evicted() {
    let limits = limits(4, LONG);
    let slots = taken(&limits, client(1), 3).await;
    let other = limits.slot(client(2)).await.unwrap();
    let now = Instant::now();
    let admit = |after| limits.admit(client(3), now + after);
    assert!(
        matches!(admit(Duration::ZERO), Admission::Until(_)),
        "all have just come"
    );
    slots.iter().for_each(ConnectionSlot::note_request);
    assert!(matches!(admit(SILENCE * 2), Admission::Full), "all are asking");
    slots[1].is_silent_again();
    assert!(matches!(admit(SILENCE * 2), Admission::Full));
    timeout(LONG, slots[1].evicted()).await.expect("it is told to leave");
    assert!(timeout(SHORT, slots[0].evicted()).await.is_err());
    // A client that has no more than the newcomer is left alone.
    assert!(timeout(SHORT, other.evicted()).await.is_err());
}

/// Where several users share an address, connections that ask nothing make room for others from there, the longest silent one first.
#[tokio::test]
async fn silent_connections_make_room_for_others_of_their_address() {
    let limits = ConnectionLimits::new(256).of_shared_addresses();
    let limits = Arc::new(ConnectionLimits {
        own_silence: SHORT,
        ..limits
    });
    let share = limits.slot_share;
    let slots = taken(&limits, client(1), share).await;
    // The first two are being answered.
    slots[..2].iter().for_each(ConnectionSlot::note_request);
    tokio::time::sleep(SHORT * 2).await;
    let (evicted, all) = (slots[2].evicted(), Arc::clone(&limits));
    let waiting = tokio::spawn(async move { all.slot(client(1)).await });
    timeout(LONG, evicted).await.expect("it is told to leave");
    for other in [0, 1, 3] {
        assert!(timeout(SHORT, slots[other].evicted()).await.is_err(), "{other}");
    }
    let mut slots = slots;
    drop(slots.remove(2));
    let newcomer = timeout(LONG, waiting).await.unwrap().unwrap().expect("a slot");
    // All that ask nothing have sent their first bytes, and hold all serving slots of their address.
    newcomer.note_request();
    let mut held = Vec::new();
    for slot in &slots[2..2 + MOST_SERVED_OF_CLIENT] {
        held.push(slot.serving_slot(LONG).await.unwrap());
    }
    tokio::time::sleep(SHORT * 2).await;
    let serving_slot = newcomer.serving_slot(LONG);
    tokio::pin!(serving_slot);
    assert!(timeout(SHORT, &mut serving_slot).await.is_err());
    timeout(LONG, slots[2].evicted()).await.expect("it is told to leave");
    drop(held.remove(0));
    assert!(timeout(LONG, serving_slot).await.unwrap().is_some());
    // Where all are being answered, none makes room.
    slots.iter().for_each(ConnectionSlot::note_request);
    assert!(matches!(
        limits.admit(client(1), Instant::now() + LONG),
        Admission::Stalled
    ));
}

/// A serving slot that is given to a connection that does not wait any more is free again.
#[tokio::test]
async fn serving_slots_are_not_lost() {
    let limits = limits(MOST_ACCEPTED, SHORT);
    let slots = taken(&limits, client(1), MOST_SERVED_OF_CLIENT + 2).await;
    for _ in 0..3 {
        let mut held = Vec::new();
        for slot in &slots[..MOST_SERVED_OF_CLIENT] {
            held.push(slot.serving_slot(LONG).await.unwrap());
        }
        let waits = slots[MOST_SERVED_OF_CLIENT].serving_slot(LONG);
        tokio::pin!(waits);
        assert!(timeout(SHORT, &mut waits).await.is_err());
        drop(held);
    }
    assert!(!slots[0].is_crowded());
    assert!(limits.taken().is_empty_of_serving_slots());
}
