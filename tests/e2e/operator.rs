//! Operator's view: the `broker` command, probes and metrics.

use std::collections::BTreeSet;

use broker_tests::cli::Stats;
use broker_tests::queues::Depth;
use broker_tests::table::{now_s, sandbox_key, text};
use broker_tests::{Provider, Setup, story, together, wait_for_condition};
use serde_json::{Value, json};

use crate::policy;

#[tokio::test]
async fn init_may_be_repeated_and_changes_nothing() {
    story(Setup::new().pool(3), async |broker| {
        broker.allocate("student-1").send().await.expect_status(201);
        let queues = broker.queues().names().await;
        broker.cli_ok(&["init"]).await;
        assert_eq!(broker.queues().names().await, queues);
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 3, available: 2, allocated: 1, ..Stats::default() });
    })
    .await;
}

#[tokio::test]
async fn an_init_that_would_change_or_refuse_a_table_says_so_before() {
    story(Setup::new().workers(0).apis(0), async |broker| {
        let name = |what: &str| broker.queues().name(what);
        let (bare, foreign) = (name("bare"), name("foreign"));
        broker.table().create_bare(&bare, ["PK", "SK"]).await;
        broker.table().create_bare(&foreign, ["id", "range"]).await;
        for (table, told) in [
            (&bare, "has no index: --adopt-table would add it, expiry by ttl would be turned on"),
            (&foreign, "has other keys than PK and SK: it would be refused"),
            (&name("elsewhere"), "would be created"),
        ] {
            let looked = broker.cli_ok(&["init", "--dry-run", "--table", table]).await.stdout;
            assert!(looked.contains(&format!("table {table}: {told}\n")), "{looked}");
        }
        let refused = broker.cli(&["init", "--table", &foreign]).await;
        assert!(refused.code == 1 && refused.stderr.contains("other keys than PK, SK"), "{refused:#?}");
    })
    .await;
}

#[tokio::test]
async fn an_init_that_finds_two_sandboxes_of_one_account_fails() {
    story(Setup::new().workers(0).apis(0).pool(1), async |broker| {
        let mut twin = broker.table().must_get(&sandbox_key("seed-000000")).await;
        twin.insert("PK".to_owned(), text(&sandbox_key("twin")));
        twin.insert("sandbox_id".to_owned(), text("twin"));
        broker.table().put(twin).await;
        let told = broker.cli(&["init"]).await;
        assert_eq!(told.code, 1, "{told:#?}");
        assert!(told.stderr.contains("refused: twin is the account that seed-000000 has"), "{told:#?}");
        broker.table().delete(&sandbox_key("twin")).await;
        broker.cli_ok(&["init"]).await;
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_read_is_told_where_it_is_left_out() {
    story(Setup::new().workers(0).apis(0).pool(2), async |broker| {
        let whole = broker.table().must_get(&sandbox_key("seed-000001")).await;
        let mut broken = whole.clone();
        broken.remove("external_id");
        broker.table().put(broken.clone()).await;
        for (args, code) in [
            (&["pool", "stats", "--json"][..], 1),
            (&["pool", "list", "--json"][..], 1),
            (&["pool", "list"][..], 0),
            (&["sandbox", "extend", "--track-name", "lab", "--hours", "1"][..], 1),
        ] {
            let told = broker.cli(args).await;
            assert_eq!(told.code, code, "{args:?}: {told:#?}");
            assert!(told.stderr.contains("seed-000001"), "{args:?}: {told:#?}");
        }
        broker.table().put(whole).await;
        // What cannot be read may be in use.
        broken.insert("PK".to_owned(), text(&sandbox_key("real-1")));
        broken.insert("sandbox_id".to_owned(), text("real-1"));
        broker.table().put(broken).await;
        let refused = broker.cli(&["pool", "seed", "--start", "5", "--count", "1"]).await;
        assert!(refused.code == 1 && refused.stderr.contains("no seeds (real-1)"), "{refused:#?}");
        broker.table().delete(&sandbox_key("real-1")).await;
    })
    .await;
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_stops_only_what_needs_it() {
    story(Setup::new().workers(0).apis(0).pool(1), async |broker| {
        let refilled =
            "[flavour.small]\nprefix = \"sandbox-\"\nrefill = { min = 1, max = 3, rate_per_minute = 6 }\n";
        policy::apply(broker, refilled).await;
        broker.cli_ok(&["refill", "pause", "small"]).await;
        let reserve =
            ["reservation", "create", "--tenant", "acme", "--name-prefix", "sandbox-", "--count", "1"];
        let made: Value = broker.cli_ok(&[&reserve[..], &["--json"]].concat()).await.json();
        let id = made["id"].as_str().expect("an id").to_owned();
        let stood = broker.table().must_get("POLICY").await;
        let mut newer = stood.clone();
        newer.insert("policy_text".to_owned(), text("[of_the_future]\n"));
        broker.table().put(newer).await;
        for args in [
            &["pool", "stats"][..],
            &["pool", "list"],
            &["tenants"],
            &["reservation", "list"],
            &["reservation", "show", &id],
            &["reservation", "delete", &id],
            &["refill", "resume", "small"],
            &["refill", "pause", "small"],
        ] {
            let told = broker.cli_ok(args).await;
            assert!(told.stderr.contains("newer version"), "{args:?}: {told:#?}");
        }
        for (args, code) in [
            (&["pool", "list", "--flavour", "small"][..], 1),
            (&["sandbox", "extend", "--flavour", "small", "--hours", "1"][..], 1),
            (&reserve[..], 1),
            (&["refill", "status"][..], 1),
            (&["refill", "pause", "other"][..], 2),
        ] {
            let told = broker.cli(args).await;
            assert_eq!(told.code, code, "{args:?}: {told:#?}");
            assert!(told.stderr.contains("newer version"), "{args:?}: {told:#?}");
        }
        broker.table().put(stood).await;
    })
    .await;
}

#[tokio::test]
async fn a_seeded_pool_is_listed_counted_and_removed_again() {
    story(Setup::new().workers(0).apis(0).pool(250), async |broker| {
        let listed =
            broker.cli_ok(&["pool", "list", "--status", "available", "--limit", "100", "--json"]).await;
        let listed: Vec<Value> = listed.json();
        let ids: BTreeSet<_> = listed.iter().filter_map(|sandbox| sandbox["sandbox_id"].as_str()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.starts_with("seed-")), "{ids:?}");
        let stats = broker.stats().await;
        assert_eq!(stats, Stats { total: 250, available: 250, ..Stats::default() });
        let largest = usize::MAX.to_string();
        let all: Vec<Value> = broker.cli_ok(&["pool", "list", "--limit", &largest, "--json"]).await.json();
        assert_eq!(all.len(), 250);

        broker.cli_ok(&["pool", "seed", "--cleanup"]).await;
        assert_eq!(broker.stats().await, Stats::default());
    })
    .await;
}

#[tokio::test]
async fn seeds_leave_the_quarantine_and_a_reservation_when_they_are_removed() {
    let setup = Setup::new().workers(1).apis(0).pool(3).var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        broker.cli_ok(&["quarantine", "add", "seed-000001", "--why", "odd"]).await;
        let reserve = ["reservation", "create", "--tenant", "acme", "--name-prefix", "sandbox-"];
        broker.cli_ok(&[&reserve[..], &["--count", "1"]].concat()).await;
        wait_for_condition("one to be put aside", async || match broker.stats().await {
            Stats { available: 1, quarantined: 1, reserved: 1, .. } => Ok(()),
            other => Err(other),
        })
        .await;
        let told: Value = broker.cli_ok(&["pool", "seed", "--cleanup", "--json"]).await.json();
        assert_eq!([&told["removed"], &told["left"]], [3, 0], "{told:#}");
        assert_eq!(broker.stats().await, Stats::default());
        let reservations: Vec<Value> = broker.cli_ok(&["reservation", "list", "--json"]).await.json();
        assert_eq!(reservations[0]["held"], 0, "{reservations:#?}");
        broker.verify().await;
    })
    .await;
}

#[tokio::test]
async fn a_pool_that_is_in_use_is_not_seeded() {
    let provider = Provider::start(1).await;
    story(provider.setup().workers(1).apis(0), async |broker| {
        provider.relabel(json!({ "seed-000000": "real-1" })).await;
        broker.job("sync").await;
        let refused = broker.cli(&["pool", "seed", "--start", "5", "--count", "2"]).await;
        assert_eq!(refused.code, 1, "{refused:#?}");
        assert!(refused.stderr.contains("no seeds (real-1)"), "{refused:#?}");
        assert_eq!(broker.stats().await.total, 1);
        broker.cli_ok(&["pool", "seed", "--start", "5", "--count", "2", "--force"]).await;
        assert_eq!(broker.stats().await.total, 3);
        let audit = broker.cli_ok(&["audit"]).await.stdout;
        assert!(audit.contains("seed") && audit.contains("refused: this pool has sandboxes"), "{audit}");
    })
    .await;
}

#[tokio::test]
async fn queues_shows_what_waits() {
    story(Setup::new().workers(0).pool(3), async |broker| {
        let call = tokio::spawn(broker.allocate("student-1").send());
        broker.queues().holds_requests(1).await;
        let shown: Vec<Value> = broker.cli_ok(&["queues", "--json"]).await.json();
        let name = broker.queues().name("requests");
        let requests = shown.iter().find(|queue| queue["queue"] == name.as_str());
        let requests = requests.unwrap_or_else(|| panic!("no {name} in {shown:#?}"));
        assert_eq!(requests["backlog_per_worker"], Value::Null, "no worker runs: {requests:#}");
        let depth = |field: &str| requests[field].as_u64().expect("a number");
        let depth =
            Depth { visible: depth("visible"), in_flight: depth("in_flight"), delayed: depth("delayed") };
        assert_eq!(depth, Depth { visible: 1, ..Depth::default() });
        broker.start_worker().await;
        call.await.expect("an answer").expect_status(201);
    })
    .await;
}

#[tokio::test]
async fn queues_shows_the_backlog_of_each_worker_and_how_old_the_oldest_message_was() {
    story(Setup::new().apis(1).workers(2).pool(3), async |broker| {
        // Frozen workers let it grow. What their last polls had received is in flight, and backlog like the rest.
        for worker in [0, 1] {
            broker.worker(worker).freeze();
            broker.worker_mut(worker).process().frozen().await;
        }
        let name = broker.queues().name("requests");
        let requests = async || {
            let shown: Vec<Value> = broker.cli_ok(&["queues", "--json"]).await.json();
            shown.into_iter().find(|queue| queue["queue"] == name.as_str()).expect("the requests queue")
        };
        let calls: Vec<_> = (0..5).map(|n| broker.allocate(&format!("student-{n}")).send()).collect();
        let calls = tokio::spawn(together(calls));
        broker.queues().holds_requests(5).await;
        let shown = requests().await;
        assert_eq!(shown["backlog_per_worker"], 3, "{shown:#}");
        let waited_from = now_s();
        wait_for_condition("a second to pass", async || {
            let now = now_s();
            if now > waited_from + 1 { Ok(()) } else { Err(now) }
        })
        .await;
        for worker in [0, 1] {
            broker.worker(worker).thaw();
        }
        assert_eq!(calls.await.expect("answers").len(), 5);
        // A worker tells it with its next heartbeat, within half a minute.
        wait_for_condition("the age of the oldest message", async || {
            let shown = requests().await;
            let age = shown["oldest_age_ms"].as_u64();
            if age.is_some_and(|age| age >= 1_000) { Ok(()) } else { Err(shown) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_wrong_use_of_the_command_is_exit_code_2() {
    story(Setup::new().workers(0).apis(0), async |broker| {
        let largest = u64::MAX.to_string();
        let largest = largest.as_str();
        for wrong in [
            &["pool", "seed", "--count", "many"][..],
            &["pool", "seed", "--count", "1", "--start", largest],
            &["pool", "seed", "--count", "1", "--name-prefix", "a\nb"],
            &["make-coffee"],
            &["pool", "list", "--status", "gone"],
            &["sandbox", "show", "no id"],
            &["sandbox", "history", "no id"],
            &["sandbox", "release", "no id"],
            &["sandbox", "retry-delete", "no id"],
            &["sandbox", "extend", "no id", "--hours", "1"],
            &["sandbox", "extend", "--flavour", "unknown", "--hours", "1"],
            &["quarantine", "show", "no id"],
            &["quarantine", "add", "no id", "--why", "odd"],
            &["quarantine", "release", "no id"],
            &["quarantine", "retire", "no id"],
            &["track", "no id"],
            &["track", "student-1", "--key", "no key"],
            &["waiting", "cancel", "no id"],
            &["reservation", "show", "no id"],
            &["dead-letters", "replay", "no id"],
            &["queues", "--log", "broker_cli=loud"],
        ] {
            let told = broker.cli(wrong).await;
            assert_eq!(told.code, 2, "broker {wrong:?}: {told:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_exit_code_1() {
    story(Setup::new().workers(0).apis(0), async |broker| {
        const LETTER: &str = "1795000000000-00112233445566778899aabbccddeeff";
        const REQUEST: &str = "019ac3a0-0000-7000-8000-000000000000";
        for (missing, id) in [
            (&["sandbox", "show", "seed-000009"][..], "seed-000009"),
            (&["quarantine", "add", "seed-000009", "--why", "odd"], "seed-000009"),
            (&["dead-letters", "show", LETTER], LETTER),
            (&["dead-letters", "replay", LETTER], LETTER),
            (&["dead-letters", "discard", LETTER, "--why", "odd"], LETTER),
            (&["waiting", "cancel", REQUEST], REQUEST),
            (&["waiting", "cancel", REQUEST, "--dry-run"], REQUEST),
            (&["reservation", "delete", REQUEST], REQUEST),
        ] {
            let told = broker.cli(missing).await;
            let names_it = told.stderr.contains(id) || told.stdout.contains(id);
            assert!(told.code == 1 && names_it, "broker {missing:?}: {told:#?}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_name_that_is_no_setting_is_told_once_and_not_among_the_rows() {
    story(Setup::new().workers(0).apis(0), async |broker| {
        let vars = [("BROKER_TABEL", "prod"), ("BROKER_URL", "http://127.0.0.1"), ("BROKER_TOKEN", "t")];
        let told = broker.cli_with(&["queues", "--json"], &vars).await;
        assert_eq!(told.code, 0, "{told:#?}");
        assert!(!told.json::<Vec<Value>>().is_empty());
        let lines: Vec<_> = told.stderr.lines().filter(|line| line.contains("BROKER_T")).collect();
        let [line] = lines.as_slice() else { panic!("{told:#?}") };
        assert!(line.contains("BROKER_TABEL") && line.contains("did you mean BROKER_TABLE?"), "{line}");
        assert!(!told.stderr.contains("BROKER_URL"), "{told:#?}");
    })
    .await;
}

/// The sum of all samples of a metric.
fn sum(metrics: &str, name: &str) -> f64 {
    let samples = metrics.lines().filter(|line| !line.starts_with('#'));
    let samples = samples.filter_map(|line| line.rsplit_once(' '));
    let of_name = samples.filter(|(series, _)| series.split('{').next() == Some(name));
    of_name.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn probes_answer_without_a_token_and_metrics_count_what_happened() {
    story(Setup::new().apis(2).workers(3).pool(2), async |broker| {
        for n in 0..5 {
            broker.allocate(&format!("student-{}", n % 3)).send().await;
        }
        // A request is handled when its message is deleted, a moment after its answer.
        wait_for_condition("five handled requests", async || {
            let mut handled = 0.0;
            for worker in 0..3 {
                let probes = broker.worker(worker).metrics();
                assert_eq!(probes.probe("/healthz").await.map(|(status, _)| status), Some(200));
                let (status, metrics) = probes.probe("/metrics").await.expect("the worker's metrics");
                assert_eq!(status, 200);
                handled += sum(&metrics, "broker_requests_handled_total");
                assert!(!metrics.contains("student-"), "an id in a label:\n{metrics}");
            }
            if handled == 5.0 { Ok(()) } else { Err(handled) }
        })
        .await;
        let (mut allocated, mut served) = (0.0, 0.0);
        for api in 0..2 {
            assert_eq!(broker.api(api).probe("/healthz").await.map(|(status, _)| status), Some(200));
            let (status, metrics) = broker.api(api).probe("/metrics").await.expect("the API's metrics");
            assert_eq!(status, 200);
            allocated += sum(&metrics, "broker_allocate_total");
            served += sum(&metrics, "broker_request_latency_seconds_count");
            assert!(!metrics.contains("student-"), "an id in a label:\n{metrics}");
        }
        assert_eq!(allocated, 5.0);
        assert!(served >= 5.0, "{served}");
    })
    .await;
}
