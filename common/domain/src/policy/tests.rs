//! Tests of the policy: what is wrong is told at once and where, one text for each meaning, schedules across the change of
//! clocks.

use proptest::prelude::*;

use super::*;

const WHOLE: &str = r#"
default_flavour = "small"

[flavour.small]
prefix = "lab-"
refill = { min = 50, max = 400, rate_per_minute = 60, url = "https://ops.example/refill", schedule = [
  { from = "0 8 * * MON-FRI", hours = 10, zone = "Europe/Berlin", min = 300 },
] }
gate = { url = "https://ops.example/check", timeout_s = 10, attempts = 5 }
before_delete = { url = "https://ops.example/wipe", on_failure = "pass" }

[flavour.gpu]
prefix = "gpu-"

[tenant.platform]
limits = { small = 200, gpu = 0 }
weight = 3
"#;

fn problems(text: &str) -> Vec<String> {
    let problems = Policy::parse(text).map_or_else(|invalid| invalid.problems, |_| Vec::new());
    problems.iter().map(ToString::to_string).collect()
}

fn name(text: &str) -> FlavourName {
    FlavourName::new(text).unwrap()
}

fn at(text: &str) -> Timestamp {
    let at: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_ms(u64::try_from(at.as_millisecond()).unwrap())
}

#[test]
fn a_whole_policy_is_read_with_its_defaults() {
    let policy = Policy::parse(WHOLE).unwrap();
    assert_eq!(policy.default_flavour(), Some(&name("small")));
    let small = policy.flavours().get(&name("small")).unwrap();
    let refill = small.refill.as_ref().unwrap();
    assert_eq!((refill.min, refill.max, refill.rate_per_minute), (50, 400, 60));
    assert_eq!(refill.hook.as_ref().unwrap().timeout, Duration::from_secs(10), "the default");
    assert_eq!(small.before_delete.as_ref().unwrap().on_failure, OnFailure::Pass);
    assert_eq!(small.gate.as_ref().unwrap().attempts, 5);
    let tenant = policy.tenants().values().next().unwrap();
    assert_eq!((tenant.weight, tenant.limits.get(&name("gpu"))), (3, Some(&0)));
    let flavour = |text: &str| policy.flavour_of(&SandboxName::new(text).unwrap()).map(FlavourName::as_str);
    assert_eq!([flavour("lab-1"), flavour("gpu-"), flavour("lab")], [Some("small"), Some("gpu"), None]);
    assert!(Policy::parse("").unwrap().is_empty() && !policy.is_empty());
}

#[test]
fn a_blank_text_is_no_policy_that_an_operator_gave_and_a_comment_is_one() {
    for blank in ["", "\n", " \t\r\n", "\u{feff}", "\u{feff}\n"] {
        assert!(Policy::parse(blank).unwrap().is_empty(), "what is stored is read");
        let refused = Policy::given(blank).unwrap_err().to_string();
        assert!(refused.contains("there is no policy"), "{refused}");
    }
    assert!(Policy::given("# nothing\n").unwrap().is_empty());
    assert_eq!(Policy::given(WHOLE), Policy::parse(WHOLE));
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_line_and_column() {
    let text = r#"default_flavour = "smal"
refil = 1

[flavour.small]
prefix = "lab-"
refill = { min = 50, max = 40, rate_per_minute = 0, schedule = [
  { from = "0 8 * * MON-FRI", hours = 10, zone = "Europe/Berln", min = 300 },
  { from = "0 8 * *", hours = 200, zone = "Europe/Berlin", min = "many" },
] }
gate = { url = "ftp://ops.example/check" }

[flavour.gpu]
prefix = "lab-gpu-"
colour = "red"

[flavour.any]
prefix = "x"

[flavour.none]

[tenant.platform]
limits = { smalll = 2, small = -1 }
weight = 0
"#;
    assert_eq!(
        problems(text),
        [
            "line 1, column 19: default_flavour: there is no flavour `smal`; did you mean `small`?",
            "line 2, column 1: refil: unknown key; known here: default_flavour, flavour, tenant",
            "line 6, column 18: flavour.small.refill.min: 50 is more than max, 40",
            "line 6, column 50: flavour.small.refill.rate_per_minute: 0 is not within 1 to 60000",
            "line 7, column 50: flavour.small.refill.schedule[0].zone: unknown time zone \"Europe/Berln\"; did you mean \
             \"Europe/Berlin\"?",
            "line 7, column 72: flavour.small.refill.schedule[0].min: 300 is more than max, 40",
            "line 8, column 12: flavour.small.refill.schedule[1].from: a cron pattern has five fields (minute, hour, day, \
             month, weekday), not 4",
            "line 8, column 31: flavour.small.refill.schedule[1].hours: 200 is not within 1 to 168",
            "line 8, column 66: flavour.small.refill.schedule[1].min: expected a whole number, found string",
            "line 10, column 16: flavour.small.gate.url: a hook is called over https or http, not ftp",
            "line 13, column 10: flavour.gpu.prefix: \"lab-gpu-\" overlaps \"lab-\" of flavour `small` (line 5): a sandbox \
             would have two flavours",
            "line 14, column 1: flavour.gpu.colour: unknown key; known here: prefix, refill, gate, before_delete, failed_deletions",
            "line 16, column 10: flavour.any: this name stands for what has no flavour; choose another one",
            "line 19, column 1: flavour.none: `prefix` is missing",
            "line 22, column 12: tenant.platform.limits.smalll: there is no flavour `smalll`; did you mean `small`?",
            "line 22, column 32: tenant.platform.limits.small: -1 is not within 0 to 1000000",
            "line 23, column 10: tenant.platform.weight: 0 is not within 1 to 1000",
        ]
    );
}

#[test]
fn what_is_no_toml_is_told_with_its_places_and_no_key_is_judged() {
    let told = problems("default_flavour = \n[flavour.small\nprefix = 'lab-'\n");
    assert!(told.len() >= 2, "{told:?}");
    assert!(told[0].starts_with("line 1, column 19: not TOML: "), "{told:?}");
    assert!(told[1].starts_with("line 2, column "), "{told:?}");
    assert!(problems(&"#".repeat(MAX_POLICY_BYTES + 1))[0].contains("16385 bytes"), "bounded");
    let limits: String = (0..330).map(|n| format!("t{n}={{limits={{s=1}}}}\n")).collect();
    let short = format!("[flavour]\ns={{prefix='sandbox-'}}\n[tenant]\n{limits}");
    assert!(
        short.len() < MAX_POLICY_BYTES && problems(&short)[0].contains("bytes as it is stored"),
        "bounded"
    );
    assert_eq!(
        problems("[flavour.small]\nprefix = 'a'\nprefix = 'b'")[0].split(':').next(),
        Some("line 3, column 1")
    );
}

#[test]
fn prefixes_may_neither_be_the_same_nor_contain_each_other_however_they_stand() {
    let three = |a: &str, b: &str, c: &str| {
        problems(&format!(
            "[flavour.a]\nprefix = '{a}'\n[flavour.b]\nprefix = '{b}'\n[flavour.c]\nprefix = '{c}'"
        ))
    };
    assert_eq!(three("a", "b", "c"), Vec::<String>::new());
    assert_eq!(three("lab-", "gpu-", "lab-").len(), 1);
    assert_eq!(three("lab-x-y", "lab-x", "lab-").len(), 3, "each pair");
    assert_eq!(
        three("lab-1", "lab-2", "lab"),
        [
            "line 2, column 10: flavour.a.prefix: \"lab-1\" overlaps \"lab\" of flavour `c` (line 6): a sandbox would have two \
         flavours",
            "line 4, column 10: flavour.b.prefix: \"lab-2\" overlaps \"lab\" of flavour `c` (line 6): a sandbox would have two \
         flavours",
        ]
    );
}

fn refill(schedule: &str) -> String {
    format!(
        "[flavour.small]\nprefix = 'lab-'\n[flavour.small.refill]\nmin = 50\nmax = 400\nrate_per_minute = 60\nschedule = [\n{schedule}\n]"
    )
}

#[test]
fn windows_that_clash_lift_nothing_or_never_begin_are_refused() {
    let told = problems(&refill(
        "{ from = '0 8 * * 1', hours = 10, zone = 'Europe/Berlin', min = 300 },
         { from = '0  8 * * 1', hours = 2, zone = 'europe/berlin', min = 200 },
         { from = '0 8 * * 2', hours = 2, zone = 'Europe/Berlin', min = 50 },
         { from = '0 8 30 2 *', hours = 2, zone = 'Europe/Berlin', min = 60 },
         { from = '0 8 * * 3 2027', hours = 2, zone = 'Europe/Berlin', min = 60 },
         { from = '61 8 * * 3', hours = 2, zone = 'Mars/Olympus', min = 60 }",
    ));
    let ends: Vec<&str> = told.iter().map(|problem| problem.split("]").nth(1).unwrap()).collect();
    assert_eq!(
        ends[0],
        ": clashes with the window of line 8, which begins at the same times: keep one of them"
    );
    assert_eq!(ends[1], ".min: 50 lifts nothing: the highest applies, and min is 50 already");
    assert_eq!(ends[2], ".from: no day has such a date: the window never begins");
    assert!(ends[3].starts_with(".from: a cron pattern has five fields"), "{told:?}");
    assert!(ends[4].starts_with(".from: not a cron pattern"), "{told:?}");
    assert!(ends[5].starts_with(".zone: unknown time zone \"Mars/Olympus\""), "{told:?}");
    assert_eq!(ends.len(), 6);
}

#[test]
fn a_hooks_url_is_checked() {
    let url = |url: &str| problems(&format!("[flavour.small]\nprefix = 'lab-'\ngate = {{ url = '{url}' }}"));
    assert_eq!(url("http://127.0.0.1:9/check?x=1"), Vec::<String>::new());
    for bad in
        ["ops.example", "ops.example/check", "https://", "https://user@h/", "https://h/#f", "file:///x", ""]
    {
        let told = url(bad);
        assert_eq!(told.len(), 1, "{bad}: {told:?}");
        assert!(told[0].starts_with("line 3, column 16: flavour.small.gate.url: "), "{told:?}");
    }
    let timed = problems(
        "[flavour.a]\nprefix = 'a'\nrefill = { min = 1, max = 2, rate_per_minute = 1, timeout_s = 5 }",
    );
    assert_eq!(
        timed,
        ["line 3, column 63: flavour.a.refill.timeout_s: a time without a `url` is the time of nothing"]
    );
}

#[test]
fn one_meaning_has_one_text_and_one_digest() {
    let policy = Policy::parse(WHOLE).unwrap();
    let text = policy.to_toml();
    assert_eq!(Policy::parse(&text).unwrap(), policy, "{text}");
    assert_eq!(Policy::parse(&text).unwrap().to_toml(), text);
    let otherwise = WHOLE.replace("weight = 3", "weight = 0x3 # shares").replace("MON-FRI", " mon-fri ");
    let otherwise = Policy::parse(&otherwise).unwrap();
    assert_eq!((otherwise.digest(), otherwise.digest().as_str().len()), (policy.digest(), 32));
    assert_ne!(policy.digest(), Policy::default().digest());
    assert_eq!(Policy::default().to_toml(), "");
}

#[test]
fn what_differs_is_told_by_key() {
    let before = Policy::parse(WHOLE).unwrap();
    let after =
        WHOLE.replace("min = 50", "min = 80").replace("prefix = \"gpu-\"", "prefix = \"big-\"").replace(
            "[tenant.platform]\nlimits = { small = 200, gpu = 0 }\nweight = 3",
            "[tenant.\"a.b\"]\nlimits = { small = 200 }",
        );
    let changes = before.changes(&Policy::parse(&after).unwrap());
    let told: Vec<String> = changes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "~ flavour.gpu.prefix = \"gpu-\" -> \"big-\"",
            "~ flavour.small.refill.min = 50 -> 80",
            "+ tenant.\"a.b\".limits.small = 200",
            "+ tenant.\"a.b\".weight = 1",
            "- tenant.platform.limits.gpu = 0",
            "- tenant.platform.limits.small = 200",
            "- tenant.platform.weight = 3",
        ]
    );
    assert!(before.changes(&before).is_empty());
}

fn min_at(schedule: &str, times: &[&str]) -> Vec<u32> {
    let policy = Policy::parse(&refill(schedule)).unwrap();
    let refill = policy.flavours().values().next().unwrap().refill.clone().unwrap();
    times.iter().map(|time| refill.min_at(at(time))).collect()
}

#[test]
fn monday_at_8_lifts_the_target_and_the_highest_window_applies() {
    let schedule = "{ from = '0 8 * * MON-FRI', hours = 10, zone = 'Europe/Berlin', min = 300 },
                    { from = '30 9 * * MON', hours = 1, zone = 'Europe/Berlin', min = 380 },
                    { from = '0 0 * * *', hours = 24, zone = 'UTC', min = 60 }";
    // 2026-11-30 is a Monday; Berlin is one hour ahead in winter.
    let times = [
        "2026-11-30T06:59:59.999Z",
        "2026-11-30T07:00:00Z",
        "2026-11-30T08:29:59Z",
        "2026-11-30T08:30:00Z",
        "2026-11-30T09:29:59.999Z",
        "2026-11-30T09:30:00Z",
        "2026-11-30T16:59:59.999Z",
        "2026-11-30T17:00:00Z",
        "2026-11-29T09:00:00Z",
    ];
    assert_eq!(min_at(schedule, &times), [60, 300, 300, 380, 380, 300, 300, 60, 60]);
}

#[test]
fn in_spring_a_window_begins_by_the_new_clock_and_lasts_its_hours() {
    // Berlin, 2027-03-28: 02:00 becomes 03:00 (01:00Z).
    let daily = "{ from = '0 8 * * *', hours = 2, zone = 'Europe/Berlin', min = 300 }";
    let times =
        ["2027-03-27T07:00:00Z", "2027-03-28T05:59:59Z", "2027-03-28T06:00:00Z", "2027-03-28T08:00:00Z"];
    assert_eq!(min_at(daily, &times), [300, 50, 300, 50]);
    let over_night = "{ from = '0 22 * * *', hours = 8, zone = 'Europe/Berlin', min = 300 }";
    // 22:00 on Saturday is 21:00Z; eight hours later it is 05:00Z, seven on the clock's face.
    let times =
        ["2027-03-27T20:59:59Z", "2027-03-27T21:00:00Z", "2027-03-28T04:59:59Z", "2027-03-28T05:00:00Z"];
    assert_eq!(min_at(over_night, &times), [50, 300, 300, 50]);
    // 02:30 does not exist on that day: the window begins at the first moment after it, once.
    let left_out = "{ from = '30 2 * * *', hours = 1, zone = 'Europe/Berlin', min = 300 }";
    let times =
        ["2027-03-28T00:59:59Z", "2027-03-28T01:00:00Z", "2027-03-28T01:59:59Z", "2027-03-28T02:00:00Z"];
    assert_eq!(min_at(left_out, &times), [50, 300, 300, 50]);
}

#[test]
fn in_autumn_an_hour_that_comes_twice_begins_a_window_once() {
    // Berlin, 2026-10-25: 03:00 becomes 02:00 again (01:00Z). The first 02:30 is 00:30Z, the second 01:30Z.
    let twice = "{ from = '30 2 * * *', hours = 1, zone = 'Europe/Berlin', min = 300 }";
    let times = [
        "2026-10-25T00:29:59Z",
        "2026-10-25T00:30:00Z",
        "2026-10-25T01:29:59Z",
        "2026-10-25T01:30:00Z",
        "2026-10-26T01:30:00Z",
    ];
    assert_eq!(min_at(twice, &times), [50, 300, 300, 50, 300]);
    let daily = "{ from = '0 8 * * *', hours = 2, zone = 'Europe/Berlin', min = 300 }";
    assert_eq!(min_at(daily, &["2026-10-25T06:59:59Z", "2026-10-25T07:00:00Z"]), [50, 300]);
}

#[test]
fn other_changes_of_clocks_are_known_too() {
    // Lord Howe moves by half an hour; São Paulo had midnights that do not exist (2018-11-04).
    let lord_howe = "{ from = '15 2 * * *', hours = 1, zone = 'Australia/Lord_Howe', min = 300 }";
    // 2026-10-04: 02:00 becomes 02:30 (15:30Z on the 3rd).
    let times =
        ["2026-10-03T15:29:59Z", "2026-10-03T15:30:00Z", "2026-10-03T16:29:59Z", "2026-10-03T16:30:00Z"];
    assert_eq!(min_at(lord_howe, &times), [50, 300, 300, 50]);
    let midnight = "{ from = '0 0 * * *', hours = 1, zone = 'America/Sao_Paulo', min = 300 }";
    let times =
        ["2018-11-04T02:59:59Z", "2018-11-04T03:00:00Z", "2018-11-04T04:00:00Z", "2018-11-05T02:00:00Z"];
    assert_eq!(min_at(midnight, &times), [50, 300, 50, 300]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fail_otherwise_than_by_problems(text in ".{0,200}") {
        if let Err(invalid) = Policy::parse(&text) {
            prop_assert!(!invalid.problems.is_empty() && !invalid.to_string().is_empty());
            let lines = text.split('\n').count();
            prop_assert!(invalid.problems.iter().all(|problem| (1..=lines).contains(&problem.line)));
        }
    }

    #[test]
    fn a_policy_reads_back_as_it_is_written(
        prefixes in prop::collection::btree_set("[A-Z][ -~ä]{0,8}!", 1..5), min in 0..100_u32, more in 0..100_u32,
        limit in 0..10_u32, tenant in "[A-Za-z0-9._:@-]{1,20}", weight in 1..9_u32,
    ) {
        // A "!" ends each prefix and stands nowhere else, so that none contains another one.
        let prefixes: Vec<String> =
            prefixes.iter().map(|prefix| format!("{}!", prefix.trim_end_matches('!').replace('!', "?"))).collect();
        let mut text = String::new();
        for (place, prefix) in prefixes.iter().enumerate() {
            let quoted = prefix.replace('\\', "\\\\").replace('"', "\\\"");
            text += &format!("[flavour.f{place}]\nprefix = \"{quoted}\"\n");
            text += &format!("refill = {{ min = {min}, max = {}, rate_per_minute = 5 }}\n", min + more + 1);
        }
        text += &format!("[tenant.\"{tenant}\"]\nweight = {weight}\nlimits = {{ f0 = {limit} }}\n");
        if let Ok(policy) = Policy::parse(&text) {
            prop_assert_eq!(Policy::parse(&policy.to_toml()), Ok(policy.clone()));
            prop_assert_eq!(policy.flavours().len(), prefixes.len());
        } else {
            // Two of them were the same after the replacement.
            let distinct: std::collections::BTreeSet<_> = prefixes.iter().collect();
            prop_assert!(distinct.len() < prefixes.len(), "{:?}", Policy::parse(&text));
        }
    }
}

#[test]
fn sandboxes_are_counted_by_flavour_and_together() {
    let policy = Policy::parse(WHOLE).unwrap();
    let mut count = PoolCount::new(&policy);
    for (name, status) in [
        ("lab-1", crate::Status::Available),
        ("lab-2", crate::Status::Allocated),
        ("gpu-1", crate::Status::Available),
        ("other", crate::Status::Available),
    ] {
        count.add(&policy, Some(&SandboxName::new(name).unwrap()), status);
    }
    count.add(&policy, None, crate::Status::Stale);
    assert_eq!(count.by_status().get(&crate::Status::Available), Some(&3));
    let by_flavour = count.by_flavour();
    assert_eq!(by_flavour.keys().collect::<Vec<_>>(), ["any", "gpu", "small"]);
    assert_eq!(by_flavour["small"].get(&crate::Status::Allocated), Some(&1));
    assert_eq!(by_flavour["any"].get(&crate::Status::Stale), Some(&1));
    let mut without = PoolCount::new(&Policy::default());
    without.add(&Policy::default(), None, crate::Status::Deleted);
    assert!(without.by_flavour().is_empty());
    assert_eq!(without.by_status().get(&crate::Status::Deleted), Some(&1));
}
