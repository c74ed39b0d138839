//! Dead letters over HTTP: pages, one letter, replay, discard.

use std::collections::BTreeSet;

use broker_tests::api::ADMIN_TOKEN;
use broker_tests::table::text;
use broker_tests::{Answer, Broker, Fault, Rule, Setup, story};
use http::Method;

use super::{bury, taken};

async fn admin(broker: &Broker, method: Method, path: &str) -> Answer {
    let call = broker.balanced().call(method, &format!("/v1/admin/dead-letters{path}"));
    call.token(ADMIN_TOKEN).send().await
}

/// Letters of messages that no program wrote.
const POISON: usize = 45;

/// So many, and one of an asynchronous request of `student`, whose location is returned.
async fn letters(broker: &mut Broker) -> String {
    let queues = broker.queues();
    for n in 0..POISON {
        queues.send(&queues.name("requests"), &format!("poison {n}")).await;
    }
    broker.start_worker().await;
    broker.holds_letters(POISON).await;
    broker.stop_workers().await;
    let (message, location) = taken(broker, broker.allocate("student").respond_async()).await;
    bury(broker, &message).await;
    broker.start_worker().await;
    broker.holds_letters(POISON + 1).await;
    location
}

fn setup() -> Setup {
    Setup::new().workers(0).pool(3)
}

#[tokio::test]
async fn an_operator_pages_and_filters_letters_over_http() {
    story(setup(), async |broker| {
        letters(broker).await;
        let (mut ids, mut times, mut path) = (BTreeSet::new(), Vec::new(), "?limit=10".to_owned());
        loop {
            let page = admin(broker, Method::GET, &path).await.expect_status(200);
            let letters = page.json["dead_letters"].as_array().expect("a page");
            assert!(letters.len() <= 10);
            for letter in letters {
                assert!(ids.insert(letter["id"].to_string()), "{letter} twice");
                times.push(letter["first_at"].as_u64());
            }
            match page.json["next_cursor"].as_str() {
                Some(cursor) => path = format!("?limit=10&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(ids.len(), POISON + 1);
        assert!(times.is_sorted(), "the oldest first");

        for (filter, expected) in [
            ("track=student", 1),
            ("kind=allocate", 1),
            ("reason=malformed&queue=requests", POISON),
            ("queue=maintenance", 0),
            ("older_than_s=3600", 0),
            ("newer_than_s=3600", POISON + 1),
            ("state=replayed", 0),
        ] {
            let page = admin(broker, Method::GET, &format!("?{filter}&limit=100")).await.expect_status(200);
            assert_eq!(page.json["dead_letters"].as_array().map(Vec::len), Some(expected), "{filter}");
        }
        let id = ids.first().expect("a letter").trim_matches('"').to_owned();
        let one = admin(broker, Method::GET, &format!("/{id}")).await.expect_status(200);
        assert!(one.text_of("body").starts_with("poison "), "{one:#?}");
        admin(broker, Method::POST, "/discard?all=true&why=over").await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn what_an_operator_asks_wrongly_is_refused_and_no_letter_is_touched() {
    story(setup(), async |broker| {
        letters(broker).await;
        for bad in [
            "cursor=x",
            "cursor=00",
            "cursor=1795368969123-zz",
            "limit=0",
            "limit=101",
            "queue=x",
            "reason=x",
            "state=x",
            "track=a%20b",
            "sort=x",
        ] {
            admin(broker, Method::GET, &format!("?{bad}")).await.expect_problem(400, "VALIDATION_ERROR");
        }
        for nobody in ["/nobody", "/0000000000000-00000000000000000000000000000000"] {
            admin(broker, Method::GET, nobody).await.expect_problem(404, "NOT_FOUND");
        }
        for bad in ["", "?all=true&track=a", "?id=x", "?id=", "?all=true&why=x", "?all=true&rate=0"] {
            let answer = admin(broker, Method::POST, &format!("/replay{bad}")).await;
            answer.expect_problem(400, "VALIDATION_ERROR");
        }
        admin(broker, Method::POST, "/discard?all=true").await.expect_problem(400, "VALIDATION_ERROR");
        for path in ["/replay?all=true", "/discard?all=true&why=x"] {
            let platform = broker.balanced().call(Method::POST, &format!("/v1/admin/dead-letters{path}"));
            platform.send().await.expect_problem(403, "FORBIDDEN");
        }
        assert_eq!(broker.open_letters().await.len(), POISON + 1);
        assert!(broker.audit().await.is_empty(), "what was refused leaves no line");
        admin(broker, Method::POST, "/discard?all=true&why=over").await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn an_operator_replays_and_discards_over_http_and_each_deed_leaves_a_line() {
    story(setup(), async |broker| {
        let location = letters(broker).await;
        let dry = admin(broker, Method::POST, "/replay?all=true&dry_run=true").await.expect_status(200);
        assert_eq!((dry.number_of("done"), broker.open_letters().await.len()), (46, POISON + 1));
        let replayed = admin(broker, Method::POST, "/replay?track=student").await.expect_status(200);
        assert_eq!(replayed.number_of("done"), 1, "{replayed:#?}");
        assert_eq!(broker.outcome(&location, "student").await.text_of("status"), "succeeded");
        let some = admin(broker, Method::POST, "/discard?reason=malformed&limit=20&why=poison").await;
        let some = some.expect_status(200);
        assert_eq!((some.number_of("done"), &some.json["more"]), (20, &true.into()), "{some:#?}");
        let rest = admin(broker, Method::POST, "/discard?reason=malformed&why=poison").await;
        let rest = rest.expect_status(200);
        assert_eq!((rest.number_of("done"), &rest.json["more"]), (25, &false.into()), "{rest:#?}");
        let audit = broker.audit().await;
        let by_token = audit.iter().filter(|line| line["who"] == broker_tests::table::text("ops"));
        assert_eq!(by_token.count(), 3, "a dry run leaves no line: {audit:#?}");
    })
    .await;
}

#[tokio::test]
async fn what_was_discarded_is_told_though_the_audit_or_the_rest_cannot_be_reached() {
    story(setup().faults(1), async |broker| {
        letters(broker).await;
        let refuse = Rule::new(Fault::Refuse("ValidationException"));
        broker.proxy().add(refuse.clone().on("UpdateItem").containing("act_ended"));
        let some = admin(broker, Method::POST, "/discard?reason=malformed&limit=20&why=poison").await;
        assert_eq!(some.expect_status(200).number_of("done"), 20);
        assert!(broker.proxy().done("UpdateItem", Fault::Refuse("ValidationException")) > 0);
        let left = broker.letters(&["--state", "dead"]).await;
        let ids: Vec<_> = left.iter().take(2).filter_map(|letter| letter["id"].as_str()).collect();
        broker.proxy().add(refuse.on("BatchGetItem").on("GetItem").containing(ids[1]));
        let path = format!("/discard?id={}&why=poison", ids.join(","));
        let first = admin(broker, Method::POST, &path).await.expect_status(200);
        assert_eq!((first.number_of("done"), &first.json["interrupted"]), (1, &true.into()), "{first:#?}");
        broker.proxy().calm();
        admin(broker, Method::POST, "/discard?all=true&why=over").await.expect_status(200);
    })
    .await;
}

#[tokio::test]
async fn a_call_whose_filter_matches_nothing_ends_with_its_wait_and_goes_on_where_it_ended() {
    story(setup().faults(1), async |broker| {
        letters(broker).await;
        // More of one partition than are read at once.
        let like = broker.open_letters().await.pop().expect("a letter");
        for n in 0..1_001 {
            let (mut letter, id) = (like.clone(), format!("0000000000001-{:032x}", 4 * n + 1));
            letter.extend([("PK".to_owned(), text("DEAD#01")), ("SK".to_owned(), text(&id))]);
            broker.table().put(letter).await;
        }
        let late = Rule::new(Fault::LateResponse).on("Query").containing("DEAD#00");
        broker.proxy().add(late);
        let discard = async |cursor: &str| {
            let path = format!("/v1/admin/dead-letters/discard?track=nobody&why=x{cursor}");
            broker.balanced().call(Method::POST, &path).token(ADMIN_TOKEN).wait(1).send().await
        };
        let first = discard("").await.expect_status(200);
        assert_eq!((first.number_of("found"), &first.json["more"]), (0, &true.into()), "{first:#?}");
        let rest = discard(&format!("&cursor={}", first.text_of("next_cursor"))).await.expect_status(200);
        assert_eq!((&rest.json["more"], rest.json.get("next_cursor")), (&false.into(), None), "{rest:#?}");
        broker.proxy().calm();
        let id = first.text_of("next_cursor");
        let both = admin(broker, Method::POST, &format!("/replay?id={id}&cursor={id}")).await;
        both.expect_problem(400, "VALIDATION_ERROR");
        while !broker.open_letters().await.is_empty() {
            admin(broker, Method::POST, "/discard?all=true&limit=1000&why=over").await.expect_status(200);
        }
    })
    .await;
}
