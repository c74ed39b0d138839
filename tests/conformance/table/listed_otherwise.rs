//! Sandboxes that the provider lists otherwise than the table has them: refreshed where they stand.

use broker_domain::{ExternalId, Quarantine, QuarantineCause, SandboxName, Status};
use broker_store::{Candidate, ClaimOutcome, EntryConflict, NewSandbox, Seen, Unused, Write};

use super::reservations::{claims, done, made, next, reserved, stands, status};
use crate::place::Place;

#[tokio::test]
async fn what_the_provider_lists_otherwise_is_refreshed_where_it_is_put_aside() {
    let place = Place::with_table().await;
    let free = place.seed(3).await;
    let (after, aside) = done(&place, &made(&place, 3).await, &free).await;
    let now = place.clock.now();
    let found = async |was: &Candidate, name: &SandboxName, external_id: &ExternalId| {
        let (status, version) = (Status::Reserved, was.version);
        let from = Unused { status, version, name: &was.name, external_id: &was.external_id };
        let (id, name) = (was.sandbox_id.clone(), name.clone());
        let listed = NewSandbox { id, name, external_id: external_id.clone(), attributes: None };
        place.store.sandboxes.found(from, &listed, now).await.expect("asked")
    };
    let respelled = ExternalId::new(aside[0].external_id.as_str().to_uppercase()).expect("an id");
    assert_eq!(found(&aside[0], &aside[0].name, &respelled).await, Write::Applied);
    let refreshed = Candidate { external_id: respelled.clone(), ..next(&aside[0]) };
    assert_eq!(reserved(&place, after.id).await, [refreshed.clone(), aside[1].clone(), aside[2].clone()]);
    assert_eq!(stands(&place, after.id).await.held, 3);
    let older = found(&aside[0], &aside[0].name, &respelled).await;
    assert_eq!(older, Write::Rejected(EntryConflict::MovedOn(())), "at the version that was read");
    let ClaimOutcome::Created(_) = claims(&place, "student", &refreshed, Status::Reserved).await else {
        panic!("not claimed")
    };
    let used = found(&next(&refreshed), &refreshed.name, &aside[0].external_id).await;
    assert_eq!(used, Write::Rejected(EntryConflict::MovedOn(())), "it is in use");

    // Under another name, or as another account, it may not be what was reserved.
    let (renamed, anew) = (SandboxName::new("gpu-1"), ExternalId::new("identity/accounts/made-anew"));
    let (renamed, anew) = (renamed.expect("a name"), anew.expect("an id"));
    for (was, name, external_id, held) in
        [(&aside[1], &renamed, &aside[1].external_id, 2), (&aside[2], &aside[2].name, &anew, 1)]
    {
        assert_eq!(found(was, name, external_id).await, Write::Applied);
        assert_eq!(stands(&place, after.id).await.held, held);
        assert_eq!(status(&place, &was.sandbox_id).await, (Status::Arriving, was.version + 1, None));
    }
}

#[tokio::test]
async fn what_is_in_quarantine_is_refreshed_and_stays_there() {
    let place = Place::with_table().await;
    let free = place.seed(1).await.remove(0);
    let (sandboxes, now) = (&place.store.sandboxes, place.clock.now());
    let seen = Seen { id: &free.sandbox_id, version: free.version };
    let why = Quarantine::by_broker(QuarantineCause::Gate, "no", now.floor_to_second());
    assert_eq!(sandboxes.quarantine(seen, Status::Available, &why).await.expect("asked"), Write::Applied);
    let before = sandboxes.record(&free.sandbox_id).await.expect("read").expect("there");
    let (version, name, external_id) = (free.version + 1, &free.name, &free.external_id);
    let from = Unused { status: Status::Quarantined, version, name, external_id };
    let listed = NewSandbox {
        id: free.sandbox_id.clone(),
        name: SandboxName::new("renamed").expect("a name"),
        external_id: ExternalId::new("identity/accounts/made-anew").expect("an id"),
        attributes: None,
    };
    assert_eq!(sandboxes.found(from, &listed, now).await.expect("asked"), Write::Applied);
    let after = sandboxes.record(&free.sandbox_id).await.expect("read").expect("there");
    assert_eq!((after.sandbox.status, &after.sandbox.name), (Status::Quarantined, &listed.name));
    assert_eq!(after.sandbox.external_id, listed.external_id);
    assert_eq!((after.quarantine, after.due), (before.quarantine, before.due));
}
