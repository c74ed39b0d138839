//! A class at nine: sandboxes are reserved for it at eight, and from half past eight on other tenants storm the pool, take all
//! that is left of it, come and go; workers die. At nine each student of the class has a sandbox at once.
//!
//! A small one runs with all tests. Three hundred of a thousand: `cargo run -p broker-simulation -- class`.

use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::{
    NamePrefix, ReservationEnd, ReservationId, ReservationTerms, Status, TenantName, Timestamp,
};
use broker_store::reservations::{self, ReservationWrite};
use broker_store::verify::verify;
use tokio_util::sync::CancellationToken;

use super::{BEAT, MINUTE, Week};

/// From the storm's first request until nine.
const STORM: u32 = 30;
/// Between two waves of it.
const BETWEEN: Duration = Duration::from_secs(2 * 60);
/// How long a student of the storm stays, if it gives its sandbox back.
const STAYS: Duration = Duration::from_secs(5 * 60);
/// Of those, in percent.
const GIVES_BACK: usize = 70;

/// Reserves `class` sandboxes of `pool` for nine o'clock, with choices drawn from `seed`; panics if one of the class has none, or
/// anything is wrong with the pool.
#[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
pub async fn class_at_nine(pool: usize, class: u32, seed: u64) {
    let stop = CancellationToken::new();
    let settings = [("BROKER_PROVIDER_RATE", "100"), ("BROKER_SERVE_EVERY_S", "1")];
    let mut week = Week::begin_with(seed, &settings, (pool, 5 * MINUTE), stop.clone()).await;
    week.beat = BEAT;
    let eight = week.now();
    let (half_past, nine) = (eight.plus(MINUTE * 30), eight.plus(MINUTE * 60));
    // The first sync fills the pool.
    week.pass(MINUTE).await;
    let id = week.reserve(class, nine).await;
    week.pass_until(half_past.minus(MINUTE)).await;
    assert_eq!((week.put_aside().await, week.held(id).await), (0, 0), "it is too early");

    week.process.clock.set(half_past);
    let mut asked = pool + pool / 5;
    week.storm(asked).await;
    while week.now() < nine.minus(BETWEEN) {
        week.settle(week.now()).await;
        week.students_move_on().await;
        week.workers_die();
        week.process.clock.set(week.now().plus(BETWEEN));
        week.storm(pool / 15).await;
        asked += pool / 15;
    }
    week.settle(week.now()).await;
    week.students_move_on().await;
    let (served, held) = (week.held.len(), week.held(id).await);
    assert_eq!(held, class, "put aside before nine");
    let taken = week.figures.get("allocations").copied().unwrap_or_default();
    println!("storm: {taken} of {asked} requests were given a sandbox of {pool}; {held} are put aside");

    week.process.clock.set(nine.max(week.now()));
    // Those who storm ask first.
    week.storm(class as usize).await;
    week.students_move_on().await;
    let others = week.held.len() - served;
    let acme = TenantName::new("acme").unwrap();
    week.ask_together(&acme, class as usize, Some(nine.plus(MINUTE * 90))).await;
    week.settle(week.now()).await;
    week.students_move_on().await;
    let of_class = week.served(&acme);
    println!("class: {of_class} of {class} at nine, {others} others");
    assert_eq!(of_class, class as usize, "each of the class");

    // Its time is over: nothing is left behind.
    while week.now() < nine.plus(MINUTE * 130) {
        week.pass(MINUTE * 45).await;
        week.students_move_on().await;
    }
    week.until("over", async || {
        let reservation = week.store.reservations.get(id).await.unwrap().expect("a reservation");
        let why = reservation.closed.map(|closed| closed.why);
        if why == Some(ReservationEnd::Over) { Ok(()) } else { Err(format!("{reservation:?}")) }
    })
    .await;
    let verdict = verify(&week.store, week.now()).await.unwrap();
    assert!(verdict.violations.is_empty(), "{verdict:#?}");
    let had: std::collections::BTreeSet<_> = week.held.iter().map(|grant| &grant.external_id).collect();
    assert_eq!(had.len(), week.held.len(), "a used sandbox was handed out again");
    week.workers.drain(..).for_each(tokio::runtime::Runtime::shutdown_background);
    stop.cancel();
}

impl Week {
    /// Reserves so many for the tenant `acme`, two hours from `from` on, put aside half an hour before.
    async fn reserve(&self, count: u32, from: Timestamp) -> ReservationId {
        let id = ReservationId::from_uuid(self.process.entropy.uuid());
        let terms = ReservationTerms {
            tenant: TenantName::new("acme").unwrap(),
            prefix: NamePrefix::new("sandbox-").unwrap(),
            count,
            from: Some(from),
            until: Some(from.plus(MINUTE * 120)),
            lead: MINUTE * STORM,
            no_show: None,
        };
        let policy = Policy::default();
        let told = reservations::create(&self.store, &policy, (id, &terms), "teacher", self.now()).await;
        assert!(matches!(told, Ok(ReservationWrite::Stands(_))), "{told:?}");
        id
    }

    /// How many the reservation has put aside so far.
    async fn held(&self, id: ReservationId) -> u32 {
        self.store.reservations.get(id).await.unwrap().expect("a reservation").held
    }

    /// How many sandboxes are put aside now.
    async fn put_aside(&self) -> usize {
        let records = self.read_all().await;
        records.iter().filter(|record| record.sandbox.status == Status::Reserved).count()
    }

    /// Moves the clock by ten minutes at a time.
    async fn pass_until(&mut self, until: Timestamp) {
        while self.now() < until {
            let left = until.since(self.now());
            self.pass(left.min(MINUTE * 10)).await;
        }
    }

    /// So many requests of five other tenants at once.
    async fn storm(&mut self, requests: usize) {
        let stays = self.now().plus(STAYS);
        for part in 0..5 {
            let tenant = TenantName::new(format!("storm-{part}")).unwrap();
            let (gives_back, stays_on) =
                (requests * GIVES_BACK / 500, requests / 5 - requests * GIVES_BACK / 500);
            self.ask_together(&tenant, gives_back, Some(stays)).await;
            self.ask_together(&tenant, stays_on, None).await;
        }
    }
}
