//! Client of a run: allocates, repeats, looks, polls, cancels, returns, and records every response.

use std::sync::Arc;
use std::time::Duration;

use broker_tests::{Answer, Api, Call};
use http::Method;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::cast::Apis;
use crate::history::{Event, Given, History, Key, Told};

/// Longer than any call may take.
const NO_ANSWER_AFTER: Duration = Duration::from_secs(75);
/// A request that was answered 202 has ended by then: its deadline, and the time that a GET allows for a claim under way.
const ENDS_WITHIN: Duration = Duration::from_secs(120);
/// How long a client waits for the outcome of a `respond-async` request before it cancels.
const PATIENCE: Duration = Duration::from_secs(20);
/// The fence of a return is two seconds before it (two clocks may differ so much): a copy of a later request may still claim.
/// A client that must end without a sandbox waits for so long before the return.
const FENCE: Duration = Duration::from_millis(2_500);
/// Pause after a refusal; and where most of the clients wait, so that their looks are not most of the load.
const PAUSE_MS: u64 = 200;
const PAUSE_OF_WAITING_MS: u64 = 1_000;
const REST_OF_WAITING_MS: u64 = 5_000;

/// One key of a track.
#[derive(Debug)]
pub(crate) struct Track {
    key: Key,
    /// Whether the key is sent; absent it is the track.
    explicit: bool,
    /// Whether half of its requests wait in a line.
    waiting: bool,
    /// The token of its tenant, if it is not the platform's.
    token: Option<&'static str>,
    rng: SmallRng,
    apis: Apis,
    history: Arc<History>,
}

/// Where a client stood at the end.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    pub(crate) key: Key,
    /// Its sandbox.
    pub(crate) holds: Option<Given>,
}

/// The response to an allocate.
enum Got {
    Sandbox(Given),
    Accepted(String),
    Nothing,
    Again,
}

/// The response to a GET of a request.
enum Look {
    Ended(Option<Given>),
    Queued,
}

impl Track {
    pub(crate) fn new(
        index: usize,
        seed: u64,
        waiting: bool,
        token: Option<&'static str>,
        apis: Apis,
        history: Arc<History>,
    ) -> Self {
        // Every other two keys share a track; the first of them is its default key.
        let explicit = index % 4 == 1 || index % 4 == 2;
        let track = format!("track-{}", if index % 4 == 1 { index - 1 } else { index });
        let key = if explicit { format!("key-{index}") } else { track.clone() };
        let rng = SmallRng::seed_from_u64(seed.wrapping_mul(0x9e37_79b9).wrapping_add(index as u64));
        Self { key: (track, key), explicit, waiting, token, rng, apis, history }
    }

    /// Lives until `end`, then settles: it knows what it holds.
    pub(crate) async fn run(mut self, end: watch::Receiver<bool>) -> Settled {
        while !*end.borrow() {
            let sandbox = self.obtain().await;
            for _ in 0..self.rng.random_range(0..3) {
                self.repeat(&sandbox).await;
            }
            self.give_back(&sandbox).await;
        }
        let sandbox = self.obtain().await;
        let holds = if self.rng.random_bool(0.5) {
            Some(sandbox)
        } else {
            sleep(FENCE).await;
            self.give_back(&sandbox).await;
            None
        };
        Settled { key: self.key, holds }
    }

    /// Asks until it has a sandbox.
    async fn obtain(&mut self) -> Given {
        loop {
            let wait = if self.rng.random_bool(0.2) { self.rng.random_range(0..3) } else { 10 };
            if self.waiting && self.rng.random_bool(0.5) {
                match self.in_a_line().await {
                    Some(sandbox) => return sandbox,
                    None => continue,
                }
            }
            if self.rng.random_bool(0.15) {
                match self.asynchronously().await {
                    Some(sandbox) => return sandbox,
                    None => {
                        self.rest().await;
                        continue;
                    }
                }
            }
            let got = if self.rng.random_bool(0.1) {
                // An impatient user: twice at once, through different APIs.
                let (first, second) = (self.allocate(wait), self.allocate(wait));
                let (first, second) = tokio::join!(self.ask(first), self.ask(second));
                if matches!(first, Got::Sandbox(_)) { first } else { second }
            } else {
                let call = self.allocate(wait);
                self.ask(call).await
            };
            match got {
                Got::Sandbox(sandbox) => return sandbox,
                Got::Accepted(location) => {
                    // Some poll, some just ask again.
                    if self.rng.random_bool(0.5)
                        && let Some(sandbox) = self.poll(&location).await
                    {
                        return sandbox;
                    }
                }
                Got::Nothing => self.rest().await,
                Got::Again => self.pause().await,
            }
        }
    }

    /// Asks without waiting, then polls or takes the request back; whichever it is, the request has ended after it.
    async fn asynchronously(&mut self) -> Option<Given> {
        let call = self.allocate(0).respond_async();
        let Got::Accepted(location) = self.ask(call).await else {
            self.pause().await;
            return None;
        };
        let patience = if self.rng.random_bool(0.4) { Duration::ZERO } else { PATIENCE };
        self.ended_or_taken_back(&location, patience).await
    }

    /// Asks, waits in a line if nothing is there, and polls; some lose their patience and cancel. Whichever it is, the request has
    /// ended after it.
    async fn in_a_line(&mut self) -> Option<Given> {
        let mut call = self.allocate(0);
        if !self.explicit {
            call = call.json(&json!({ "max_wait_s": self.rng.random_range(20..60) }));
            if self.rng.random_bool(0.3) {
                call = call.name_prefix("sandbox-");
            }
        }
        if self.rng.random_bool(0.5) {
            call = call.respond_async();
        }
        let location = match self.ask(call).await {
            Got::Sandbox(sandbox) => return Some(sandbox),
            Got::Accepted(location) => location,
            Got::Nothing | Got::Again => {
                self.pause().await;
                return None;
            }
        };
        let patience = if self.rng.random_bool(0.2) { Duration::from_secs(1) } else { ENDS_WITHIN };
        let sandbox = self.ended_or_taken_back(&location, patience).await;
        if sandbox.is_some() {
            self.told(self.history.elapsed(), Told::Waited);
        }
        sandbox
    }

    /// Polls a request, and takes it back when `patience` is over.
    async fn ended_or_taken_back(&mut self, location: &str, patience: Duration) -> Option<Given> {
        let began = self.history.elapsed();
        while self.history.elapsed() < began + patience {
            match self.look(location, began).await {
                Look::Ended(sandbox) => return sandbox,
                Look::Queued => self.pause().await,
            }
        }
        self.take_back(location).await
    }

    /// Cancels until that is answered. What could not be cancelled has ended; what was cancelled never claims.
    async fn take_back(&mut self, location: &str) -> Option<Given> {
        let began = self.history.elapsed();
        while self.history.elapsed() < began + ENDS_WITHIN {
            let call = self.api().cancel(location, &self.key.0);
            match self.answer(call).await.map(|answer| answer.status) {
                Some(200) => {
                    self.told(began, Told::Cancelled(location.to_owned()));
                    return None;
                }
                // Cancelled already, by an attempt whose answer was lost; or it has ended.
                Some(409) => return self.poll(location).await,
                Some(503) | None => self.pause().await,
                Some(status) => {
                    self.told(began, Told::Surprise(format!("a cancellation is answered {status}")));
                    return None;
                }
            }
        }
        self.told(began, Told::NeverEnded(location.to_owned()));
        None
    }

    fn allocate(&mut self, wait: u32) -> Call {
        let call = self.api().allocate(&self.key.0).wait(wait);
        match (self.explicit, self.waiting) {
            // A key that is sent stands for one request: each that is made with it waits.
            (true, true) => call.key(&self.key.1).json(&json!({ "max_wait_s": 40 })),
            (true, false) => call.key(&self.key.1),
            (false, _) => call,
        }
    }

    async fn ask(&self, call: Call) -> Got {
        let sent = self.history.elapsed();
        let Some(answer) = self.answer(call).await else { return Got::Again };
        match answer.status {
            200 | 201 => {
                let Some(sandbox) = given(&answer.json) else {
                    self.told(sent, Told::Surprise(format!("{answer:?}")));
                    return Got::Again;
                };
                self.told(sent, Told::Sandbox(sandbox.clone()));
                Got::Sandbox(sandbox)
            }
            202 => Got::Accepted(answer.must_have("location").to_owned()),
            409 => {
                self.told(sent, Told::NothingThere);
                Got::Nothing
            }
            503 => Got::Again,
            _ => {
                self.told(sent, Told::Surprise(format!("{answer:?}")));
                Got::Again
            }
        }
    }

    /// Polls a request until it ended; the sandbox that it was given, if any.
    async fn poll(&mut self, location: &str) -> Option<Given> {
        let began = self.history.elapsed();
        loop {
            if let Look::Ended(sandbox) = self.look(location, began).await {
                return sandbox;
            }
            if self.history.elapsed() > began + ENDS_WITHIN {
                self.told(began, Told::NeverEnded(location.to_owned()));
                return None;
            }
            self.pause().await;
        }
    }

    /// Looks once at a request that was made before `began`.
    async fn look(&mut self, location: &str, began: Duration) -> Look {
        let call = self.api().request(location, &self.key.0);
        match self.answer(call).await {
            Some(answer) if answer.status == 200 && answer.text_of("status") != "queued" => {
                let sandbox = given(&answer.json["response"]["body"]);
                if let Some(sandbox) = &sandbox {
                    // True at some instant since the request was made.
                    self.told(began, Told::Polled(location.to_owned(), sandbox.clone()));
                    self.told(began, Told::Sandbox(sandbox.clone()));
                }
                Look::Ended(sandbox)
            }
            Some(answer) if ![200, 503].contains(&answer.status) => {
                self.told(began, Told::Surprise(format!("{answer:?}")));
                Look::Ended(None)
            }
            Some(_) | None => Look::Queued,
        }
    }

    /// Reloads the page, renews the lease, or looks at the sandbox.
    async fn repeat(&mut self, sandbox: &Given) {
        if self.waiting && self.rng.random_bool(0.3) {
            let path = format!("/v1/sandboxes/{}/renew", sandbox.id);
            let call = self.api().call(Method::POST, &path).header("x-track-id", &self.key.0);
            let sent = self.history.elapsed();
            match self.answer(call).await.map(|answer| answer.status) {
                Some(200 | 503) | None => {}
                Some(status) => {
                    self.told(
                        sent,
                        Told::Surprise(format!("a renewal of {} is answered {status}", sandbox.id)),
                    );
                }
            }
            return;
        }
        if self.rng.random_bool(0.7) {
            let call = self.allocate(10);
            self.ask(call).await;
        } else {
            let call = self.api().sandbox(&sandbox.id, &self.key.0);
            let sent = self.history.elapsed();
            match self.answer(call).await {
                Some(answer) if answer.status == 503 => {}
                Some(answer) => self.told(sent, Told::Looked(sandbox.clone(), answer.status)),
                None => {}
            }
        }
    }

    /// Gives back, until that is confirmed.
    async fn give_back(&mut self, sandbox: &Given) {
        loop {
            let call = self.api().return_sandbox(&sandbox.id, &self.key.0);
            let sent = self.history.elapsed();
            let told = match self.answer(call).await.map(|answer| answer.status) {
                Some(200) => Told::Returned(sandbox.clone()),
                Some(status @ (403 | 404)) => Told::MarkRefused(sandbox.clone(), status),
                Some(202 | 503) | None => Told::MarkUnanswered(sandbox.clone()),
                Some(status) => Told::Surprise(format!("a mark of {} is answered {status}", sandbox.id)),
            };
            let done = matches!(told, Told::Returned(_) | Told::MarkRefused(..));
            self.told(sent, told);
            if done {
                return;
            }
            self.pause().await;
        }
    }

    fn told(&self, sent: Duration, told: Told) {
        let event = Event { key: self.key.clone(), sent, received: self.history.elapsed(), told };
        self.history.add(event);
    }

    /// Any API that is known now.
    fn api(&mut self) -> Api {
        let apis = self.apis.read().expect("the cast does not panic");
        apis[self.rng.random_range(0..apis.len())].clone()
    }

    /// `None`: the connection broke, or nothing came.
    async fn answer(&self, call: Call) -> Option<Answer> {
        let call = match self.token {
            Some(token) => call.token(token),
            None => call,
        };
        timeout(NO_ANSWER_AFTER, call.try_send()).await.ok()?.ok()
    }

    /// A pause after there was nothing: where the pool is mostly empty, those who do not wait are not most of the load.
    async fn rest(&mut self) {
        self.pause_up_to(if self.waiting { REST_OF_WAITING_MS } else { PAUSE_MS }).await;
    }

    async fn pause(&mut self) {
        self.pause_up_to(if self.waiting { PAUSE_OF_WAITING_MS } else { PAUSE_MS }).await;
    }

    async fn pause_up_to(&mut self, longest: u64) {
        sleep(Duration::from_millis(self.rng.random_range(longest / 2..longest))).await;
    }
}

/// The sandbox in the body of an allocation.
fn given(body: &Value) -> Option<Given> {
    let text = |member: &str| body[member].as_str().map(str::to_owned);
    Some(Given { id: text("sandbox_id")?, account: text("external_id")? })
}
