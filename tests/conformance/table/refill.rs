//! Tickets of refill: made at the version that was read, taken once, ended only while they are open.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::refill::{Counted, Flow, Plan, Round, Ticket, TicketState};
use broker_domain::{FlavourName, NamePrefix, TicketId};
use broker_store::{EntryConflict, NewSandbox, OpenTicket, Write};

use super::accounts::{external, tombstone};
use crate::place::{Place, sandbox};

const POLICY: &str = "[flavour.small]\nprefix = 'sandbox-'\n\
                      refill = { min = 2, max = 2, rate_per_minute = 600, url = 'https://ops.example/' }\n";

pub(super) fn flavour() -> FlavourName {
    FlavourName::new("small").expect("a name")
}

/// What a round plans that sees an empty pool.
pub(super) fn plan(place: &Place, flow: &Flow, tickets: &[Ticket]) -> Plan {
    let policy = Policy::parse(POLICY).expect("a policy");
    let refill = policy.flavours()[&flavour()].refill.clone().expect("a refill");
    let now = place.clock.now();
    let counted = Counted { available: 0, arriving: 0, live: 0, as_of: now };
    Round { refill: &refill, flow, tickets, counted, reserved: 0, listed: None, now }
        .plan(Duration::from_secs(20))
}

/// Two tickets, in the order in which they are listed.
pub(super) fn two(place: &Place) -> [Ticket; 2] {
    let new = || Ticket::new(TicketId::from_uuid(place.entropy.uuid()), place.clock.now());
    let mut two = [new(), new()];
    two.sort_unstable();
    two
}

#[tokio::test]
async fn of_two_rounds_that_read_the_same_flow_one_makes_tickets() {
    let place = Place::with_table().await;
    let (refill, flavour) = (&place.store.refill, flavour());
    let flow = refill.flow(&flavour).await.expect("read");
    assert_eq!(flow, Flow::default(), "nobody wrote one");
    let planned = plan(&place, &flow, &[]);
    assert_eq!(planned.new, 2);
    let (first, second) = (two(&place), two(&place));
    assert_eq!(refill.write_round(&flavour, &planned, &first).await.expect("asked"), Write::Applied);
    assert_eq!(refill.write_round(&flavour, &planned, &second).await.expect("asked"), Write::Rejected(()));
    assert_eq!(refill.tickets(&flavour).await.expect("read"), first);
    let flow = refill.flow(&flavour).await.expect("read");
    assert_eq!((flow.version, &flow), (1, &planned.flow));
    assert_eq!(plan(&place, &flow, &first).need.missing, 0);
    assert_eq!(refill.write_flow(&flavour, &flow).await.expect("asked"), Write::Rejected(()), "not its next");
    let next = Flow { version: 2, ..flow };
    assert_eq!(refill.write_flow(&flavour, &next).await.expect("asked"), Write::Applied);
}

#[tokio::test]
async fn a_ticket_is_taken_by_one_arrival_and_then_neither_ends_nor_is_answered() {
    let place = Place::with_table().await;
    let (store, flavour, now) = (&place.store, flavour(), place.clock.now());
    let made = two(&place);
    let planned = plan(&place, &Flow::default(), &[]);
    store.refill.write_round(&flavour, &planned, &made).await.expect("written");
    let open = |number: usize| OpenTicket { flavour: flavour.clone(), id: made[number].id };
    let insert = async |id: usize, number: usize| {
        store.sandboxes.insert_with_ticket(&sandbox(id), &open(number), now).await.expect("asked")
    };
    assert_eq!(insert(0, 0).await, Some(Write::Applied));
    assert_eq!(insert(1, 0).await, None, "another arrival has it");
    assert_eq!(store.sandboxes.get(&sandbox(1).id).await.expect("read"), None, "all or nothing");
    assert!(matches!(insert(0, 1).await, Some(Write::Rejected(EntryConflict::MovedOn(_)))), "it is there");
    let states = async || {
        let tickets = store.refill.tickets(&flavour).await.expect("read");
        tickets.iter().map(|ticket| ticket.state).collect::<Vec<_>>()
    };
    assert_eq!(states().await[1], made[1].state, "and its ticket is open still");

    let taken = made[0].id;
    let answered = store.refill.answered(&flavour, taken, TicketState::Asked).await.expect("asked");
    let ended = store.refill.end_ticket(&flavour, taken).await.expect("asked");
    assert_eq!([answered, ended], [Write::Rejected(()); 2]);
    assert_eq!(
        store.refill.answered(&flavour, made[1].id, TicketState::Asked).await.expect("asked"),
        Write::Applied
    );
    assert_eq!(states().await, [TicketState::Taken { at: now }, TicketState::Asked]);
    assert_eq!(store.refill.end_ticket(&flavour, made[1].id).await.expect("asked"), Write::Applied);
    assert_eq!(insert(1, 1).await, None, "it ended");
    assert_eq!(store.refill.end_ticket(&flavour, made[1].id).await.expect("asked"), Write::Rejected(()));

    // A later census has counted it.
    let flow = store.refill.flow(&flavour).await.expect("read");
    let gone = Plan { counted: vec![taken], flow: Flow { version: flow.version + 1, ..flow }, ..planned };
    assert_eq!(store.refill.write_round(&flavour, &gone, &[]).await.expect("asked"), Write::Applied);
    assert!(states().await.is_empty());
}

#[tokio::test]
async fn what_arrives_in_the_place_of_a_tombstone_takes_its_ticket_too() {
    let place = Place::with_table().await;
    let grave = tombstone(&place).await;
    let (store, flavour, now) = (&place.store, flavour(), place.clock.now());
    let made = two(&place);
    store.refill.write_round(&flavour, &plan(&place, &Flow::default(), &[]), &made).await.expect("written");
    let open = |number: usize| OpenTicket { flavour: flavour.clone(), id: made[number].id };
    store.refill.end_ticket(&flavour, made[0].id).await.expect("ended");
    let later = now.plus(Duration::from_secs(60));
    let again = NewSandbox { external_id: external("another"), ..sandbox(0) };
    let insert = async |sandbox: &NewSandbox, number: usize| {
        let ticket = open(number);
        let sandboxes = &store.sandboxes;
        sandboxes
            .insert_over_tombstone_with_ticket(sandbox, &grave, later, &ticket, later)
            .await
            .expect("asked")
    };
    assert_eq!(insert(&again, 0).await, None, "that one ended");
    let same = NewSandbox { external_id: grave.sandbox.external_id.clone(), ..again.clone() };
    let moved_on = Some(Write::Rejected(EntryConflict::MovedOn(())));
    assert_eq!(insert(&same, 1).await, moved_on, "the account that was deleted");
    assert_eq!(insert(&again, 1).await, Some(Write::Applied));
    let tickets = store.refill.tickets(&flavour).await.expect("read");
    assert_eq!(
        tickets.iter().map(|ticket| ticket.state).collect::<Vec<_>>(),
        [TicketState::Taken { at: later }]
    );
    assert_eq!(insert(&again, 1).await, moved_on, "it is there");
}

#[tokio::test]
async fn available_sandboxes_are_counted_by_prefix_and_no_further_than_asked() {
    let place = Place::with_table().await;
    for number in 0..9 {
        let (sandboxes, now) = (&place.store.sandboxes, place.clock.now());
        sandboxes.insert(&sandbox(number), now).await.expect("inserted");
        // The last one is still arriving.
        if number < 8 {
            let arrival = sandbox(number).arrived(NewSandbox::first_version(now));
            assert_eq!(sandboxes.admit(&arrival, now).await.expect("asked"), Write::Applied);
        }
    }
    let count = async |prefix: &str, enough| {
        let prefix = NamePrefix::new(prefix).expect("a prefix");
        place.store.refill.available(&prefix, enough).await.expect("counted")
    };
    let all = sandbox(0).name.as_str()[..1].to_owned();
    broker_tests::wait_for_condition("the index", async || match count(&all, 100).await {
        8 => Ok(()),
        other => Err(other),
    })
    .await;
    assert_eq!(count("nothing-", 100).await, 0);
    assert_eq!(count(&all, 0).await, 0, "none are wanted");
}
