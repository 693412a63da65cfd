//! Tests of seats and places: which clients get them, and which make room for others.

use tokio::time::timeout;

use super::*;

const SHORT: Duration = Duration::from_millis(10);
const LONG: Duration = Duration::from_secs(60);

fn visitor(last: u8) -> Visitor {
    Visitor::at([192, 0, 2, last].into())
}

fn places(seats: usize, patience: Duration) -> Arc<ConnectionPlaces> {
    let places = ConnectionPlaces::new(seats);
    Arc::new(ConnectionPlaces { patience, ..places })
}

async fn taken(places: &Arc<ConnectionPlaces>, visitor: Visitor, count: usize) -> Vec<Seat> {
    let mut seats = Vec::new();
    for _ in 0..count {
        seats.push(places.seat(visitor).await.unwrap());
    }
    seats
}

/// A client that has its share and gets no answers has further connections closed, and other clients come in.
#[tokio::test]
async fn one_client_leaves_seats_for_others() {
    let places = places(100, SHORT);
    let one = taken(&places, visitor(1), 75).await;
    assert!(places.seat(visitor(1)).await.is_none());
    assert!(
        matches!(places.admit(visitor(1), Instant::now()), Admission::Stalled),
        "it is waited for once"
    );
    assert!(places.seat(visitor(2)).await.is_some());
    one[0].answered();
    assert!(matches!(places.admit(visitor(1), Instant::now()), Admission::Until(_)));
    drop(one);
    let taken = places.taken();
    assert_eq!(
        (taken.clients(), taken.seats()),
        (0, 0),
        "nothing is kept of who has left"
    );
}

/// A client that has its share and gets answers is waited for, like all clients when no seat is left.
#[tokio::test]
async fn who_is_answered_is_waited_for() {
    let places = places(4, LONG);
    let mut seats = taken(&places, visitor(1), 3).await;
    let (last, all) = (seats.pop(), Arc::clone(&places));
    let waiting = tokio::spawn(async move { all.seat(visitor(1)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(last);
    seats.extend(waiting.await.unwrap());
    seats.extend(places.seat(visitor(2)).await);
    assert_eq!(seats.len(), 4);
    let (last, all) = (seats.pop(), Arc::clone(&places));
    let waiting = tokio::spawn(async move { all.seat(visitor(3)).await });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    drop(last);
    assert!(waiting.await.unwrap().is_some());
}

#[tokio::test]
async fn one_client_leaves_places_for_others() {
    let places = places(SEATS, SHORT);
    let seats = taken(&places, visitor(1), PLACE_SHARE + 1).await;
    let mut taken = Vec::new();
    for seat in &seats[..PLACE_SHARE] {
        assert!(!seat.is_crowded());
        taken.push(seat.place(LONG).await.unwrap());
    }
    assert!(seats[0].is_crowded());
    assert!(seats[PLACE_SHARE].place(SHORT).await.is_none());
    let other = places.seat(visitor(2)).await.unwrap();
    assert!(other.place(LONG).await.is_some());
    drop(taken.pop());
    assert!(seats[PLACE_SHARE].place(LONG).await.is_some());
}

/// Clients that hold all seats and places with connections that ask nothing, some after their first bytes, do not keep
/// others out.
#[tokio::test]
async fn nobody_waits_for_those_that_ask_nothing() {
    for holders in [2_u8, 3, 40] {
        let places = ConnectionPlaces::new(SEATS);
        let places = Arc::new(ConnectionPlaces {
            silence: SHORT,
            patience: SHORT,
            ..places
        });
        let each = SEATS / usize::from(holders);
        let mut connections = Vec::new();
        for holder in 0..holders {
            let all = Arc::clone(&places);
            for _ in 0..if holder == 0 {
                SEATS - each * (usize::from(holders) - 1)
            } else {
                each
            } {
                let seat = all.seat(visitor(holder)).await.unwrap();
                connections.push(tokio::spawn(async move {
                    tokio::select! {
                        () = seat.displaced() => {}
                        () = async {
                            let _place = seat.place(LONG).await;
                            std::future::pending::<()>().await;
                        } => {}
                    }
                }));
            }
        }
        while !places.taken().is_crowded(visitor(200).client, PLACES) {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(SHORT * 2).await;
        for newcomer in 100..110 {
            let begin = Instant::now();
            let seat = timeout(LONG, places.seat(visitor(newcomer))).await.unwrap().unwrap();
            let place = timeout(LONG, seat.place(LONG)).await.unwrap();
            assert!(place.is_some(), "{holders}");
            assert!(begin.elapsed() < LONG / 4, "{holders}: it waits for the others");
            // Further connections of the holders do not keep others waiting.
            assert!(timeout(LONG, places.seat(visitor(0))).await.is_ok());
            connections.push(tokio::spawn(async move { drop((place, seat)) }));
        }
        for connection in connections {
            connection.abort();
        }
    }
}

#[tokio::test]
async fn who_asks_or_has_just_come_is_not_displaced() {
    let places = places(4, LONG);
    let seats = taken(&places, visitor(1), 3).await;
    let other = places.seat(visitor(2)).await.unwrap();
    let now = Instant::now();
    let admit = |after| places.admit(visitor(3), now + after);
    assert!(
        matches!(admit(Duration::ZERO), Admission::Until(_)),
        "all have just come"
    );
    seats.iter().for_each(Seat::asked);
    assert!(matches!(admit(SILENCE * 2), Admission::Full), "all are asking");
    seats[1].is_silent_again();
    assert!(matches!(admit(SILENCE * 2), Admission::Full));
    timeout(LONG, seats[1].displaced()).await.expect("it is told to leave");
    assert!(timeout(SHORT, seats[0].displaced()).await.is_err());
    // A client that has no more than the newcomer is left alone.
    assert!(timeout(SHORT, other.displaced()).await.is_err());
}

/// Where several users share an address, connections that ask nothing make room for others from there, the longest silent one first.
#[tokio::test]
async fn silent_connections_make_room_for_others_of_their_address() {
    let places = ConnectionPlaces::new(256).of_shared_addresses();
    let places = Arc::new(ConnectionPlaces {
        own_silence: SHORT,
        ..places
    });
    let share = places.seat_share;
    let seats = taken(&places, visitor(1), share).await;
    // The first two are being answered.
    seats[..2].iter().for_each(Seat::asked);
    tokio::time::sleep(SHORT * 2).await;
    let (displaced, all) = (seats[2].displaced(), Arc::clone(&places));
    let waiting = tokio::spawn(async move { all.seat(visitor(1)).await });
    timeout(LONG, displaced).await.expect("it is told to leave");
    for other in [0, 1, 3] {
        assert!(timeout(SHORT, seats[other].displaced()).await.is_err(), "{other}");
    }
    let mut seats = seats;
    drop(seats.remove(2));
    let newcomer = timeout(LONG, waiting).await.unwrap().unwrap().expect("a seat");
    // All that ask nothing have sent their first bytes, and hold all places of their address.
    newcomer.asked();
    let mut held = Vec::new();
    for seat in &seats[2..2 + PLACE_SHARE] {
        held.push(seat.place(LONG).await.unwrap());
    }
    tokio::time::sleep(SHORT * 2).await;
    let place = newcomer.place(LONG);
    tokio::pin!(place);
    assert!(timeout(SHORT, &mut place).await.is_err());
    timeout(LONG, seats[2].displaced()).await.expect("it is told to leave");
    drop(held.remove(0));
    assert!(timeout(LONG, place).await.unwrap().is_some());
    // Where all are being answered, none makes room.
    seats.iter().for_each(Seat::asked);
    assert!(matches!(
        places.admit(visitor(1), Instant::now() + LONG),
        Admission::Stalled
    ));
}

/// A place that is given to a connection that does not wait any more is free again.
#[tokio::test]
async fn places_are_not_lost() {
    let places = places(SEATS, SHORT);
    let seats = taken(&places, visitor(1), PLACE_SHARE + 2).await;
    for _ in 0..3 {
        let mut held = Vec::new();
        for seat in &seats[..PLACE_SHARE] {
            held.push(seat.place(LONG).await.unwrap());
        }
        let waits = seats[PLACE_SHARE].place(LONG);
        tokio::pin!(waits);
        assert!(timeout(SHORT, &mut waits).await.is_err());
        drop(held);
    }
    assert!(!seats[0].is_crowded());
    assert!(places.taken().is_empty_of_places());
}
