//! Claims of what is put aside: a class under the load of other tenants, arrivals, and limits beside it.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Fault, Provider, Rule, story, together, wait_for_condition, wait_until};
use http::Method;
use serde_json::json;

use super::{
    ACME, HOUR, SMALL, UMBRELLA, asks, at, of_tenants, reserve, reserved, seed, setup, shown, until_reserved,
};
use crate::{count, distinct_sandboxes, policy};

#[tokio::test]
async fn a_class_at_nine_has_its_sandboxes_whatever_storm_there_is_before() {
    story(setup().apis(2).workers(3), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 40).await;
        // From is in an hour, and it is put aside two hours before.
        let (from, until) = (at(now_s() + HOUR), at(now_s() + 3 * HOUR));
        let id = reserve(
            broker,
            &["--flavour", "small", "--count", "30", "--from", &from, "--until", &until, "--lead", "2h"],
        )
        .await;
        until_reserved(broker, 30).await;
        broker.lists_are_current().await;
        let storm = together((0..60).map(|n| asks(broker, UMBRELLA, &format!("storm-{n}")).send())).await;
        assert_eq!((count(&storm, 201), count(&storm, 409)), (10, 50));
        let class = together((0..32).map(|n| {
            let call = broker.allocate(&format!("student-{n}")).token(ACME);
            // Also who names no flavour has a part in it.
            if n % 2 == 0 { call } else { call.header("x-sandbox-flavour", "small") }.send()
        }))
        .await;
        assert_eq!((count(&class, 201), count(&class, 409)), (30, 2));
        distinct_sandboxes(storm.iter().chain(&class).filter(|answer| answer.status == 201));
        let told = shown(broker, &id).await;
        let figures = [&told["state"], &told["held"], &told["missing"], &told["flavour"]];
        assert_eq!(figures, [&json!("running"), &json!(30), &json!(0), &json!("small")]);
        assert_eq!(broker.verify().await.live_leases, 40);
        let quota =
            broker.balanced().call(Method::GET, "/v1/quota").token(ACME).send().await.expect_status(200);
        assert_eq!(quota.json["reservations"][0]["held"], 30);
        let quota = broker.balanced().call(Method::GET, "/v1/quota").token(UMBRELLA).send().await;
        assert_eq!(quota.json["reservations"], json!([]));
    })
    .await;
}

#[tokio::test]
async fn what_was_just_put_aside_is_claimed_before_the_index_shows_it() {
    story(setup().on_aws().workers(1), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 6).await;
        broker.lists_are_current().await;
        reserve(broker, &["--flavour", "small", "--count", "6"]).await;
        until_reserved(broker, 6).await;
        // The index still lists all or some of it as offered to all.
        let class = together((0..6).map(|n| asks(broker, ACME, &format!("student-{n}")).send())).await;
        assert_eq!(count(&class, 201), 6, "{class:?}");
        distinct_sandboxes(&class);
        assert_eq!(broker.verify().await.live_leases, 6);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_at_one_limit_has_what_is_reserved_for_it_under_another_and_under_none() {
    story(setup().workers(1), async |broker| {
        let limits = "[tenant.acme]\nlimits = { small = 1, gpu = 5 }\n";
        policy::apply(broker, &format!("{SMALL}{limits}")).await;
        for (prefix, start) in [("lab", "0"), ("gpu", "10"), ("other", "20")] {
            broker.cli_ok(&["pool", "seed", "--name-prefix", prefix, "--start", start, "--count", "2"]).await;
        }
        asks(broker, ACME, "student-0").send().await.expect_status(201);
        // Its limit of `small` is full, and what is put aside of that is listed first.
        let reservations =
            [["--flavour", "small", "1"], ["--flavour", "gpu", "2"], ["--name-prefix", "other-", "2"]];
        for (n, [by, of, count]) in reservations.into_iter().enumerate() {
            let id = format!("00000000-0000-7000-8000-00000000000{n}");
            reserve(broker, &[by, of, "--count", count, "--id", &id]).await;
        }
        until_reserved(broker, 5).await;
        broker.lists_are_current().await;
        let mut got = Vec::new();
        for n in 1..5 {
            // A worker learns of a reservation some seconds after it was made.
            let given = wait_for_condition("what is reserved to be given", async || {
                let told = broker.allocate(&format!("student-{n}")).token(ACME).send().await;
                if told.status == 201 { Ok(told) } else { Err(told) }
            })
            .await;
            got.push(given.text_of("name")[..4].to_owned());
        }
        assert_eq!(got, ["gpu-", "gpu-", "othe", "othe"]);
        let refused = broker.allocate("student-5").token(ACME).send().await;
        refused.expect_problem(409, "QUOTA_EXCEEDED");
    })
    .await;
}

#[tokio::test]
async fn what_arrives_is_put_aside_before_others_get_it_and_its_tenants_line_comes_first() {
    story(setup().apis(1).workers(2), async |broker| {
        policy::apply(broker, SMALL).await;
        reserve(broker, &["--flavour", "small", "--count", "2"]).await;
        let wait = json!({ "max_wait_s": 600 });
        let park = async |token: &str, track: &str| {
            let queued = asks(broker, token, track).wait(1).json(&wait).send().await.expect_status(202);
            queued.must_have("location").to_owned()
        };
        let other = park(UMBRELLA, "other").await;
        let own = park(ACME, "student").await;
        seed(broker, 0, 2).await;
        wait_for_condition("the tenant's own to be served", async || {
            let told = broker.request(&own, "student").token(ACME).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
        until_reserved(broker, 1).await;
        let told = broker.request(&other, "other").token(UMBRELLA).send().await.expect_status(200);
        assert_eq!(told.text_of("status"), "queued");
        seed(broker, 2, 1).await;
        wait_for_condition("the other to be served", async || {
            let told = broker.request(&other, "other").token(UMBRELLA).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
        assert_eq!(reserved(broker).await, 1);
        let counted = async |name: &str| {
            let [one, other] = [0, 1].map(|worker| broker.worker(worker).metrics());
            one.metric(name).await + other.metric(name).await
        };
        assert_eq!(counted("broker_serve_put_aside_total").await, 2.0);
        let met = async |by: &str| counted(&format!("broker_waiting_granted_total{{by=\"{by}\"}}")).await;
        let (arrived, swept) = (met("arrival").await, met("sweep").await);
        assert!(arrived >= 1.0 && arrived + swept == 2.0, "{arrived} {swept}");
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_a_permit_is_given_what_is_put_aside_for_it_behind_hundreds_that_do_not_fit() {
    // Of one shard, what is put aside is listed in the order of its names.
    story(setup().apis(1).workers(1).var("BROKER_STATE_SHARDS", "1"), async |broker| {
        let limited = |max: u32| format!("{SMALL}[tenant.acme]\nlimits = {{ small = {max} }}\n");
        policy::apply(broker, &limited(200)).await;
        reserve(broker, &["--flavour", "small", "--count", "122"]).await;
        policy::apply(broker, &limited(1)).await;
        seed(broker, 0, 121).await;
        broker.cli_ok(&["pool", "seed", "--name-prefix", "lab-z", "--start", "200", "--count", "1"]).await;
        until_reserved(broker, 122).await;
        broker.lists_are_current().await;
        let first = wait_for_condition("what is reserved to be given", async || {
            let told = broker.allocate("student-0").token(ACME).name_prefix("lab-0").send().await;
            if told.status == 201 { Ok(told) } else { Err(told) }
        })
        .await;
        let waits = broker.allocate("student-1").token(ACME).name_prefix("lab-z-").wait(1);
        let waits = waits.json(&json!({ "max_wait_s": 600 })).send().await.expect_status(202);
        let location = waits.must_have("location").to_owned();
        wait_for_condition("it to stand in a line", async || {
            let told = broker.request(&location, "student-1").token(ACME).send().await.expect_status(200);
            if told.json["waiting"].is_object() { Ok(()) } else { Err(told.text) }
        })
        .await;
        let sandbox = first.sandbox_id().to_owned();
        broker.return_sandbox(&sandbox, "student-0").token(ACME).send().await.expect_status(200);
        wait_for_condition("who waits to be served", async || {
            let told = broker.request(&location, "student-1").token(ACME).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn what_is_put_aside_for_a_tenant_that_may_not_have_it_begins_no_look() {
    story(setup().faults(1).apis(1).workers(1), async |broker| {
        let limited = |max: u32| format!("{SMALL}[tenant.acme]\nlimits = {{ small = {max} }}\n");
        policy::apply(broker, &limited(9)).await;
        reserve(broker, &["--flavour", "small", "--count", "3"]).await;
        seed(broker, 0, 3).await;
        until_reserved(broker, 3).await;
        policy::apply(broker, &limited(1)).await;
        broker.lists_are_current().await;
        wait_for_condition("what is reserved to be given", async || {
            let told = asks(broker, ACME, "student-0").send().await;
            if told.status == 201 { Ok(()) } else { Err(told) }
        })
        .await;
        // One waits for its permit, and one for what is put aside for nobody.
        let waits =
            [asks(broker, ACME, "student-1"), broker.allocate("student-2").token(ACME).name_prefix("big-")];
        for (track, call) in ["student-1", "student-2"].into_iter().zip(waits) {
            let queued = call.wait(1).json(&json!({ "max_wait_s": 600 })).send().await.expect_status(202);
            let location = queued.must_have("location").to_owned();
            wait_for_condition("it to stand in a line", async || {
                let told = broker.request(&location, track).token(ACME).send().await.expect_status(200);
                if told.json["waiting"].is_object() { Ok(()) } else { Err(told.text) }
            })
            .await;
        }
        let proxy = broker.proxy();
        // Of each look: what is arriving, and what is available with the prefix of a line.
        let looks = async |count: u64| {
            let before = proxy.tallies().calls("ExecuteStatement");
            wait_until("looks", || proxy.tallies().calls("ExecuteStatement") >= before + 4 * count).await;
        };
        looks(2).await;
        let refused = Fault::Refuse("ValidationException");
        let rule = Rule::new(refused).containing("TICK#serve");
        proxy.add(rule.on("UpdateItem").on("PutItem"));
        looks(3).await;
        for operation in ["UpdateItem", "PutItem"] {
            assert_eq!(proxy.done(operation, refused), 0, "{operation}");
        }
        proxy.calm();
    })
    .await;
}

#[tokio::test]
async fn what_the_provider_made_anew_while_it_was_put_aside_is_handed_out_as_it_is_now() {
    let provider = Provider::start(2).await;
    story(of_tenants(provider.setup().apis(1).workers(1).pool(2)), async |broker| {
        policy::apply(broker, "[flavour.small]\nprefix = \"sandbox-\"\n").await;
        reserve(broker, &["--flavour", "small", "--count", "2"]).await;
        until_reserved(broker, 2).await;
        let before = broker.shown("seed-000001").await["external_id"].clone();
        // Of another name, too: it leaves the reservation, and is put aside for it again.
        provider.remake("seed-000001").await;
        assert_eq!(broker.job("sync").await.details["refreshed_or_returned"], 1);
        until_reserved(broker, 2).await;
        for track in ["one", "two"] {
            let held = asks(broker, ACME, track).send().await.expect_status(201);
            assert_ne!(held.json["external_id"], before, "there is no such account any more");
        }
    })
    .await;
}

#[tokio::test]
async fn the_story_of_a_track_counts_what_is_put_aside_for_its_tenant() {
    story(setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, SMALL).await;
        for (token, track) in [(ACME, "student-1"), (UMBRELLA, "student-2")] {
            seed(broker, usize::from(token == UMBRELLA), 1).await;
            let held = asks(broker, token, track).send().await.expect_status(201).sandbox_id().to_owned();
            broker.return_sandbox(&held, track).token(token).send().await.expect_status(200);
        }
        seed(broker, 10, 3).await;
        reserve(broker, &["--flavour", "small", "--count", "3"]).await;
        until_reserved(broker, 3).await;
        broker.job("census").await;
        let told = async |track: &str| {
            let path = format!("/v1/admin/tracks/{track}");
            let told = broker.balanced().call(Method::GET, &path).token(ADMIN_TOKEN).send().await;
            told.expect_status(200).text_of("text").to_owned()
        };
        let own = told("student-1").await;
        assert!(own.contains("3 sandboxes are free, 3 of them put aside for its tenant"), "{own}");
        let of_another = told("student-2").await;
        assert!(of_another.contains("No sandbox is free"), "{of_another}");
        asks(broker, ACME, "student-1").send().await.expect_status(201);
    })
    .await;
}
