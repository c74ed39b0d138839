//! Life of a reservation: a conflict of two classes, a no-show, a change and an end while the class runs, floors; and the early
//! requests for new sandboxes.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::{now_s, text};
use broker_tests::{Broker, Fault, Provider, Rule, story, together, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use super::{
    ACME, HOUR, READER, SMALL, UMBRELLA, api, asks, at, reserve, reserved, seed, setup, shown, until_reserved,
};
use crate::{count, policy};

#[tokio::test]
async fn two_classes_that_cannot_both_be_are_told_so_when_the_second_is_made() {
    story(setup().apis(2).workers(1), async |broker| {
        let text = "[flavour.small]\nprefix = \"lab-\"\nrefill = { min = 0, max = 10, rate_per_minute = 60 }\n\
                    [tenant.umbrella]\nlimits = { small = 3 }\n";
        policy::apply(broker, text).await;
        let day = now_s() + 24 * HOUR;
        let class = |count: u64, from: u64, hours: u64| {
            json!({ "tenant": "acme", "flavour": "small", "count": count, "from": at(day + from * HOUR),
                    "until": day + (from + hours) * HOUR })
        };
        let make = async |body: Value| api(broker, Method::POST, "", ADMIN_TOKEN, Some(&body)).await;
        wait_for_condition("the policy", async || {
            let told = make(json!({ "tenant": "acme", "flavour": "small", "count": 99 })).await;
            if told.status == 409 { Ok(()) } else { Err(told.text) }
        })
        .await;
        let first = make(class(6, 0, 2)).await.expect_status(201);
        let id = first.text_of("id").to_owned();
        assert_eq!(first.must_have("location"), format!("/v1/admin/reservations/{id}"));
        let second = make(class(6, 1, 2)).await.expect_problem(409, "RESERVATION_CONFLICT");
        assert!(second.text.contains(&id), "{}", second.text);
        // What is put aside half an hour before takes the place of the others then.
        make(class(6, 2, 1)).await.expect_problem(409, "RESERVATION_CONFLICT");
        make(class(4, 1, 2)).await.expect_status(201);
        // Within the flavour, or beyond it: it may come to be all of one flavour.
        for prefix in ["lab-eu-", "l"] {
            make(json!({ "tenant": "acme", "prefix": prefix, "count": 1 }))
                .await
                .expect_problem(409, "RESERVATION_CONFLICT");
        }
        // Many at once: each alone would fit.
        let seven = class(7, 10, 2);
        let call = |_| {
            let call = broker.balanced().call(Method::POST, "/v1/admin/reservations").token(ADMIN_TOKEN);
            call.json(&seven).send()
        };
        let many = together((0..8).map(call)).await;
        assert_eq!((count(&many, 201), count(&many, 409)), (1, 7));
        let over = json!({ "count": 7, "from": day, "until": day + 2 * HOUR });
        let over = api(broker, Method::PUT, &format!("/{id}"), ADMIN_TOKEN, Some(&over)).await;
        over.expect_problem(409, "RESERVATION_CONFLICT");
        let fewer = json!({ "count": 5, "from": day, "until": day + 2 * HOUR, "no_show_s": 2_700 });
        let fewer = api(broker, Method::PUT, &format!("/{id}"), ADMIN_TOKEN, Some(&fewer)).await;
        assert_eq!((fewer.number_of("count"), fewer.number_of("no_show_s")), (5, 2_700));
        // More than its tenant may hold is of no use to it.
        let much = json!({ "tenant": "umbrella", "flavour": "small", "count": 4, "from": day + 100 * HOUR });
        let much = make(much).await.expect_problem(409, "RESERVATION_CONFLICT");
        assert!(much.text.contains("limit of tenant umbrella is 3"), "{}", much.text);
        let some = json!({ "tenant": "umbrella", "flavour": "small", "count": 2, "from": day + 100 * HOUR,
                           "until": day + 101 * HOUR });
        make(some.clone()).await.expect_status(201);
        let together = make(some).await.expect_problem(409, "RESERVATION_CONFLICT");
        assert!(together.text.contains("limit of tenant umbrella is 3"), "{}", together.text);
        let listed = api(broker, Method::GET, "", READER, None).await.expect_status(200);
        assert_eq!(listed.json["reservations"].as_array().map(Vec::len), Some(4));
        assert_eq!(listed.json["reservations"][0]["id"], json!(id));
        api(broker, Method::POST, "", READER, Some(&class(1, 20, 1))).await.expect_problem(403, "FORBIDDEN");
        api(broker, Method::DELETE, &format!("/{id}"), READER, None).await.expect_problem(403, "FORBIDDEN");
        for wrong in [
            json!({ "tenant": "acme", "flavour": "small", "count": 0 }),
            json!({ "tenant": "acme", "count": 1 }),
            json!({ "tenant": "acme", "flavour": "small", "count": 1, "from": "2026-12-07T09:00" }),
            json!({ "tenant": "acme", "flavour": "small", "count": 1, "until": 1_000 }),
            json!({ "tenant": "acme", "flavour": "small", "count": 1, "no_show_s": 60 }),
            json!({ "tenant": "acme", "flavour": "small", "count": 1, "from": day, "until": day }),
        ] {
            make(wrong).await.expect_problem(400, "VALIDATION_ERROR");
        }
        make(json!({ "tenant": "acme", "flavour": "huge", "count": 1 })).await.expect_problem(400, "UNKNOWN_FLAVOUR");
        let nobody = api(broker, Method::GET, "/0192f0c1-2345-7abc-8def-0123456789ab", READER, None).await;
        nobody.expect_problem(404, "RESERVATION_NOT_FOUND");
        api(broker, Method::GET, "/x", READER, None).await.expect_problem(404, "RESERVATION_NOT_FOUND");
    })
    .await;
}

#[tokio::test]
async fn a_teacher_who_never_came_leaves_the_sandboxes_to_those_who_wait_first() {
    story(setup().apis(1).workers(2), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 4).await;
        let no_show = now_s() + 15;
        let from = at(no_show - 10);
        let id = reserve(
            broker,
            &["--flavour", "small", "--count", "3", "--from", &from, "--lead", "1h", "--no-show", "10s"],
        )
        .await;
        until_reserved(broker, 3).await;
        asks(broker, UMBRELLA, "other-0").send().await.expect_status(201);
        let waits = asks(broker, UMBRELLA, "other-1").wait(1).json(&json!({ "max_wait_s": 600 }));
        let waits = waits.send().await.expect_status(202);
        let location = waits.must_have("location").to_owned();
        wait_for_condition("it to be given up", async || {
            let told = shown(broker, &id).await;
            if told["ended_because"] == "no_show" { Ok(()) } else { Err(told) }
        })
        .await;
        wait_for_condition("who waits to be served", async || {
            let told = broker.request(&location, "other-1").token(UMBRELLA).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
        until_reserved(broker, 0).await;
        wait_for_condition("the others to be offered", async || {
            broker.job("census").await;
            match broker.stats().await.available {
                2 => Ok(()),
                available => Err(available),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_class_is_changed_and_given_up_while_it_runs() {
    story(setup().apis(1).workers(2), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 8).await;
        let from = at(now_s() + HOUR);
        let id = reserve(broker, &["--name-prefix", "lab-", "--count", "4", "--from", &from, "--lead", "2h"])
            .await;
        until_reserved(broker, 4).await;
        let change = async |args: &[&str]| {
            broker.cli_ok(&[&["reservation", "change", &id], args].concat()).await;
        };
        change(&["--count", "2"]).await;
        until_reserved(broker, 2).await;
        change(&["--count", "6"]).await;
        until_reserved(broker, 6).await;
        change(&["--from", &at(now_s() + 100 * HOUR)]).await;
        until_reserved(broker, 0).await;
        change(&["--from", &from, "--count", "3"]).await;
        until_reserved(broker, 3).await;
        broker.lists_are_current().await;
        for n in 0..5 {
            asks(broker, UMBRELLA, &format!("other-{n}")).send().await.expect_status(201);
        }
        let held = asks(broker, ACME, "student-0").send().await.expect_status(201);
        until_reserved(broker, 2).await;
        seed(broker, 8, 2).await;
        // What an operator takes out of it is made up for.
        let sandboxes = broker.balanced().call(Method::GET, "/v1/admin/sandboxes?status=reserved");
        let sandboxes = sandboxes.token(ADMIN_TOKEN).send().await.expect_status(200);
        let one = sandboxes.json["sandboxes"][0].clone();
        assert_eq!(one["reserved_for"], json!(id));
        let sandbox = one["sandbox_id"].as_str().expect("an id");
        broker.cli_ok(&["quarantine", "add", sandbox, "--why", "it smells"]).await;
        wait_for_condition("another one", async || {
            match (reserved(broker).await, shown(broker, &id).await) {
                (2, told) if told["held"] == 3 => Ok(()),
                other => Err(other),
            }
        })
        .await;
        let again = broker.cli_ok(&["reservation", "delete", &id, "--json"]).await.json::<Value>();
        assert_eq!(again["ended_because"], "deleted");
        until_reserved(broker, 0).await;
        let deleted =
            api(broker, Method::DELETE, &format!("/{id}"), ADMIN_TOKEN, None).await.expect_status(200);
        assert_eq!(deleted.text_of("ended_because"), "deleted");
        let body = json!({ "count": 5 });
        let changed = api(broker, Method::PUT, &format!("/{id}"), ADMIN_TOKEN, Some(&body)).await;
        changed.expect_problem(409, "RESERVATION_ENDED");
        let repeat = asks(broker, ACME, "student-0").send().await.expect_status(200);
        assert_eq!(repeat.sandbox_id(), held.sandbox_id());
        broker.cli_ok(&["quarantine", "release", sandbox]).await;
    })
    .await;
}

#[tokio::test]
async fn a_reservation_that_cannot_be_read_keeps_what_is_put_aside_for_it() {
    story(setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 2).await;
        let id = reserve(broker, &["--flavour", "small", "--count", "2"]).await;
        until_reserved(broker, 2).await;
        broker.lists_are_current().await;
        let table = broker.table();
        let whole = table.list("RESERVATION").await.into_iter().find(|item| item["SK"] == text(&id));
        let whole = whole.expect("the reservation");
        let mut broken = whole.clone();
        broken.remove("tenant");
        table.put(broken).await;
        let swept = broker.job("sweep").await;
        assert_eq!((swept.changed, swept.failed), (0, 1), "{swept:?}");
        assert_eq!(reserved(broker).await, 2);
        let kinds: Vec<_> = broker.violations().await.into_iter().map(|found| found.kind).collect();
        assert_eq!(kinds, ["unreadable_item"], "told once, and of nobody's sandboxes");
        table.put(whole).await;
        assert_eq!(broker.job("sweep").await.failed, 0);
    })
    .await;
}

#[tokio::test]
async fn a_floor_puts_aside_again_what_its_tenant_gave_back() {
    story(setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 2).await;
        let id = reserve(broker, &["--flavour", "small", "--count", "2"]).await;
        until_reserved(broker, 2).await;
        let held = asks(broker, ACME, "student").send().await.expect_status(201);
        until_reserved(broker, 1).await;
        let sandbox = held.sandbox_id().to_owned();
        seed(broker, 2, 2).await;
        broker.return_sandbox(&sandbox, "student").token(ACME).send().await.expect_status(200);
        wait_for_condition("it to be made up for", async || {
            broker.job("census").await;
            broker.job("serve").await;
            match reserved(broker).await {
                2 => Ok(()),
                now => Err((now, shown(broker, &id).await)),
            }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn sandboxes_are_asked_for_so_early_that_they_are_ready_and_what_will_be_missing_is_told() {
    let provider = Provider::start(1).await;
    story(provider.setup().apis(1).workers(1).pool(1), async |broker| {
        let url = provider.url();
        let text = format!(
            "[flavour.small]\nprefix = \"sandbox-\"\nrefill = {{ min = 0, max = 9, rate_per_minute = 6000, \
             url = \"{url}/hooks/refill\", timeout_s = 2 }}\n"
        );
        policy::apply(broker, &text).await;
        // Not measured yet, a sandbox may take half an hour, and a minute more until it is offered.
        let class = |minutes: u64| at(now_s() + minutes * 60);
        let id =
            reserve(broker, &["--flavour", "small", "--count", "3", "--from", &class(60), "--lead", "10m"])
                .await;
        let asked = async || {
            broker.job("census").await;
            broker.job("refill").await;
            provider.world().await.hooked("refill.requested").count()
        };
        assert_eq!(asked().await, 0, "there is time");
        broker.cli_ok(&["reservation", "change", &id, "--from", &class(40)]).await;
        wait_for_condition("one that is there, and two that are asked for", async || match asked().await {
            2 => Ok(()),
            asked => Err(asked),
        })
        .await;
        assert_eq!(shown(broker, &id).await["at_risk"], 0);
        // Twenty minutes before, what was just asked for comes too late.
        broker.cli_ok(&["reservation", "change", &id, "--from", &class(20)]).await;
        assert_eq!(shown(broker, &id).await["at_risk"], 2);
        let told = broker.cli_ok(&["overview"]).await.stdout;
        assert!(told.contains("2 sandboxes of the reservation") && told.contains("#reservations"), "{told}");
        broker.job("sync").await;
        broker.job("census").await;
        wait_for_condition("all of them", async || {
            let told = shown(broker, &id).await;
            if told["at_risk"] == 0 { Ok(()) } else { Err(told) }
        })
        .await;
        broker.cli_ok(&["reservation", "change", &id, "--lead", "1h"]).await;
        wait_for_condition("them to be put aside", async || {
            let told = shown(broker, &id).await;
            if told["held"] == 3 { Ok(()) } else { Err(told) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_reservation_that_was_made_is_told_though_nobody_can_count() {
    story(setup().apis(1).workers(0).faults(1), async |broker| {
        policy::apply(broker, SMALL).await;
        let uncounted = Rule::new(Fault::Refuse("ValidationException")).on("GetItem").on("BatchGetItem");
        broker.proxy().add(uncounted.containing("CENSUS"));
        let body = json!({ "tenant": "acme", "flavour": "small", "count": 2 });
        let made = api(broker, Method::POST, "", ADMIN_TOKEN, Some(&body)).await.expect_status(201);
        let id = made.text_of("id").to_owned();
        assert_eq!((made.number_of("count"), &made.json["reserved"]), (2, &Value::Null));
        let more = json!({ "count": 3 });
        let changed = api(broker, Method::PUT, &format!("/{id}"), ADMIN_TOKEN, Some(&more)).await;
        assert_eq!(changed.expect_status(200).number_of("count"), 3);
        // What only shows does not hide it.
        api(broker, Method::GET, &format!("/{id}"), READER, None).await.expect_problem(503, "UNAVAILABLE");
        let ended =
            api(broker, Method::DELETE, &format!("/{id}"), ADMIN_TOKEN, None).await.expect_status(200);
        assert_eq!(ended.text_of("ended_because"), "deleted");
        broker.proxy().calm();
        let all = api(broker, Method::GET, "", READER, None).await.expect_status(200);
        assert_eq!(all.json["reservations"].as_array().map(Vec::len), Some(1), "{}", all.text);
        let lines: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        let acts: Vec<_> = lines.iter().filter(|line| line["target"] == json!(id)).collect();
        assert_eq!(acts.len(), 3, "{lines:#?}");
        assert!(acts.iter().all(|line| line["ended"].is_null()), "{acts:#?}");
    })
    .await;
}

/// So many sandboxes whose names begin so, which arrive.
async fn arrive(broker: &Broker, prefix: &str, start: u64, count: u64) {
    let (start, count) = (start.to_string(), count.to_string());
    broker.cli_ok(&["pool", "seed", "--name-prefix", prefix, "--start", &start, "--count", &count]).await;
}

async fn until_status(broker: &Broker, sandbox: &str, status: &str) {
    wait_for_condition(&format!("{sandbox} to be {status}"), async || {
        let told = broker.shown(sandbox).await["status"].clone();
        if told == status { Ok(()) } else { Err(told) }
    })
    .await;
}

#[tokio::test]
async fn one_that_cannot_be_given_back_is_in_no_other_reservations_way_nor_in_that_of_those_who_wait() {
    story(setup().apis(1).workers(1).faults(1), async |broker| {
        policy::apply(broker, SMALL).await;
        let first = reserve(broker, &["--name-prefix", "lab-", "--count", "2"]).await;
        arrive(broker, "lab", 0, 2).await;
        until_reserved(broker, 2).await;
        arrive(broker, "other", 10, 2).await;
        for sandbox in ["seed-000010", "seed-000011"] {
            until_status(broker, sandbox, "available").await;
        }
        let waits = broker.allocate("student").token(UMBRELLA).name_prefix("gpu-").wait(1);
        let waits = waits.json(&json!({ "max_wait_s": 600 })).send().await.expect_status(202);
        wait_for_condition("a place", async || match broker.table().keys("LINE#").await {
            places if places.len() == 1 => Ok(()),
            places => Err(places),
        })
        .await;
        broker.lists_are_current().await;
        broker.proxy().add(Rule::new(Fault::Conflict).containing("SBX#seed-000000"));
        broker.cli_ok(&["reservation", "delete", &first]).await;
        // It begins behind the first one, and what is offered comes without an arrival.
        let begins = at(now_s());
        reserve(broker, &["--name-prefix", "other-", "--count", "1", "--from", &begins]).await;
        let mut offered = broker.table().must_get("SBX#seed-000011").await;
        for name in ["name", "state_key"] {
            offered.insert(name.to_owned(), text("gpu-1"));
        }
        broker.table().put(offered).await;
        until_status(broker, "seed-000010", "reserved").await;
        until_status(broker, "seed-000001", "available").await;
        let location = waits.must_have("location");
        wait_for_condition("who waits to be served", async || {
            let told = broker.request(location, "student").token(UMBRELLA).send().await.expect_status(200);
            if told.text_of("status") == "succeeded" { Ok(()) } else { Err(told.text) }
        })
        .await;
        assert!(broker.proxy().done("UpdateItem", Fault::Conflict) > 0);
        assert_eq!(broker.shown("seed-000000").await["status"], "reserved");
        broker.proxy().calm();
        until_status(broker, "seed-000000", "available").await;
    })
    .await;
}

#[tokio::test]
async fn what_an_ended_reservation_gives_back_is_offered_before_the_last_is_given_back() {
    story(setup().apis(1).workers(1).faults(1), async |broker| {
        policy::apply(broker, SMALL).await;
        seed(broker, 0, 160).await;
        let id = reserve(broker, &["--flavour", "small", "--count", "160"]).await;
        until_reserved(broker, 160).await;
        broker.lists_are_current().await;
        // Sixty that cannot be given back: one after the other they would take more than a minute.
        broker.proxy().add(Rule::new(Fault::Conflict).on("UpdateItem").containing("SBX#seed-0001"));
        broker.cli_ok(&["reservation", "delete", &id]).await;
        wait_for_condition("the others to be offered", async || match broker.stats().await {
            stats if (stats.available, stats.reserved) == (100, 60) => Ok(()),
            stats => Err(stats),
        })
        .await;
        broker.proxy().calm();
        until_reserved(broker, 0).await;
    })
    .await;
}

#[tokio::test]
async fn arrivals_of_a_reservation_that_cannot_be_written_are_in_no_others_way() {
    story(setup().apis(1).workers(1).faults(1), async |broker| {
        policy::apply(broker, SMALL).await;
        let id = reserve(broker, &["--name-prefix", "lab-", "--count", "1"]).await;
        reserve(broker, &["--name-prefix", "gpu-", "--count", "1"]).await;
        broker.stop_workers().await;
        for (n, prefix) in ["lab", "gpu", "other"].into_iter().enumerate() {
            arrive(broker, prefix, n as u64, 1).await;
        }
        broker.lists_are_current().await;
        broker.proxy().add(Rule::new(Fault::Conflict).on("TransactWriteItems").containing(&id));
        broker.start_worker().await;
        until_status(broker, "seed-000001", "reserved").await;
        until_status(broker, "seed-000002", "available").await;
        assert_eq!(broker.shown("seed-000000").await["status"], "arriving", "it is left to the next look");
        broker.proxy().calm();
        until_status(broker, "seed-000000", "reserved").await;
    })
    .await;
}
