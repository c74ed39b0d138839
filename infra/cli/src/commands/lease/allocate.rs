//! The allocation of `broker lease`: asks for a sandbox, waits for it, and takes back what was asked for when a signal comes.
//!
//! Invariants: no call asks to wait for longer than what is left of the wait, so the request ends when that does. A request that
//! was accepted is asked for at its `Location`, also after a time without the network, and so keeps its place in the line.

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::client::{
    Client, HeldLease, LeaseAnswer, NoSandbox, PATIENCE, PAUSE, RetryBudget, WantedLease, held,
};
use crate::output;

/// For how many seconds the call of an allocate is held. Only its answer says where the request can be cancelled.
const HELD_CALL_S: u64 = 2;
/// How long a call that is under way goes on after a signal, and how long taking back is tried.
const TO_SETTLE: Duration = Duration::from_secs(4);
/// The pause between two attempts to take back.
const SETTLE_PAUSE: Duration = Duration::from_millis(500);
/// After the end of the wait, how long a request may still stand in its line until it is cancelled.
const SLACK: Duration = Duration::from_secs(3);
/// The setting that the words of `CANNOT_WAIT` name where no request waits at all.
const WAITING_SETTING: &str = "BROKER_WAITING";

/// A sandbox, within the wait.
pub(super) async fn allocate(
    client: &Client,
    wanted: &WantedLease<'_>,
    stop: &CancellationToken,
) -> Result<HeldLease, NoSandbox> {
    let now = client.clock.instant();
    let mut asking = Asking {
        client,
        wanted,
        wait: RetryBudget::new(wanted.wait, now),
        unreached: RetryBudget::new(PATIENCE, now),
        in_line: !wanted.wait.is_zero(),
        accepted: None,
        unsettled: false,
    };
    loop {
        if stop.is_cancelled() {
            return asking.take_back().await.ok_or(NoSandbox::Interrupted);
        }
        let Some(answer) = until_soon_after(stop, asking.call()).await else {
            asking.unsettled = true;
            continue;
        };
        match asking.judge(answer) {
            NextStep::Ended(told) => return told.map(|held| *held),
            NextStep::Overdue => {
                let why = NoSandbox::NotInTime("its request still waits, and was cancelled".to_owned());
                return asking.take_back().await.ok_or(why);
            }
            NextStep::Again(pause) => {
                let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }
}

/// What `call` gives; `None` if it has not ended a moment after `stop`.
async fn until_soon_after<T>(stop: &CancellationToken, call: impl Future<Output = T>) -> Option<T> {
    let too_late = async {
        stop.cancelled().await;
        tokio::time::sleep(TO_SETTLE).await;
    };
    tokio::select! {
        biased;
        told = call => Some(told),
        () = too_late => None,
    }
}

/// What follows from an answer.
enum NextStep {
    Ended(Result<Box<HeldLease>, NoSandbox>),
    /// The request still stands in a line, and its time is over.
    Overdue,
    /// The next call comes after this pause.
    Again(Duration),
}

/// An allocation under way.
struct Asking<'a> {
    client: &'a Client,
    wanted: &'a WantedLease<'a>,
    wait: RetryBudget,
    /// How long a broker that cannot be reached is asked again, whatever the wait: it says nothing of the pool.
    unreached: RetryBudget,
    /// Whether requests wait in lines. A broker where none does is asked again and again instead.
    in_line: bool,
    /// The path of the request that was accepted.
    accepted: Option<String>,
    /// Whether a call was not answered that may have been given a sandbox.
    unsettled: bool,
}

impl Asking<'_> {
    async fn call(&self) -> Result<LeaseAnswer, String> {
        match &self.accepted {
            Some(location) => self.client.get(location).await,
            None => {
                let left = self.wait.left(self.client.clock.instant());
                let max_wait = if self.in_line { left } else { Duration::ZERO };
                self.client.ask(self.wanted, max_wait, HELD_CALL_S).await
            }
        }
    }

    fn judge(&mut self, answer: Result<LeaseAnswer, String>) -> NextStep {
        let now = self.client.clock.instant();
        match answer {
            Ok(answer) if self.accepted.is_some() => self.judge_state(answer, now),
            Ok(answer) => self.judge_asked(answer, now),
            Err(why) => {
                self.unsettled |= self.accepted.is_none();
                self.later(PAUSE, why, false, now)
            }
        }
    }

    /// What the answer to an allocate means.
    fn judge_asked(&mut self, answer: LeaseAnswer, now: Instant) -> NextStep {
        if answer.status == 202
            && let Some(location) = answer.location()
        {
            self.accepted = Some(location);
            return NextStep::Again(Duration::ZERO);
        }
        if self.in_line && answer.code() == "CANNOT_WAIT" {
            if !answer.told().contains(WAITING_SETTING) {
                return NextStep::Ended(Err(NoSandbox::Refused(answer.told())));
            }
            self.in_line = false;
            return NextStep::Again(Duration::ZERO);
        }
        self.unsettled |= answer.status >= 500;
        self.judge_end(&answer, now)
    }

    /// What the state of the accepted request means.
    fn judge_state(&mut self, answer: LeaseAnswer, now: Instant) -> NextStep {
        if answer.status != 200 {
            return self.judge_end(&answer, now);
        }
        if answer.body["status"] == "queued" {
            if self.in_line && self.wait.is_over_by(SLACK, now) {
                return NextStep::Overdue;
            }
            if let Some(ahead) = answer.body["waiting"]["ahead"].as_u64() {
                self.wait.say(&format!("{ahead} before this one"), now);
            }
            return NextStep::Again(self.poll_after(&answer, now));
        }
        self.accepted = None;
        let is_expired = answer.body["status"] == "expired";
        let ended = answer.stored();
        if is_expired {
            return self.later(PAUSE, ended.detail(), true, now);
        }
        self.judge_end(&ended, now)
    }

    /// Until the next look at a request: as it was told, and not long after the wait is over.
    fn poll_after(&self, answer: &LeaseAnswer, now: Instant) -> Duration {
        let told = answer.retry_after();
        if self.in_line { told.min(self.wait.left(now) + Duration::from_secs(1)) } else { told }
    }

    /// What the answer to the call, or to the request, means.
    fn judge_end(&mut self, answer: &LeaseAnswer, now: Instant) -> NextStep {
        match answer.status {
            200 | 201 => NextStep::Ended(held(&answer.body).map(Box::new)),
            status if answer.is_for_now() => {
                self.later(answer.retry_after(), answer.told(), status == 409, now)
            }
            _ => NextStep::Ended(Err(NoSandbox::Refused(answer.told()))),
        }
    }

    /// Another call, unless it would come too late. `of_pool`: `last` says how the pool is.
    fn later(&mut self, pause: Duration, last: String, of_pool: bool, now: Instant) -> NextStep {
        self.wait.say(&last, now);
        if self.wait.is_over(pause, now) && (of_pool || self.unreached.is_over(pause, now)) {
            return NextStep::Ended(Err(NoSandbox::NotInTime(last)));
        }
        NextStep::Again(pause)
    }

    /// Takes back what was asked for; what it was given all the same.
    async fn take_back(&mut self) -> Option<HeldLease> {
        let settled = tokio::time::timeout(TO_SETTLE, self.settle()).await;
        let why = match settled {
            Ok(Ok(held)) => return held,
            Ok(Err(why)) => why,
            Err(_elapsed) => "no answer in time".to_owned(),
        };
        output::complain(&format!(
            "what was asked for was not taken back ({why}); a sandbox that it is given is taken back when its heartbeats have been missed"
        ));
        None
    }

    async fn settle(&mut self) -> Result<Option<HeldLease>, String> {
        if self.accepted.is_none() {
            if !self.unsettled {
                return Ok(None);
            }
            // The same key finds what a lost answer gave.
            let answer = self.client.ask(self.wanted, Duration::ZERO, 1).await?;
            match answer.status {
                200 | 201 => return Ok(held(&answer.body).ok()),
                202 => self.accepted = answer.location(),
                _ => {}
            }
        }
        let Some(location) = &self.accepted else { return Ok(None) };
        loop {
            match self.client.cancel(location).await {
                Ok(cancelled) if cancelled.status == 200 => return Ok(None),
                // It has ended, or it can only be waited for.
                Ok(refused) if refused.status == 409 => {
                    if let Ok(answer) = self.client.get(location).await
                        && answer.body["status"] != "queued"
                    {
                        let ended = answer.stored();
                        return Ok(matches!(ended.status, 200 | 201)
                            .then(|| held(&ended.body).ok())
                            .flatten());
                    }
                }
                Ok(refused) if !refused.is_for_now() => return Err(refused.told()),
                Ok(_) | Err(_) => {}
            }
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }
}
