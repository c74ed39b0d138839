//! Tests of the batcher: calls are held and released by hand; nothing sleeps.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use super::*;

/// Longer than any test.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// The result for an item.
type Answer = Result<u32, &'static str>;

/// A call that has begun and is held, with its batch.
struct Held {
    batch: Vec<u32>,
    end: oneshot::Sender<Ending>,
}

enum Ending {
    /// Each item is its own result, but for the multiples of 7, which fail.
    Ok,
    WithTooFewResults,
    Panic,
}

impl Held {
    fn end(self, ending: Ending) {
        assert!(self.end.send(ending).is_ok(), "the call is in flight");
    }
}

struct Harness {
    batcher: Batcher<u32, Answer>,
    calls_begun: mpsc::UnboundedReceiver<Held>,
}

impl Harness {
    fn new(in_flight: usize, items: usize, weight: usize) -> Self {
        Self::with_min_interval(in_flight, items, weight, Duration::ZERO)
    }

    fn with_min_interval(in_flight: usize, items: usize, weight: usize, min_interval: Duration) -> Self {
        Self::with_bounds(Bounds { in_flight, items, weight, min_interval, max_wait: PATIENCE })
    }

    fn with_bounds(bounds: Bounds) -> Self {
        let (announce, calls_begun) = mpsc::unbounded_channel();
        let batcher = Batcher::new(
            bounds,
            |item| *item as usize,
            move |batch: Vec<u32>| {
                let announce = announce.clone();
                async move {
                    let (end, ending) = oneshot::channel();
                    let results =
                        batch.iter().map(|item| if item % 7 == 0 { Err("seven") } else { Ok(*item) });
                    let results: Vec<Answer> = results.collect();
                    assert!(announce.send(Held { batch, end }).is_ok(), "the test listens");
                    match ending.await {
                        Ok(Ending::Ok) => results,
                        Ok(Ending::WithTooFewResults) => results.into_iter().take(1).collect(),
                        Ok(Ending::Panic) => panic!("a call panicked, on purpose"),
                        Err(_test_ended) => Vec::new(),
                    }
                }
            },
        );
        Self { batcher, calls_begun }
    }

    fn submit(&self, item: u32) -> JoinHandle<Result<Answer, BatchLost>> {
        let batcher = self.batcher.clone();
        tokio::spawn(async move { batcher.submit(item).await })
    }

    async fn next_call(&mut self) -> Held {
        self.calls_begun.recv().await.expect("the batcher lives")
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
    async fn in_flight(&self) -> usize {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let state = self.batcher.0.state();
        assert!(state.recent <= state.in_flight, "{} of {} slots are recent", state.recent, state.in_flight);
        state.in_flight
    }
}

#[tokio::test]
async fn an_item_goes_at_once_while_no_call_is_in_flight_and_waits_for_the_end_of_one_otherwise() {
    let mut harness = Harness::new(2, 10, 1_000);
    let first = harness.submit(1);
    let one = harness.next_call().await;
    let waiting = harness.queue_up([2, 3]).await;
    assert_eq!(
        (&one.batch, harness.in_flight().await),
        (&vec![1], 1),
        "a batch that is not full has no slot of its own"
    );
    one.end(Ending::Ok);
    assert_eq!(first.await.expect("no panic"), Ok(Ok(1)));
    let two = harness.next_call().await;
    assert_eq!(two.batch, [2, 3]);
    two.end(Ending::Ok);
    for caller in waiting {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(harness.in_flight().await, 0);
}

#[tokio::test]
async fn a_full_batch_goes_beside_another_call_and_the_last_to_end_takes_the_rest() {
    let mut harness = Harness::new(3, 2, 1_000);
    let mut callers = vec![harness.submit(1)];
    let one = harness.next_call().await;
    callers.extend(harness.queue_up([2]).await);
    callers.push(harness.submit(3));
    let two = harness.next_call().await;
    assert_eq!((&one.batch, &two.batch), (&vec![1], &vec![2, 3]));
    callers.extend(harness.queue_up([4]).await);
    one.end(Ending::Ok);
    assert_eq!(harness.in_flight().await, 1, "the waiting item is left to the call that is still in flight");
    two.end(Ending::Ok);
    let three = harness.next_call().await;
    assert_eq!(three.batch, [4]);
    three.end(Ending::Ok);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(harness.in_flight().await, 0);
}

#[tokio::test]
async fn a_batch_that_is_not_full_waits_for_the_interval_and_a_full_one_does_not() {
    let mut harness = Harness::with_min_interval(1, 2, 1_000, Duration::from_secs(3_600));
    let mut callers = vec![harness.submit(1)];
    // The first item after a quiet time goes at once.
    harness.next_call().await.end(Ending::Ok);
    callers.extend(harness.queue_up([2]).await);
    assert_eq!(harness.in_flight().await, 1, "its slot waits for the min_interval");
    assert!(harness.calls_begun.try_recv().is_err(), "a batch that is not full has left before its time");
    callers.push(harness.submit(3));
    let full = harness.next_call().await;
    assert_eq!(full.batch, [2, 3]);
    full.end(Ending::Ok);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn a_batch_that_is_not_full_leaves_when_the_interval_has_passed() {
    let mut harness = Harness::with_min_interval(1, 10, 1_000, Duration::from_millis(1));
    let first = harness.submit(1);
    harness.next_call().await.end(Ending::Ok);
    let second = harness.submit(2);
    let held = harness.next_call().await;
    assert_eq!(held.batch, [2]);
    held.end(Ending::Ok);
    assert!(first.await.is_ok() && second.await.is_ok());
}

#[tokio::test]
async fn an_item_behind_a_slow_call_goes_beside_it_as_long_as_there_is_a_slot() {
    let max_wait = Duration::from_millis(1);
    let bounds = Bounds { in_flight: 2, items: 10, weight: 1_000, min_interval: Duration::ZERO, max_wait };
    let mut harness = Harness::with_bounds(bounds);
    let mut callers = vec![harness.submit(1)];
    let slow = harness.next_call().await;
    // Whether it waits before or after the slow call exceeds its wait: it goes.
    callers.push(harness.submit(2));
    let beside = harness.next_call().await;
    assert_eq!((&slow.batch, &beside.batch), (&vec![1], &vec![2]));
    callers.extend(harness.queue_up([3, 4]).await);
    assert_eq!(harness.in_flight().await, 2, "both slots are taken");
    slow.end(Ending::Ok);
    let next = harness.next_call().await;
    assert_eq!(next.batch, [3, 4]);
    beside.end(Ending::Ok);
    next.end(Ending::Ok);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(harness.in_flight().await, 0);
    assert_eq!(harness.batcher.0.state().recent, 0);
}

#[tokio::test]
async fn items_that_come_while_all_slots_are_taken_go_in_full_batches_in_order() {
    let mut harness = Harness::new(1, 10, 10_000);
    let first = harness.submit(1);
    let mut held = harness.next_call().await;
    let waiting = harness.queue_up(101..=125).await;
    let mut batches = Vec::new();
    for _ in 0..3 {
        held.end(Ending::Ok);
        held = harness.next_call().await;
        batches.push(held.batch.clone());
    }
    held.end(Ending::Ok);
    let expected: Vec<Vec<u32>> = vec![(101..=110).collect(), (111..=120).collect(), (121..=125).collect()];
    assert_eq!(batches, expected);
    assert_eq!(first.await.expect("no panic"), Ok(Ok(1)));
    for (caller, item) in waiting.into_iter().zip(101..) {
        let expected = if item % 7 == 0 { Err("seven") } else { Ok(item) };
        assert_eq!(caller.await.expect("no panic"), Ok(expected), "each caller gets its own result");
    }
    assert_eq!(harness.in_flight().await, 0);
}

#[tokio::test]
async fn items_submitted_together_share_a_call() {
    let mut harness = Harness::new(4, 10, 10_000);
    let callers: Vec<_> = (1..=6).map(|item| harness.submit(item)).collect();
    let held = harness.next_call().await;
    assert_eq!(held.batch, [1, 2, 3, 4, 5, 6]);
    held.end(Ending::Ok);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
    assert_eq!(harness.in_flight().await, 0);
}

#[tokio::test]
async fn no_more_calls_than_slots_are_in_flight() {
    let mut harness = Harness::new(3, 1, 10_000);
    let callers: Vec<_> = (1..=9).map(|item| harness.submit(item)).collect();
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(harness.next_call().await);
    }
    assert_eq!(harness.in_flight().await, 3);
    assert!(harness.calls_begun.try_recv().is_err(), "a fourth call is in flight");
    for _ in 3..9 {
        held.remove(0).end(Ending::Ok);
        held.push(harness.next_call().await);
        assert_eq!(harness.in_flight().await, 3);
    }
    held.into_iter().for_each(|held| held.end(Ending::Ok));
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn a_batch_is_no_heavier_than_allowed_and_a_heavy_item_goes_alone() {
    let mut harness = Harness::new(1, 10, 100);
    let first = harness.submit(1);
    let mut held = harness.next_call().await;
    let waiting = harness.queue_up([40, 60, 1, 500, 50, 51]).await;
    let mut batches = Vec::new();
    for _ in 0..5 {
        held.end(Ending::Ok);
        held = harness.next_call().await;
        batches.push(held.batch.clone());
    }
    held.end(Ending::Ok);
    assert_eq!(batches, [vec![40, 60], vec![1], vec![500], vec![50], vec![51]]);
    assert!(first.await.is_ok());
    for caller in waiting {
        assert!(caller.await.expect("no panic").is_ok());
    }
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_no_other_and_its_waiting_item_is_dropped() {
    let mut harness = Harness::new(1, 10, 1_000);
    let leaver_in_flight = harness.submit(1);
    let held = harness.next_call().await;
    let waiting = harness.queue_up([2, 3, 4]).await;
    leaver_in_flight.abort();
    waiting[1].abort();
    assert!(leaver_in_flight.await.is_err_and(|error| error.is_cancelled()));
    // Both have left before the next batch is taken: their tasks have ended.
    while !waiting[1].is_finished() {
        tokio::task::yield_now().await;
    }
    held.end(Ending::Ok);
    let held = harness.next_call().await;
    assert_eq!(held.batch, [2, 4]);
    held.end(Ending::Ok);
    let mut results = Vec::new();
    for caller in waiting {
        results.push(caller.await.ok());
    }
    assert_eq!(results, [Some(Ok(Ok(2))), None, Some(Ok(Ok(4)))]);
    assert_eq!(harness.in_flight().await, 0);
}

#[tokio::test]
async fn a_call_that_panics_loses_its_own_batch_and_its_slot_goes_on() {
    let mut harness = Harness::new(1, 2, 1_000);
    let first = harness.submit(1);
    let held = harness.next_call().await;
    let waiting = harness.queue_up([2, 3, 4]).await;
    held.end(Ending::Panic);
    assert_eq!(first.await.expect("the caller does not panic"), Err(BatchLost));
    let held = harness.next_call().await;
    assert_eq!(held.batch, [2, 3]);
    held.end(Ending::Panic);
    let held = harness.next_call().await;
    assert_eq!(held.batch, [4]);
    held.end(Ending::Ok);
    let mut results = Vec::new();
    for caller in waiting {
        results.push(caller.await.expect("the caller does not panic"));
    }
    assert_eq!(results, [Err(BatchLost), Err(BatchLost), Ok(Ok(4))]);
    assert_eq!(harness.in_flight().await, 0);
    let later = harness.submit(5);
    harness.next_call().await.end(Ending::Ok);
    assert_eq!(later.await.expect("no panic"), Ok(Ok(5)));
}

#[tokio::test]
async fn a_call_that_panics_before_it_is_a_future_is_caught_too() {
    let bounds =
        Bounds { in_flight: 1, items: 10, weight: 1_000, min_interval: Duration::ZERO, max_wait: PATIENCE };
    let call = |batch: Vec<u32>| {
        assert!(batch != [13], "on purpose");
        std::future::ready(batch)
    };
    let batcher = Batcher::new(bounds, |_| 1, call);
    assert_eq!(batcher.submit(13).await, Err(BatchLost));
    assert_eq!(batcher.submit(14).await, Ok(14));
}

#[tokio::test]
async fn a_caller_whose_result_is_missing_gets_an_error() {
    let mut harness = Harness::new(1, 10, 1_000);
    let first = harness.submit(1);
    let held = harness.next_call().await;
    let waiting = harness.queue_up([2, 3]).await;
    held.end(Ending::Ok);
    harness.next_call().await.end(Ending::WithTooFewResults);
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
            in_flight: 4,
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

#[test]
fn items_wait_for_less_behind_calls_none_of_which_was_quick_of_late() {
    let max_wait = Duration::from_millis(8);
    let bounds = Bounds { in_flight: 4, items: 10, weight: 1_000, min_interval: Duration::ZERO, max_wait };
    let batcher = Batcher::new(bounds, |_: &u32| 1, |batch: Vec<u32>| std::future::ready(batch));
    let waits_after = |took: Duration, calls: usize| {
        (0..calls).for_each(|_| batcher.0.state().distance.learn(took));
        batcher.0.max_wait()
    };
    assert_eq!(waits_after(2 * max_wait, 5), max_wait, "too few to tell");
    assert_eq!(waits_after(2 * max_wait, 35), max_wait / FAR_PART);
    assert_eq!(waits_after(Duration::from_millis(1), 1), max_wait, "one was quick");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn items_of_tasks_that_were_woken_together_go_in_one_call() {
    let mut harness = Harness::with_min_interval(4, 10, 1_000, PATIENCE);
    let woken = tokio::sync::watch::Sender::new(());
    let callers: Vec<_> = (1..=5)
        .map(|item| {
            let (batcher, mut woken) = (harness.batcher.clone(), woken.subscribe());
            tokio::spawn(async move {
                woken.changed().await.expect("the test goes on");
                batcher.submit(item).await
            })
        })
        .collect();
    // From a task of the one thread that runs the others: none of them runs before all are woken.
    tokio::spawn(async move { woken.send_replace(()) }).await.expect("no panic");
    let call = harness.next_call().await;
    assert_eq!(call.batch.len(), 5, "{:?}", call.batch);
    call.end(Ending::Ok);
    for caller in callers {
        assert!(caller.await.expect("no panic").is_ok());
    }
}
