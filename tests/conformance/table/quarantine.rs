//! Acts on many sandboxes in quarantine: one that cannot be read stops none, and a bounded act is gone on with.

use broker_domain::SandboxId;
use broker_store::quarantine::{
    self, QuarantineAct, QuarantineReport, QuarantineSelection, act_under, foresee,
};
use broker_store::{Act, AuditLine};

use super::reading::spoil;
use crate::place::Place;

const ALL: QuarantineSelection = QuarantineSelection::All(None);

/// A place with so many in quarantine, which are returned as they are listed.
async fn with_quarantine(count: usize) -> (Place, Vec<SandboxId>) {
    let place = Place::with_table().await;
    let ids = place.seed(count).await.into_iter().map(|candidate| candidate.sandbox_id).collect();
    let add = QuarantineAct::Add { by: "ops".to_owned(), why: "a drill".to_owned() };
    let report = acted(&place, &add, QuarantineSelection::Ids(ids), u64::MAX).await;
    assert_eq!(report.done, count as u64, "{report:?}");
    let listed = quarantine::list(&place.store).await.expect("listed");
    let ids: Vec<_> = listed.records.into_iter().map(|record| record.sandbox.id).collect();
    assert_eq!(ids.len(), count);
    (place, ids)
}

/// What an act came to that begins `most` at most.
async fn acted(
    place: &Place,
    act: &QuarantineAct,
    selection: QuarantineSelection,
    most: u64,
) -> QuarantineReport {
    let now = place.clock.now();
    let line = AuditLine::new(now, place.entropy.uuid(), "ops", Act::LiftQuarantine, "all");
    act_under(&place.store, &line, act, selection, now, |begun| begun < most).await.expect("acted")
}

#[tokio::test]
async fn one_that_cannot_be_read_is_named_and_the_others_are_listed_and_released() {
    let (place, ids) = with_quarantine(3).await;
    spoil(&place, (&format!("SBX#{}", ids[1]), "META"), "version").await;
    let listed = quarantine::list(&place.store).await.expect("listed");
    let told: Vec<_> = listed.records.iter().map(|record| &record.sandbox.id).collect();
    assert_eq!(told, [&ids[0], &ids[2]]);
    let [broken] = listed.unreadable.as_slice() else { panic!("{listed:#?}") };
    assert_eq!(broken.sandbox_id, ids[1].as_str());
    assert!(broken.why.contains("version"), "{broken:?}");

    let release = QuarantineAct::Release;
    let counts = |report: &QuarantineReport| (report.selected, report.done, report.refused.clone());
    let expected = (3, 2, vec![broken.clone()]);
    let named = QuarantineSelection::Ids(ids.clone());
    for selection in
        [ALL, QuarantineSelection::All(Some(broker_domain::QuarantineCause::Operator)), named.clone()]
    {
        let seen = foresee(&place.store, &release, selection, place.clock.now()).await.expect("counted");
        assert_eq!(counts(&seen), expected);
    }
    assert_eq!(counts(&acted(&place, &release, named, u64::MAX).await), expected);
    let left = acted(&place, &release, ALL, u64::MAX).await;
    assert_eq!(counts(&left), (1, 0, vec![broken.clone()]), "{left:?}");
}

#[tokio::test]
async fn an_act_whose_time_was_over_before_its_first_does_one_all_the_same() {
    let (place, _) = with_quarantine(2).await;
    for more in [true, false] {
        let report = acted(&place, &QuarantineAct::Retire, ALL, 0).await;
        assert_eq!((report.done, report.more), (1, more), "{report:?}");
    }
}

#[tokio::test]
async fn a_bounded_act_says_that_there_are_more_and_the_same_one_goes_on_behind_what_it_cannot_do() {
    let (place, ids) = with_quarantine(5).await;
    // The longest there stays first in the list, whatever is done.
    spoil(&place, (&format!("SBX#{}", ids[0]), "META"), "version").await;
    let mut done = Vec::new();
    loop {
        let report = acted(&place, &QuarantineAct::Retire, ALL, 2).await;
        done.push(report.done);
        assert_eq!((report.refused.len(), report.dry_run), (1, false), "{report:?}");
        if !report.more {
            break;
        }
        assert!(done.len() < 9, "{report:?}");
    }
    assert_eq!(done, [2, 2]);
    let told = acted(&place, &QuarantineAct::Retire, ALL, 2).await;
    let lines = place.store.audit.of_day(place.clock.now(), None).await.expect("read").items;
    let of_it = lines.iter().filter(|line| line.target == ids[0].as_str()).count();
    assert_eq!(
        of_it, 1,
        "that it was put there, and no line for each call that could do nothing: {lines:#?}"
    );
    assert_eq!((told.selected, told.done, told.more), (1, 0, false), "{told:?}");
}
