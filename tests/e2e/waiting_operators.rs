//! Waiting for operators: lists of waiting requests, their reasons, and cancelling.

use std::time::Duration;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Answer, Fault, Latency, Rule, story, together, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use crate::waiting::{arrive, every_place_is_left, parked, setup, status, waits};
use crate::{count, policy};

#[tokio::test]
async fn an_operator_sees_who_waits_and_cancels_by_id_by_filter_or_all() {
    story(setup(), async |broker| {
        let mut asked = Vec::new();
        for n in 0..4 {
            let track = format!("student-{n}");
            let location = parked(broker, waits(broker, &track), &track).await;
            asked.push((location, track));
        }
        let listed: Vec<Value> = broker.cli_ok(&["waiting", "list", "--json"]).await.json();
        let tracks: Vec<_> = listed.iter().filter_map(|waiting| waiting["track"].as_str()).collect();
        assert_eq!(tracks, ["student-0", "student-1", "student-2", "student-3"]);
        assert_eq!(listed[3]["ahead"], 3);
        for (limit, is_cut_off) in [("3", true), ("4", false)] {
            let few = broker.cli_ok(&["waiting", "list", "--limit", limit]).await;
            assert_eq!(few.stderr.contains("these are 3 of more"), is_cut_off, "{few:#?}");
        }
        let cancel = async |args: &[&str]| {
            let args = [&["waiting", "cancel", "--json"], args].concat();
            let told: Value = broker.cli_ok(&args).await.json();
            (told["found"].as_u64(), told["cancelled"].as_u64())
        };
        assert_eq!(cancel(&["--all", "--dry-run"]).await, (Some(4), Some(0)));
        assert_eq!(cancel(&["--track", "student-1"]).await, (Some(1), Some(1)));
        let id = listed[0]["request_id"].as_str().expect("an id");
        assert_eq!(cancel(&[id]).await, (Some(1), Some(1)));
        assert_eq!(cancel(&["--tenant", "no-such-tenant"]).await, (Some(0), Some(0)));
        assert_eq!(cancel(&["--all"]).await, (Some(2), Some(2)));
        for (location, track) in &asked {
            let ended = broker.outcome(location, track).await;
            assert_eq!(ended.text_of("status"), "cancelled", "{ended:#?}");
        }
        assert_eq!(broker.cli(&["waiting", "cancel"]).await.code, 2);
        arrive(broker, 0, 1).await;
        wait_for_condition("it to be offered", async || {
            let stats = broker.stats().await;
            if stats.available == 1 { Ok(()) } else { Err(stats) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_is_done_also_where_a_place_cannot_be_deleted_yet() {
    story(setup().apis(1).workers(1).faults(1), async |broker| {
        let mut asked = Vec::new();
        for track in ["student-1", "student-2"] {
            asked.push((parked(broker, waits(broker, track), track).await, track));
        }
        broker.proxy().add(Rule::new(Fault::Conflict).on("DeleteItem").containing("LINE#"));
        let cancel = broker.balanced().call(Method::POST, "/v1/admin/waiting/cancel?all=true");
        let told = cancel.token(ADMIN_TOKEN).send().await.expect_status(200);
        assert_eq!((&told.json["found"], &told.json["cancelled"]), (&json!(2), &json!(2)), "{told:#?}");
        assert!(broker.proxy().done("DeleteItem", Fault::Conflict) >= 2);
        broker.proxy().calm();
        for (location, track) in &asked {
            let ended = broker.outcome(location, track).await;
            assert_eq!(ended.text_of("status"), "cancelled", "{ended:#?}");
        }
        // The worker that reads such a place deletes it.
        arrive(broker, 1, 1).await;
        every_place_is_left(broker).await;
    })
    .await;
}

#[tokio::test]
async fn what_serves_those_who_wait_is_not_paused() {
    story(setup().apis(1).workers(1).pool(0), async |broker| {
        let pause = async |job: &str| {
            let path = format!("/v1/admin/jobs/{job}/pause");
            broker.balanced().call(Method::POST, &path).token(ADMIN_TOKEN).send().await
        };
        pause("serve").await.expect_problem(409, "NOT_PAUSABLE");
        pause("census").await.expect_status(200);
        let told = broker.cli(&["job", "pause", "serve"]).await;
        assert!(told.code == 1 && told.stderr.contains("BROKER_WAITING"), "{told:#?}");
        // A shell that does not know whether waiting is on goes by the lines.
        let unaware = ["job", "pause", "serve", "--waiting", "off"];
        parked(broker, waits(broker, "student"), "student").await;
        let told = broker.cli(&unaware).await;
        assert!(told.code == 1 && told.stderr.contains("a line is listed"), "{told:#?}");
        broker.cli_ok(&["waiting", "cancel", "--all"]).await;
    })
    .await;
}

#[tokio::test]
async fn operators_see_pages_of_who_waits_and_why_and_cancel_some() {
    const POLICY: &str = "[flavour.small]\nprefix = \"sandbox-\"\nrefill = { min = 1, max = 9, rate_per_minute = 6 }\n\
                          [flavour.large]\nprefix = \"big-\"\n";
    story(setup().apis(1).workers(1), async |broker| {
        policy::apply(broker, POLICY).await;
        let admin = |method, path: String| broker.balanced().call(method, &path).token(ADMIN_TOKEN);
        let mut ids = Vec::new();
        for (n, prefix) in ["sandbox-", "big-", "sandbox-", "sandbox-"].into_iter().enumerate() {
            let track = format!("student-{n}");
            let location = parked(broker, waits(broker, &track).name_prefix(prefix), &track).await;
            ids.push(location.rsplit('/').next().expect("an id").to_owned());
        }
        let get = async |query: &str| admin(Method::GET, format!("/v1/admin/waiting{query}")).send().await;
        let listed = |page: &Answer| -> Vec<String> {
            let waiting = page.json["waiting"].as_array().expect("a list").iter();
            waiting.filter_map(|one| one["request_id"].as_str().map(str::to_owned)).collect()
        };
        // Page by page, each once.
        let (mut seen, mut query) = (Vec::new(), "?limit=1".to_owned());
        for _ in 0..10 {
            let page = get(&query).await.expect_status(200);
            assert!(listed(&page).len() <= 1, "{page:#?}");
            seen.extend(listed(&page));
            let Some(cursor) = page.json["next_cursor"].as_str() else { break };
            query = format!("?limit=1&cursor={cursor}");
        }
        let of = |numbers: &[usize]| numbers.iter().map(|n| ids[*n].clone()).collect::<Vec<_>>();
        assert_eq!(seen, of(&[1, 0, 2, 3]), "the lines by their prefixes");
        let small = get("?flavour=small").await.expect_status(200);
        assert_eq!(listed(&small), of(&[0, 2, 3]));
        let first = &small.json["waiting"][0];
        assert_eq!((&first["flavour"], &first["tenant"]), (&json!("small"), &json!("platform")), "{first}");
        assert_eq!((&first["reason"], &first["track_id"]), (&json!("refill_running"), &json!("student-0")));
        assert_eq!(small.json["lines"][0]["flavour"], "small");
        assert_eq!(listed(&get("?track=student-2").await.expect_status(200)), of(&[2]));
        assert_eq!(listed(&get("?name_prefix=big-").await.expect_status(200)), of(&[1]));
        for wrong in ["?limit=0", "?cursor=00", "?status=queued", "?flavour=small&name_prefix=big-"] {
            get(wrong).await.expect_problem(400, "VALIDATION_ERROR");
        }
        get("?flavour=none").await.expect_problem(400, "UNKNOWN_FLAVOUR");
        let list = async |args: &[&str]| broker.cli(&[&["waiting", "list", "--json"], args].concat()).await;
        let shown: Vec<Value> = list(&["--flavour", "small"]).await.json();
        assert_eq!(shown.len(), 3, "{shown:#?}");
        for wrong in [&["--flavour", "none"][..], &["--flavour", "small", "--name-prefix", "big-"]] {
            assert_eq!(list(wrong).await.code, 2, "{wrong:?}");
        }
        let dry = broker.cli_ok(&["waiting", "cancel", "--flavour", "large", "--dry-run", "--json"]).await;
        assert_eq!(dry.json::<Value>()["found"], 1, "{dry:#?}");
        // Refill that is paused is told to those who wait for it.
        broker.cli_ok(&["refill", "pause", "small"]).await;
        wait_for_condition("it to be told", async || {
            let page = get("?flavour=small").await.expect_status(200);
            if page.json["waiting"][0]["reason"] == "refill_stopped" { Ok(()) } else { Err(page.text) }
        })
        .await;

        let cancel =
            async |query: &str| admin(Method::POST, format!("/v1/admin/waiting/cancel{query}")).send().await;
        let told = |answer: Answer| {
            let answer = answer.expect_status(200);
            (answer.json["found"].as_u64(), answer.json["cancelled"].as_u64())
        };
        for wrong in ["", "?dry_run=true", "?all=true&track=student-0", "?id=none"] {
            cancel(wrong).await.expect_problem(400, "VALIDATION_ERROR");
        }
        assert_eq!(told(cancel("?all=true&dry_run=true").await), (Some(4), Some(0)));
        assert_eq!(told(cancel(&format!("?id={},{}", ids[0], ids[1])).await), (Some(2), Some(2)));
        assert_eq!(told(cancel("?flavour=small").await), (Some(2), Some(2)));
        assert_eq!(told(cancel("?all=true").await), (Some(0), Some(0)));
        let audit: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        let acts = audit.iter().filter(|line| line["act"] == "cancel_waiting").count();
        assert_eq!(acts, 2, "{audit:#?}");
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_goes_on_behind_its_cursor_past_more_lines_than_one_call_reads() {
    const LINES: usize = 40;
    story(setup().apis(1).workers(1), async |broker| {
        let calls = (0..LINES).map(|n| {
            let call = broker.allocate(&format!("student-{n}")).name_prefix(&format!("kind-{n}-")).wait(0);
            call.json(&json!({ "max_wait_s": 600 })).send()
        });
        let asked = together(calls.collect::<Vec<_>>()).await;
        assert_eq!(count(&asked, 202), LINES);
        wait_for_condition("all to stand", async || match broker.table().keys("LINE#").await.len() {
            LINES => Ok(()),
            fewer => Err(fewer),
        })
        .await;
        let cancel = async |query: &str| {
            let path = format!("/v1/admin/waiting/cancel{query}");
            broker.balanced().call(Method::POST, &path).token(ADMIN_TOKEN).send().await
        };
        let cancel_to_the_end = async |selected: &str| {
            let (mut cancelled, mut query) = (0, selected.to_owned());
            for _ in 0..5 {
                let part = cancel(&query).await.expect_status(200);
                cancelled += part.json["cancelled"].as_u64().expect("a number");
                let cursor = part.json["next_cursor"].as_str();
                assert_eq!(part.json["more"], cursor.is_some());
                match cursor {
                    Some(cursor) => query = format!("{selected}&cursor={cursor}"),
                    None => return cancelled,
                }
            }
            panic!("{cancelled} are cancelled, and it does not end");
        };
        // Its line is the last one.
        assert_eq!(cancel_to_the_end("?track=student-9").await, 1);
        assert_eq!(cancel_to_the_end("?all=true").await, LINES as u64 - 1);
        every_place_is_left(broker).await;
        for (n, answer) in asked.iter().enumerate() {
            let ended = broker.outcome(answer.must_have("location"), &format!("student-{n}")).await;
            assert_eq!(ended.text_of("status"), "cancelled", "{ended:#?}");
        }
        // The lines are listed for a while, and a cursor belongs to what was selected.
        let part = cancel("?all=true").await.expect_status(200);
        let cursor = part.json["next_cursor"].as_str().expect("a cursor");
        for wrong in [format!("?track=student-9&cursor={cursor}"), "?all=true&cursor=00".to_owned()] {
            cancel(&wrong).await.expect_problem(400, "VALIDATION_ERROR");
        }
    })
    .await;
}

#[tokio::test]
async fn a_cancellation_of_all_ends_within_its_callers_wait_and_goes_on_behind_the_last_that_it_met() {
    const WAITING: usize = 20;
    story(setup().apis(1).workers(1).faults(1), async |broker| {
        for n in 0..WAITING {
            let track = format!("student-{n}");
            parked(broker, waits(broker, &track), &track).await;
        }
        // Four seconds for all.
        let hop = Duration::from_millis(100);
        broker.proxy().set_latency(Latency { dynamodb: (hop, hop), ..Latency::none() });
        let (mut cancelled, mut calls, mut cursor) = (0, 0, String::new());
        loop {
            let path = format!("/v1/admin/waiting/cancel?all=true{cursor}");
            let call = broker.balanced().call(Method::POST, &path).token(ADMIN_TOKEN).wait(1);
            let part = call.send().await.expect_status(200).json;
            assert_eq!(part["found"], part["cancelled"], "{part:#}");
            cancelled += part["cancelled"].as_u64().expect("a number");
            calls += 1;
            match part["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        broker.proxy().calm();
        assert_eq!(cancelled, WAITING as u64);
        assert!((2..=WAITING).contains(&calls), "{calls}");
        every_place_is_left(broker).await;
    })
    .await;
}

#[tokio::test]
async fn verify_names_what_is_wrong_with_a_line() {
    story(setup(), async |broker| {
        let location = parked(broker, waits(broker, "student-1"), "student-1").await;
        broker.verify().await;
        let table = broker.table();
        let line = table.list("LINES").await.remove(0);
        let mut unlisted = line.clone();
        unlisted.insert("until_ms".to_owned(), broker_tests::table::number(1));
        table.put(unlisted).await;
        assert_eq!(broker.violations().await[0].kind, "line_not_listed");
        table.put(line).await;
        broker.verify().await;
        let place = table.list("LINE#platform#").await.remove(0);
        let id = place["SK"].as_s().expect("text").clone();
        table.delete_at("LINE#platform#", &id).await;
        assert_eq!(broker.violations().await[0].kind, "parked_without_place");
        table.put(place.clone()).await;
        broker.stop_workers().await;
        // As if it had asked ten minutes ago.
        let older = aged(&id, 600);
        let mut request = table.must_get(&format!("REQ#{id}")).await;
        for (item, key) in [(&mut place.clone(), "SK"), (&mut request, "PK")] {
            let name = if key == "SK" { older.clone() } else { format!("REQ#{older}") };
            item.insert(key.to_owned(), broker_tests::table::text(&name));
            item.insert("request_id".to_owned(), broker_tests::table::text(&older));
            table.put(item.clone()).await;
        }
        broker.verify().await;
        let mut overdue = request.clone();
        let long_ago = broker_tests::table::number((now_s() - 3_600) * 1_000);
        overdue.insert("deadline_ms".to_owned(), long_ago);
        table.put(overdue).await;
        assert_eq!(broker.violations().await[0].kind, "wait_overdue");
        table.put(request).await;
        // A sandbox that went past the line.
        arrive(broker, 0, 1).await;
        let mut sandbox = table.must_get(&broker_tests::table::sandbox_key("seed-000000")).await;
        for (name, value) in [("status", "available"), ("state_key", "sandbox-000000")] {
            sandbox.insert(name.to_owned(), broker_tests::table::text(value));
        }
        let shard = sandbox["state_shard"].as_s().expect("text").replace("arriving", "available");
        sandbox.insert("state_shard".to_owned(), broker_tests::table::text(&shard));
        table.put(sandbox).await;
        assert_eq!(broker.violations().await[0].kind, "waits_beside_free");
        table.delete(&format!("REQ#{older}")).await;
        table.delete_at("LINE#platform#", &older).await;
        broker.start_worker().await;
        broker.start_worker().await;
        assert_eq!(status(&broker.outcome(&location, "student-1").await), 201);
        broker.verify().await;
    })
    .await;
}

/// The request id that would have been minted so many seconds before `id`.
fn aged(id: &str, seconds: u64) -> String {
    let digits = id.replace('-', "");
    let (at, rest) = digits.split_at(12);
    let at = u64::from_str_radix(at, 16).expect("hexadecimal") - seconds * 1_000;
    let digits = format!("{at:012x}{rest}");
    let parts = [&digits[..8], &digits[8..12], &digits[12..16], &digits[16..20], &digits[20..]];
    parts.join("-")
}
