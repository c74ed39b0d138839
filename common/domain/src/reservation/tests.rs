//! The life of a reservation, and what fits beside it.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const HOUR: Duration = Duration::from_secs(3_600);
const NINE: Timestamp = Timestamp::from_secs(9 * 3_600);

fn lab() -> NamePrefix {
    NamePrefix::new("lab-").unwrap()
}

fn terms(count: u32, from: Option<Timestamp>, until: Option<Timestamp>) -> ReservationTerms {
    let (tenant, prefix) = (TenantName::new("acme").unwrap(), lab());
    ReservationTerms { tenant, prefix, count, from, until, lead: LEAD, no_show: None }
}

fn reservation(id: u128, terms: ReservationTerms) -> Reservation {
    Reservation {
        id: ReservationId::from_uuid(Uuid::from_u128(id)),
        version: 1,
        terms,
        held: 0,
        held_at: Timestamp::from_ms(0),
        made_at: Timestamp::from_ms(0),
        made_by: "ops".to_owned(),
        closed: None,
    }
}

fn class_at_nine(count: u32) -> Reservation {
    reservation(1, terms(count, Some(NINE), Some(NINE.plus(HOUR))))
}

#[test]
fn a_class_at_nine_is_short_from_half_past_eight_on_and_not_after_its_end() {
    let class = Reservation { held: 10, ..class_at_nine(30) };
    let half_past = NINE.minus(LEAD);
    let short = |at| class.short(at);
    assert_eq!(
        [short(half_past.minus(Duration::from_millis(1))), short(half_past), short(NINE)],
        [0, 20, 20]
    );
    let last = NINE.plus(HOUR).minus(Duration::from_millis(1));
    assert_eq!((short(last), short(NINE.plus(HOUR))), (20, 0));
    assert_eq!(class.end_due(last), None);
    assert_eq!(class.end_due(NINE.plus(HOUR)), Some(ReservationEnd::Over));
    let closed = Some(Closed { at: NINE, why: ReservationEnd::Deleted, cleared: false });
    let deleted = Reservation { closed, ..class };
    assert_eq!((deleted.short(NINE), deleted.end_due(NINE.plus(HOUR))), (0, None));
}

#[test]
fn what_is_too_much_goes_back_when_the_count_is_lowered_or_it_is_moved() {
    let class = Reservation { held: 30, ..class_at_nine(10) };
    assert_eq!((class.surplus(NINE), class.short(NINE)), (20, 0));
    let mut later = class.clone();
    later.terms.from = Some(NINE.plus(HOUR * 5));
    later.terms.until = None;
    assert_eq!(later.surplus(NINE), 30);
    let closed = Some(Closed { at: NINE, why: ReservationEnd::Over, cleared: false });
    assert_eq!(Reservation { closed, ..class }.surplus(NINE), 0, "all of it goes back, uncounted");
}

#[test]
fn a_teacher_who_never_came_ends_it_before_its_end() {
    let mut class = class_at_nine(30);
    class.terms.no_show = Some(HOUR / 4);
    assert_eq!(class.end_due(NINE.plus(HOUR / 4).minus(Duration::from_millis(1))), None);
    assert_eq!(class.end_due(NINE.plus(HOUR / 4)), Some(ReservationEnd::NoShow));
    assert_eq!(class.end_due(NINE.plus(HOUR)), Some(ReservationEnd::Over));
}

#[test]
fn new_sandboxes_are_asked_for_so_early_that_they_are_ready() {
    let class = class_at_nine(30);
    let (lab, other) = (lab(), NamePrefix::new("gpu-").unwrap());
    // Half an hour before nine, ten minutes to get ready, and half a minute for asking 60 a minute for 30.
    let begins = NINE.minus(LEAD).minus(HOUR / 6).minus(Duration::from_secs(30));
    let wanted = |prefix, at| class.wanted_now(prefix, HOUR / 6, 60, at);
    assert_eq!(wanted(&lab, begins.minus(Duration::from_millis(1))), 0);
    assert_eq!((wanted(&lab, begins), wanted(&other, begins)), (30, 0));
}

#[test]
fn what_is_put_aside_is_of_use_to_requests_that_it_fits() {
    let class = class_at_nine(30);
    let of_use = |wanted: &str| {
        let wanted = (!wanted.is_empty()).then(|| NamePrefix::new(wanted).unwrap());
        class.of_use_to(wanted.as_ref()).map(|prefix| prefix.as_str().to_owned())
    };
    assert_eq!(of_use(""), Some("lab-".to_owned()));
    assert_eq!(of_use("la"), Some("lab-".to_owned()));
    assert_eq!(of_use("lab-eu-"), Some("lab-eu-".to_owned()));
    assert_eq!(of_use("gpu-"), None);
}

#[test]
fn wrong_terms_are_told() {
    let now = NINE;
    let told = |terms: &ReservationTerms| terms.check(now).err().map(|error| error.0);
    assert_eq!(told(&terms(1, None, None)), None);
    assert_eq!(told(&terms(1, Some(now.minus(HOUR)), Some(now.plus(HOUR)))), None);
    let wrong = [
        terms(0, None, None),
        terms(MOST_SANDBOXES + 1, None, None),
        terms(1, None, Some(now)),
        terms(1, Some(now.plus(HOUR)), Some(now.plus(HOUR))),
        terms(1, Some(now.plus(LONGEST).plus(HOUR)), None),
        ReservationTerms { lead: LONGEST_LEAD + HOUR, ..terms(1, None, None) },
        ReservationTerms { no_show: Some(HOUR), ..terms(1, None, None) },
        ReservationTerms { no_show: Some(HOUR), ..terms(1, Some(now.minus(HOUR)), None) },
        ReservationTerms { no_show: Some(Duration::ZERO), ..terms(1, Some(now), None) },
    ];
    for terms in wrong {
        assert!(told(&terms).is_some(), "{terms:?}");
    }
    let no_show = |no_show| told(&ReservationTerms { no_show: Some(no_show), ..terms(1, Some(now), None) });
    let (second, longest) = (Duration::from_secs(1), LONGEST);
    assert_eq!((no_show(second), no_show(longest)), (None, None));
    for wrong in [Duration::ZERO, longest + second] {
        let told = no_show(wrong).unwrap();
        assert!(told.contains("of a second to 366 days"), "{told}");
    }
}

#[test]
fn the_peak_is_where_the_windows_meet() {
    let (morning, noon) = (class_at_nine(30), reservation(2, terms(20, Some(NINE.plus(HOUR * 3)), None)));
    let floor = reservation(3, terms(5, None, None));
    let all = [morning.clone(), noon, floor.clone()];
    let now = Timestamp::from_secs(1);
    let wanted = terms(10, Some(NINE), Some(NINE.plus(HOUR)));
    let at_nine = peak(&all, (&wanted, &lab()), None, now);
    assert_eq!((at_nine.count, at_nine.at), (45, Some(NINE.minus(LEAD))));
    assert_eq!(at_nine.others, [morning.id, floor.id]);
    assert_eq!(peak(&all, (&wanted, &lab()), Some(morning.id), now).count, 15);
    assert_eq!(peak(&all, (&terms(10, None, None), &lab()), None, now).count, 45);
    let eu = ReservationTerms { prefix: NamePrefix::new("lab-eu-").unwrap(), ..wanted };
    let us = NamePrefix::new("lab-us-").unwrap();
    let beside = [reservation(4, ReservationTerms { prefix: us, ..eu.clone() })];
    assert_eq!(peak(&beside, (&eu, &lab()), None, now).count, 20, "both are of the flavour");
    let gpu = NamePrefix::new("gpu-").unwrap();
    let other = ReservationTerms { prefix: gpu.clone(), ..eu };
    assert_eq!(peak(&all, (&other, &gpu), None, now).count, 10);
}

#[test]
fn half_an_hour_before_nine_it_is_told_what_will_not_be_there() {
    let (class, lab) = (Reservation { held: 10, ..class_at_nine(30) }, lab());
    let half_past = NINE.minus(TOLD_BEFORE);
    let soon = Supply { ready_after: HOUR / 4, per_minute: 60, ..Supply::default() };
    let risk = |supply: &Supply, at| at_risk([&class], &lab, supply, at).get(&class.id).copied();
    assert_eq!(risk(&soon, half_past.minus(Duration::from_millis(1))), None, "there is time");
    assert_eq!(risk(&soon, half_past), Some(20), "nothing comes");
    assert_eq!(risk(&Supply { free: 5, more: 10, ..soon.clone() }, half_past), Some(5));
    assert_eq!(risk(&Supply { free: 5, more: 15, ..soon.clone() }, half_past), None);
    let late = Supply { more: 100, ready_after: HOUR, ..soon.clone() };
    assert_eq!(risk(&late, half_past), Some(20), "what is asked for now comes too late");
    let coming = Supply { coming: vec![NINE, NINE.plus(Duration::from_millis(1))], ..soon.clone() };
    assert_eq!(risk(&coming, half_past), Some(19));
    let gone = Reservation {
        closed: Some(Closed { at: NINE, why: ReservationEnd::Over, cleared: true }),
        ..class.clone()
    };
    assert!(at_risk([&gone], &lab, &soon, NINE).is_empty());
}

proptest! {
    #[test]
    fn no_moment_of_the_window_has_more_than_its_peak(
        windows in prop::collection::vec((1_u32..50, 0_u64..50, 1_u64..50), 0..8),
        (from, lasts) in (0_u64..50, 1_u64..50),
        now in 0_u64..100,
    ) {
        let at = |quarter: u64| Timestamp::from_secs(100_000 + quarter * 900);
        let all: Vec<_> = windows.into_iter().zip(1..).map(|((count, from, lasts), id)| {
            reservation(id, terms(count, Some(at(from)), Some(at(from + lasts))))
        }).collect();
        let (wanted, now) = (terms(7, Some(at(from)), Some(at(from + lasts))), at(now));
        let most = peak(&all, (&wanted, &lab()), None, now).count;
        for moment in (0..100).map(at).filter(|moment| *moment >= now && wanted.covers(*moment)) {
            let open = all.iter().filter(|one| one.end_due(now).is_none());
            let then = open.filter(|one| one.terms.covers(moment)).map(|one| u64::from(one.terms.count));
            prop_assert!(then.sum::<u64>() + 7 <= most);
        }
    }
}
