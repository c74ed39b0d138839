//! Judge of the history: contradictions between the promises and the responses of clients.
//!
//! A response is true at some instant between its request and its arrival. So a sandbox is *surely held* by its key from the
//! arrival of the first response that names it until the first return of it is sent; and it is *surely returned* from the
//! arrival of the first 200 to a return of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::history::{Event, Given, Key, Told};

/// What is known of one sandbox of one key.
#[derive(Clone, Copy, Debug)]
struct Holding {
    surely_from: Duration,
    surely_until: Duration,
    returned_by: Duration,
}

type Holdings<'a> = BTreeMap<(&'a Key, &'a Given), Holding>;

/// Every contradiction, in words.
pub(crate) fn history(events: &[Event]) -> Vec<String> {
    let holdings = holdings(events);
    let mut faults = two_owners(events);
    faults.extend(cancelled_in_vain(events));
    let mut by_key: BTreeMap<&Key, Vec<(&Given, Holding)>> = BTreeMap::new();
    for ((key, sandbox), holding) in &holdings {
        by_key.entry(key).or_default().push((sandbox, *holding));
    }
    for event in events {
        let held = by_key.get(&event.key).map(Vec::as_slice).unwrap_or_default();
        faults.extend(contradiction(event, held));
    }
    faults
}

fn holdings(events: &[Event]) -> Holdings<'_> {
    let mut holdings = Holdings::new();
    let unknown =
        Holding { surely_from: Duration::MAX, surely_until: Duration::MAX, returned_by: Duration::MAX };
    for event in events {
        let mut of = |sandbox, change: &dyn Fn(&mut Holding)| {
            change(holdings.entry((&event.key, sandbox)).or_insert(unknown));
        };
        match &event.told {
            Told::Sandbox(sandbox) => of(sandbox, &|h| h.surely_from = h.surely_from.min(event.received)),
            Told::Returned(sandbox) => of(sandbox, &|h| {
                h.surely_until = h.surely_until.min(event.sent);
                h.returned_by = h.returned_by.min(event.received);
            }),
            Told::MarkUnanswered(sandbox) | Told::MarkRefused(sandbox, _) => {
                of(sandbox, &|h| h.surely_until = h.surely_until.min(event.sent));
            }
            Told::NothingThere
            | Told::Looked(..)
            | Told::Polled(..)
            | Told::Waited
            | Told::Cancelled(_)
            | Told::NeverEnded(_)
            | Told::Surprise(_) => {}
        }
    }
    holdings
}

/// An account is given to one key, ever, whatever its id.
fn two_owners(events: &[Event]) -> Vec<String> {
    let mut owners: BTreeMap<&str, BTreeSet<(&Key, &str)>> = BTreeMap::new();
    for event in events {
        if let Told::Sandbox(sandbox) = &event.told {
            owners.entry(&sandbox.account).or_default().insert((&event.key, &sandbox.id));
        }
    }
    let several = owners.into_iter().filter(|(_, keys)| keys.len() > 1);
    several.map(|(account, owners)| format!("account {account} was told to {owners:?}")).collect()
}

/// When more sandboxes than `limit` were surely held at a time by these tracks.
pub(crate) fn above(events: &[Event], tracks: &BTreeSet<String>, limit: usize) -> Option<String> {
    let held = holdings(events)
        .into_iter()
        .filter(|((key, _), holding)| tracks.contains(&key.0) && holding.surely_from < holding.surely_until);
    // At the same instant what ends comes before what begins.
    let mut turns: Vec<_> =
        held.flat_map(|(_, holding)| [(holding.surely_from, true), (holding.surely_until, false)]).collect();
    turns.sort_unstable();
    let (mut now, mut most) = (0_usize, 0);
    for (_, begins) in turns {
        now = if begins { now + 1 } else { now.saturating_sub(1) };
        most = most.max(now);
    }
    println!("of the limited tenant {most} sandboxes were held at a time, at most; its limit is {limit}");
    (most > limit).then(|| format!("{most} sandboxes were held at a time by a tenant whose limit is {limit}"))
}

/// A request that was cancelled has no outcome, however often it is polled.
fn cancelled_in_vain(events: &[Event]) -> Vec<String> {
    let cancelled: BTreeSet<&str> = events
        .iter()
        .filter_map(|event| match &event.told {
            Told::Cancelled(location) => Some(location.as_str()),
            _ => None,
        })
        .collect();
    let polled = events.iter().filter_map(|event| match &event.told {
        Told::Polled(location, sandbox) if cancelled.contains(location.as_str()) => {
            Some(format!("{:?}: {location} was cancelled and has {sandbox}", event.key))
        }
        _ => None,
    });
    polled.collect()
}

/// The violations of one event, given the sandboxes of its key.
fn contradiction(event: &Event, held: &[(&Given, Holding)]) -> Option<String> {
    let Event { key, sent, received, told } = event;
    let surely_held = |other: Option<&Given>| {
        held.iter().find(|(sandbox, holding)| {
            other != Some(*sandbox) && holding.surely_from <= *sent && *received <= holding.surely_until
        })
    };
    match told {
        Told::Sandbox(sandbox) => {
            if let Some((other, _)) = surely_held(Some(sandbox)) {
                return Some(format!("{key:?} was told {sandbox} while it held {other}"));
            }
            let returned = held.iter().find(|(known, _)| *known == sandbox).map(|(_, h)| h.returned_by)?;
            (*sent > returned).then(|| format!("{key:?} was told {sandbox} after it was given back"))
        }
        Told::NothingThere => {
            let (other, _) = surely_held(None)?;
            Some(format!("{key:?} was told that nothing is there while it held {other}"))
        }
        Told::MarkRefused(sandbox, status) => {
            Some(format!("{key:?} may not return its own {sandbox}: {status}"))
        }
        Told::Looked(_, 200)
        | Told::Returned(_)
        | Told::MarkUnanswered(_)
        | Told::Polled(..)
        | Told::Waited
        | Told::Cancelled(_) => None,
        Told::Looked(sandbox, status) => Some(format!("{key:?} may not look at its own {sandbox}: {status}")),
        Told::NeverEnded(location) => Some(format!("{key:?}: {location} never ended")),
        Told::Surprise(what) => Some(format!("{key:?}: {what}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(key: &str, sent: u64, received: u64, told: Told) -> Event {
        let (sent, received) = (Duration::from_secs(sent), Duration::from_secs(received));
        Event { key: (key.to_owned(), key.to_owned()), sent, received, told }
    }

    fn given(name: &str) -> Given {
        Given { id: name.to_owned(), account: format!("account-{name}") }
    }

    fn sandbox(name: &str) -> Told {
        Told::Sandbox(given(name))
    }

    fn returned(name: &str) -> Told {
        Told::Returned(given(name))
    }

    #[test]
    fn an_orderly_life_is_no_violation() {
        let life = [
            told("a", 0, 1, sandbox("1")),
            told("a", 2, 3, sandbox("1")),
            told("a", 4, 6, Told::MarkUnanswered(given("1"))),
            told("a", 7, 8, returned("1")),
            told("a", 9, 10, sandbox("2")),
            told("b", 0, 1, sandbox("3")),
            told("b", 0, 20, Told::NothingThere),
            // What the provider created after 1 was deleted, under its id.
            told("c", 30, 31, Told::Sandbox(Given { account: "account-4".to_owned(), ..given("1") })),
        ];
        assert_eq!(history(&life), Vec::<String>::new());
    }

    #[test]
    fn every_kind_of_broken_promise_is_seen() {
        let (cancelled, polled) = ("/v1/requests/1".to_owned(), "/v1/requests/1".to_owned());
        let under = |id: &str| Told::Sandbox(Given { id: id.to_owned(), ..given("1") });
        let broken: [(&str, Vec<Event>); 9] = [
            ("an account under two ids", vec![told("a", 0, 1, under("1")), told("b", 5, 6, under("2"))]),
            (
                "cancelled and satisfied",
                vec![
                    told("a", 0, 1, Told::Cancelled(cancelled)),
                    told("a", 0, 2, Told::Polled(polled, given("1"))),
                ],
            ),
            ("two owners", vec![told("a", 0, 1, sandbox("1")), told("b", 5, 6, sandbox("1"))]),
            ("two at a time", vec![told("a", 0, 1, sandbox("1")), told("a", 2, 3, sandbox("2"))]),
            (
                "offered again to the same key",
                vec![
                    told("a", 0, 1, sandbox("1")),
                    told("a", 2, 3, returned("1")),
                    told("a", 4, 5, sandbox("1")),
                ],
            ),
            (
                "none while it holds one",
                vec![told("a", 0, 1, sandbox("1")), told("a", 2, 3, Told::NothingThere)],
            ),
            ("not the owner", vec![told("a", 0, 1, Told::MarkRefused(given("1"), 403))]),
            ("never ended", vec![told("a", 0, 1, Told::NeverEnded("/v1/requests/1".to_owned()))]),
            ("looked in vain", vec![told("a", 0, 1, Told::Looked(given("1"), 404))]),
        ];
        for (what, events) in broken {
            assert_eq!(history(&events).len(), 1, "{what}");
        }
    }

    #[test]
    fn more_than_the_limit_at_a_time_is_seen() {
        let life = [
            told("a", 0, 1, sandbox("1")),
            told("b", 0, 2, sandbox("2")),
            told("c", 0, 3, sandbox("3")),
            told("a", 4, 5, returned("1")),
            told("d", 4, 6, sandbox("4")),
        ];
        let all = ["a", "b", "c", "d"].map(str::to_owned).into();
        assert_eq!(above(&life, &all, 3), None);
        assert!(above(&life, &all, 2).is_some());
        assert_eq!(above(&life, &["a", "d"].map(str::to_owned).into(), 1), None);
    }

    #[test]
    fn what_overlaps_may_have_happened_in_either_order() {
        // The second answer was on its way while the first sandbox was given back.
        let life =
            [told("a", 0, 1, sandbox("1")), told("a", 2, 9, sandbox("2")), told("a", 3, 4, returned("1"))];
        assert_eq!(history(&life), Vec::<String>::new());
    }
}
