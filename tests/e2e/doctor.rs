//! `broker doctor`: its lines, against real endpoints with one thing wrong at a time.

use broker_tests::dates::{Shift, relay};
use broker_tests::{Broker, Provider, Setup, story, wait_for_condition};
use serde::Deserialize;

const TOKEN: (&str, &str) = ("BROKER_TRACK_TOKENS", "platform=tok-platform-0123456789");
const CHECKS: [&str; 10] = [
    "settings",
    "environment",
    "credentials",
    "table",
    "index",
    "queues",
    "redrive",
    "clock",
    "provider",
    "tokens",
];
/// An address without a listener.
const NOWHERE: &str = "http://127.0.0.1:1";

#[derive(Debug, Deserialize)]
struct Finding {
    check: String,
    ok: bool,
    note: bool,
    found: String,
    todo: String,
}

/// No process runs: the doctor needs none.
fn setup() -> Setup {
    Setup::new().apis(0).workers(0).var(TOKEN.0, TOKEN.1)
}

/// The findings of the doctor with these flags and variables; the exit code must fit.
async fn findings(broker: &Broker, flags: &[&str], vars: &[(&str, &str)]) -> Vec<Finding> {
    let args = [&["doctor", "--json"][..], flags].concat();
    let output = broker.cli_with(&args, vars).await;
    let findings: Vec<Finding> = output.json();
    let checks: Vec<_> = findings.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(checks, CHECKS, "each a line, whatever is wrong");
    let all_fine = findings.iter().all(|finding| finding.ok);
    assert_eq!(output.code, i32::from(!all_fine), "{output:#?}");
    for finding in &findings {
        assert_eq!(finding.todo.is_empty(), finding.ok, "ok, or what to do: {finding:#?}");
        assert!(!finding.found.is_empty(), "{finding:#?}");
        assert!(finding.ok || !finding.note, "what is wrong is no note: {finding:#?}");
    }
    findings
}

/// With these flags and variables exactly these checks are wrong; the first tells this.
async fn wrong(broker: &Broker, flags: &[&str], vars: &[(&str, &str)], checks: &[&str], tells: &str) {
    let findings = findings(broker, flags, vars).await;
    let wrong: Vec<_> = findings.iter().filter(|finding| !finding.ok).collect();
    let names: Vec<_> = wrong.iter().map(|finding| finding.check.as_str()).collect();
    assert_eq!(names, checks, "{flags:?} {vars:?}: {findings:#?}");
    let told = format!("{}. {}", wrong[0].found, wrong[0].todo);
    assert!(told.contains(tells), "{told:?} does not tell {tells:?}");
}

#[tokio::test]
async fn where_nothing_is_wrong_every_line_is_ok() {
    let provider = Provider::start(1).await;
    let setup = provider.setup().apis(0).workers(0).var(TOKEN.0, TOKEN.1);
    story(setup, async |broker| {
        let findings = findings(broker, &[], &[]).await;
        assert!(findings.iter().all(|finding| finding.ok), "{findings:#?}");
        let told = broker.cli_ok(&["doctor"]).await.stdout;
        // No process runs and nothing waits: worth knowing, and nothing is wrong.
        assert_eq!(told.lines().filter(|line| line.contains(" ok ")).count(), CHECKS.len() - 1, "{told}");
        let note = told.lines().find(|line| line.contains(" note ")).expect("a note");
        assert!(note.contains("queues") && note.contains("no process runs"), "{told}");
        assert!(!told.contains("tok-platform"), "a token is told by its name: {told}");
        // It changes nothing: nor does it make what is not there.
        broker.cli_with(&["doctor", "--prefix", "elsewhere", "--table", "elsewhere"], &[]).await;
        let again = broker.cli_with(&["doctor", "--json"], &[("BROKER_TABLE", "elsewhere")]).await;
        assert_eq!(again.code, 1, "{again:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_table_and_queues_that_are_not_there_are_told_with_what_makes_them() {
    story(setup(), async |broker| {
        wrong(broker, &["--table", "elsewhere"], &[], &["table", "index"], "broker init").await;
        wrong(broker, &["--prefix", "elsewhere"], &[], &["queues", "redrive"], "broker init").await;
        let dynamodb = [("AWS_ENDPOINT_URL_DYNAMODB", NOWHERE)];
        wrong(broker, &[], &dynamodb, &["table", "index"], "AWS_ENDPOINT_URL_DYNAMODB").await;
        let sqs = [("AWS_ENDPOINT_URL_SQS", NOWHERE)];
        // The clock is compared with the table's answers alone, then.
        wrong(broker, &[], &sqs, &["queues", "redrive"], "AWS_ENDPOINT_URL_SQS").await;
    })
    .await;
}

#[tokio::test]
async fn a_table_of_somebody_else_and_one_without_the_index_are_told_apart() {
    story(setup(), async |broker| {
        let name = broker.queues().name("bare");
        broker.table().create_bare(&name, ["PK", "SK"]).await;
        wrong(broker, &["--table", &name], &[], &["table", "index"], "broker init").await;
        let name = broker.queues().name("foreign");
        broker.table().create_bare(&name, ["id", "range"]).await;
        wrong(broker, &["--table", &name], &[], &["table", "index"], "BROKER_TABLE").await;
    })
    .await;
}

#[tokio::test]
async fn a_redrive_policy_that_somebody_changed_is_told_and_init_mends_it() {
    story(setup(), async |broker| {
        let queues = broker.queues();
        let dlq = queues.arn(&queues.name("requests-dlq")).await;
        let patient = format!("{{\"deadLetterTargetArn\":\"{dlq}\",\"maxReceiveCount\":99}}");
        queues.set_redrive(&queues.name("requests"), &patient).await;
        wrong(broker, &[], &[], &["redrive"], "RedrivePolicy").await;
        broker.cli_ok(&["init"]).await;
        wrong(broker, &[], &[("BROKER_WIAT_S", "1")], &["settings"], "BROKER_WAIT_S").await;
        let two = [("BROKER_WIAT_S", "1"), ("BROKER_TABEL", "t"), ("BROKER_URL", "http://broker.example")];
        wrong(broker, &[], &two, &["settings"], "BROKER_TABEL, BROKER_WIAT_S are not settings").await;
    })
    .await;
}

#[tokio::test]
async fn credentials_that_are_missing_are_told_first_and_the_rest_is_not_guessed() {
    story(setup(), async |broker| {
        let rest = ["credentials", "table", "index", "queues", "redrive", "clock"];
        let none = [("AWS_ACCESS_KEY_ID", ""), ("AWS_SECRET_ACCESS_KEY", ""), ("HOME", "/nonexistent")];
        wrong(broker, &[], &none, &rest, "AWS_PROFILE").await;
        let nowhere = [("AWS_REGION", ""), ("AWS_DEFAULT_REGION", ""), ("HOME", "/nonexistent")];
        wrong(broker, &[], &nowhere, &rest, "AWS_REGION").await;
    })
    .await;
}

#[tokio::test]
async fn a_provider_that_is_away_or_does_not_know_us_is_told() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(0).workers(0).var(TOKEN.0, TOKEN.1), async |broker| {
        let away = [("BROKER_PROVIDER_URL", NOWHERE)];
        wrong(broker, &[], &away, &["provider"], "BROKER_PROVIDER_URL").await;
        let stranger = [("BROKER_PROVIDER_TOKEN", "nobody")];
        wrong(broker, &[], &stranger, &["provider"], "BROKER_PROVIDER_TOKEN").await;
    })
    .await;
}

#[tokio::test]
async fn a_clock_that_is_off_is_told_by_how_much() {
    let shift = Shift::default();
    shift.set(60);
    let mut setup = setup();
    for (name, url) in relay(&shift).await {
        setup = setup.var(name, &url);
    }
    story(setup, async |broker| {
        wrong(broker, &[], &[], &["clock"], "NTP").await;
        shift.set(0);
        assert!(findings(broker, &[], &[]).await.iter().all(|finding| finding.ok));
    })
    .await;
}

#[tokio::test]
async fn without_tokens_and_with_a_bad_setting_it_says_what_an_api_would() {
    story(Setup::new().apis(0).workers(0), async |broker| {
        // A shell of an operator: commands use AWS, not the API.
        let found = findings(broker, &[], &[]).await;
        let tokens = found.last().expect("a line");
        assert!(tokens.check == "tokens" && tokens.ok && tokens.note, "{tokens:?}");
        assert!(tokens.found.contains("would not start"), "{tokens:?}");
        let operators_only = [("BROKER_ADMIN_TOKENS", "ops=0123456789abcdef")];
        wrong(broker, &[], &operators_only, &["tokens"], "no allocation is possible").await;
        let viewers_only = [
            ("BROKER_TRACK_TOKENS", "a=0123456789abcdef"),
            ("BROKER_ADMIN_TOKENS", "tv:ro=0123456789abcdeg"),
        ];
        let found = findings(broker, &[], &viewers_only).await;
        let tokens = found.iter().find(|finding| finding.check == "tokens").expect("a line on tokens");
        assert!(tokens.ok && tokens.found.contains("tv (read-only)"), "{tokens:?}");
        assert!(findings(broker, &["--local", "true"], &[]).await.iter().all(|finding| finding.ok));
        let bad = broker.cli(&["doctor", "--wait-s", "soon"]).await;
        assert_eq!(bad.code, 2, "{bad:#?}");
        assert!(bad.stderr.contains("BROKER_WAIT_S"), "{bad:#?}");
    })
    .await;
}

#[tokio::test]
async fn messages_that_no_worker_is_there_to_handle_are_wrong_whatever_else_runs() {
    story(Setup::new().apis(1).workers(1).pool(1), async |broker| {
        wait_for_condition("the worker to say that it receives", async || {
            let told = broker.cli(&["doctor"]).await;
            if told.code == 0 && told.stdout.contains("1 of 1 workers receive") { Ok(()) } else { Err(told) }
        })
        .await;
        broker.stop_workers().await;
        wrong(broker, &[], &[], &["queues"], "An API runs, and no worker").await;
        broker.allocate("student-1").respond_async().send().await.expect_status(202);
        broker.queues().holds_requests(1).await;
        broker.stop_apis().await;
        wrong(broker, &[], &[], &["queues"], "0 of 0 workers receive; 1 message waits").await;
        // What is wrong besides does not hide it.
        let queue = broker.queues().name("requests");
        broker.queues().set_attribute(&queue, "DelaySeconds", "90").await;
        wrong(broker, &[], &[], &["queues"], "DelaySeconds").await;
        wrong(broker, &[], &[], &["queues"], "1 message waits").await;
        broker.cli_ok(&["init"]).await;
        broker.start_worker().await;
        wait_for_condition("the message to be handled", async || {
            let (told, stats) = (broker.cli(&["doctor"]).await, broker.stats().await);
            if told.code == 0 && stats.allocated == 1 { Ok(()) } else { Err((told, stats)) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn each_attribute_of_a_queue_that_matters_is_compared_and_init_mends_it() {
    story(setup(), async |broker| {
        let queues = broker.queues();
        let wrongs = [
            ("requests", "DelaySeconds", "90", "queues"),
            ("maintenance", "VisibilityTimeout", "1", "queues"),
            ("requests", "ReceiveMessageWaitTimeSeconds", "0", "queues"),
            ("requests-dlq", "MaximumMessageSize", "1024", "queues"),
            ("maintenance", "MaximumMessageSize", "131072", "queues"),
            ("requests", "MessageRetentionPeriod", "60", "redrive"),
            ("maintenance-dlq", "RedriveAllowPolicy", r#"{"redrivePermission":"denyAll"}"#, "redrive"),
        ];
        for (queue, attribute, value, check) in wrongs {
            let queue = queues.name(queue);
            queues.set_attribute(&queue, attribute, value).await;
            wrong(broker, &[], &[], &[check], attribute).await;
            broker.cli_ok(&["init"]).await;
            assert!(findings(broker, &[], &[]).await.iter().all(|finding| finding.ok), "{attribute}");
        }
    })
    .await;
}

#[tokio::test]
async fn another_visibility_is_told_with_both_values_before_and_when_init_changes_it() {
    story(setup(), async |broker| {
        let other = [("BROKER_VISIBILITY_S", "75")];
        let stands = broker.queues().attribute(&broker.queues().name("requests"), "VisibilityTimeout").await;
        let stands = stands.expect("it is set");
        let wanted = format!("VisibilityTimeout {stands}, wanted 75");
        wrong(broker, &[], &other, &["queues"], &wanted).await;
        wrong(broker, &[], &other, &["queues"], "BROKER_VISIBILITY_S").await;
        let looked = broker.cli_with(&["init", "--dry-run"], &other).await;
        let would = format!("VisibilityTimeout is {stands}, would be 75");
        assert!(looked.code == 0 && looked.stdout.matches(&would).count() == 2, "{looked:#?}");
        assert!(looked.stdout.contains("nothing was written"), "{looked:#?}");
        wrong(broker, &[], &other, &["queues"], &wanted).await;
        let mended = broker.cli_with(&["init"], &other).await;
        let was = format!("VisibilityTimeout was {stands}, is now 75");
        assert!(mended.code == 0 && mended.stdout.matches(&was).count() == 2, "{mended:#?}");
        let back = broker.cli_ok(&["init"]).await.stdout;
        assert!(back.contains(&format!("VisibilityTimeout was 75, is now {stands}")), "{back}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone() {
    story(setup(), async |broker| {
        let (queues, kept) = (broker.queues(), ("KmsMasterKeyId", "alias/theirs"));
        let queue = queues.name("requests");
        queues.set_attribute(&queue, kept.0, kept.1).await;
        assert!(findings(broker, &[], &[]).await.iter().all(|finding| finding.ok));
        broker.cli_ok(&["init"]).await;
        assert_eq!(queues.attribute(&queue, kept.0).await.as_deref(), Some(kept.1));
    })
    .await;
}

#[tokio::test]
async fn what_the_shell_has_set_for_aws_and_for_other_tools_is_told() {
    story(setup(), async |broker| {
        let of_other_tools = [
            ("AWS_PROFILE", "okta"),
            ("AWS_RETRY_MODE", "legacy"),
            ("HTTPS_PROXY", "http://user:a-password@127.0.0.1:9"),
            ("AWS_CA_BUNDLE", "/etc/ssl/corporate.pem"),
        ];
        let found = findings(broker, &[], &of_other_tools).await;
        assert!(found.iter().all(|finding| finding.ok), "nothing of it holds here: {found:#?}");
        let of = |check: &str| found.iter().find(|finding| finding.check == check).expect("its line");
        let environment = &of("environment").found;
        for (name, _) in of_other_tools {
            assert!(environment.contains(name), "{name} in {environment}");
        }
        assert!(environment.contains("AWS_PROFILE=okta") && !environment.contains("a-password"));
        assert!(of("credentials").found.contains("AWS_ACCESS_KEY_ID"), "{found:#?}");

        // The same where it would hold: named, before anything is asked for.
        let elsewhere =
            [("AWS_ENDPOINT_URL_DYNAMODB", ""), ("AWS_ENDPOINT_URL_SQS", ""), ("AWS_RETRY_MODE", "legacy")];
        let output = broker.cli_with(&["doctor", "--json"], &elsewhere).await;
        assert_eq!(output.code, 2, "{output:#?}");
        let found: Vec<Finding> = output.json();
        let bad = found.iter().find(|finding| finding.check == "environment").expect("its line");
        assert!(!bad.ok && bad.found.contains("AWS_RETRY_MODE: is legacy"), "{found:#?}");
        assert_eq!(found.len(), CHECKS.len(), "each a line");
    })
    .await;
}
