//! Histories of claims and ends, copied item by item at slightly different moments, as AWS may, and reconciled.

use std::cell::Cell;

use proptest::prelude::*;
use uuid::Uuid;

use super::known::allocation_of;
use super::*;
use crate::samples::{allocation, key, lease, sandbox, sandbox_id};
use crate::{EndReason, Fingerprint, Grant, Lease, LeaseEnd, Sandbox, TrackName, suspects};

const NOW: Timestamp = Timestamp::from_secs(100_000);

fn line(number: u8, track: Option<u8>, returned: bool) -> HandedOut {
    HandedOut {
        sandbox_id: sandbox_id(number),
        name: None,
        external_id: None,
        track: track.map(|track| key(track).track),
        idempotency_key: None,
        track_name: None,
        allocated_at: None,
        expires_at: None,
        returned,
    }
}

fn known(sandboxes: impl IntoIterator<Item = Sandbox>, leases: impl IntoIterator<Item = Lease>) -> Known {
    let mut known = Known::default();
    sandboxes.into_iter().for_each(|sandbox| known.add_sandbox(sandbox));
    leases.into_iter().for_each(|lease| known.add_lease(lease));
    known
}

/// What is left when nothing is to be done any more, each round cut off after so many steps.
fn settled(
    mut known: Known,
    lines: &Lines,
    sight: &dyn Fn(&SandboxId) -> Sight,
    cut: usize,
) -> (Known, BTreeMap<SandboxId, LineVerdict>, Vec<Purpose>) {
    let (minted, unknown_owner) = (Cell::new(1_000_u128), TrackId::new("reconciled").unwrap());
    let mint = || {
        minted.set(minted.get() + 1);
        let id = Uuid::from_u128(minted.get());
        Minted { allocation_id: AllocationId::from_uuid(id), request_id: RequestId::from_uuid(id) }
    };
    let lease = Duration::from_secs(3_600);
    let asked = Asked {
        lines,
        sight,
        is_there: &|_| false,
        mint: &mint,
        unknown_owner: &unknown_owner,
        lease,
        now: NOW,
    };
    let mut purposes = Vec::new();
    for _ in 0..1_000 {
        let decision = decide(&known, &asked);
        if decision.steps.is_empty() {
            return (known, decision.verdicts, purposes);
        }
        for (purpose, step) in decision.steps.iter().take(cut) {
            known.apply(step);
            purposes.push(*purpose);
        }
    }
    panic!("it does not come to an end");
}

fn settle(known: Known, lines: &[HandedOut]) -> (Known, BTreeMap<SandboxId, LineVerdict>) {
    let not_asked = |_: &SandboxId| Sight::NotAsked;
    let (forth, verdicts, _) =
        settled(known.clone(), &lines.iter().cloned().collect(), &not_asked, usize::MAX);
    let reversed: Lines = lines.iter().rev().cloned().collect();
    let (back, of_reversed, _) = settled(known, &reversed, &not_asked, usize::MAX);
    assert_eq!(owners_of(&forth), owners_of(&back), "the order of lines means nothing");
    assert_eq!(verdicts, of_reversed);
    (forth, verdicts)
}

/// Where each sandbox stands, and whose it is or was.
fn owners_of(known: &Known) -> BTreeMap<SandboxId, (Status, Option<LeaseKey>)> {
    let of = |sandbox: &Sandbox| sandbox.allocation.as_ref().map(|allocation| allocation.lease_key.clone());
    known.sandboxes.values().map(|sandbox| (sandbox.id.clone(), (sandbox.status, of(sandbox)))).collect()
}

fn status(known: &Known, number: u8) -> Status {
    known.sandboxes[&sandbox_id(number)].status
}

#[test]
fn a_return_and_the_next_claim_of_one_key_are_two_lines_in_any_order() {
    let held = known(
        [sandbox(1, Status::Allocated, Some(allocation(1))), sandbox(2, Status::Available, None)],
        [lease(1, None)],
    );
    let (after, verdicts) = settle(held.clone(), &[line(2, Some(1), false), line(1, Some(1), true)]);
    assert_eq!((status(&after, 1), status(&after, 2)), (Status::PendingDeletion, Status::Allocated));
    assert_eq!(verdicts.into_values().collect::<Vec<_>>(), [LineVerdict::AsItIs, LineVerdict::AsItIs]);
    // Without the return nobody but people can tell, and nothing is given up.
    let (after, verdicts) = settle(held, &[line(2, Some(1), false)]);
    assert_eq!((status(&after, 1), status(&after, 2)), (Status::Allocated, Status::Available));
    assert!(matches!(verdicts[&sandbox_id(2)], LineVerdict::Conflict(_)), "{verdicts:?}");
}

#[test]
fn several_lines_of_one_sandbox_are_one() {
    let free = known([sandbox(1, Status::Available, None)], []);
    for (lines, expected) in [
        (vec![line(1, Some(1), false), line(1, Some(1), true)], Status::PendingDeletion),
        (vec![line(1, None, false), line(1, Some(1), false)], Status::Allocated),
        (vec![line(1, Some(1), false), line(1, Some(1), false)], Status::Allocated),
        (vec![line(1, None, false)], Status::PendingDeletion),
        (vec![line(1, Some(1), false), line(1, Some(2), false)], Status::Available),
    ] {
        let (after, verdicts) = settle(free.clone(), &lines);
        assert_eq!(status(&after, 1), expected, "{lines:?}");
        let is_conflict = matches!(verdicts[&sandbox_id(1)], LineVerdict::Conflict(_));
        assert_eq!(is_conflict, expected == Status::Available, "{verdicts:?}");
    }
    let two = known([sandbox(1, Status::Available, None), sandbox(2, Status::Available, None)], []);
    let (after, verdicts) = settle(two, &[line(1, Some(1), false), line(2, Some(1), false)]);
    assert_eq!((status(&after, 1), status(&after, 2)), (Status::Available, Status::Available));
    assert!(verdicts.values().all(|verdict| matches!(verdict, LineVerdict::Conflict(_))), "{verdicts:?}");
}

#[test]
fn an_account_under_another_label_is_a_conflict() {
    let free = known([sandbox(1, Status::Available, None)], []);
    let external_id = ExternalId::new("EXTERNAL-1").unwrap();
    let renamed = HandedOut { external_id: Some(external_id), ..line(2, Some(1), false) };
    let (after, verdicts) = settle(free, &[renamed]);
    assert_eq!(status(&after, 1), Status::Available);
    assert!(matches!(verdicts[&sandbox_id(2)], LineVerdict::Conflict(_)), "{verdicts:?}");
}

#[test]
fn what_the_table_lacks_comes_from_the_provider_or_from_its_line() {
    let listed = |_: &SandboxId| Sight::Listed {
        name: SandboxName::new("n").unwrap(),
        external_id: ExternalId::new("E").unwrap(),
    };
    let name = SandboxName::new("n").unwrap();
    let told = HandedOut {
        name: Some(name),
        external_id: Some(ExternalId::new("e").unwrap()),
        ..line(1, Some(1), false)
    };
    let bare = line(1, Some(1), false);
    let absent = |_: &SandboxId| Sight::Absent;
    let (unreadable, not_asked) = (|_: &SandboxId| Sight::Unreadable, |_: &SandboxId| Sight::NotAsked);
    type Case<'a> = (&'a HandedOut, &'a dyn Fn(&SandboxId) -> Sight, Option<Status>);
    let cases: [Case<'_>; 8] = [
        (&bare, &listed, Some(Status::Allocated)),
        (&told, &listed, Some(Status::Allocated)),
        (&told, &absent, Some(Status::Allocated)),
        (&told, &not_asked, Some(Status::Allocated)),
        (&told, &unreadable, Some(Status::Allocated)),
        (&bare, &absent, None),
        (&bare, &not_asked, None),
        (&bare, &unreadable, None),
    ];
    for (number, (line, sight, expected)) in cases.into_iter().enumerate() {
        let lines = Lines::from_iter([line.clone()]);
        let (after, verdicts, _) = settled(Known::default(), &lines, sight, usize::MAX);
        let became = after.sandboxes.get(&sandbox_id(1)).map(|sandbox| sandbox.status);
        assert_eq!(became, expected, "case {number}");
        // Not listed is an answer; not asked is none.
        let unclear = matches!(verdicts[&sandbox_id(1)], LineVerdict::Unclear(_));
        assert_eq!(unclear, number > 5, "case {number}: {verdicts:?}");
    }
}

#[test]
fn a_list_that_misses_more_than_sync_believes_says_of_nothing_that_it_is_gone() {
    let absent = |_: &SandboxId| Sight::Absent;
    let bare = Lines::from_iter([line(200, Some(1), false)]);
    for (of, gone, believed) in [(10, 5, true), (10, 6, false), (40, 8, true), (40, 9, false)] {
        let free = known((1..=of).map(|number| sandbox(number, Status::Available, None)), []);
        let listed: HashSet<_> = (gone + 1..=of).map(sandbox_id).collect();
        let sight = |id: &SandboxId| if listed.contains(id) { Sight::Unreadable } else { absent(id) };
        let (after, verdicts, purposes) = settled(free, &bare, &sight, usize::MAX);
        let stale = after.sandboxes.values().filter(|sandbox| sandbox.status == Status::Stale).count();
        assert_eq!(stale, if believed { usize::from(gone) } else { 0 }, "{gone} of {of}");
        assert_eq!(purposes.len(), stale);
        let is_unknown = matches!(verdicts[&sandbox_id(200)], LineVerdict::Unknown);
        assert_eq!(is_unknown, believed, "{gone} of {of}: {verdicts:?}");
        if !believed {
            let LineVerdict::Unclear(why) = &verdicts[&sandbox_id(200)] else { panic!("{verdicts:?}") };
            assert!(why.contains(&format!("does not list it, but misses {gone} others")), "{why}");
            assert!(!why.contains("BROKER_PROVIDER_URL"), "{why}");
        }
    }
}

#[test]
fn absent_is_what_neither_of_two_lists_names() {
    let listing = |named: &[u8], unreadable: &[u8]| {
        let of = |number: &u8| {
            let sandbox = sandbox(*number, Status::Available, None);
            (sandbox.id, (sandbox.name, sandbox.external_id))
        };
        let accounts: HashMap<_, _> = named.iter().map(of).collect();
        Listing {
            there: accounts.values().map(|(_, external_id)| AccountKey::of(external_id)).collect(),
            accounts,
            unreadable: unreadable.iter().map(|number| sandbox_id(*number)).collect(),
            whole: true,
            is_empty: false,
        }
    };
    let both = listing(&[1], &[2]).after(listing(&[1, 3], &[4]));
    let says = |number: u8| Listing::sight(Some(&both), &sandbox_id(number));
    assert!(matches!(says(1), Sight::Listed { .. }));
    assert!((2..=4).all(|number| says(number) == Sight::Unreadable));
    assert_eq!(says(5), Sight::Absent);
    let of = |number: u8| AccountKey::of(&sandbox(number, Status::Available, None).external_id);
    assert!(both.there.contains(&of(3)) && !both.there.contains(&of(5)));
}

#[test]
fn times_in_milliseconds_are_refused() {
    let good = HandedOut { expires_at: Some(NOW.as_secs() + 168 * 3_600), ..line(1, Some(1), false) };
    assert_eq!(good.problem(NOW), None);
    for bad in [
        HandedOut { expires_at: Some(NOW.as_ms()), ..good.clone() },
        HandedOut { allocated_at: Some(NOW.as_ms()), ..good },
    ] {
        assert!(bad.problem(NOW).is_some(), "{bad:?}");
    }
}

/// The table after each transaction of a history, from the first to the last.
fn history(ops: &[(u8, u8)]) -> Vec<Known> {
    let mut table = known((1..=6).map(|number| sandbox(number, Status::Available, None)), []);
    let mut states = vec![table.clone()];
    let mut at = 1_000;
    for (what, of) in ops {
        at += 10;
        let key = key(of % 3 + 1);
        let held = table.live(&key).cloned();
        let mut free: Vec<_> =
            table.sandboxes.values().filter(|sandbox| sandbox.status == Status::Available).cloned().collect();
        free.sort_by(|a, b| a.id.cmp(&b.id));
        let step = match (held, free.first()) {
            (Some(lease), _) => {
                let sandbox = table.sandboxes[&lease.grant.sandbox_id].clone();
                let end = LeaseEnd::by_broker(
                    EndReason::Returned,
                    Timestamp::from_secs(at),
                    Timestamp::from_secs(at),
                );
                Step::End { sandbox, allocation: allocation_of(&lease), end }
            }
            (None, Some(_)) => {
                let sandbox = free.remove(usize::from(*what) % free.len());
                let id = Uuid::from_u128(at.into());
                let lease = Lease {
                    key: key.clone(),
                    request_id: RequestId::from_uuid(id),
                    allocation_id: AllocationId::from_uuid(id),
                    fingerprint: Fingerprint::unknown(),
                    grant: Grant {
                        sandbox_id: sandbox.id.clone(),
                        name: sandbox.name.clone(),
                        external_id: sandbox.external_id.clone(),
                        track_name: None::<TrackName>,
                        allocated_at: Timestamp::from_secs(at),
                        expires_at: Timestamp::from_secs(at + 3_600),
                        attributes: sandbox.attributes.clone(),
                    },
                    term: crate::Term::default(),
                    tenant: None,
                    permit: None,
                    end: None,
                };
                Step::Bind {
                    sandbox,
                    stands: table.leases.get(&key).cloned().map(Box::new),
                    lease: Box::new(lease),
                }
            }
            (None, None) => break,
        };
        table.apply(&step);
        states.push(table.clone());
    }
    states
}

/// A copy whose items are each as they were at one of the moments of a window.
fn copied(states: &[Known], window: (usize, usize), picks: &[u8]) -> Known {
    let mut picks = picks.iter().cycle().copied();
    let mut pick = || {
        let (from, to) = (window.0.min(states.len() - 1), window.1.min(states.len() - 1));
        &states[from + usize::from(picks.next().unwrap_or(0)) % (to - from + 1)]
    };
    let mut copy = Known::default();
    for number in 1..=6 {
        copy.add_sandbox(pick().sandboxes[&sandbox_id(number)].clone());
    }
    for number in 1..=3 {
        if let Some(lease) = pick().leases.get(&key(number)) {
            copy.add_lease(lease.clone());
        }
    }
    copy
}

fn lines_of(table: &Known) -> Vec<HandedOut> {
    let mut lines: Vec<_> = table.sandboxes.values().filter_map(HandedOut::of_sandbox).collect();
    lines.sort_by(|a, b| a.sandbox_id.cmp(&b.sandbox_id));
    lines
}

proptest! {
    #[test]
    fn a_copy_with_halves_of_transactions_becomes_what_was_true(
        ops in prop::collection::vec((any::<u8>(), any::<u8>()), 1..14),
        from in 0_usize..12,
        length in 0_usize..4,
        picks in prop::collection::vec(any::<u8>(), 9),
        order in any::<u64>(),
        cut in 1_usize..4,
    ) {
        let states = history(&ops);
        let truth = states.last().unwrap();
        let copy = copied(&states, (from, from + length), &picks);
        let mut lines = lines_of(truth);
        let not_asked = |_: &SandboxId| Sight::NotAsked;
        let sorted: Lines = lines.iter().cloned().collect();
        let (whole, verdicts, _) = settled(copy.clone(), &sorted, &not_asked, usize::MAX);
        prop_assert!(suspects(&whole.inventory()).is_empty(), "{:?}", suspects(&whole.inventory()));
        prop_assert!(verdicts.values().all(|verdict| *verdict == LineVerdict::AsItIs), "{verdicts:?}");
        prop_assert_eq!(owners_of(&whole), owners_of(truth));
        // In another order, and ended after every few steps.
        let len = lines.len().max(1);
        lines.rotate_left(usize::try_from(order % len as u64).unwrap() % len);
        lines.reverse();
        let (parts, _, _) = settled(copy.clone(), &lines.into_iter().collect(), &not_asked, cut);
        prop_assert_eq!(owners_of(&parts), owners_of(truth));
        // Without a line the halves are mended, and nothing that was handed out by then is offered.
        let (mended, _, purposes) = settled(copy, &Lines::default(), &not_asked, cut);
        prop_assert!(suspects(&mended.inventory()).is_empty(), "{:?}", suspects(&mended.inventory()));
        prop_assert!(purposes.iter().all(|purpose| *purpose == Purpose::Mend));
    }
}
