//! Refill over time: rates, stops, needs and bounds.

use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::policy::{Policy, Refill};
use crate::{Pause, TicketId, Timestamp};

fn at(secs: u64) -> Timestamp {
    Timestamp::from_secs(1_795_000_000 + secs)
}

fn id(number: u128) -> TicketId {
    TicketId::from_uuid(Uuid::from_u128(number))
}

fn refill(min: u32, max: u32, rate: u32) -> Refill {
    let text = format!(
        "[flavour.small]\nprefix = 'lab-'\n[flavour.small.refill]\nmin = {min}\nmax = {max}\n\
         rate_per_minute = {rate}\nurl = 'https://ops.example/refill'"
    );
    Policy::parse(&text).unwrap().flavours().values().next().unwrap().refill.clone().unwrap()
}

fn counted(available: u64, live: u64) -> Counted {
    Counted { available, arriving: 0, live, as_of: at(0) }
}

fn list(secs: u64, hidden: u64) -> AppliedList {
    AppliedList { began: at(secs), hidden }
}

const LOCK: Duration = Duration::from_secs(20);

fn plan(refill: &Refill, flow: &Flow, tickets: &[Ticket], counted: Counted, secs: u64) -> Plan {
    let now = at(secs);
    Round { refill, flow, tickets, counted, reserved: 0, listed: Some(list(secs, 0)), now }.plan(LOCK)
}

#[test]
fn what_is_missing_is_asked_for_within_max_rate_and_calls() {
    let flow = Flow::default();
    let new = |refill: &Refill, available, live| plan(refill, &flow, &[], counted(available, live), 0).new;
    assert_eq!(new(&refill(50, 400, 600), 50, 50), 0, "nothing is missing");
    assert_eq!(new(&refill(50, 400, 600), 48, 60), 2, "two are");
    assert_eq!(new(&refill(50, 62, 600), 40, 60), 2, "max leaves room for two");
    assert_eq!(new(&refill(50, 60, 600), 40, 90), 0, "there are more than max");
    assert_eq!(new(&refill(50, 400, 600), 0, 0), CALLS, "as many calls at a time");
    assert_eq!(new(&refill(50, 400, 120), 0, 0), 2, "a second's worth");
    assert_eq!(new(&refill(50, 400, 1), 0, 0), 1, "one at least");
    let paused = Flow { paused: Some(Pause::new("ops", at(0))), ..Flow::default() };
    let told = plan(&refill(50, 400, 600), &paused, &[], counted(48, 48), 0);
    assert_eq!((told.new, told.need.missing), (0, 2), "a paused one tells what it needs");
    let signal = Refill { hook: None, ..refill(50, 400, 600) };
    let told = plan(&signal, &flow, &[], counted(48, 48), 0);
    assert_eq!((told.new, told.need.missing), (0, 2), "and so does one without a hook");
    assert!(told.is_empty());
}

#[test]
fn without_a_hook_no_more_are_missing_than_max_leaves_room_for() {
    let missing = |max, hook: bool| {
        let refill = refill(50, max, 600);
        let refill = if hook { refill } else { Refill { hook: None, ..refill } };
        plan(&refill, &Flow::default(), &[], counted(40, 60), 0).need.missing
    };
    assert_eq!([missing(400, false), missing(62, false), missing(60, false)], [10, 2, 0]);
    assert_eq!(missing(62, true), 10, "a hook is asked for no more, and the rest is told");
}

#[test]
fn a_ticket_that_the_hook_did_not_say_yes_to_is_sent_again_only_while_it_is_needed() {
    let due: Vec<_> = (0..5).map(|number| Ticket::new(id(number), at(0))).collect();
    let sent = |min, max, available, live| {
        let told = plan(&refill(min, max, 600), &Flow::default(), &due, counted(available, live), 60);
        assert_eq!(told.overdue, [], "they stay until they are late");
        (told.send.len(), told.new)
    };
    assert_eq!(sent(5, 9, 0, 0), (5, 0));
    assert_eq!(sent(0, 9, 0, 0), (0, 0), "nothing is wanted any more");
    assert_eq!((sent(5, 9, 3, 3), sent(5, 9, 5, 5)), ((2, 0), (0, 0)), "somebody made them meanwhile");
    assert_eq!((sent(5, 5, 0, 3), sent(5, 5, 0, 5)), ((2, 0), (0, 0)), "max was lowered");
    // Those that the hook said yes to are to come.
    let mut tickets = due.clone();
    tickets.iter_mut().take(3).for_each(|ticket| ticket.state = TicketState::Asked);
    let told = plan(&refill(4, 9, 600), &Flow::default(), &tickets, counted(0, 0), 60);
    assert_eq!((told.send.len(), told.new), (1, 0), "three of four");
    assert!(plan(&refill(2, 9, 600), &Flow::default(), &tickets, counted(0, 0), 60).is_empty());
}

#[test]
fn a_ticket_that_cannot_be_read_takes_its_room_for_good() {
    let unreadable = Ticket::unreadable(id(1));
    assert!(!unreadable.is_readable() && Ticket::new(id(2), at(0)).is_readable());
    for secs in [0, 1_000_000] {
        let told = plan(&refill(2, 2, 600), &Flow::default(), &[unreadable], counted(0, 0), secs);
        assert_eq!((told.new, told.need.room, told.need.missing), (1, 1, 1), "one of two is asked for");
        assert_eq!((told.send, told.overdue, told.counted), (vec![], vec![], vec![]));
    }
    // It does not find out whether anything arrives: another one does.
    let breaker = HookBreaker { overdue: CALLS, ..HookBreaker::default() };
    let new = |tickets: &[Ticket]| {
        let flow = Flow { breaker, ..Flow::default() };
        plan(&refill(2, 9, 600), &flow, tickets, counted(0, 0), 0).new
    };
    assert_eq!((new(&[unreadable]), new(&[unreadable, Ticket::new(id(2), at(0))])), (1, 0));
}

#[test]
fn a_ticket_counts_until_it_is_taken_refused_or_overdue_and_one_that_was_taken_until_it_is_counted() {
    let refill = refill(3, 5, 600);
    let open = Ticket { state: TicketState::Asked, ..Ticket::new(id(1), at(0)) };
    let taken = Ticket { state: TicketState::Taken { at: at(100) }, ..open };
    let need = |ticket: Ticket, as_of, secs| {
        let counted = Counted { as_of: at(as_of), ..counted(1, 4) };
        Round {
            refill: &refill,
            flow: &Flow::default(),
            tickets: &[ticket],
            counted,
            reserved: 0,
            listed: None,
            now: at(secs),
        }
        .need()
    };
    assert_eq!((need(open, 90, 105).missing, need(open, 90, 105).room), (1, 0));
    assert_eq!((need(taken, 90, 105).missing, need(taken, 90, 105).room), (1, 0), "just arrived");
    assert_eq!((need(taken, 90, 111).missing, need(taken, 90, 111).room), (2, 0), "and is gone again");
    assert_eq!(need(taken, 115, 170).room, 0, "the index may not have shown it to this census");
    assert_eq!(need(taken, 116, 170).room, 1);
    let plan = |ticket, as_of, secs| {
        let counted = Counted { as_of: at(as_of), ..counted(1, 4) };
        plan(&refill, &Flow::default(), &[ticket], counted, secs)
    };
    assert_eq!(plan(taken, 116, 170).counted, [id(1)]);
    let life = TICKET_LIFE.as_secs();
    assert_eq!(plan(open, 90, life - 1).overdue, []);
    let late = plan(open, 90, life);
    assert_eq!((late.overdue, late.new), (vec![id(1)], 0), "it still counts in the round that ends it");
    assert!(plan(taken, 90, life).overdue.is_empty());
}

#[test]
fn a_list_ends_all_late_tickets_but_as_many_of_the_youngest_as_it_hides_rows() {
    let life = TICKET_LIFE.as_secs();
    // Those of one round have one time, and the last one is not late when the list begins.
    let made = [0, 1, 1, 1, 3];
    let tickets: Vec<_> = (0..).zip(made).map(|(n, secs)| Ticket::new(id(n), at(secs))).collect();
    let late = |list: AppliedList, now| {
        let late = LateTickets::of(&tickets, Some(list), now);
        (late.kept.into_iter().collect::<Vec<_>>(), late.overdue.into_iter().collect::<Vec<_>>())
    };
    let [first, second, third, fourth] = [0, 1, 2, 3].map(id);
    assert_eq!(late(list(life + 2, 0), at(life + 9)), (vec![], vec![first, second, third, fourth]));
    assert_eq!(late(list(life + 2, 1), at(life + 9)), (vec![fourth], vec![first, second, third]));
    assert_eq!(late(list(life + 2, 3), at(life + 9)), (vec![second, third, fourth], vec![first]));
    assert_eq!(late(list(life + 2, u64::MAX), at(life + 9)), (vec![first, second, third, fourth], vec![]));
    for hidden in [0, 1] {
        assert_eq!(
            late(list(life + 9, hidden), at(life + 2)),
            (vec![], vec![]),
            "a list of the future is none"
        );
    }
    assert_eq!(LateTickets::of(&tickets, None, at(life + 9)), LateTickets::default());
}

#[test]
fn a_late_ticket_that_a_list_keeps_open_keeps_nobody_from_finding_out_whether_something_arrives() {
    let refill = refill(10, 20, 60_000);
    let life = TICKET_LIFE.as_secs();
    let breaker = HookBreaker::default().waited(CALLS, false);
    let flow = Flow {
        breaker: breaker.begin(1, at(0)).end(Answers { answered: 1, ..Answers::default() }),
        ..Flow::default()
    };
    assert!(flow.breaker.nothing_arrives());
    let asked = |n, secs| Ticket { state: TicketState::Asked, ..Ticket::new(id(n), at(secs)) };
    let plan = |tickets: &[Ticket], secs| {
        let counted = Counted { as_of: at(secs), ..counted(0, 0) };
        let (listed, now) = (Some(list(secs, 1)), at(secs));
        Round { refill: &refill, flow: &flow, tickets, counted, reserved: 0, listed, now }.plan(LOCK)
    };
    let next = plan(&[asked(1, 0)], life);
    assert_eq!((next.overdue, next.new), (vec![], 1), "the next one finds out");
    let next = plan(&[asked(1, 0), asked(2, life)], life + 60);
    assert_eq!((next.overdue, next.new), (vec![], 0), "and no third beside it");
    let next = plan(&[asked(1, 0), asked(2, life)], 2 * life);
    assert_eq!((next.overdue, next.new), (vec![id(1)], 0), "once that is late the first one ends");
}

#[test]
fn while_no_list_is_applied_nothing_is_overdue_and_max_is_asked_for_once() {
    let refill = refill(10, 10, 60_000);
    let life = TICKET_LIFE.as_secs();
    let asked = |number| Ticket { state: TicketState::Asked, ..Ticket::new(id(number), at(0)) };
    let tickets: Vec<_> = (0..10).map(asked).collect();
    let planned = |listed: Option<u64>, secs| {
        let (flow, listed) = (Flow::default(), listed.map(|began| list(began, 0)));
        let counted = Counted { as_of: at(secs), ..counted(0, 0) };
        let round = Round {
            refill: &refill,
            flow: &flow,
            tickets: &tickets,
            counted,
            reserved: 0,
            listed,
            now: at(secs),
        };
        round.plan(LOCK)
    };
    for listed in [None, Some(0), Some(life - 1)] {
        for secs in [life, 10 * life, 100 * life] {
            let plan = planned(listed, secs);
            assert!(plan.is_empty(), "nothing ends and nothing is asked for: {listed:?} {secs}: {plan:?}");
        }
    }
    assert_eq!(planned(Some(life), life + 60).overdue.len(), 10, "a list that began then has none of them");
    assert!(planned(Some(9 * life), 2 * life).is_empty(), "a list of the future is none");
}

#[test]
fn a_hook_whose_accounts_never_arrive_is_asked_for_one_at_a_time_until_one_does() {
    let refill = refill(10, 20, 60_000);
    let (mut flow, mut tickets, mut made) = (Flow::default(), Vec::new(), Vec::new());
    // It says yes to all for a day, and the lists have none of them.
    for secs in (0..86_400).step_by(60) {
        let plan = plan(&refill, &flow, &tickets, Counted { as_of: at(secs), ..counted(0, 0) }, secs);
        if plan.is_empty() {
            continue;
        }
        let answered = plan.new + u32::try_from(plan.send.len()).unwrap();
        let breaker = plan.flow.breaker.end(Answers { answered, ..Answers::default() });
        flow = Flow { breaker, busy_until: None, ..plan.flow };
        tickets.retain(|ticket: &Ticket| !plan.overdue.contains(&ticket.id));
        for _ in 0..plan.new {
            let ticket = Ticket::new(id(made.len() as u128), at(secs));
            tickets.push(Ticket { state: TicketState::Asked, ..ticket });
            made.push(secs);
        }
    }
    let life = TICKET_LIFE.as_secs();
    assert_eq!(made.iter().filter(|secs| **secs < life).count(), 10);
    assert!(made[10..].windows(2).all(|two| two[1] - two[0] >= life), "{made:?}");
    assert!(flow.breaker.is_open() && made.len() > 40, "{} were asked for", made.len());
    // One arrives: whatever kept them is over.
    tickets.iter_mut().for_each(|ticket| ticket.state = TicketState::Taken { at: at(86_400) });
    let plan = plan(&refill, &flow, &tickets, counted(1, 1), 86_401);
    assert_eq!((plan.new, plan.flow.breaker.nothing_arrives()), (CALLS, false));
}

#[test]
fn an_answer_ends_a_ticket_only_if_it_is_no() {
    let ticket = Ticket::new(id(1), at(0));
    let answered = |answer| ticket.answered(answer, Duration::from_secs(60), at(5));
    assert_eq!(answered(TicketAnswer::Yes), Ok(TicketState::Asked));
    assert_eq!(answered(TicketAnswer::No), Err(TicketEnd::Refused));
    assert_eq!(answered(TicketAnswer::Failed), Ok(TicketState::Due { at: at(65) }));
    let later = TicketAnswer::Later(Duration::from_secs(7));
    assert_eq!(answered(later), Ok(TicketState::Due { at: at(12) }));
    let life = TICKET_LIFE.as_secs();
    assert!(ticket.is_due(at(0)) && ticket.is_due(at(life)));
    let late = |secs| plan(&refill(1, 1, 60), &Flow::default(), &[ticket], counted(0, 0), secs);
    assert_eq!((late(life - 1).send, late(life).send), (vec![id(1)], vec![]), "one that ends is not sent");
}

#[test]
fn an_always_failing_hook_is_called_five_times_and_then_once_per_back_off() {
    let refill = refill(50, 400, 6_000);
    let (mut flow, mut tickets, mut calls) = (Flow::default(), Vec::new(), Vec::new());
    for secs in 0..4 * 3_600 {
        let plan = plan(&refill, &flow, &tickets, counted(0, 0), secs);
        if plan.is_empty() {
            continue;
        }
        flow = plan.flow;
        let next = tickets.len() as u128;
        tickets.extend((0..u128::from(plan.new)).map(|new| Ticket::new(id(next + new), at(secs))));
        let sent: Vec<_> = plan.send.into_iter().chain((next..tickets.len() as u128).map(id)).collect();
        calls.extend(sent.iter().map(|_| secs));
        for ticket in tickets.iter_mut().filter(|ticket| sent.contains(&ticket.id)) {
            ticket.state = ticket.answered(TicketAnswer::Failed, Duration::from_secs(60), at(secs)).unwrap();
        }
        let failed = u32::try_from(sent.len()).unwrap();
        flow.breaker = flow.breaker.end(Answers { failed, ..Answers::default() });
        tickets.retain(|ticket| !plan.overdue.contains(&ticket.id));
    }
    assert_eq!(calls[..5], [0; 5]);
    let pauses: Vec<_> = calls[4..].windows(2).map(|two| two[1] - two[0]).collect();
    assert_eq!(pauses[..6], [60, 120, 240, 480, 960, 1_920], "each probe waits twice as long");
    assert!(pauses[6..].iter().all(|pause| *pause == 3_600), "an hour at most: {pauses:?}");
    assert!(tickets.len() <= 5, "nothing is asked for while nobody answers");
}

#[test]
fn an_answer_starts_the_flavour_again_and_429_is_none_and_no_failure() {
    let stopped = HookBreaker::default().begin(CALLS, at(0));
    assert!(stopped.is_open() && stopped.may_begin(at(59)) == 0 && stopped.may_begin(at(60)) == 1);
    let probed = stopped.end(Answers { failed: CALLS, ..Answers::default() }).begin(1, at(60));
    assert_eq!(probed.may_begin(at(179)), 0, "killed with the probe under way, it waits all the same");
    assert!(probed.end(Answers { later: 1, ..Answers::default() }).is_open());
    let answered = probed.end(Answers { answered: 1, ..Answers::default() });
    assert_eq!((answered.is_open(), answered.may_begin(at(60))), (false, CALLS));
    let slowed = stopped.end(Answers { later: CALLS, ..Answers::default() });
    assert_eq!(slowed, HookBreaker::default());
    let mixed = HookBreaker::default().begin(5, at(0)).end(Answers { answered: 1, failed: 4, later: 0 });
    assert_eq!((mixed.is_open(), mixed.may_begin(at(0))), (false, 1));
    let flow = Flow::default().resting(Duration::from_secs(30), at(0));
    let refill = refill(5, 9, 600);
    assert_eq!(plan(&refill, &flow, &[], counted(0, 0), 29).new, 0);
    assert_eq!(plan(&refill, &flow, &[], counted(0, 0), 30).new, 5);
}

#[test]
fn a_burst_is_back_at_min_within_burst_over_rate() {
    // 240 claims at once; 120 a minute; the hook answers at once, and the sandbox is there.
    let refill = refill(300, 1_000, 120);
    let (mut flow, mut available, mut secs) = (Flow::default(), 60, 0);
    while available < 300 {
        let plan = plan(&refill, &flow, &[], counted(available, available), secs);
        flow = Flow {
            breaker: plan.flow.breaker.end(Answers { answered: plan.new, ..Answers::default() }),
            ..plan.flow
        };
        available += u64::from(plan.new);
        secs += 1;
    }
    assert!(secs <= 120 + 1, "{secs} s");
}

#[test]
fn calls_that_are_under_way_for_the_first_time_stop_nothing() {
    let refill = refill(50, 400, 60_000);
    let begun = plan(&refill, &Flow::default(), &[], counted(0, 0), 0).flow;
    assert_eq!((begun.breaker.unanswered, begun.is_busy(at(1))), (CALLS, true));
    assert_eq!((begun.next_try(at(1)), begun.is_stopped(at(1))), (None, false));
    let ended = |answers| Flow { busy_until: None, breaker: begun.breaker.end(answers), ..begun.clone() };
    assert!(!ended(Answers { answered: 5, ..Answers::default() }).is_stopped(at(2)));
    let failed = ended(Answers { failed: 5, ..Answers::default() });
    assert_eq!((failed.next_try(at(2)), failed.is_stopped(at(2))), (Some(at(60)), true));
    // Its worker died.
    assert!(begun.is_stopped(at(21)));
    let probe = plan(&refill, &failed, &[], counted(0, 0), 60).flow;
    assert!(probe.is_busy(at(61)) && probe.is_stopped(at(61)), "one call finds out");
    let breaker = HookBreaker { overdue: CALLS, ..HookBreaker::default() };
    let nothing_arrives = Flow { breaker, ..Flow::default() };
    assert_eq!((nothing_arrives.next_try(at(0)), nothing_arrives.is_stopped(at(0))), (None, true));
}

#[test]
fn what_a_clock_that_was_wrong_wrote_stops_nothing() {
    let (refill, later) = (refill(5, 9, 600), at(1_000_000));
    let bucket = Bucket::from_us(later.as_ms() * 1_000);
    let breaker = HookBreaker { unanswered: CALLS, probe_at: Some(later), ..HookBreaker::default() };
    for (flow, calls) in [
        (Flow { bucket, ..Flow::default() }, 5),
        (Flow { rests_until: Some(later), ..Flow::default() }, 5),
        (Flow { busy_until: Some(later), ..Flow::default() }, 5),
        (Flow { breaker, ..Flow::default() }, 1),
    ] {
        assert!(!flow.is_busy(at(0)), "{flow:?}");
        assert_eq!(plan(&refill, &flow, &[], counted(0, 0), 0).new, calls, "{flow:?}");
    }
    let (taken, spent) = bucket.take(600, 3, at(0));
    assert_eq!((taken, spent.take(600, 9, at(0)).0), (3, 7), "a burst, as of a bucket that nobody wrote");
}

proptest! {
    #[test]
    fn the_rate_holds_over_any_minute_but_for_one_second_of_burst(
        rate in 1..10_000_u32, steps in prop::collection::vec((0..5_000_u64, 0..200_u32), 1..60),
    ) {
        let (mut bucket, mut now, mut taken) = (Bucket::default(), at(0), Vec::new());
        for (wait_ms, wanted) in steps {
            now = now.plus(Duration::from_millis(wait_ms));
            let (count, after) = bucket.take(rate, wanted, now);
            prop_assert!(count <= wanted);
            bucket = after;
            taken.push((now, u64::from(count)));
        }
        for (nth, (from, _)) in taken.iter().enumerate() {
            let mut sum = 0;
            for (to, count) in &taken[nth..] {
                sum += count;
                let most = to.since(*from).as_micros() as u64 / (60_000_000 / u64::from(rate)) + u64::from(rate / 60).max(1);
                prop_assert!(sum <= most, "{sum} within {:?}, {most} at most", to.since(*from));
            }
        }
    }

    #[test]
    fn a_round_never_asks_beyond_max_or_need(
        min in 0..50_u32, more in 1..50_u32, rate in 1..60_000_u32, available in 0..60_u64, used in 0..60_u64,
        states in prop::collection::vec((0..4_u8, 0..4_000_u64), 0..20), as_of in 0..4_000_u64, secs in 0..4_000_u64,
    ) {
        let refill = refill(min, min + more, rate);
        let tickets: Vec<_> = states.iter().zip(0..).map(|((state, time), number)| Ticket {
            id: id(number),
            made_at: at(*time),
            state: match state {
                0 => TicketState::Due { at: at(*time) },
                1 => TicketState::Asked,
                _ => TicketState::Taken { at: at(*time) },
            },
        }).collect();
        let counted = Counted { as_of: at(as_of), ..counted(available, available + used) };
        let plan = plan(&refill, &Flow::default(), &tickets, counted, secs);
        let kept = tickets.iter().filter(|ticket| !plan.counted.contains(&ticket.id)).count() as u64;
        let sum = counted.live + kept + u64::from(plan.new);
        prop_assert!(plan.new == 0 || sum <= u64::from(refill.max), "{sum}: {plan:?}");
        prop_assert!(u64::from(plan.new) <= plan.need.missing);
        prop_assert!(plan.new as usize + plan.send.len() <= CALLS as usize);
        prop_assert!(plan.send.iter().all(|sent| !plan.overdue.contains(sent) && !plan.counted.contains(sent)));
    }
}
