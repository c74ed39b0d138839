//! Replacement of processes while the broker works: nothing is lost, and no client notices.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use broker_tests::{Api, Setup, story, together, wait_for_condition};
use nix::sys::signal::Signal;

const CLIENTS: usize = 8;
/// Sandboxes that one client uses up.
const EACH: usize = 120;

/// A load balancer: calls go to the APIs that it knows, in turn.
#[derive(Clone)]
struct Balance {
    apis: Arc<Mutex<Vec<Api>>>,
    next: Arc<AtomicUsize>,
    ended: Arc<AtomicBool>,
}

impl Balance {
    fn new(apis: Vec<Api>) -> Self {
        Self { apis: Arc::new(Mutex::new(apis)), next: Arc::default(), ended: Arc::default() }
    }

    fn api(&self) -> Api {
        let apis = self.apis.lock().expect("no holder of the lock panicked");
        apis[self.next.fetch_add(1, Ordering::Relaxed) % apis.len()].clone()
    }

    fn add(&self, api: &Api) {
        self.apis.lock().expect("no holder of the lock panicked").push(api.clone());
    }

    /// Sends no more to `api`, once its health check fails.
    async fn remove_when_not_ready(&self, api: &Api) {
        wait_for_condition("the API that was told to stop to be not ready", async || {
            match api.probe("/readyz").await {
                Some((503, _)) => Ok(()),
                other => Err(other),
            }
        })
        .await;
        self.apis
            .lock()
            .expect("no holder of the lock panicked")
            .retain(|known| known.address() != api.address());
    }
}

/// The number of calls of a kind by one client. A call with a wrong response ends the story.
#[derive(Clone, Copy, Debug, Default)]
struct Calls {
    allocated: usize,
    repeated: usize,
    returned: usize,
}

/// Allocates, asks again, gives back, until all processes are replaced.
async fn client(number: usize, balance: Balance) -> Calls {
    let mut calls = Calls::default();
    for round in 0..EACH {
        let track = format!("student-{number}-{round}");
        let first = balance.api().allocate(&track).send().await.expect_status(201);
        calls.allocated += 1;
        loop {
            let again = balance.api().allocate(&track).send().await.expect_status(200);
            assert_eq!(again.sandbox_id(), first.sandbox_id());
            calls.repeated += 1;
            let is_last = round + 1 == EACH;
            if !is_last || balance.ended.load(Ordering::Relaxed) {
                break;
            }
        }
        balance.api().return_sandbox(first.sandbox_id(), &track).send().await.expect_status(200);
        calls.returned += 1;
    }
    calls
}

#[tokio::test]
async fn replacing_every_process_under_load_loses_and_fails_nothing() {
    let setup = Setup::new().apis(2).workers(3).pool(CLIENTS * EACH).var("BROKER_LAME_DUCK_S", "5");
    story(setup, async |broker| {
        let balance = Balance::new((0..2).map(|n| broker.api(n).clone()).collect());
        let clients: Vec<_> = (0..CLIENTS).map(|n| client(n, balance.clone())).collect();
        let clients = tokio::spawn(together(clients));
        for _ in 0..2 {
            broker.start_api().await;
            balance.add(broker.api(2));
            let (leaving, api) = broker.terminate_api(0);
            balance.remove_when_not_ready(&api).await;
            leaving.stopped().await;
        }
        for _ in 0..3 {
            broker.start_worker().await;
            broker.stop_worker(0).await;
        }
        assert!(!clients.is_finished(), "the load ended before the replacement did");
        balance.ended.store(true, Ordering::Relaxed);
        let calls = clients.await.expect("every call was answered as it should be");
        println!("calls of each client while 2 APIs and 3 workers were replaced: {calls:#?}");
        assert_eq!(broker.stats().await.pending_deletion, (CLIENTS * EACH) as u64);
    })
    .await;
}

#[tokio::test]
async fn a_lame_duck_is_not_ready_but_serves_and_sends_its_clients_elsewhere() {
    story(Setup::new().workers(3).apis(1).pool(2).var("BROKER_LAME_DUCK_S", "300"), async |broker| {
        let before = broker.api(0).allocate("student-1").send().await.expect_status(201);
        assert_eq!(before.header("connection"), None, "a client keeps its connection");
        let (process, api) = broker.terminate_api(0);
        wait_for_condition("the lame duck to be not ready", async || match api.probe("/readyz").await {
            Some((503, _)) => Ok(()),
            other => Err(other),
        })
        .await;
        let served = api.allocate("student-2").send().await.expect_status(201);
        assert_eq!(served.must_have("connection"), "close");
        let (alive, _) = api.probe("/healthz").await.expect("it lives");
        assert_eq!(alive, 200);
        // A client that cannot wait sets its own deadline.
        process.signal(Signal::SIGTERM);
        process.stopped().await;
    })
    .await;
}

#[tokio::test]
async fn a_caller_who_would_outlast_the_drain_is_told_where_his_answer_will_be() {
    story(Setup::new().apis(2).workers(0).pool(2).var("BROKER_DRAIN_S", "3"), async |broker| {
        let calls: Vec<_> = (0..2).map(|n| broker.api(0).allocate(&format!("student-{n}")).send()).collect();
        let calls = tokio::spawn(together(calls));
        broker.queues().holds_requests(2).await;
        let (draining, _) = broker.terminate_api(0);
        let answers = calls.await.expect("answers");
        draining.stopped().await;
        broker.start_worker().await;
        for (n, answer) in answers.into_iter().enumerate() {
            let location = answer.expect_problem(503, "STILL_QUEUED").must_have("location").to_owned();
            let ended = broker.outcome(&location, &format!("student-{n}")).await;
            assert_eq!(ended.text_of("status"), "succeeded", "{ended:#?}");
        }
    })
    .await;
}
