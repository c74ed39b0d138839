//! The bounded search: small worlds, every interleaving. The long one is `cargo run --release -p broker-model`.

use broker_model::{Variant, gate, refill, reservation, scenario, search, waiting};
use broker_runtime::clock::Clock;

#[test]
fn the_protocol_as_designed_breaks_no_promise_in_any_small_world() {
    let clock = Clock::system();
    for world in scenario::bounded() {
        let found = search(&world, &clock);
        println!("{}: {} states in {:?}", world.name, found.states, found.took);
        assert!(found.something_happened, "{}: nothing was claimed", world.name);
        assert_eq!(found.broken, None, "{}", world.name);
    }
}

/// The shortest way to what `variant` breaks, in whichever small world shows it.
fn way_to_the_fault(variant: Variant) -> Vec<String> {
    let clock = Clock::system();
    let mut worlds = scenario::bounded().into_iter();
    let way = worlds.find_map(|world| search(&world.with(variant), &clock).broken);
    way.unwrap_or_else(|| panic!("{variant:?} breaks nothing in any small world"))
}

/// `variant` is found, and breaks what it is known to break.
#[track_caller]
fn breaks(variant: Variant, promise: &str) {
    let way = way_to_the_fault(variant);
    assert!(way.last().is_some_and(|last| last.contains(promise)), "{variant:?}: {way:#?}");
}

#[test]
fn a_ttl_set_at_the_claim_loses_a_live_lease() {
    breaks(Variant::TtlAtClaim, "without a live lease");
}

#[test]
fn without_a_tombstone_a_used_sandbox_is_offered_again() {
    breaks(Variant::NoTombstone, "offered");
}

#[test]
fn an_admission_without_a_look_offers_what_was_handed_out() {
    breaks(Variant::AdmitUnseen, "");
}

#[test]
fn an_end_by_version_alone_leaves_a_live_lease_without_its_sandbox() {
    breaks(Variant::EndByVersion, "which is not allocated by it");
}

#[test]
fn none_without_a_look_at_the_lease_is_said_to_a_key_that_holds_one() {
    breaks(Variant::NoneWithoutLook, "told that there is none");
}

#[test]
fn without_a_fence_a_late_duplicate_claims_for_nobody() {
    breaks(Variant::NoFence, "for nobody");
}

#[test]
fn a_claim_that_does_not_touch_its_record_gives_a_sandbox_to_a_cancelled_request() {
    breaks(Variant::ClaimWithoutRecord, "was cancelled and has a sandbox");
}

#[test]
fn an_expiry_that_does_not_look_at_the_expiry_ends_a_lease_that_was_given_longer() {
    breaks(Variant::EndUnseen, "given longer");
}

#[test]
fn a_lease_that_is_ended_before_another_sandbox_is_found_leaves_its_owner_with_none() {
    breaks(Variant::EndFirst, "found no other");
}

#[test]
fn refill_as_designed_never_asks_beyond_max_and_never_gets_stuck() {
    let clock = Clock::system();
    for world in refill::bounded() {
        let found = search(&world, &clock);
        println!("{}: {} states in {:?}", world.name, found.states, found.took);
        assert!(found.something_happened, "{}: nothing arrived", world.name);
        assert_eq!(found.broken, None, "{}", world.name);
    }
}

#[test]
fn every_mistake_in_the_life_of_a_ticket_is_found() {
    let clock = Clock::system();
    for variant in refill::Variant::BROKEN {
        let mut worlds = refill::bounded().into_iter();
        let way = worlds.find_map(|world| search(&world.with(variant), &clock).broken);
        let way = way.unwrap_or_else(|| panic!("{variant:?} breaks nothing in any small world"));
        assert!(way.last().is_some_and(|last| last.contains(variant.breaks())), "{variant:?}: {way:#?}");
    }
}

#[test]
fn gate_and_quarantine_as_designed_pass_no_ceiling_and_offer_nothing_that_is_refused() {
    let clock = Clock::system();
    for world in gate::bounded() {
        let found = search(&world, &clock);
        println!("{}: {} states in {:?}", world.name, found.states, found.took);
        assert!(found.something_happened, "{}: nothing went into quarantine", world.name);
        assert_eq!(found.broken, None, "{}", world.name);
    }
}

#[test]
fn every_mistake_of_gate_and_quarantine_is_found() {
    let clock = Clock::system();
    for variant in gate::Variant::BROKEN {
        let mut worlds = gate::bounded().into_iter();
        let way = worlds.find_map(|world| search(&world.with(variant), &clock).broken);
        let way = way.unwrap_or_else(|| panic!("{variant:?} breaks nothing in any small world"));
        assert!(way.last().is_some_and(|last| last.contains(variant.breaks())), "{variant:?}: {way:#?}");
    }
}

#[test]
fn waiting_as_designed_keeps_order_and_leaves_no_request_waiting_in_vain() {
    let clock = Clock::system();
    for world in waiting::bounded() {
        let found = search(&world, &clock);
        println!("{}: {} states in {:?}", world.name, found.states, found.took);
        assert!(found.something_happened, "{}: nothing was granted", world.name);
        assert_eq!(found.broken, None, "{}", world.name);
    }
}

#[test]
fn every_mistake_of_waiting_is_found() {
    let clock = Clock::system();
    for variant in waiting::Variant::BROKEN {
        let mut worlds = waiting::bounded().into_iter();
        let way = worlds.find_map(|world| search(&world.with(variant), &clock).broken);
        let way = way.unwrap_or_else(|| panic!("{variant:?} breaks nothing in any small world"));
        assert!(way.last().is_some_and(|last| last.contains(variant.breaks())), "{variant:?}: {way:#?}");
        println!("{variant:?}: {} steps: {}", way.len() - 1, way.last().map_or("", String::as_str));
    }
}

#[test]
fn a_reservation_as_designed_has_no_more_than_its_count_and_leaves_nothing_put_aside() {
    let clock = Clock::system();
    for world in reservation::bounded() {
        let found = search(&world, &clock);
        println!("{}: {} states in {:?}", world.name, found.states, found.took);
        assert!(found.something_happened, "{}: nothing was claimed", world.name);
        assert_eq!(found.broken, None, "{}", world.name);
    }
}

#[test]
fn every_mistake_of_a_reservation_is_found() {
    let clock = Clock::system();
    for variant in reservation::Variant::BROKEN {
        let mut worlds = reservation::bounded().into_iter();
        let way = worlds.find_map(|world| search(&world.with(variant), &clock).broken);
        let way = way.unwrap_or_else(|| panic!("{variant:?} breaks nothing in any small world"));
        assert!(way.last().is_some_and(|last| last.contains(variant.breaks())), "{variant:?}: {way:#?}");
    }
}
