//! Tests of estimates from given counts and lines.

use uuid::Uuid;

use super::*;
use crate::NamePrefix;

const NOW: Timestamp = Timestamp::from_secs(6_000_000);

fn ago(seconds: u64) -> Timestamp {
    Timestamp::from_secs(NOW.as_secs() - seconds)
}

/// The request that asked at that second.
fn id(at: Timestamp) -> RequestId {
    RequestId::from_uuid(Uuid::from_u128(u128::from(at.as_ms()) << 80))
}

fn line(tenant: &str, prefix: &str) -> Line {
    let prefix = (!prefix.is_empty()).then(|| NamePrefix::new(prefix).unwrap());
    Line { tenant: TenantName::new(tenant).unwrap(), prefix }
}

/// `count` places, one asked for each second from `first` seconds ago on.
fn marks(first: u64, count: u64) -> Marks {
    Marks::of((0..count).map(|n| id(ago(first - n))))
}

fn granted(of: &[(&str, u64, u64)]) -> Granted {
    of.iter()
        .map(|(flavour, count, s)| ((*flavour).to_owned(), GrantCount { count: *count, since: ago(*s) }))
        .collect()
}

fn until(id: RequestId, own: &Line, lines: &[(&Line, &Marks, u32)]) -> u64 {
    let walked =
        lines.iter().map(|(line, marks, weight)| WalkedLine { line, marks, as_of: NOW, weight: *weight });
    grants_until_served(id, own, &walked.collect::<Vec<_>>())
}

#[test]
fn a_process_counts_by_flavour_and_forgets_what_is_ten_minutes_old() {
    let mut recent = RecentGrants::default();
    assert_eq!(recent.lately(NOW), Granted::new());
    for (flavour, at) in [("small", ago(900)), ("small", ago(300)), ("gpu", ago(120)), ("small", NOW)] {
        recent.add(flavour, at);
    }
    assert_eq!(recent.lately(NOW), granted(&[("small", 2, 300), ("gpu", 1, 120)]));
    // Its clock was set back.
    recent.add("gpu", ago(50));
    assert_eq!(recent.lately(NOW)["gpu"].count, 2);
    assert_eq!(recent.lately(NOW.plus(MINUTE * 11)), Granted::new());
}

#[test]
fn the_rate_is_of_all_processes_and_where_nothing_was_granted_nothing_is_known() {
    let said = [granted(&[("small", 30, 600), ("gpu", 1, 60)]), granted(&[("small", 10, 120)])];
    let rate = |flavour| GrantRate::of(&said, flavour, NOW);
    assert_eq!(rate(Some("small")), Some(GrantRate { granted: 40, within: MINUTE * 10 }));
    assert_eq!(rate(Some("gpu")), Some(GrantRate { granted: 1, within: MINUTE }));
    assert_eq!(rate(None), Some(GrantRate { granted: 41, within: MINUTE * 10 }));
    assert_eq!(rate(Some("large")), None);
    assert_eq!(GrantRate::of(&[granted(&[("small", 0, 60)])], None, NOW), None);
    // What began this moment is no rate of thousands a second.
    let begun = GrantRate::of(&[granted(&[("small", 5, 0)])], None, NOW).unwrap();
    assert_eq!((begun.within, begun.seconds_for(1), begun.seconds_for(10)), (MINUTE, 12, 120));
    assert_eq!(GrantRate { granted: u64::MAX, within: MINUTE }.seconds_for(u64::MAX), 1);
}

#[test]
fn a_tenant_that_is_alone_waits_for_those_who_asked_before() {
    let (own, places) = (line("acme", "lab-"), marks(100, 50));
    let at = |n: u64| until(id(ago(100 - n)), &own, &[(&own, &places, 1)]);
    assert_eq!([at(0), at(1), at(49)], [1, 2, 50]);
    assert_eq!(until(id(NOW), &own, &[(&own, &places, 1)]), 51, "it asked since");
    assert_eq!(until(id(NOW), &own, &[]), 1, "its line was not walked yet");
}

#[test]
fn another_tenant_takes_its_share_meanwhile_and_no_more_than_it_waits_for() {
    let (own, other) = (line("acme", "lab-"), line("umbrella", "lab-"));
    let (ours, many, one) = (marks(100, 10), marks(900, 500), marks(50, 1));
    let tenth = id(ago(91));
    assert_eq!(until(tenth, &own, &[(&own, &ours, 1), (&other, &many, 1)]), 20);
    assert_eq!(until(tenth, &own, &[(&own, &ours, 1), (&other, &one, 1)]), 11);
    assert_eq!(until(tenth, &own, &[(&own, &ours, 5), (&other, &many, 1)]), 12, "five in turn, then one");
    assert_eq!(until(id(ago(100)), &own, &[(&own, &ours, 1), (&other, &many, 3)]), 4);
    // A tenant's lines are one order, and what a sandbox cannot fit beside it does not count.
    let (any, gpu) = (line("acme", ""), line("umbrella", "gpu-"));
    assert_eq!(until(tenth, &own, &[(&own, &ours, 1), (&any, &marks(500, 5), 1), (&gpu, &many, 1)]), 15);
    assert_eq!(until(id(NOW), &any, &[(&any, &marks(9, 0), 1), (&gpu, &many, 1)]), 2);
}
