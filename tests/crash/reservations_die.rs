//! Crashes of a worker while it puts aside or gives back sandboxes of a reservation: SIGKILL between any two effects, or a long
//! pause; another one takes over.

use broker_runtime::crash_points::Point;
use broker_tests::api::ADMIN_TOKEN;
use broker_tests::cli::Stats;
use broker_tests::table::{Item, now_s, number};
use broker_tests::{Broker, Provider, Setup, story, together, wait_for_condition};
use http::Method;
use serde_json::{Value, json};

use super::jobs_die::{dies_in, is_taken_over};
use super::worker_pauses::stands_still;
use super::{dies, doomed};

const ACME: &str = "tok-of-acme-0123456789";
const UMBRELLA: &str = "tok-of-umbrella-01234";
const HOUR: u64 = 3_600;
/// More than one transaction puts aside.
const MANY: u64 = 110;

fn with_tenants(setup: Setup) -> Setup {
    setup
        .var("BROKER_TRACK_TOKENS", &format!("acme={ACME},umbrella={UMBRELLA}"))
        .var("BROKER_WAITING", "on")
        .var("BROKER_SERVE_EVERY_S", "1")
}

/// One API, no worker yet, and messages that come back soon from a worker that is gone.
fn setup(pool: u64) -> Setup {
    with_tenants(super::setup().pool(usize::try_from(pool).expect("a few")))
}

/// Reserves so many for `acme`, on these terms; the reservation's id.
async fn reserve(broker: &Broker, count: u64, mut terms: Value) -> String {
    terms["tenant"] = json!("acme");
    terms["prefix"] = json!("sandbox-");
    terms["count"] = json!(count);
    let call = broker.balanced().call(Method::POST, "/v1/admin/reservations").token(ADMIN_TOKEN);
    call.json(&terms).send().await.expect_status(201).text_of("id").to_owned()
}

async fn shown(broker: &Broker, id: &str) -> Value {
    broker.cli_ok(&["reservation", "show", id, "--json"]).await.json()
}

async fn item(broker: &Broker, id: &str) -> Item {
    broker.table().get_at("RESERVATION", id).await.expect("a reservation")
}

async fn until_pool_is(broker: &Broker, expected: Stats) {
    wait_for_condition("the pool to be as it should", async || match broker.stats().await {
        stats if stats == expected => Ok(()),
        stats => Err(stats),
    })
    .await;
}

fn pool_of(total: u64, reserved: u64) -> Stats {
    Stats { total, reserved, available: total - reserved, ..Stats::default() }
}

/// The tenant's are its own, whoever else asks first; the others are everybody's.
async fn everybody_has_a_part(broker: &Broker, free: u64) {
    let asks = |token: &'static str, tracks: u64| {
        let call = |n| broker.allocate(&format!("{token}-{n}")).token(token).send();
        together((0..tracks).map(call).collect::<Vec<_>>())
    };
    broker.lists_are_current().await;
    let others = asks(UMBRELLA, free + 1).await;
    let served = others.iter().filter(|told| told.status == 201).count() as u64;
    assert_eq!(served, free, "{others:?}");
    for told in asks(ACME, 3).await {
        told.expect_status(201);
    }
}

async fn is_put_aside_whatever_died(point: Point, written: std::ops::RangeInclusive<u64>) {
    story(setup(MANY + 5), async |broker| {
        let id = reserve(broker, MANY, json!({})).await;
        doomed(broker, point).await;
        dies(broker).await;
        broker.verify().await;
        let (stats, told) = (broker.stats().await, shown(broker, &id).await);
        assert!(written.contains(&stats.reserved), "{stats:?} when it died");
        assert_eq!(told["held"], stats.reserved, "each of them is counted");
        broker.start_worker().await;
        // It died with the tick, which is taken for a while.
        broker.job("serve").await;
        until_pool_is(broker, pool_of(MANY + 5, MANY)).await;
        assert_eq!(shown(broker, &id).await["held"], MANY);
        everybody_has_a_part(broker, 5).await;
    })
    .await;
}

#[tokio::test]
async fn what_was_to_be_put_aside_when_a_worker_died_is_put_aside_by_another() {
    is_put_aside_whatever_died(Point::BeforePutAside, 0..=0).await;
}

#[tokio::test]
async fn a_worker_that_dies_between_two_calls_that_put_aside_leaves_the_rest_to_another() {
    is_put_aside_whatever_died(Point::PutAside, 1..=99).await;
}

#[tokio::test]
async fn arrivals_that_a_dead_worker_put_aside_or_was_about_to_are_put_aside_once() {
    for (point, written) in [(Point::BeforePutAside, 0), (Point::PutAside, 20)] {
        let provider = Provider::start_with(30, &["--page-size", "10"]).await;
        let setup = provider.setup().apis(1).workers(0).var("BROKER_VISIBILITY_S", "2");
        story(with_tenants(setup), async |broker| {
            let id = reserve(broker, 20, json!({})).await;
            dies_in(broker, "sync", point).await;
            let expected = Stats { total: 30, reserved: written, arriving: 30 - written, ..Stats::default() };
            assert_eq!(broker.stats().await, expected, "{point:?}");
            is_taken_over(broker).await;
            until_pool_is(broker, pool_of(30, 20)).await;
            assert_eq!(shown(broker, &id).await["held"], 20, "{point:?}");
            everybody_has_a_part(broker, 10).await;
        })
        .await;
    }
}

/// A worker ends a reservation of ten, whose time is over or for which nobody came, and dies at `point`; somebody else waits.
async fn goes_back_whatever_died(point: Point, why: &str) {
    story(setup(10), async |broker| {
        broker.start_worker().await;
        let (from, until) = (now_s() + HOUR, now_s() + 3 * HOUR);
        let terms = json!({ "from": from, "until": until, "lead_s": 2 * HOUR, "no_show_s": HOUR });
        let id = reserve(broker, 10, terms).await;
        until_pool_is(broker, pool_of(10, 10)).await;
        let waits = broker.allocate("other").token(UMBRELLA).wait(1).json(&json!({ "max_wait_s": 600 }));
        let waits = waits.send().await.expect_status(202).must_have("location").to_owned();
        wait_for_condition("a place", async || match broker.table().keys("LINE#").await {
            places if places.len() == 1 => Ok(()),
            places => Err(places),
        })
        .await;
        broker.stop_workers().await;
        // As if those hours had passed.
        let mut past = item(broker, &id).await;
        let (passed, by) = if why == "over" { ("until_ms", 0) } else { ("from_ms", 2 * HOUR) };
        past.insert(passed.to_owned(), number((now_s() - by) * 1_000));
        broker.table().put(past).await;
        doomed(broker, point).await;
        dies(broker).await;
        broker.verify().await;
        // Several go back at the same time.
        let back = if point == Point::GivenBack { 1..=10 } else { 0..=0 };
        let stats = broker.stats().await;
        let expected = Stats { total: 10, reserved: 10 - stats.arriving, ..Stats::default() };
        assert_eq!(stats, Stats { arriving: stats.arriving, ..expected });
        assert!(back.contains(&stats.arriving), "{stats:?} when it died");
        let ended = item(broker, &id).await["closed_at_ms"].clone();
        broker.start_worker().await;
        // It died with the tick, which is taken for a while.
        broker.job("serve").await;
        until_pool_is(broker, Stats { total: 10, available: 9, allocated: 1, ..Stats::default() }).await;
        let told = broker.request(&waits, "other").token(UMBRELLA).send().await.expect_status(200);
        assert_eq!(told.text_of("status"), "succeeded", "who waits comes first");
        assert_eq!(shown(broker, &id).await["ended_because"], why);
        assert_eq!(item(broker, &id).await["closed_at_ms"], ended, "it ended once");
        broker.queues().are_empty().await;
    })
    .await;
}

#[tokio::test]
async fn a_reservation_that_a_dead_worker_ended_is_given_back_by_another() {
    goes_back_whatever_died(Point::ReservationClosed, "over").await;
}

#[tokio::test]
async fn a_reservation_for_which_nobody_came_is_given_back_though_a_worker_dies_over_it() {
    goes_back_whatever_died(Point::ReservationClosed, "no_show").await;
}

#[tokio::test]
async fn a_worker_that_dies_between_two_that_go_back_leaves_the_rest_to_another() {
    goes_back_whatever_died(Point::GivenBack, "over").await;
}

/// A request of its tenant that stands in a line.
async fn waits(broker: &Broker, track: &str) -> String {
    let waits = broker.allocate(track).token(ACME).wait(1).json(&json!({ "max_wait_s": 600 }));
    let waits = waits.send().await.expect_status(202).must_have("location").to_owned();
    wait_for_condition("a place", async || match broker.table().keys("LINE#").await {
        places if places.len() == 1 => Ok(()),
        places => Err(places),
    })
    .await;
    waits
}

#[tokio::test]
async fn what_a_worker_put_aside_and_was_about_to_deal_is_not_taken_past_who_waits_for_it() {
    // No look but the first of each worker.
    story(setup(0).var("BROKER_SERVE_EVERY_S", "3600"), async |broker| {
        reserve(broker, 1, json!({})).await;
        broker.start_worker().await;
        let first = waits(broker, "first").await;
        broker.stop_workers().await;
        broker.cli_ok(&["pool", "seed", "--name-prefix", "sandbox", "--start", "0", "--count", "1"]).await;
        broker.lists_are_current().await;
        stands_still(broker, Point::PutAside).await;
        broker.start_worker().await;
        for n in 0..3 {
            let late = broker.allocate(&format!("late-{n}")).token(ACME).send().await;
            late.expect_problem(409, "NO_SANDBOXES_AVAILABLE");
        }
        goes_on(broker).await;
        let told = broker.request(&first, "first").token(ACME).send().await.expect_status(200);
        assert_eq!(told.text_of("status"), "succeeded", "{told:#?}");
    })
    .await;
}

/// Lets the worker that stopped in the middle of its first look go on, until it is done with it.
async fn goes_on(broker: &Broker) {
    broker.worker(0).thaw();
    wait_for_condition("the late worker to be done with its look", async || {
        match broker.worker(0).metrics().metric("broker_serve_total").await {
            done if done >= 1.0 => Ok(()),
            done => Err(done),
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_decided_long_ago_puts_nothing_aside_for_a_reservation_that_was_deleted() {
    story(setup(5), async |broker| {
        let id = reserve(broker, 3, json!({})).await;
        stands_still(broker, Point::BeforePutAside).await;
        broker.cli_ok(&["reservation", "delete", &id]).await;
        goes_on(broker).await;
        assert_eq!(broker.stats().await, pool_of(5, 0));
        assert_eq!(shown(broker, &id).await["held"], 0);
    })
    .await;
}

#[tokio::test]
async fn a_worker_that_decided_long_ago_puts_aside_no_more_than_another_left() {
    story(setup(8), async |broker| {
        let id = reserve(broker, 3, json!({})).await;
        stands_still(broker, Point::BeforePutAside).await;
        broker.start_worker().await;
        broker.job("serve").await;
        until_pool_is(broker, pool_of(8, 3)).await;
        goes_on(broker).await;
        assert_eq!(broker.stats().await, pool_of(8, 3));
        assert_eq!(shown(broker, &id).await["held"], 3);
        everybody_has_a_part(broker, 5).await;
    })
    .await;
}
