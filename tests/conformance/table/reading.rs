//! Reads of the whole table, of many items in one call, and of several at one instant.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_dynamodb::types::AttributeValue;
use broker_domain::policy::Policy;
use broker_domain::refill::{Flow, Ticket};
use broker_domain::{FlavourName, Job, Status};
use broker_store::pool_list::Browsed;
use broker_store::{Act, AuditLine, Instance, PageKey, Pages, Role, heartbeat};
use broker_tests::together;

use super::letters::letter;
use super::records::queued as asked;
use super::refill::{flavour, plan, two};
use crate::place::Place;

#[tokio::test]
async fn segments_of_a_scan_miss_and_repeat_nothing() {
    let place = Place::with_table().await;
    let free = place.seed(60).await;
    for (number, candidate) in free.iter().take(10).enumerate() {
        place.claim(&place.ask(&format!("student-{number}")), candidate).await;
    }
    let (mut sandboxes, mut leases) = (Vec::new(), 0);
    for segment in 0..4 {
        let mut pages = Pages::new(|after| place.store.scans.page(segment, 4, after));
        while let Some(page) = pages.next().await.expect("read") {
            assert_eq!(page.unreadable, Vec::<String>::new());
            sandboxes.extend(page.sandboxes.into_iter().map(|sandbox| sandbox.id));
            leases += page.leases.len();
        }
    }
    assert_eq!((sandboxes.len(), leases), (60, 10));
    assert_eq!(sandboxes.into_iter().collect::<BTreeSet<_>>().len(), 60);
    let counted = place.store.sandboxes.count(&Policy::default()).await.expect("counted").by_status();
    assert_eq!((counted[&Status::Available], counted[&Status::Allocated]), (50, 10));
}

#[tokio::test]
async fn a_page_goes_on_where_a_cursor_says() {
    let place = Place::with_table().await;
    let seeded: BTreeSet<_> = place.seed(30).await.into_iter().map(|c| c.sandbox_id).collect();
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page =
            place.store.sandboxes.browse(&Browsed::default(), after, 7, |_| true).await.expect("read").page;
        assert!(page.items.len() == 7 || page.next.is_none(), "a page is full, or the last");
        seen.extend(page.items.into_iter().map(|record| record.sandbox.id));
        let Some(next) = page.next else { break };
        // As a client keeps it.
        after = PageKey::parse(&next.encode());
        assert!(after.is_some());
    }
    assert_eq!(seen.len(), 30);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), seeded);
}

/// A page is 1 MB of the table, so most of it may be filtered out.
#[tokio::test]
async fn what_lies_behind_the_first_megabyte_is_read_too() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());
    for number in 0..4_u64 {
        let mut letter = letter("m", now.plus(Duration::from_secs(number)));
        letter.body = "x".repeat(390_000);
        store.dead_letters.record(&letter, None).await.expect("kept");
    }
    place.seed(40).await;
    for number in 0..20 {
        let record = asked(&place, &format!("student-{number}"));
        store.requests.record(&record).await.expect("recorded");
    }
    assert_eq!(
        store.sandboxes.count(&Policy::default()).await.expect("counted").by_status()[&Status::Available],
        40
    );

    let (mut scanned, mut surveyed, mut browsed, mut queued) = (0, 0, 0, 0);
    let mut pages = 0;
    let (mut after, mut more) = (None, true);
    while more {
        let page = store.scans.page(0, 1, after).await.expect("read");
        scanned += page.items.sandboxes.len();
        (more, after, pages) = (page.next.is_some(), page.next, pages + 1);
    }
    assert!(pages > 1, "or this says nothing");
    (after, more) = (None, true);
    while more {
        let page =
            store.adopt.survey(0, 1, after, broker_domain::LabDuration::nearest(4), now).await.expect("read");
        surveyed += page.items.ours;
        (more, after) = (page.next.is_some(), page.next);
    }
    (after, more) = (None, true);
    while more {
        let page =
            store.sandboxes.browse(&Browsed::default(), after, 100, |_| true).await.expect("read").page;
        browsed += page.items.len();
        (more, after) = (page.next.is_some(), page.next);
    }
    (after, more) = (None, true);
    while more {
        let page = store.requests.queued(after).await.expect("read");
        queued += page.items.len();
        (more, after) = (page.next.is_some(), page.next);
    }
    assert_eq!((scanned, surveyed, browsed, queued), (40, 40, 40, 20));
}

/// More than one BatchGetItem takes, some twice, some that are not there.
#[tokio::test]
async fn many_readers_share_their_calls() {
    let place = Place::with_table().await;
    let free = place.seed(110).await;
    let missing = (200..240).map(|number| crate::place::sandbox(number).id);
    let wanted = free.iter().map(|c| c.sandbox_id.clone());
    let wanted: Vec<_> = wanted.clone().chain(wanted.take(20)).chain(missing).collect();
    let reads = wanted.iter().cloned().map(|id| {
        let store = place.store.clone();
        async move { store.sandboxes.get(&id).await.expect("read").map(|sandbox| sandbox.id) }
    });
    let read = together(reads.collect::<Vec<_>>()).await;
    for (wanted, read) in wanted[..130].iter().zip(&read) {
        assert_eq!(Some(wanted), read.as_ref());
    }
    assert!(read[130..].iter().all(Option::is_none));
}

#[tokio::test]
async fn several_items_are_read_at_one_instant() {
    let place = Place::with_table().await;
    let free = place.seed(2).await;
    let (ask, nobody) = (place.ask("student-1"), place.ask("nobody"));
    place.claim(&ask, &free[0]).await;
    let ids: Vec<_> = free.iter().map(|c| c.sandbox_id.clone()).collect();
    let keys = [ask.lease_key, nobody.lease_key];
    let page = place.store.scans.together(&ids, &keys, &[], &[]).await.expect("read");
    assert_eq!((page.sandboxes.len(), page.leases.len()), (2, 1), "absent ones are left out");
}

/// Makes an attribute of an item one that nobody can read.
pub(super) async fn spoil(place: &Place, (pk, sk): (&str, &str), attribute: &str) {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let update = place.aws.dynamodb.update_item().table_name(&place.table);
    let update = update.key("PK", text(pk)).key("SK", text(sk)).update_expression("SET #attribute = :wrong");
    let update = update.expression_attribute_names("#attribute", attribute);
    update.expression_attribute_values(":wrong", text("{")).send().await.expect("spoilt");
}

#[tokio::test]
async fn what_cannot_be_read_costs_its_neighbours_nothing() {
    let place = Place::with_table().await;
    let (store, now) = (&place.store, place.clock.now());

    let free = place.seed(3).await;
    spoil(&place, (&format!("SBX#{}", free[1].sandbox_id), "META"), "provider_attributes").await;
    let read = store.sandboxes.with_attributes(free.clone()).await.expect("read");
    let ids =
        |of: &[&broker_store::Candidate]| of.iter().map(|one| one.sandbox_id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&read.iter().collect::<Vec<_>>()), ids(&[&free[0], &free[2]]));
    assert!(read.iter().all(|candidate| candidate.attributes.is_some()));
    let known = store.sandboxes.attributes_of(&ids(&free.iter().collect::<Vec<_>>())).await.expect("read");
    assert_eq!(known.into_keys().collect::<BTreeSet<_>>(), ids(&[&free[0], &free[2]]).into_iter().collect());

    let (small, tickets) = (flavour(), two(&place));
    let plan = plan(&place, &Flow::default(), &[]);
    store.refill.write_round(&small, &plan, &tickets).await.expect("written");
    spoil(&place, ("TICKET#small", &tickets[0].id.to_string()), "made_at_ms").await;
    // It may stand for a sandbox that comes: it takes its room.
    let unreadable = Ticket::unreadable(tickets[0].id);
    assert_eq!(store.refill.tickets(&small).await.expect("read"), [unreadable, tickets[1]]);
    let scanned = store.scans.page(0, 1, None).await.expect("read").items;
    let told = &scanned.unreadable_tickets;
    assert!(told.iter().any(|why| why.contains("TICKET#small")), "{told:?}");
    let in_the_way = &scanned.unreadable;
    assert!(
        !in_the_way.iter().any(|why| why.contains("TICKET#")),
        "it says nothing of a sandbox: {in_the_way:?}"
    );
    spoil(&place, ("REFILL#small", "META"), "version").await;
    let other = FlavourName::new("other").expect("a name");
    let flows = store.refill.flows(&[small.clone(), other.clone()]).await.expect("read");
    assert_eq!(flows, [(other, Some(Flow::default())), (small, None)]);
    for job in [Job::Sync, Job::Census] {
        store.schedule.tick(job, Duration::ZERO, now).await.expect("made");
    }
    spoil(&place, ("TICK#sync", "META"), "next_run_at_ms").await;
    let looked = store.schedule.look().await.expect("read").into_iter();
    let readable: Vec<_> = looked.filter_map(|(job, tick)| tick.map(|_| job)).collect();
    assert_eq!(readable, [Job::Census]);

    let acts = [1, 2].map(|_| AuditLine::new(now, place.entropy.uuid(), "ops", Act::RunJob, "sync"));
    for line in &acts {
        store.audit.record(line).await.expect("recorded");
    }
    let line = store.audit.of_day(now, None).await.expect("read").items.remove(0);
    let key = format!("{:015}#{}", line.at.as_ms(), line.id);
    spoil(&place, (&format!("AUDIT#{}", now.date()), &key), "at_ms").await;
    let others: Vec<_> = acts.into_iter().filter(|other| other.id != line.id).collect();
    assert_eq!(store.audit.of_day(now, None).await.expect("read").items, others);
    assert_eq!(store.audit.latest_of_day(now, None, 9, None).await.expect("read").items, others);

    let requests = [1, 2].map(|n| asked(&place, &format!("student-{n}")));
    for request in &requests {
        store.requests.record(request).await.expect("recorded");
    }
    spoil(&place, (&format!("REQ#{}", requests[0].request_id), "META"), "deadline_ms").await;
    assert_eq!(store.requests.queued(None).await.expect("read").items, requests[1..]);

    let ids = [1, 2].map(|_| place.entropy.uuid());
    for id in ids {
        store.instances.heartbeat(&Instance::new(id, Role::Api, now)).await.expect("said");
    }
    spoil(&place, ("INSTANCE", &ids[0].to_string()), "heartbeat_ms").await;
    let listed = store.instances.list().await.expect("read");
    let of = |id| listed.iter().find(|instance| instance.id == id).expect("listed");
    assert_eq!((of(ids[0]).role, of(ids[1]).role), (Role::Unknown, Role::Api));
    let much_later = now.plus(Duration::from_secs(86_400));
    assert!(!heartbeat::is_gone(of(ids[0]), much_later), "nobody sweeps what is its own");
}
