//! Tests of the deal, each over ten thousand random deals.

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::NamePrefix;

/// How often a chance is measured.
const DEALS: u64 = 10_000;

/// Numbers from 0 to 1 (xorshift64*), the same in each run.
struct Chances(u64);

impl Chances {
    fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }

    fn of(&mut self, tenants: &[TenantPlaces]) -> Vec<f64> {
        tenants.iter().map(|_| self.next()).collect()
    }
}

fn id(number: u64) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(number.into()))
}

fn names(names: &[&str]) -> Vec<FreeSandbox> {
    names.iter().map(|name| SandboxName::new(*name).unwrap().into()).collect()
}

fn line(tenant: &str, prefix: &str) -> Line {
    let prefix = (!prefix.is_empty()).then(|| NamePrefix::new(prefix).unwrap());
    Line { tenant: TenantName::new(tenant).unwrap(), prefix }
}

/// `count` places of a tenant, asked for from `first` on.
fn waits(tenant: &str, weight: u32, first: u64, count: u64) -> TenantPlaces {
    let places = (first..first + count).map(|number| (id(number), line(tenant, ""))).collect();
    TenantPlaces { weight, ..of(tenant, places) }
}

/// These places of a tenant without limits, whose lines were read to their ends.
fn of(tenant: &str, places: Vec<(RequestId, Line)>) -> TenantPlaces {
    TenantPlaces {
        tenant: TenantName::new(tenant).unwrap(),
        weight: 1,
        places,
        read_to: Vec::new(),
        room: Vec::new(),
        handed_over: Vec::new(),
    }
}

/// The limit of the tenant `t` of these names.
fn limit(prefix: &str) -> Limit {
    Limit { tenant: TenantName::new("t").unwrap(), prefix: NamePrefix::new(prefix).unwrap() }
}

/// In how many of ten thousand deals of `sandboxes` something went to each tenant, as a share.
fn shares(sandboxes: &[FreeSandbox], tenants: &[TenantPlaces]) -> Vec<f64> {
    let (mut chances, mut served) = (Chances(0x9e37_79b9_7f4a_7c15), vec![0_u64; tenants.len()]);
    for _ in 0..DEALS {
        let dealt = deal(sandboxes, tenants, &chances.of(tenants));
        for (count, of) in served.iter_mut().zip(tenants) {
            *count +=
                u64::from(of.places.iter().any(|(id, _)| dealt.iter().any(|dealt| dealt.request_id == *id)));
        }
    }
    served.into_iter().map(|served| served as f64 / DEALS as f64).collect()
}

#[test]
fn one_of_two_tenants_with_a_thousand_waiting_leaves_the_other_half_of_the_chances() {
    let tenants = [waits("many", 1, 0, 1_000), waits("one", 1, 5_000, 1)];
    let single = shares(&names(&["a"]), &tenants);
    assert!(single.iter().all(|share| (0.48..0.52).contains(share)), "{single:?}");
    let together = shares(&names(&["a", "b"]), &tenants);
    assert_eq!(together, [1.0, 1.0], "certain when two arrive together");
}

#[test]
fn each_of_five_tenants_has_a_fifth_and_none_of_them_waits_for_ever() {
    let tenants: Vec<_> =
        ["a", "b", "c", "d", "e"].iter().zip(0..).map(|(t, n)| waits(t, 1, n * 100, n + 1)).collect();
    let shares = shares(&names(&["x"]), &tenants);
    assert!(shares.iter().all(|share| (0.18..0.22).contains(share)), "{shares:?}");
}

#[test]
fn a_weight_is_a_share_of_single_arrivals_and_of_many() {
    let tenants = [waits("heavy", 3, 0, 100), waits("light", 1, 500, 100)];
    let single = shares(&names(&["a"]), &tenants);
    assert!((0.73..0.77).contains(&single[0]), "{single:?}");
    let many: Vec<_> = (0..40).map(|n| SandboxName::new(format!("s-{n}")).unwrap().into()).collect();
    let dealt = deal(&many, &tenants, &[0.5, 0.5]);
    assert_eq!(dealt.iter().filter(|dealt| dealt.request_id < id(500)).count(), 30);
}

#[test]
fn a_tenants_places_are_served_in_the_order_of_asking_among_what_fits() {
    let of = |places: &[(u64, &str)]| {
        of("t", places.iter().map(|(number, prefix)| (id(*number), line("t", prefix))).collect())
    };
    // The head wants what is not there: it blocks no place behind it.
    let dealt = deal(&names(&["lab-1"]), &[of(&[(1, "gpu-"), (3, "lab-"), (2, "")])], &[0.5]);
    assert_eq!(dealt, [Dealt { sandbox: 0, request_id: id(2) }]);
    // A place for anything leaves the rare one to the place that needs it.
    let dealt = deal(&names(&["gpu-1", "lab-1"]), &[of(&[(1, ""), (2, "gpu-")])], &[0.5]);
    assert_eq!(dealt, [Dealt { sandbox: 1, request_id: id(1) }, Dealt { sandbox: 0, request_id: id(2) }]);
}

#[test]
fn a_tenant_without_room_is_out_and_holds_up_nobody() {
    let limited = |free| TenantPlaces { room: vec![(limit("lab-"), free)], ..waits("t", 1, 0, 3) };
    let other = waits("u", 1, 10, 3);
    let dealt = deal(&names(&["lab-1", "lab-2", "lab-3"]), &[limited(1), other.clone()], &[0.9, 0.1]);
    let of_t = |dealt: &[Dealt]| dealt.iter().filter(|dealt| dealt.request_id < id(10)).count();
    assert_eq!((dealt.len(), of_t(&dealt)), (3, 1));
    let dealt = deal(&names(&["lab-1"]), &[limited(0), other], &[0.9, 0.1]);
    assert_eq!(dealt, [Dealt { sandbox: 0, request_id: id(10) }]);
    // What falls under no limit, or another one, it may take.
    let dealt = deal(&names(&["lab-1", "gpu-1"]), &[limited(0)], &[0.5]);
    assert_eq!(dealt, [Dealt { sandbox: 1, request_id: id(0) }]);
}

#[test]
fn none_goes_past_what_was_not_read_of_a_line_that_the_sandbox_fits_and_no_tenant_loses_its_turn_by_it() {
    let places = |read: &[(u64, &str)]| -> Vec<_> {
        read.iter().map(|(number, prefix)| (id(*number), line("t", prefix))).collect()
    };
    let read_to = |last| vec![(line("t", "lab-"), id(last))];
    // Of the line `lab-` those up to 4 were read, and only 1 waits still.
    let some = |read: &[(u64, &str)]| TenantPlaces { read_to: read_to(4), ..of("t", places(read)) };
    let dealt = |sandboxes: &[&str], tenants: &[TenantPlaces]| -> Vec<_> {
        let dealt = deal(&names(sandboxes), tenants, &[0.9, 0.1][..tenants.len()]);
        dealt.into_iter().map(|dealt| (dealt.sandbox, dealt.request_id)).collect()
    };
    assert_eq!(dealt(&["lab-1", "lab-2"], &[some(&[(1, "lab-"), (30, "")])]), [(0, id(1))]);
    assert_eq!(dealt(&["lab-1", "lab-2"], &[some(&[(1, "lab-"), (3, "")])]), [(0, id(1)), (1, id(3))]);
    // What does not fit that line goes on.
    assert_eq!(dealt(&["lab-1", "gpu-1"], &[some(&[(30, "")])]), [(1, id(30))]);
    let other = waits("u", 1, 50, 3);
    assert_eq!(dealt(&["lab-1"], &[some(&[]), other.clone()]), [], "it is t's turn, whose next is not known");
    assert_eq!(dealt(&["gpu-1"], &[some(&[]), other.clone()]), [(0, id(50))]);
    let full = TenantPlaces { room: vec![(limit("lab-"), 0)], ..some(&[]) };
    assert_eq!(dealt(&["lab-1"], &[full, other]), [(0, id(50))], "it may take none");
}

#[test]
fn a_place_whose_own_lease_hands_over_its_permit_needs_no_free_one_and_leaves_none_to_others() {
    let own = vec![(id(0), limit("lab-"))];
    let full = TenantPlaces { room: vec![(limit("lab-"), 0)], handed_over: own, ..waits("t", 1, 0, 3) };
    let dealt = deal(&names(&["lab-1", "lab-2"]), std::slice::from_ref(&full), &[0.5]);
    assert_eq!(dealt, [Dealt { sandbox: 0, request_id: id(0) }]);
    let others = TenantPlaces { handed_over: vec![(id(0), limit("gpu-"))], ..full };
    assert_eq!(deal(&names(&["lab-1"]), &[others], &[0.5]), [], "a permit of another limit");
}

#[test]
fn an_empty_pool_and_an_empty_line_deal_nothing() {
    assert_eq!(deal(&[], &[waits("t", 1, 0, 3)], &[0.5]), []);
    assert_eq!(deal(&names(&["a"]), &[waits("t", 1, 0, 0)], &[0.5]), []);
    assert_eq!(deal(&names(&["a"]), &[], &[]), []);
}

proptest! {
    #[test]
    fn each_sandbox_and_each_place_is_dealt_once_and_fits_and_nothing_that_fits_is_left(
        sandboxes in prop::collection::vec(("(lab|gpu|x)-[0-9]", prop::option::of("t[0-3]")), 0..6),
        tenants in prop::collection::vec((1..4_u32, prop::collection::vec("(lab-|gpu-|x-|)", 0..5)), 0..4), seed in 1..u64::MAX,
    ) {
        let sandboxes: Vec<_> = sandboxes.into_iter().map(|(name, only_for)| FreeSandbox {
            name: SandboxName::new(name).unwrap(),
            only_for: only_for.map(|tenant| TenantName::new(tenant).unwrap()),
        }).collect();
        let mut number = 0;
        let tenants: Vec<_> = tenants.into_iter().enumerate().map(|(tenant, (weight, prefixes))| {
            let tenant = format!("t{tenant}");
            let places = prefixes.iter().map(|prefix| { number += 1; (id(number), line(&tenant, prefix)) }).collect();
            TenantPlaces { weight, ..of(&tenant, places) }
        }).collect();
        let dealt = deal(&sandboxes, &tenants, &Chances(seed).of(&tenants));
        let line_of = |request: RequestId| tenants.iter().flat_map(|of| &of.places).find(|(id, _)| *id == request).unwrap().1.clone();
        for (position, one) in dealt.iter().enumerate() {
            prop_assert!(sandboxes[one.sandbox].fits(&line_of(one.request_id)));
            prop_assert!(dealt[..position].iter().all(|other| other.sandbox != one.sandbox && other.request_id != one.request_id));
        }
        let is_dealt = |request: RequestId| dealt.iter().any(|dealt| dealt.request_id == request);
        let free = (0..sandboxes.len()).filter(|sandbox| dealt.iter().all(|dealt| dealt.sandbox != *sandbox));
        let waiting: Vec<_> = tenants.iter().flat_map(|of| &of.places).filter(|(id, _)| !is_dealt(*id)).collect();
        for sandbox in free {
            prop_assert!(waiting.iter().all(|(_, line)| !sandboxes[sandbox].fits(line)), "{:?} {:?}", sandboxes, waiting);
        }
    }
}

#[test]
fn what_is_put_aside_goes_to_its_tenant_only_and_first() {
    let put_aside =
        FreeSandbox { only_for: Some(TenantName::new("acme").unwrap()), ..names(&["b"]).remove(0) };
    let free = [names(&["a"]).remove(0), put_aside];
    let of = |tenants: &[TenantPlaces]| -> Vec<_> {
        let dealt = deal(&free, tenants, &[0.9, 0.1]);
        dealt.into_iter().map(|dealt| (dealt.sandbox, dealt.request_id)).collect()
    };
    assert_eq!(of(&[waits("other", 1, 0, 3)]), [(0, id(0))], "the other one is not theirs");
    assert_eq!(of(&[waits("acme", 1, 0, 1)]), [(1, id(0))], "what is theirs is taken first");
    let both = of(&[waits("other", 1, 0, 2), waits("acme", 1, 10, 1)]);
    assert_eq!(both, [(0, id(0)), (1, id(10))]);
}
