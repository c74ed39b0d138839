//! Quotas as they are shown: to a tenant, to an operator, to `pool verify`, and to a command.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::{lease_key, now_s, number, text};
use broker_tests::{Broker, story, together};
use http::Method;
use serde_json::json;

use crate::quotas::{
    ACME, PERMITS, UMBRELLA, asks, asks_without_policy, give_back, held, limited, parked, seed, served, setup,
};

#[tokio::test]
async fn a_command_that_can_never_have_a_sandbox_does_not_wait_for_one() {
    story(setup(), async |broker| {
        limited(broker, 0).await;
        let url = format!("http://{}", broker.balanced().address());
        let vars = [("BROKER_URL", url.as_str()), ("BROKER_TOKEN", ACME)];
        let args = ["lease", "--flavour", "small", "--wait", "10m", "--", "echo", "ran"];
        // A pool that is empty, and one that is not.
        for is_empty in [true, false] {
            if !is_empty {
                seed(broker, "lab", 0, 1).await;
            }
            let told = broker.cli_with(&args, &vars).await;
            assert_eq!((told.code, told.stdout.as_str()), (1, ""), "{told:#?}");
            assert!(
                told.stderr.contains("CANNOT_WAIT") && told.stderr.contains("limit of this flavour is 0"),
                "{told:#?}"
            );
        }
    })
    .await;
}

pub(crate) async fn quota(broker: &Broker) -> serde_json::Value {
    let call = broker.balanced().call(Method::GET, "/v1/quota").token(ACME);
    let shown = call.send().await.expect_status(200);
    assert_eq!(shown.text_of("tenant"), "acme");
    let limits = shown.json["limits"].as_array().expect("a list").clone();
    limits.into_iter().find(|limit| limit["flavour"] == "small").expect("its limit")
}

#[tokio::test]
async fn a_tenant_is_shown_its_own_quota_only() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 3).await;
        let shown = broker.balanced().call(Method::GET, "/v1/quota").token(UMBRELLA).send().await;
        assert_eq!(
            shown.expect_status(200).json,
            json!({ "tenant": "umbrella", "limits": [], "reservations": [] })
        );
        limited(broker, 2).await;
        asks(broker, "student-1").send().await.expect_status(201);
        let expected = json!({ "flavour": "small", "prefix": "lab-", "held": 1, "max": 2, "free": 1 });
        assert_eq!(quota(broker).await, expected);
        let wrong = broker.balanced().call(Method::GET, "/v1/quota").token(ADMIN_TOKEN).send().await;
        wrong.expect_problem(403, "FORBIDDEN");
    })
    .await;
}

#[tokio::test]
async fn a_tenant_that_asks_for_its_quota_all_the_time_costs_a_few_reads() {
    const MANY: usize = 300;
    story(setup().faults(1), async |broker| {
        seed(broker, "lab", 0, 3).await;
        limited(broker, 2).await;
        asks(broker, "student-0").send().await.expect_status(201);
        let queries = || broker.proxy().tallies().calls("Query");
        let before = queries();
        let calls = (0..MANY).map(|_| broker.balanced().call(Method::GET, "/v1/quota").token(ACME).send());
        for told in together(calls.collect::<Vec<_>>()).await {
            let told = told.expect_status(200);
            let limits = told.json["limits"].as_array().expect("a list");
            assert!(limits.iter().any(|limit| limit["held"] == 1), "{}", told.text);
        }
        let asked = queries() - before;
        assert!(asked < MANY as u64, "{asked} reads for {MANY} calls, of which each needs two");
        // What was held by others before is not what is held now.
        asks(broker, "student-1").send().await.expect_status(201);
        assert_eq!(quota(broker).await["held"], 2);
    })
    .await;
}

#[tokio::test]
async fn verify_sees_permits_that_disagree_and_sweep_frees_what_nobody_holds() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 5).await;
        limited(broker, 2).await;
        let lease = asks(broker, "student-1").send().await.expect_status(201);
        let permit = broker.table().list(PERMITS).await.pop().expect("its permit");
        let slot = permit["SK"].as_s().expect("a slot").clone();

        broker.table().delete_at(PERMITS, &slot).await;
        assert_eq!(broker.violations().await[0].kind, "lease_without_permit");
        let mut of_nobody = permit.clone();
        of_nobody.insert("allocation_id".to_owned(), text("01890a5d-ac96-774b-bcce-b302099a8057"));
        broker.table().put(of_nobody).await;
        let mut kinds: Vec<_> = broker.violations().await.into_iter().map(|found| found.kind).collect();
        kinds.sort();
        assert_eq!(kinds, ["lease_without_permit", "permit_without_lease"]);
        assert_eq!(broker.job("sweep").await.details["permits"], 1);
        broker.table().put(permit.clone()).await;
        assert!(broker.verify().await.violations.is_empty());

        // One whose lease cannot be read stops no other.
        let key = lease_key("student-1", "student-1");
        let stands = broker.table().must_get(&key).await;
        let mut unreadable = stands.clone();
        unreadable.insert("allocated_at".to_owned(), text("at nine"));
        broker.table().put(unreadable).await;
        let mut of_nobody = permit.clone();
        let free = if slot == "0" { "1" } else { "0" };
        of_nobody.insert("SK".to_owned(), text(free));
        for name in ["allocated_to_track", "idempotency_key"] {
            of_nobody.insert(name.to_owned(), text("nobody"));
        }
        broker.table().put(of_nobody).await;
        let report = broker.job("sweep").await;
        assert_eq!((report.failed, report.details["permits"]), (1, 1), "{report:?}");
        broker.table().put(stands).await;

        // An end of a worker that knows no permits.
        give_back(broker, &lease, "student-1").await;
        broker.table().put(permit).await;
        assert_eq!(broker.violations().await[0].kind, "permit_without_lease");
        assert_eq!(broker.job("sweep").await.details["permits"], 1);
        assert_eq!(held(broker).await, 0);
    })
    .await;
}

#[tokio::test]
async fn verify_sees_more_leases_than_a_limit_allows() {
    story(setup(), async |broker| {
        seed(broker, "lab", 0, 5).await;
        for n in 0..2 {
            asks_without_policy(broker, n).await;
        }
        limited(broker, 1).await;
        assert!(broker.verify().await.violations.is_empty(), "they are older than the limit");
        let mut stored = broker.table().must_get("POLICY").await;
        stored.insert("applied_at".to_owned(), number(now_s() - 1_000));
        broker.table().put(stored).await;
        let found = broker.violations().await;
        assert_eq!((found.len(), found[0].kind.as_str()), (1, "over_limit"), "{found:?}");
        limited(broker, 2).await;
    })
    .await;
}

#[tokio::test]
async fn an_operator_is_told_of_a_limit_how_many_are_held_and_may_be_and_why_each_request_waits() {
    story(setup().apis(1).workers(1), async |broker| {
        seed(broker, "lab", 0, 4).await;
        limited(broker, 1).await;
        let first = asks(broker, "student-1").send().await.expect_status(201);
        asks(broker, "student-2").send().await.expect_problem(409, "QUOTA_EXCEEDED");
        broker.job("census").await;
        // Whose track it is is not known: it has no lease and does not wait.
        let told = broker.cli_ok(&["track", "student-2"]).await.stdout;
        assert!(told.contains("acme holds 1 of 1 of small") && told.contains("QUOTA_EXCEEDED"), "{told}");
        assert!(told.contains("limit of acme") && told.contains("1 held, 1 at most"), "{told}");
        let over_http = broker.balanced().call(Method::GET, "/v1/admin/tracks/student-2").token(ADMIN_TOKEN);
        let over_http = over_http.send().await.expect_status(200).json;
        let of_small = json!({ "tenant": "acme", "flavour": "small", "held": 1, "max": 1 });
        assert!(over_http["limits"].as_array().expect("limits").contains(&of_small), "{over_http:#}");

        let location = parked(broker, "student-3").await;
        let listed: serde_json::Value = broker.cli_ok(&["waiting", "list", "--json"]).await.json();
        assert_eq!(listed[0]["reason"], "limit", "{listed:#}");
        let table = broker.cli_ok(&["waiting", "list"]).await.stdout;
        assert!(table.contains("WHY") && table.contains("limit"), "{table}");
        give_back(broker, &first, "student-1").await;
        served(broker, &location, "student-3").await;
        // The lease says whose it was: all limits of the tenant, reached or not.
        let told: serde_json::Value = broker.cli_ok(&["track", "student-1", "--json"]).await.json();
        assert_eq!(told["limits"].as_array().map(Vec::len), Some(2), "{told:#}");
    })
    .await;
}
