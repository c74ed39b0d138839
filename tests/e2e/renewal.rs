//! Renewal: an owner keeps its sandbox for longer, or says by heartbeats that it lives.

use broker_tests::table::{lease_key, now_s, number, sandbox_key};
use broker_tests::{Answer, Broker, Call, Fault, Rule, Setup, story, together};
use http::Method;
use serde_json::{Value, json};

use crate::count;

const MINUTE: u64 = 60;
const HOUR: u64 = 3_600;

fn renew(broker: &Broker, sandbox: &str, track: &str) -> Call {
    let call = broker.balanced().call(Method::POST, &format!("/v1/sandboxes/{sandbox}/renew"));
    call.header("x-instruqt-sandbox-id", track)
}

/// When the lease of `track` on `sandbox` ends: lease, sandbox and index agree.
async fn end_of(broker: &Broker, sandbox: &str, track: &str) -> u64 {
    let item = broker.table().must_get(&sandbox_key(sandbox)).await;
    let lease = broker.table().must_get(&lease_key(track, track)).await;
    assert_eq!(item["expires_at"], lease["expires_at"]);
    let end: u64 = item["expires_at"].as_n().expect("a number").parse().expect("a number");
    assert_eq!(item["state_key"].as_s().expect("text"), &format!("{end:012}"));
    end
}

async fn version(broker: &Broker, sandbox: &str) -> Value {
    broker.shown(sandbox).await["version"].clone()
}

#[tokio::test]
async fn an_owner_keeps_its_sandbox_for_longer_and_is_told_until_when() {
    story(Setup::new().apis(2).pool(2), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let (sandbox, allocated_at) = (held.sandbox_id(), held.number_of("allocated_at"));
        let longest = allocated_at + 168 * HOUR;

        let longer = renew(broker, sandbox, "student").json(&json!({ "hours": 9 })).send().await;
        let longer = longer.expect_status(200);
        let until = longer.number_of("expires_at");
        assert!((now_s() + 9 * HOUR - MINUTE..=now_s() + 9 * HOUR).contains(&until), "{longer:#?}");
        assert_eq!(longer.number_of("max_expires_at"), longest);
        assert_eq!(end_of(broker, sandbox, "student").await, until);
        let again = broker.allocate("student").send().await.expect_status(200);
        assert_eq!(again.number_of("expires_at"), until);

        // Never shorter; and what is a little longer is not written.
        let before = version(broker, sandbox).await;
        let later = until + 59;
        for body in [json!({ "hours": 2 }), json!({ "until": 1 }), json!({}), json!({ "until": later })] {
            let told = renew(broker, sandbox, "student").json(&body).send().await.expect_status(200);
            assert_eq!(told.number_of("expires_at"), until, "{body}");
        }
        assert_eq!(version(broker, sandbox).await, before);

        let most = renew(broker, sandbox, "student").json(&json!({ "until": longest + HOUR })).send().await;
        assert_eq!(most.expect_status(200).number_of("expires_at"), longest);
        assert_eq!(end_of(broker, sandbox, "student").await, longest);
    })
    .await;
}

#[tokio::test]
async fn what_must_be_exact_is_granted_so_or_refused() {
    story(Setup::new().pool(1).var("BROKER_LEASE_MAX_HOURS", "6"), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let (sandbox, end) = (held.sandbox_id(), held.number_of("expires_at"));
        let latest = held.number_of("allocated_at") + 6 * HOUR;
        let exact = async |until: u64| {
            let body = json!({ "until": until, "exact": true });
            renew(broker, sandbox, "student").json(&body).send().await
        };
        for until in [end - 1, latest + 1] {
            let refused = exact(until).await;
            refused.expect_problem(409, "NOT_RENEWABLE");
        }
        assert_eq!(end_of(broker, sandbox, "student").await, end, "a refused renewal changes nothing");
        for until in [end + 1, end + 1, latest] {
            assert_eq!(exact(until).await.expect_status(200).number_of("expires_at"), until);
            assert_eq!(end_of(broker, sandbox, "student").await, until);
        }
        let hours =
            renew(broker, sandbox, "student").json(&json!({ "hours": 7, "exact": true })).send().await;
        hours.expect_problem(409, "NOT_RENEWABLE");
    })
    .await;
}

#[tokio::test]
async fn no_allocate_gets_more_than_the_longest_lease_and_a_repeat_from_before_it_was_lowered_gets_its_own() {
    story(Setup::new().pool(3), async |broker| {
        let week = json!({ "lab_duration_hours": 168 });
        let held = broker.allocate("student").json(&week).send().await.expect_status(201);
        let lowered = [("BROKER_LEASE_MAX_HOURS", "2"), ("BROKER_LAB_DURATION_HOURS", "2")];
        broker.start_api_with(&lowered).await;
        let api = broker.api(1).clone();
        let refused = api.allocate("other").json(&week).send().await.expect_problem(400, "VALIDATION_ERROR");
        let message = refused.json["error"]["message"].as_str().expect("a message");
        assert!(message.contains("from 1 to 2"), "{message}");
        for (track, body) in
            [("other", json!({ "lab_duration_hours": 2 })), ("beating", json!({ "heartbeat_s": 3_600 }))]
        {
            let lent = api.allocate(track).json(&body).send().await.expect_status(201);
            assert_eq!(lent.number_of("expires_at") - lent.number_of("allocated_at"), 2 * HOUR, "{track}");
        }
        let again = api.allocate("student").json(&week).send().await.expect_status(200);
        assert_eq!(again.sandbox_id(), held.sandbox_id());
        assert_eq!(again.number_of("expires_at"), held.number_of("expires_at"));
    })
    .await;
}

#[tokio::test]
async fn nobody_renews_what_is_not_or_no_more_theirs() {
    story(Setup::new().pool(3), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let sandbox = held.sandbox_id();
        renew(broker, sandbox, "other").send().await.expect_problem(403, "NOT_SANDBOX_OWNER");
        renew(broker, "no-such-sandbox", "student").send().await.expect_problem(404, "SANDBOX_NOT_FOUND");
        for body in [json!({ "hours": 0 }), json!({ "hours": 1, "until": 9 }), json!({ "minutes": 5 })] {
            renew(broker, sandbox, "student")
                .json(&body)
                .send()
                .await
                .expect_problem(400, "VALIDATION_ERROR");
        }
        let nameless = renew(broker, sandbox, "student").without("x-instruqt-sandbox-id").send().await;
        nameless.expect_problem(400, "MISSING_SANDBOX_ID");
        let unknown = renew(broker, sandbox, "student").token("tok-of-nobody-0123").send().await;
        unknown.expect_problem(401, "UNAUTHORIZED");

        // In its grace it is still the owner's; once it is taken back it is not.
        broker.table().age(sandbox, 29 * MINUTE).await;
        renew(broker, sandbox, "student").send().await.expect_status(200);
        assert_eq!(broker.job("expire").await.found, 0);
        broker.table().age(sandbox, 31 * MINUTE).await;
        assert_eq!(broker.job("expire").await.changed, 1);
        renew(broker, sandbox, "student").send().await.expect_problem(403, "ALLOCATION_EXPIRED");
        let next = broker.allocate("student").send().await.expect_status(201);
        broker.return_sandbox(next.sandbox_id(), "student").send().await.expect_status(200);
        renew(broker, next.sandbox_id(), "student").send().await.expect_problem(403, "ALLOCATION_EXPIRED");
    })
    .await;
}

/// Of a renewal and an end at the same moment exactly one wins, and what was answered holds.
async fn agree(broker: &Broker, sandbox: &str, track: &str, renewed: &Answer) -> bool {
    let shown = broker.shown(sandbox).await;
    match renewed.status {
        200 => {
            assert_eq!(shown["status"], "allocated", "a renewal that was granted does not hold: {shown}");
            assert_eq!(end_of(broker, sandbox, track).await, renewed.number_of("expires_at"));
            true
        }
        403 => {
            assert_eq!(shown["status"], "pending_deletion", "{shown}");
            false
        }
        other => panic!("{other}: {renewed:#?}"),
    }
}

#[tokio::test]
async fn renewals_and_expiry_at_once_have_one_winner_each() {
    const TRACKS: usize = 40;
    story(Setup::new().apis(2).workers(2).pool(TRACKS), async |broker| {
        let (mut renewals, mut held) = (Vec::new(), Vec::new());
        for n in 0..TRACKS {
            let track = format!("student-{n}");
            let sandbox = broker.allocate(&track).send().await.expect_status(201).sandbox_id().to_owned();
            broker.table().age(&sandbox, 40 * MINUTE).await;
            renewals.push(renew(broker, &sandbox, &track).send());
            held.push((sandbox, track));
        }
        let (renewed, expired) = tokio::join!(together(renewals), broker.job("expire"));
        let mut granted = 0;
        for ((sandbox, track), renewed) in held.iter().zip(&renewed) {
            granted += u64::from(agree(broker, sandbox, track, renewed).await);
        }
        assert_eq!(granted + expired.changed, TRACKS as u64, "{expired:?}");
        // A copy of the job that comes hours late finds nothing to end.
        assert_eq!(broker.job("expire").await.changed, 0);
    })
    .await;
}

#[tokio::test]
async fn an_old_copy_of_the_expire_job_ends_nothing_that_was_renewed_since() {
    story(Setup::new().apis(1).workers(0).pool(2), async |broker| {
        broker.start_worker().await;
        let held = broker.allocate("student").send().await.expect_status(201);
        broker.table().age(held.sandbox_id(), 40 * MINUTE).await;
        broker.stop_workers().await;
        // The job is asked for while no worker runs, and again; meanwhile the owner renews.
        let queues = broker.queues();
        let start = r#"{"v":1,"body":{"kind":"start_job","job":"expire"}}"#;
        for _ in 0..2 {
            queues.send(&queues.name("maintenance"), start).await;
        }
        let renewed = renew(broker, held.sandbox_id(), "student").send().await.expect_status(200);
        broker.start_worker().await;
        queues.are_empty().await;
        assert!(agree(broker, held.sandbox_id(), "student", &renewed).await);
    })
    .await;
}

#[tokio::test]
async fn a_renewal_and_the_operators_release_have_one_winner() {
    const TRACKS: usize = 12;
    story(Setup::new().apis(2).pool(TRACKS), async |broker| {
        for n in 0..TRACKS {
            let track = format!("student-{n}");
            let held = broker.allocate(&track).send().await.expect_status(201);
            let sandbox = held.sandbox_id();
            let body = json!({ "hours": 9 });
            let release = ["sandbox", "release", sandbox, "--json"];
            let (renewed, released) =
                tokio::join!(renew(broker, sandbox, &track).json(&body).send(), broker.cli_ok(&release),);
            // The release decides anew after a renewal, so it always wins in the end.
            assert!([200, 403].contains(&renewed.status), "{renewed:#?}");
            let shown: Value = released.json();
            assert_eq!(
                (&shown["status"], &shown["deletion_reason"]),
                (&json!("pending_deletion"), &json!("released"))
            );
            renew(broker, sandbox, &track).send().await.expect_problem(403, "ALLOCATION_EXPIRED");
        }
    })
    .await;
}

#[tokio::test]
async fn a_renewal_and_a_start_past_the_end_have_one_winner() {
    const TRACKS: usize = 20;
    story(Setup::new().apis(2).workers(2).pool(2 * TRACKS), async |broker| {
        for n in 0..TRACKS {
            let track = format!("student-{n}");
            let held = broker.allocate(&track).send().await.expect_status(201);
            let old = held.sandbox_id();
            broker.table().age(old, MINUTE).await;
            let (renewed, started) =
                tokio::join!(renew(broker, old, &track).send(), broker.allocate(&track).send());
            if renewed.status == 200 {
                // The start found the old one renewed, or came first, and then the renewal is refused.
                assert_eq!(started.expect_status(200).sandbox_id(), old);
                assert!(agree(broker, old, &track, &renewed).await);
            } else {
                renewed.expect_problem(403, "ALLOCATION_EXPIRED");
                assert_ne!(started.expect_status(201).sandbox_id(), old);
            }
        }
        assert_eq!(broker.stats().await.allocated, TRACKS as u64);
    })
    .await;
}

#[tokio::test]
async fn a_lease_with_a_heartbeat_lasts_three_and_has_no_grace() {
    story(Setup::new().pool(4), async |broker| {
        let body = json!({ "heartbeat_s": 60, "lab_duration_hours": 2 });
        let held = broker.allocate("job-1").json(&body).send().await.expect_status(201);
        let (sandbox, allocated_at) = (held.sandbox_id(), held.number_of("allocated_at"));
        assert_eq!(held.number_of("expires_at"), allocated_at + 180);
        assert_eq!(broker.shown(sandbox).await["heartbeat_s"], 60);
        assert_eq!(broker.job("expire").await.found, 0);

        // A heartbeat that moves the end by less than one writes nothing.
        let before = version(broker, sandbox).await;
        let beat = renew(broker, sandbox, "job-1").send().await.expect_status(200);
        assert_eq!(beat.number_of("expires_at"), allocated_at + 180);
        assert_eq!(beat.number_of("max_expires_at"), allocated_at + 2 * HOUR);
        assert_eq!(version(broker, sandbox).await, before);

        // Two were missed; the third comes in time.
        broker.table().age(sandbox, 0).await;
        let beat = renew(broker, sandbox, "job-1").send().await.expect_status(200);
        assert!((now_s() + 179..=now_s() + 181).contains(&beat.number_of("expires_at")), "{beat:#?}");

        let silent = broker.allocate("job-2").json(&body).send().await.expect_status(201);
        broker.table().age(silent.sandbox_id(), 2).await;
        let report = broker.job("expire").await;
        assert_eq!((report.found, report.changed), (1, 1), "{report:?}");
        let shown = broker.shown(silent.sandbox_id()).await;
        assert_eq!(
            (&shown["status"], &shown["deletion_reason"]),
            (&json!("pending_deletion"), &json!("abandoned"))
        );
        renew(broker, silent.sandbox_id(), "job-2").send().await.expect_problem(403, "ALLOCATION_EXPIRED");
        broker
            .return_sandbox(silent.sandbox_id(), "job-2")
            .send()
            .await
            .expect_problem(403, "ALLOCATION_EXPIRED");

        // Who starts again past the end leaves an abandoned one behind.
        let late = broker.allocate("job-3").json(&body).send().await.expect_status(201);
        broker.table().age(late.sandbox_id(), 10).await;
        broker.allocate("job-3").json(&body).send().await.expect_status(201);
        assert_eq!(broker.shown(late.sandbox_id()).await["deletion_reason"], "abandoned");
    })
    .await;
}

#[tokio::test]
async fn a_heartbeat_that_is_none_is_refused() {
    story(Setup::new().apis(1).workers(0).pool(1), async |broker| {
        for wrong in [json!(29), json!(3_601), json!("60"), json!(60.5), json!(true)] {
            let call = broker.allocate("job").json(&json!({ "heartbeat_s": wrong }));
            call.send().await.expect_problem(400, "VALIDATION_ERROR");
        }
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn heartbeats_of_many_owners_are_all_written_and_end_nobody() {
    const OWNERS: usize = 200;
    story(Setup::new().apis(2).workers(2).pool(OWNERS), async |broker| {
        let body = json!({ "heartbeat_s": 30 });
        let calls = (0..OWNERS).map(|n| broker.allocate(&format!("job-{n}")).json(&body).send());
        let held: Vec<_> = together(calls.collect::<Vec<_>>()).await;
        assert_eq!(count(&held, 201), OWNERS);
        for answer in &held {
            broker.table().age(answer.sandbox_id(), 0).await;
        }
        let beats = held.iter().enumerate();
        let beats = beats.map(|(n, held)| renew(broker, held.sandbox_id(), &format!("job-{n}")).send());
        let (beaten, _) = tokio::join!(together(beats.collect::<Vec<_>>()), broker.job("expire"));
        let lost = count(&beaten, 403);
        assert_eq!(count(&beaten, 200) + lost, OWNERS, "{beaten:#?}");
        for (n, (held, beat)) in held.iter().zip(&beaten).enumerate() {
            agree(broker, held.sandbox_id(), &format!("job-{n}"), beat).await;
        }
        assert_eq!(broker.stats().await.allocated, (OWNERS - lost) as u64);
    })
    .await;
}

#[tokio::test]
async fn an_end_that_an_operator_gave_is_kept_by_a_renewal() {
    story(Setup::new().pool(1), async |broker| {
        let held = broker.allocate("student").send().await.expect_status(201);
        let sandbox = held.sandbox_id();
        broker.cli_ok(&["sandbox", "extend", sandbox, "--hours", "160"]).await;
        let end = end_of(broker, sandbox, "student").await;
        let told =
            renew(broker, sandbox, "student").json(&json!({ "hours": 1 })).send().await.expect_status(200);
        assert_eq!(told.number_of("expires_at"), end);
        // Somebody cut the sandbox's own end off: the lease decides, and a renewal mends both.
        let mut item = broker.table().must_get(&sandbox_key(sandbox)).await;
        item.insert("expires_at".to_owned(), number(now_s()));
        broker.table().put(item).await;
        let told = renew(broker, sandbox, "student").json(&json!({ "hours": 168 })).send().await;
        assert_eq!(told.expect_status(200).number_of("expires_at"), end_of(broker, sandbox, "student").await);
    })
    .await;
}

#[tokio::test]
async fn an_operator_gives_a_lab_a_tenant_or_a_flavour_longer_and_counts_first() {
    let tokens = "one:tenant=acme=tok-of-acme-0123456789,two:tenant=umbrella=tok-of-umbrella-01234";
    story(Setup::new().pool(4).var("BROKER_TRACK_TOKENS", tokens), async |broker| {
        let mut held = Vec::new();
        for (track, lab, token) in [
            ("student-1", "lab-a", "tok-of-acme-0123456789"),
            ("student-2", "lab-a", "tok-of-umbrella-01234"),
            ("student-3", "lab-b", "tok-of-acme-0123456789"),
        ] {
            let call = broker.allocate(track).lab(lab).token(token);
            held.push(call.send().await.expect_status(201));
        }
        let extend = async |filters: &[&str]| {
            let args = [&["sandbox", "extend", "--hours", "2", "--json"], filters].concat();
            let told: Value = broker.cli_ok(&args).await.json();
            (told["found"].as_u64(), told["extended"].as_u64())
        };
        assert_eq!(extend(&["--track-name", "lab-a", "--dry-run"]).await, (Some(2), Some(0)));
        assert_eq!(extend(&["--track-name", "lab-a"]).await, (Some(2), Some(2)));
        assert_eq!(extend(&["--tenant", "acme"]).await, (Some(2), Some(2)));
        assert_eq!(extend(&["--tenant", "acme", "--track-name", "lab-b"]).await, (Some(1), Some(1)));
        assert_eq!(extend(&["--tenant", "initech"]).await, (Some(0), Some(0)));
        let mut added = Vec::new();
        for (n, held) in held.iter().enumerate() {
            let end = end_of(broker, held.sandbox_id(), &format!("student-{}", n + 1)).await;
            added.push((end - held.number_of("expires_at")) / HOUR);
        }
        assert_eq!(added, [4, 2, 4]);
        for wrong in [&[][..], &["some-sandbox", "--tenant", "acme"]] {
            let told = broker.cli(&[&["sandbox", "extend", "--hours", "2"], wrong].concat()).await;
            assert_eq!(told.code, 2, "{told:#?}");
        }
        let none = broker.cli(&["sandbox", "extend", "--hours", "2", "--flavour", "gpu"]).await;
        assert!(none.code == 2 && none.stderr.contains("gpu"), "{none:#?}");
    })
    .await;
}

#[tokio::test]
async fn an_extension_of_many_that_fails_once_counts_all_that_it_did() {
    story(Setup::new().pool(3).faults(1), async |broker| {
        let mut held = Vec::new();
        for n in 0..3 {
            held.push(broker.allocate(&format!("student-{n}")).lab("lab-a").send().await.expect_status(201));
        }
        let denied = Rule::new(Fault::Refuse("AccessDeniedException")).on("TransactWriteItems");
        broker.proxy().add(denied.containing("LEASE#student-1#"));
        let url = broker.proxy().urls().dynamodb_url.clone();
        let args = ["sandbox", "extend", "--hours", "2", "--track-name", "lab-a"];
        let told = broker.cli_with(&args, &[("AWS_ENDPOINT_URL_DYNAMODB", &url)]).await;
        broker.proxy().calm();
        let mut extended = 0;
        for (n, held) in held.iter().enumerate() {
            let end = end_of(broker, held.sandbox_id(), &format!("student-{n}")).await;
            extended += u64::from(end > held.number_of("expires_at"));
        }
        assert!(
            told.code == 1 && told.stderr.contains(&format!("{extended} of 3 were extended")),
            "{told:#?}"
        );
        let audit: Vec<Value> = broker.cli_ok(&["audit", "--json"]).await.json();
        let of_all = audit.iter().find(|line| line["target"] == "track_name=lab-a").expect("a line");
        let ended: Value = serde_json::from_str(of_all["ended"].as_str().expect("an end")).expect("JSON");
        assert!(ended["extended"] == extended && ended["failed"].as_u64() >= Some(1), "{of_all:#}");
    })
    .await;
}
