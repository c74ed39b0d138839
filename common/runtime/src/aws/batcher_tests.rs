//! Flights are held and released by hand; nothing here sleeps.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;

/// No test lasts as long.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What a flight answers for an item.
type Answer = Result<u32, &'static str>;

/// A flight in the air, with what it carries.
struct Held {
    batch: Vec<u32>,
    land: oneshot::Sender<Landing>,
}

enum Landing {
    /// Each item is its own result, but for the multiples of 7, which fail.
    Safely,
    WithTooFewResults,
    Crash,
}

impl Held {
    fn land(self, landing: Landing) {
        assert!(self.land.send(landing).is_ok(), "the flight is in the air");
    }
}

struct Airport {
    batcher: Batcher<u32, Answer>,
    departures: mpsc::UnboundedReceiver<Held>,
}

impl Airport {
    fn new(flights: usize, items: usize, weight: usize) -> Self {
        Self::spaced(flights, items, weight, Duration::ZERO)
    }

    fn spaced(flights: usize, items: usize, weight: usize, min_interval: Duration) -> Self {
        Self::within(Bounds { flights, items, weight, min_interval, max_wait: PATIENCE })
    }

    fn within(bounds: Bounds) -> Self {
        let (announce, departures) = mpsc::unbounded_channel();
        let batcher = Batcher::new(
            bounds,
            |item| *item as usize,
            move |batch: Vec<u32>| {
                let announce = announce.clone();
                async move {
                    let (land, landing) = oneshot::channel();
                    let results =
                        batch.iter().map(|item| if item % 7 == 0 { Err("seven") } else { Ok(*item) });
                    let results: Vec<Answer> = results.collect();
                    assert!(announce.send(Held { batch, land }).is_ok(), "the test listens");
                    match landing.await {
                        Ok(Landing::Safely) => results,
                        Ok(Landing::WithTooFewResults) => results.into_iter().take(1).collect(),
                        Ok(Landing::Crash) => panic!("a flight crashed, on purpose"),
                        Err(_test_ended) => Vec::new(),
                    }
                }
            },
        );
        Self { batcher, departures }
    }

    fn submit(&self, item: u32) -> JoinHandle<Result<Answer, BatchLost>> {
        let batcher = self.batcher.clone();
        tokio::spawn(async move { batcher.submit(item).await })
    }

    async fn departure(&mut self) -> Held {
        self.departures.recv().await.expect("the batcher lives")
    }

    /// Submits `items`, in order, and returns when all of them wait.
    async fn queue_up(
        &self,
        items: impl IntoIterator<Item = u32>,
    ) -> Vec<JoinHandle<Result<Answer, BatchLost>>> {
        let mut callers = Vec::new();
        for item in items {
            let expected = self.batcher.waiting() + 1;
            callers.push(self.submit(item));
            while self.batcher.waiting() < expected {
                tokio::task::yield_now().await;
            }
        }
        callers
    }

    /// The number of slots in use, once no task can run on.
    async fn flying(&self) -> usize {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let state = self.batcher.0.state();
        assert!(state.young <= state.flying, "{} of {} slots are young", state.young, state.flying);
        state.flying
    }
}

#[tokio::test]
async fn an_item_goes_at_once_while_nothing_is_in_the_air_and_waits_for_a_landing_otherwise() {
    let mut air = Airport::new(2, 10, 1_000);
    let first = air.submit(1);
    let one = air.departure().await;
    let waiting = air.queue_up([2, 3]).await;
    assert_eq!(
        (&one.batch, air.flying().await),
        (&vec![1], 1),
        "a batch that is not full has no slot of its own"
    );
    one.land(Landing::Safely);
    assert_eq!(first.await.expect("no panic"), Ok(Ok(1)));
    let two = air.departure().await;
    assert_eq!(two.batch, [2, 3]);
    two.land(Landing::Safely);
    for caller in waiting {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(air.flying().await, 0);
}

#[tokio::test]
async fn a_full_batch_goes_beside_another_flight_and_the_last_to_land_takes_the_rest() {
    let mut air = Airport::new(3, 2, 1_000);
    let mut callers = vec![air.submit(1)];
    let one = air.departure().await;
    callers.extend(air.queue_up([2]).await);
    callers.push(air.submit(3));
    let two = air.departure().await;
    assert_eq!((&one.batch, &two.batch), (&vec![1], &vec![2, 3]));
    callers.extend(air.queue_up([4]).await);
    one.land(Landing::Safely);
    assert_eq!(air.flying().await, 1, "what waits is left to the flight that is still in the air");
    two.land(Landing::Safely);
    let three = air.departure().await;
    assert_eq!(three.batch, [4]);
    three.land(Landing::Safely);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(air.flying().await, 0);
}

#[tokio::test]
async fn what_is_not_full_waits_for_its_spacing_and_what_is_full_does_not() {
    let mut air = Airport::spaced(1, 2, 1_000, Duration::from_secs(3_600));
    let mut callers = vec![air.submit(1)];
    // The first of a quiet time goes at once.
    air.departure().await.land(Landing::Safely);
    callers.extend(air.queue_up([2]).await);
    assert_eq!(air.flying().await, 1, "its slot waits for the min_interval");
    assert!(air.departures.try_recv().is_err(), "a batch that is not full has left before its time");
    callers.push(air.submit(3));
    let full = air.departure().await;
    assert_eq!(full.batch, [2, 3]);
    full.land(Landing::Safely);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn what_is_not_full_leaves_when_its_spacing_is_over() {
    let mut air = Airport::spaced(1, 10, 1_000, Duration::from_millis(1));
    let first = air.submit(1);
    air.departure().await.land(Landing::Safely);
    let second = air.submit(2);
    let held = air.departure().await;
    assert_eq!(held.batch, [2]);
    held.land(Landing::Safely);
    assert!(first.await.is_ok() && second.await.is_ok());
}

#[tokio::test]
async fn what_waits_behind_a_slow_call_goes_beside_it_as_long_as_there_is_a_slot() {
    let max_wait = Duration::from_millis(1);
    let bounds = Bounds { flights: 2, items: 10, weight: 1_000, min_interval: Duration::ZERO, max_wait };
    let mut air = Airport::within(bounds);
    let mut callers = vec![air.submit(1)];
    let slow = air.departure().await;
    // Already behind the slow call, or after it grew old: either way it goes.
    callers.push(air.submit(2));
    let beside = air.departure().await;
    assert_eq!((&slow.batch, &beside.batch), (&vec![1], &vec![2]));
    callers.extend(air.queue_up([3, 4]).await);
    assert_eq!(air.flying().await, 2, "both slots are taken");
    slow.land(Landing::Safely);
    let next = air.departure().await;
    assert_eq!(next.batch, [3, 4]);
    beside.land(Landing::Safely);
    next.land(Landing::Safely);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(air.flying().await, 0);
    assert_eq!(air.batcher.0.state().young, 0);
}

#[tokio::test]
async fn what_comes_while_all_slots_are_taken_goes_in_full_batches_in_order() {
    let mut air = Airport::new(1, 10, 10_000);
    let first = air.submit(1);
    let mut held = air.departure().await;
    let waiting = air.queue_up(101..=125).await;
    let mut batches = Vec::new();
    for _ in 0..3 {
        held.land(Landing::Safely);
        held = air.departure().await;
        batches.push(held.batch.clone());
    }
    held.land(Landing::Safely);
    let expected: Vec<Vec<u32>> = vec![(101..=110).collect(), (111..=120).collect(), (121..=125).collect()];
    assert_eq!(batches, expected);
    assert_eq!(first.await.expect("no panic"), Ok(Ok(1)));
    for (caller, item) in waiting.into_iter().zip(101..) {
        let expected = if item % 7 == 0 { Err("seven") } else { Ok(item) };
        assert_eq!(caller.await.expect("no panic"), Ok(expected), "each caller gets its own result");
    }
    assert_eq!(air.flying().await, 0);
}

#[tokio::test]
async fn items_submitted_in_one_breath_share_a_flight() {
    let mut air = Airport::new(4, 10, 10_000);
    let callers: Vec<_> = (1..=6).map(|item| air.submit(item)).collect();
    let held = air.departure().await;
    assert_eq!(held.batch, [1, 2, 3, 4, 5, 6]);
    held.land(Landing::Safely);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(air.flying().await, 0);
}

#[tokio::test]
async fn no_more_flights_than_slots_are_in_the_air() {
    let mut air = Airport::new(3, 1, 10_000);
    let callers: Vec<_> = (1..=9).map(|item| air.submit(item)).collect();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(air.departure().await);
    }
    assert_eq!(air.flying().await, 3);
    assert!(air.departures.try_recv().is_err(), "a fourth flight is in the air");
    for _ in 3..9 {
        held.remove(0).land(Landing::Safely);
        held.push(air.departure().await);
        assert_eq!(air.flying().await, 3);
    }
    held.into_iter().for_each(|flight| flight.land(Landing::Safely));
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn a_batch_is_no_heavier_than_allowed_and_a_heavy_item_goes_alone() {
    let mut air = Airport::new(1, 10, 100);
    let first = air.submit(1);
    let mut held = air.departure().await;
    let waiting = air.queue_up([40, 60, 1, 500, 50, 51]).await;
    let mut batches = Vec::new();
    for _ in 0..5 {
        held.land(Landing::Safely);
        held = air.departure().await;
        batches.push(held.batch.clone());
    }
    held.land(Landing::Safely);
    assert_eq!(batches, [vec![40, 60], vec![1], vec![500], vec![50], vec![51]]);
    assert!(first.await.is_ok());
    for caller in waiting {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_nobody_and_its_waiting_item_stays_behind() {
    let mut air = Airport::new(1, 10, 1_000);
    let leaver_in_flight = air.submit(1);
    let held = air.departure().await;
    let waiting = air.queue_up([2, 3, 4]).await;
    leaver_in_flight.abort();
    waiting[1].abort();
    assert!(leaver_in_flight.await.is_err_and(|error| error.is_cancelled()));
    // Both have left before the next batch is taken: their tasks have ended.
    while !waiting[1].is_finished() {
        tokio::task::yield_now().await;
    }
    held.land(Landing::Safely);
    let held = air.departure().await;
    assert_eq!(held.batch, [2, 4]);
    held.land(Landing::Safely);
    let mut results = Vec::new();
    for caller in waiting {
        results.push(caller.await.ok());
    }
    assert_eq!(results, [Some(Ok(Ok(2))), None, Some(Ok(Ok(4)))]);
    assert_eq!(air.flying().await, 0);
}

#[tokio::test]
async fn a_crashed_flight_loses_its_own_batch_and_its_slot_goes_on() {
    let mut air = Airport::new(1, 2, 1_000);
    let first = air.submit(1);
    let held = air.departure().await;
    let waiting = air.queue_up([2, 3, 4]).await;
    held.land(Landing::Crash);
    assert_eq!(first.await.expect("the caller does not panic"), Err(BatchLost));
    let held = air.departure().await;
    assert_eq!(held.batch, [2, 3]);
    held.land(Landing::Crash);
    let held = air.departure().await;
    assert_eq!(held.batch, [4]);
    held.land(Landing::Safely);
    let mut results = Vec::new();
    for caller in waiting {
        results.push(caller.await.expect("the caller does not panic"));
    }
    assert_eq!(results, [Err(BatchLost), Err(BatchLost), Ok(Ok(4))]);
    assert_eq!(air.flying().await, 0);
    let later = air.submit(5);
    air.departure().await.land(Landing::Safely);
    assert_eq!(later.await.expect("no panic"), Ok(Ok(5)));
}

#[tokio::test]
async fn a_flight_that_panics_before_it_is_a_future_is_caught_too() {
    let bounds =
        Bounds { flights: 1, items: 10, weight: 1_000, min_interval: Duration::ZERO, max_wait: PATIENCE };
    let fly = |batch: Vec<u32>| {
        assert!(batch != [13], "on purpose");
        std::future::ready(batch)
    };
    let batcher = Batcher::new(bounds, |_| 1, fly);
    assert_eq!(batcher.submit(13).await, Err(BatchLost));
    assert_eq!(batcher.submit(14).await, Ok(14));
}

#[tokio::test]
async fn a_caller_whose_result_is_missing_is_told() {
    let mut air = Airport::new(1, 10, 1_000);
    let first = air.submit(1);
    let held = air.departure().await;
    let waiting = air.queue_up([2, 3]).await;
    held.land(Landing::Safely);
    air.departure().await.land(Landing::WithTooFewResults);
    assert_eq!(first.await.expect("no panic"), Ok(Ok(1)));
    let mut results = Vec::new();
    for caller in waiting {
        results.push(caller.await.expect("no panic"));
    }
    assert_eq!(results, [Ok(Ok(2)), Err(BatchLost)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_callers_on_several_threads_each_get_their_own_result_in_few_calls() {
    let (calls, carried) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let clearance = Arc::new(Semaphore::new(0));
    let batcher = {
        let (calls, carried, clearance) = (Arc::clone(&calls), Arc::clone(&carried), Arc::clone(&clearance));
        let bounds = Bounds {
            flights: 4,
            items: 10,
            weight: usize::MAX,
            min_interval: Duration::ZERO,
            max_wait: PATIENCE,
        };
        Batcher::new(
            bounds,
            |_| 1,
            move |batch: Vec<u32>| {
                let (calls, carried, clearance) =
                    (Arc::clone(&calls), Arc::clone(&carried), Arc::clone(&clearance));
                async move {
                    carried.fetch_add(batch.len(), Ordering::SeqCst);
                    calls.fetch_add(1, Ordering::SeqCst);
                    let _cleared = clearance.acquire().await.expect("open");
                    batch
                }
            },
        )
    };
    let callers: Vec<_> = (0..1_000_u32)
        .map(|item| {
            let batcher = batcher.clone();
            tokio::spawn(async move { batcher.submit(item).await == Ok(item) })
        })
        .collect();
    // Until all of them wait, or are carried by the first four calls, which are held.
    while calls.load(Ordering::SeqCst) < 4 || carried.load(Ordering::SeqCst) + batcher.waiting() < 1_000 {
        tokio::task::yield_now().await;
    }
    clearance.add_permits(4);
    for caller in callers {
        assert!(caller.await.expect("no panic"));
    }
    let calls = calls.load(Ordering::SeqCst);
    assert!((100..=104).contains(&calls), "{calls} calls for 1,000 items");
}
