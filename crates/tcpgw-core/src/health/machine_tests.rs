use proptest::prelude::*;

use super::*;

const fn count(n: u16) -> NonZeroU16 {
    NonZeroU16::new(n).expect("a count")
}

pub(in crate::health) const UNREACHABLE_HOST: SystemError = SystemError {
    number: 113,
    text: "No route to host",
};
pub(in crate::health) const NO_DESCRIPTOR: SystemError = SystemError {
    number: 24,
    text: "Too many open files",
};
const UNREACHABLE: ProbeOutcome = ProbeOutcome::Unreachable(UNREACHABLE_HOST);
const LOCAL: ProbeOutcome = ProbeOutcome::Local(NO_DESCRIPTOR);
const OUTCOMES: [ProbeOutcome; 7] = [
    ProbeOutcome::Accepted,
    ProbeOutcome::Refused,
    ProbeOutcome::TimedOut,
    ProbeOutcome::Unfit(AnswerFault::Silent),
    ProbeOutcome::Unfit(AnswerFault::Status(503)),
    UNREACHABLE,
    LOCAL,
];

const fn unknown(failed: u16) -> EndpointState {
    EndpointState::Unknown { failed }
}
const fn presumed(failed: u16) -> EndpointState {
    EndpointState::Presumed { failed }
}
const fn failing(failed: u16) -> EndpointState {
    EndpointState::Failing { failed: count(failed) }
}
const fn rising(passed: u16) -> EndpointState {
    EndpointState::Rising { passed: count(passed) }
}
use EndpointState::{Healthy, Unhealthy};

/// State, state after an answer, and state after a failure of any kind. With thresholds of 3 there are no other states.
const BY_THREE: [(EndpointState, EndpointState, EndpointState); 12] = [
    (unknown(0), rising(1), unknown(1)),
    (unknown(1), rising(1), unknown(2)),
    (unknown(2), rising(1), Unhealthy),
    (presumed(0), Healthy, presumed(1)),
    (presumed(1), Healthy, presumed(2)),
    (presumed(2), Healthy, Unhealthy),
    (Healthy, Healthy, failing(1)),
    (failing(1), Healthy, failing(2)),
    (failing(2), Healthy, Unhealthy),
    (Unhealthy, rising(1), Unhealthy),
    (rising(1), rising(2), Unhealthy),
    (rising(2), Healthy, Unhealthy),
];

/// Transitions like those above, with thresholds of 1.
const BY_ONE: [(EndpointState, EndpointState, EndpointState); 4] = [
    (unknown(0), Healthy, Unhealthy),
    (presumed(0), Healthy, Unhealthy),
    (Healthy, Healthy, Unhealthy),
    (Unhealthy, Healthy, Unhealthy),
];

fn holds(table: &[(EndpointState, EndpointState, EndpointState)], streaks: Streaks) {
    for (from, answered, failed) in table {
        for outcome in OUTCOMES {
            let expected = match outcome {
                ProbeOutcome::Accepted => answered,
                ProbeOutcome::Local(_) => from,
                _ => failed,
            };
            assert_eq!(from.after(outcome, streaks), *expected, "{from:?}, {outcome}");
            let is_row = table.iter().any(|(row, ..)| row == expected);
            assert!(is_row, "{from:?}, {outcome}: {expected:?} has no row");
        }
    }
}

#[test]
fn every_transition() {
    holds(&BY_THREE, streaks(3, 3));
    holds(&BY_ONE, streaks(1, 1));
}

const fn streaks(rise: u16, fall: u16) -> Streaks {
    Streaks {
        rise: count(rise),
        fall: count(fall),
    }
}

/// Lowers a service's `rise` and `fall`, so that the streak counted so far exceeds them.
#[test]
fn counts_beyond_a_lowered_threshold_end_at_the_next_probe() {
    let lowered = streaks(1, 1);
    for from in [unknown(5), presumed(5), failing(5), rising(5)] {
        assert_eq!(from.after(ProbeOutcome::Refused, lowered), Unhealthy, "{from:?}");
        assert_eq!(from.after(ProbeOutcome::Accepted, lowered), Healthy, "{from:?}");
    }
    let most = streaks(u16::MAX, u16::MAX);
    for from in [unknown(u16::MAX), presumed(u16::MAX), failing(u16::MAX)] {
        assert_eq!(from.after(ProbeOutcome::TimedOut, most), Unhealthy, "{from:?}");
    }
    assert_eq!(rising(u16::MAX).after(ProbeOutcome::Accepted, most), Healthy);
}

#[test]
fn who_is_in_the_balance() {
    let states = [unknown(0), presumed(0), Healthy, failing(1), Unhealthy, rising(1)];
    let seen = states.map(|state| (state.name(), state.in_balance()));
    let expected = [
        ("unknown", false),
        ("presumed", true),
        ("healthy", true),
        ("failing", true),
        ("unhealthy", false),
        ("rising", false),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn what_outcomes_are_called() {
    let text = OUTCOMES.map(|outcome| outcome.to_string());
    let expected = [
        "accepted",
        "refused",
        "timed out",
        "no answer after the handshake",
        "status 503",
        "unreachable (no route to host)",
        "not probed (too many open files)",
    ];
    assert_eq!(text, expected);
}

#[test]
fn what_counts_as_death() {
    use ProbeOutcome::{Accepted, Refused, TimedOut};
    let unfit = ProbeOutcome::Unfit(AnswerFault::Closed);
    let cases: [(&[ProbeOutcome], u16, bool); 13] = [
        (&[unfit, unfit, unfit, unfit], 3, false),
        (&[TimedOut, TimedOut, unfit, TimedOut], 3, false),
        (&[], 1, false),
        (&[Refused, Refused, Refused, Refused], 3, false),
        (&[TimedOut, TimedOut], 3, false),
        (&[TimedOut, TimedOut, TimedOut], 3, true),
        (&[TimedOut, TimedOut, Refused, TimedOut], 3, false),
        (&[UNREACHABLE], 3, false),
        (&[UNREACHABLE, UNREACHABLE], 3, true),
        (&[UNREACHABLE, TimedOut, UNREACHABLE], 3, true),
        (&[UNREACHABLE, LOCAL, UNREACHABLE], 3, true),
        (&[UNREACHABLE], 1, true),
        (&[UNREACHABLE, UNREACHABLE, Accepted], 3, false),
    ];
    for (outcomes, fall, dead) in cases {
        let silence = outcomes
            .iter()
            .fold(Silence::default(), |silence, outcome| silence.after(*outcome));
        assert_eq!(silence.is_death(count(fall)), dead, "{outcomes:?}, {fall}");
    }
}

/// Decides by the same rules from the whole history of outcomes.
fn is_in_balance(presumed: bool, history: &[ProbeOutcome], rise: usize, fall: usize) -> bool {
    let found: Vec<bool> = history
        .iter()
        .filter(|outcome| !matches!(outcome, ProbeOutcome::Local(_)))
        .map(|outcome| *outcome == ProbeOutcome::Accepted)
        .collect();
    (1..=found.len()).fold(presumed, |is_in, end| {
        let streak = |kind: bool| found[..end].iter().rev().take_while(|found| **found == kind).count();
        if is_in {
            streak(false) < fall
        } else {
            streak(true) >= rise
        }
    })
}

proptest! {
    #[test]
    fn the_same_as_looking_back(
        is_presumed: bool,
        rise in 1..5_u16,
        fall in 1..5_u16,
        history in prop::collection::vec(prop::sample::select(&OUTCOMES[..]), 0..60),
    ) {
        let mut state = if is_presumed { presumed(0) } else { unknown(0) };
        for end in 1..=history.len() {
            state = state.after(history[end - 1], streaks(rise, fall));
            let expected = is_in_balance(is_presumed, &history[..end], rise.into(), fall.into());
            prop_assert_eq!(state.in_balance(), expected, "{:?} after {:?}", state, &history[..end]);
            let within = match state {
                EndpointState::Unknown { failed } | EndpointState::Presumed { failed } => failed < fall,
                EndpointState::Failing { failed } => failed.get() < fall,
                EndpointState::Rising { passed } => passed.get() < rise,
                Healthy | Unhealthy => true,
            };
            prop_assert!(within, "{:?}", state);
        }
    }
}
