//! Tenants as operators see them: the use of their limits, who of them waits, what is reserved for them; by HTTP and by command.

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::now_s;
use broker_tests::{Answer, Broker, Call, Setup, story, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use crate::policy;

const ACME: &str = "tok-of-acme-0123456789";
const HOUR: u64 = 3_600;
const POLICY: &str = "[flavour.small]\nprefix = \"lab-\"\n[flavour.gpu]\nprefix = \"gpu-\"\n\
                      [tenant.acme]\nlimits = { small = 2, gpu = 0 }\nweight = 3\n[tenant.zeta]\nlimits = { gpu = 5 }\n";

fn call(broker: &Broker, method: Method, path: &str, token: &str) -> Call {
    broker.balanced().call(method, &format!("/v1/admin/{path}")).token(token)
}

async fn tenants(broker: &Broker, query: &str) -> Answer {
    call(broker, Method::GET, &format!("tenants{query}"), ADMIN_TOKEN).send().await
}

async fn reserve(broker: &Broker, terms: Value) {
    call(broker, Method::POST, "reservations", ADMIN_TOKEN).json(&terms).send().await.expect_status(201);
}

fn names(page: &Answer) -> Vec<&str> {
    let tenants = page.json["tenants"].as_array().expect("a list");
    tenants.iter().map(|tenant| tenant["tenant"].as_str().expect("a name")).collect()
}

#[tokio::test]
async fn tenants_are_listed_with_limits_who_waits_and_what_is_reserved() {
    let setup = Setup::new().apis(1).workers(2).var("BROKER_TRACK_TOKENS", &format!("acme={ACME}"));
    let setup = setup.var("BROKER_WAITING", "on").var("BROKER_SERVE_EVERY_S", "1");
    story(setup, async |broker| {
        assert_eq!(
            tenants(broker, "").await.expect_status(200).json,
            json!({ "tenants": [], "next_cursor": null })
        );
        broker.cli_ok(&["pool", "seed", "--name-prefix", "lab", "--count", "5"]).await;
        policy::apply(broker, POLICY).await;
        let asks = |track: &str| broker.allocate(track).token(ACME).header("x-sandbox-flavour", "small");
        for track in ["student-1", "student-2"] {
            asks(track).send().await.expect_status(201);
        }
        let waits = asks("student-3").wait(1).json(&json!({ "max_wait_s": 600 }));
        let location = waits.send().await.expect_status(202).must_have("location").to_owned();
        let (from, later) = (now_s() + 48 * HOUR, now_s() + 96 * HOUR);
        reserve(broker, json!({ "tenant": "evening", "flavour": "small", "count": 1, "until": from })).await;
        for from in [later, from] {
            let until = from + HOUR;
            let terms =
                json!({ "tenant": "evening", "flavour": "gpu", "count": 7, "from": from, "until": until });
            reserve(broker, terms).await;
        }

        // How many wait is known from a walk.
        let seen = wait_for_condition("what is there to be told", async || {
            let page = tenants(broker, "").await.expect_status(200);
            let (acme, evening) = (&page.json["tenants"][0], &page.json["tenants"][1]);
            if acme["waiting"] == 1 && evening["running"][0]["held"] == 1 { Ok(page) } else { Err(page.text) }
        })
        .await;
        assert_eq!(names(&seen), ["acme", "evening", "zeta"]);
        let [acme, evening, zeta] = [0, 1, 2].map(|at| &seen.json["tenants"][at]);
        let limits = json!([
            { "flavour": "gpu", "prefix": "gpu-", "held": 0, "max": 0, "free": 0 },
            { "flavour": "small", "prefix": "lab-", "held": 2, "max": 2, "free": 0 },
        ]);
        assert_eq!((&acme["limits"], &acme["weight"], &acme["running"]), (&limits, &json!(3), &json!([])));
        assert!(acme["oldest_since"].as_u64().is_some_and(|since| since <= now_s()), "{acme:#}");
        assert_eq!((&evening["limits"], &evening["weight"]), (&json!([]), &json!(1)));
        assert_eq!((&evening["next"]["from"], &evening["next"]["count"]), (&json!(from), &json!(7)));
        assert_eq!(
            (&evening["planned"], &zeta["waiting"], &zeta["next"]),
            (&json!(2), &json!(0), &Value::Null)
        );

        let same: Value = broker.cli_ok(&["tenants", "--json"]).await.json();
        assert_eq!(same, seen.json["tenants"]);
        let told = broker.cli_ok(&["tenants", "--tenant", "evening"]).await.stdout;
        assert!(told.contains("1 of 1") && told.contains("7 from ") && !told.contains("acme"), "{told}");

        // Page by page, each once; a cursor is good for its own list only.
        let (mut listed, mut query) = (Vec::new(), "?limit=1".to_owned());
        for _ in 0..10 {
            let page = tenants(broker, &query).await.expect_status(200);
            listed.extend(names(&page).into_iter().map(str::to_owned));
            let Some(cursor) = page.json["next_cursor"].as_str() else { break };
            query = format!("?limit=1&cursor={cursor}");
        }
        assert_eq!(listed, ["acme", "evening", "zeta"]);
        assert_eq!(names(&tenants(broker, "?tenant=zeta").await.expect_status(200)), ["zeta"]);
        assert_eq!(names(&tenants(broker, "?tenant=nobody").await.expect_status(200)), Vec::<&str>::new());
        for wrong in ["?limit=0", "?cursor=00", "?tenant=", "?flavour=small", &format!("{query}&tenant=acme")]
        {
            tenants(broker, wrong).await.expect_problem(400, "VALIDATION_ERROR");
        }
        call(broker, Method::GET, "tenants", ACME).send().await.expect_problem(403, "FORBIDDEN");
        let cancel = broker.balanced().call(Method::DELETE, &location).token(ACME);
        cancel.header("x-instruqt-sandbox-id", "student-3").send().await.expect_status(200);
    })
    .await;
}
