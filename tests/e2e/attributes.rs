//! Attributes of the provider: members of its rows are kept with the sandbox and told in every answer about it.

use broker_tests::table::text;
use broker_tests::{Answer, Broker, Provider, Setup, story, together, wait_for_condition};
use serde_json::{Value, json};

fn kept(setup: Setup) -> Setup {
    setup.apis(1).workers(1).var("BROKER_PROVIDER_ATTRIBUTES", "sfdc_account_id, region,tags")
}

/// What the provider lists with each row, or with one.
async fn lists(provider: &Provider, rows: Value) {
    provider.misbehave(json!({ "list": { "rows": rows } })).await;
}

#[track_caller]
fn has(told: &Value, sfdc: &Value, region: &Value) {
    assert_eq!([&told["sfdc_account_id"], &told["region"]], [sfdc, region], "{told:#}");
}

/// How often the worker read items of the table.
async fn reads(broker: &Broker) -> f64 {
    let Some((200, text)) = broker.worker(0).metrics().probe("/metrics").await else { panic!("metrics") };
    let calls = text.lines().filter(|line| line.starts_with("broker_aws_calls_total{"));
    let reads = calls.filter(|line| line.contains("\"BatchGetItem\"") || line.contains("\"GetItem\""));
    reads.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_start_script_finds_what_the_provider_says_of_its_sandbox_in_every_answer() {
    let provider = Provider::start(3).await;
    story(kept(provider.setup()), async |broker| {
        let (sfdc, region) = (json!("0018x00002ABCDEFGH"), json!("eu-central-1"));
        let tags = json!({ "tier": ["gold", 7, null] });
        lists(
            &provider,
            json!({ "*": { "sfdc_account_id": sfdc, "region": region, "tags": tags, "secret": 1 } }),
        )
        .await;
        assert_eq!(broker.job("sync").await.changed, 3);
        let created = broker.allocate("student").send().await.expect_status(201);
        has(&created.json, &sfdc, &region);
        assert_eq!(created.json["tags"], tags);
        assert!(created.json.get("secret").is_none(), "{:#}", created.json);
        let id = created.sandbox_id().to_owned();

        has(&broker.allocate("student").send().await.expect_status(200).json, &sfdc, &region);
        has(&broker.sandbox(&id, "student").send().await.expect_status(200).json, &sfdc, &region);
        has(&broker.shown(&id).await, &sfdc, &region);
        let listed = broker.cli_ok(&["pool", "list", "--json"]).await.json::<Vec<Value>>();
        listed.iter().for_each(|one| has(one, &sfdc, &region));

        // What is asked for without a wait is answered by its record.
        let queued =
            broker.allocate("later").header("prefer", "respond-async").send().await.expect_status(202);
        let told = broker.outcome(queued.must_have("location"), "later").await;
        has(&told.json["response"]["body"], &sfdc, &region);

        // They are those of the claim, whatever the provider says of it since; and go on after the return.
        lists(&provider, json!({ "*": { "region": "us-east-1" } })).await;
        broker.job("sync").await;
        has(&broker.sandbox(&id, "student").send().await.expect_status(200).json, &sfdc, &region);
        broker.return_sandbox(&id, "student").send().await.expect_status(200);
        has(&broker.sandbox(&id, "student").send().await.expect_status(200).json, &sfdc, &region);
        let next = broker.allocate("student").send().await.expect_status(201);
        has(&next.json, &Value::Null, &json!("us-east-1"));
    })
    .await;
}

#[tokio::test]
async fn a_start_past_the_end_of_a_lease_is_told_the_attributes_of_its_new_sandbox() {
    let provider = Provider::start(2).await;
    story(kept(provider.setup()), async |broker| {
        let rows = json!({ "seed-000000": { "region": "eu" }, "seed-000001": { "region": "us" } });
        lists(&provider, rows).await;
        broker.job("sync").await;
        let old = broker.allocate("student").name_prefix("sandbox-000000").send().await.expect_status(201);
        assert_eq!(old.json["region"], "eu");
        broker.table().age(old.sandbox_id(), 8 * 3_600).await;
        let new = broker.allocate("student").name_prefix("sandbox-000001").send().await.expect_status(201);
        assert_eq!((new.sandbox_id(), &new.json["region"]), ("seed-000001", &json!("us")));
    })
    .await;
}

#[tokio::test]
async fn a_request_that_waited_is_told_the_attributes_too_from_wherever_its_sandbox_came() {
    let provider = Provider::start(2).await;
    let setup = kept(provider.setup()).var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        lists(&provider, json!({ "*": { "region": "eu" } })).await;
        let parked = async |track: &str| {
            let call = broker.allocate(track).wait(1).json(&json!({ "max_wait_s": 600 }));
            let place = call.send().await.expect_status(202).must_have("location").to_owned();
            wait_for_condition("it stands in a line", async || {
                let shown = broker.request(&place, track).send().await.json;
                if shown["waiting"].is_object() { Ok(()) } else { Err(shown) }
            })
            .await;
            place
        };
        let told = async |place: &str, track: &str| {
            broker.outcome(place, track).await.json["response"]["body"]["region"].clone()
        };
        // From an arrival of sync.
        let first = parked("first").await;
        broker.job("sync").await;
        assert_eq!(told(&first, "first").await, "eu");
        // From one that the index lists: let out of quarantine.
        broker.cli_ok(&["quarantine", "add", &left(broker).await, "--why", "a look"]).await;
        let second = parked("second").await;
        broker.cli_ok(&["quarantine", "release", "--all"]).await;
        assert_eq!(told(&second, "second").await, "eu");
    })
    .await;
}

#[tokio::test]
async fn a_sandbox_whose_attributes_cannot_be_read_keeps_nobody_from_the_others() {
    let provider = Provider::start(2).await;
    let setup = kept(provider.setup()).var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        lists(&provider, json!({ "*": { "region": "eu" } })).await;
        broker.job("sync").await;
        let whole = broker.table().must_get("SBX#seed-000000").await;
        let mut spoilt = whole.clone();
        spoilt.insert("provider_attributes".to_owned(), text("{"));
        broker.table().put(spoilt).await;
        assert_eq!(broker.job("sync").await.failed, 0);
        let first = broker.allocate("first").send().await.expect_status(201);
        assert_eq!(first.sandbox_id(), "seed-000001");
        broker.allocate("second").send().await.expect_status(409);

        let call = broker.allocate("third").wait(1).json(&json!({ "max_wait_s": 600 }));
        let place = call.send().await.expect_status(202).must_have("location").to_owned();
        let before = unreadable(broker).await;
        wait_for_condition("SERVE to meet it beside who waits", async || {
            let shown = broker.request(&place, "third").send().await.json;
            let met = unreadable(broker).await - before;
            if shown["waiting"].is_object() && met >= 2.0 { Ok(()) } else { Err((shown, met)) }
        })
        .await;
        broker.table().put(whole).await;
        let told = broker.outcome(&place, "third").await;
        assert_eq!(told.json["response"]["body"]["region"], "eu", "{told:#?}");
    })
    .await;
}

/// How many items the worker could not read.
async fn unreadable(broker: &Broker) -> f64 {
    let Some((200, metrics)) = broker.worker(0).metrics().probe("/metrics").await else { panic!("metrics") };
    let count = metrics.lines().find(|line| line.starts_with("broker_unreadable_items_total "));
    count.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or_default()
}

/// The one sandbox that is available.
async fn left(broker: &Broker) -> String {
    let listed = broker.cli_ok(&["pool", "list", "--status", "available", "--json"]).await;
    let [one] = &listed.json::<Vec<Value>>()[..] else { panic!("one is left: {listed:?}") };
    one["sandbox_id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn sync_refreshes_them_and_leaves_what_it_cannot_read() {
    let provider = Provider::start(4).await;
    story(kept(provider.setup()), async |broker| {
        let region = async |sandbox: &str| broker.shown(sandbox).await["region"].clone();
        lists(&provider, json!({ "*": { "region": "eu" } })).await;
        broker.job("sync").await;
        let before = broker.table().must_get("SBX#seed-000003").await;
        let again = broker.job("sync").await;
        assert_eq!(again.changed, 0, "what is as it should be is not written: {again:?}");
        assert_eq!(broker.table().must_get("SBX#seed-000003").await, before);

        let large = "x".repeat(2_000);
        let rows = json!({
            "seed-000000": { "region": "us" }, "seed-000001": { "region": large }, "seed-000002": { "region": null },
            "seed-000003": { "region": "eu" },
        });
        lists(&provider, rows).await;
        let report = broker.job("sync").await;
        assert_eq!((report.changed, report.details["unreadable_rows"]), (2, 1), "{report:?}");
        assert_eq!(region("seed-000000").await, "us");
        assert_eq!(region("seed-000001").await, "eu", "what cannot be read is left as it is");
        assert_eq!(region("seed-000002").await, Value::Null);
        assert_eq!(broker.stats().await.available, 4, "the sandbox is there, whatever its attributes are");
        let logs = broker.worker_mut(0).process().log();
        assert!(logs.contains("more than 1024"), "the reason is named");
    })
    .await;
}

#[tokio::test]
async fn a_claim_costs_no_call_for_them_and_without_the_setting_nothing_is_read_or_told() {
    const CLAIMS: usize = 150;
    let provider = Provider::start(200).await;
    lists(&provider, json!({ "*": { "region": "eu" } })).await;
    let claim_all = async |broker: &Broker| -> (Vec<Answer>, f64) {
        broker.job("sync").await;
        let before = reads(broker).await;
        let claims = (0..CLAIMS).map(|n| {
            let call = broker.allocate(&format!("track-{n}"));
            async move { call.send().await.expect_status(201) }
        });
        let answers = together(claims).await;
        (answers, reads(broker).await - before)
    };
    let quiet = |setup: Setup| setup.var("BROKER_CENSUS_EVERY_S", "86400");
    story(quiet(kept(provider.setup())), async |broker| {
        let (answers, reads) = claim_all(broker).await;
        assert!(answers.iter().all(|answer| answer.json["region"] == "eu"));
        assert!(reads <= 40.0, "{reads} reads for {CLAIMS} claims: one for each refill, of up to a hundred");
    })
    .await;
    story(quiet(provider.setup().apis(1).workers(1)), async |broker| {
        let (answers, _) = claim_all(broker).await;
        assert!(answers.iter().all(|answer| answer.json.get("region").is_none()));
        let stored = broker.table().must_get(&format!("SBX#{}", answers[0].sandbox_id())).await;
        assert!(!stored.contains_key("provider_attributes"), "{stored:?}");
    })
    .await;
}

#[tokio::test]
async fn a_name_that_answers_have_anyway_stops_the_start_and_a_command_finds_the_others() {
    let provider = Provider::start(1).await;
    story(kept(provider.setup()), async |broker| {
        for (bad, why) in [("region,status", "status"), ("a b", "a b"), ("region,region", "twice")] {
            let refused = broker.cli_with(&["doctor"], &[("BROKER_PROVIDER_ATTRIBUTES", bad)]).await;
            let said = format!("{}{}", refused.stdout, refused.stderr);
            assert_eq!(refused.code, 2, "{refused:#?}");
            assert!(said.contains("BROKER_PROVIDER_ATTRIBUTES") && said.contains(why), "{said}");
        }
        lists(
            &provider,
            json!({ "*": { "sfdc_account_id": 12_345_678_901_u64, "region": "eu west", "tags": ["a"] } }),
        )
        .await;
        broker.job("sync").await;
        let url = format!("http://{}", broker.balanced().address());
        let script = r#"echo "$SANDBOX_SFDC_ACCOUNT_ID|$SANDBOX_REGION|$SANDBOX_TAGS|$SANDBOX_ID""#;
        let vars = [("BROKER_URL", url.as_str()), ("BROKER_TOKEN", broker_tests::TRACK_TOKEN)];
        let ran = broker.cli_with(&["lease", "--", "sh", "-c", script], &vars).await;
        assert_eq!(ran.stdout.trim(), "12345678901|eu west||seed-000000", "{ran:#?}");
    })
    .await;
}
