//! Tests of the state machine of dead letters.

use super::*;
use crate::samples::request_id;

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(secs)
}

/// First sent at second 100, of track 1.
fn letter(state: DeadLetterState) -> DeadLetter {
    DeadLetter {
        id: DeadLetterId::of(Source::Requests, "m-1", "{}", at(100)),
        source: Source::Requests,
        message_id: "m-1".to_owned(),
        reason: Reason::Malformed,
        reason_text: "words".to_owned(),
        receives: 1,
        first_at: at(100),
        last_at: at(200),
        summary: MessageSummary {
            kind: Some("allocate".to_owned()),
            track: Some(TrackId::new("track-1").unwrap()),
            request_id: Some(request_id(1)),
            ..MessageSummary::default()
        },
        replay_of: None,
        attributes: BTreeMap::new(),
        body: "{}".to_owned(),
        state,
        held_until: None,
        touched: None,
    }
}

#[test]
fn a_letter_is_held_while_it_is_replayed_and_not_a_moment_longer() {
    let held = |state, until| DeadLetter { held_until: until, ..letter(state) }.is_held(at(300));
    assert!(held(DeadLetterState::Replaying, Some(at(301))));
    assert!(!held(DeadLetterState::Replaying, Some(at(300))));
    assert!(!held(DeadLetterState::Replaying, Some(at(3_900))), "by a clock that was wrong");
    assert!(!held(DeadLetterState::Replaying, None));
    for state in [DeadLetterState::Dead, DeadLetterState::Replayed, DeadLetterState::Discarded] {
        assert!(!held(state, Some(at(301))), "{state:?}");
    }
}

#[test]
fn a_filter_asks_that_everything_set_is_true_of_a_letter() {
    let all = DeadLetterFilter::default();
    let dead = letter(DeadLetterState::Dead);
    let track = |name: &str| Some(TrackId::new(name).unwrap());
    let cases = [
        (all.clone(), true),
        (DeadLetterFilter { source: Some(Source::Requests), ..all.clone() }, true),
        (DeadLetterFilter { source: Some(Source::Maintenance), ..all.clone() }, false),
        (DeadLetterFilter { kind: Some("allocate".to_owned()), ..all.clone() }, true),
        (DeadLetterFilter { kind: Some("unknown".to_owned()), ..all.clone() }, false),
        (DeadLetterFilter { reason: Some(Reason::Malformed), ..all.clone() }, true),
        (DeadLetterFilter { reason: Some(Reason::Refused), ..all.clone() }, false),
        (DeadLetterFilter { track: track("track-1"), ..all.clone() }, true),
        (DeadLetterFilter { track: track("track-2"), ..all.clone() }, false),
        (DeadLetterFilter { since: Some(at(100)), ..all.clone() }, true),
        (DeadLetterFilter { since: Some(at(101)), ..all.clone() }, false),
        (DeadLetterFilter { before: Some(at(101)), ..all.clone() }, true),
        (DeadLetterFilter { before: Some(at(100)), ..all.clone() }, false),
        (DeadLetterFilter { state: Some(DeadLetterState::Dead), ..all.clone() }, true),
        (DeadLetterFilter { state: Some(DeadLetterState::Replayed), ..all.clone() }, false),
    ];
    for (filter, expected) in cases {
        assert_eq!(filter.matches(&dead), expected, "{filter:?}");
    }
    let silent = DeadLetter { summary: MessageSummary::default(), ..dead };
    assert_eq!(silent.kind(), "unknown");
    assert!(DeadLetterFilter { kind: Some("unknown".to_owned()), ..all.clone() }.matches(&silent));
    assert!(!DeadLetterFilter { track: track("track-1"), ..all }.matches(&silent));
}

#[test]
fn without_a_state_a_filter_asks_for_what_still_wants_something() {
    for (state, open) in [
        (DeadLetterState::Dead, true),
        (DeadLetterState::Replaying, true),
        (DeadLetterState::Replayed, false),
        (DeadLetterState::Discarded, false),
    ] {
        assert_eq!(
            (state.is_open(), DeadLetterFilter::default().matches(&letter(state))),
            (open, open),
            "{state:?}"
        );
    }
}

#[test]
fn open_letters_are_counted_by_reason_and_the_oldest_is_told() {
    let mut count = DeadLetterCount::default();
    for (reason, first_at, state) in [
        (Reason::Malformed, at(120), DeadLetterState::Dead),
        (Reason::Malformed, at(110), DeadLetterState::Replaying),
        (Reason::Refused, at(130), DeadLetterState::Dead),
        (Reason::Refused, at(90), DeadLetterState::Replayed),
    ] {
        count.add(&DeadLetter { reason, first_at, ..letter(state) });
    }
    let by_reason = [("malformed".to_owned(), 2), ("refused".to_owned(), 1)].into();
    assert_eq!(count, DeadLetterCount { by_reason, oldest: Some(at(110)) });
}
