//! One run of an action over all selected letters: paced, bounded, a few at a time, and it can be stopped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::action::{Acted, Action, ActionOptions, DeadLetters};
use super::report::ReplayReport;
use super::selection::{Selected, Selection};
use broker_domain::{DeadLetter, DeadLetterEvent, DeadLetterId, Source, Timestamp};
use broker_messages::with_renewed_deadline;
use broker_store::{Actor, StoreError, Write};

/// Letters in progress at a time: enough for full batches of every call.
const AT_ONCE: usize = 100;
/// After this many failures in a row AWS is considered down.
const GIVE_UP_AFTER: u32 = 25;
/// How long after the end of its hold a held letter is read again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A run.
pub(super) struct ActionRun<'a> {
    letters: &'a DeadLetters,
    action: Arc<Action>,
    options: ActionOptions,
    actor: Actor,
    began: Instant,
    /// When the next letter may begin.
    slot: Instant,
    acting: JoinSet<Acted>,
    /// Letters that another run holds.
    held: Vec<DeadLetterId>,
    /// Whether some of them were left to these.
    held_by_others: bool,
    /// Letters that this run sends again.
    sent: HashSet<DeadLetterId>,
    begun: u64,
    failures_in_a_row: u32,
    tally: ReplayReport,
}

/// The next step of a run.
#[derive(PartialEq, Eq)]
enum AfterLetter {
    On,
    End,
}

impl<'a> ActionRun<'a> {
    pub(super) fn new(
        letters: &'a DeadLetters,
        action: Action,
        options: ActionOptions,
        actor: Actor,
    ) -> Self {
        let now = Instant::from_std(letters.clock.instant());
        Self {
            letters,
            action: Arc::new(action),
            options,
            actor,
            began: now,
            slot: now,
            acting: JoinSet::new(),
            held: Vec::new(),
            held_by_others: false,
            sent: HashSet::new(),
            begun: 0,
            failures_in_a_row: 0,
            tally: ReplayReport { dry_run: options.dry_run, ..ReplayReport::default() },
        }
    }

    /// Runs over all of `selection`; letters in progress are finished in any case. If the table cannot be read to the end, the
    /// run is interrupted; it is an error only if no letter was touched.
    pub(super) async fn run(
        mut self,
        selection: Selection,
        stop: &CancellationToken,
        mut report: impl FnMut(&ReplayReport),
    ) -> Result<ReplayReport, StoreError> {
        let mut selected = Selected::new(&self.letters.store, selection);
        let mut read = self.first_pass(&mut selected, stop, &mut report).await;
        self.drain(0, &mut report).await;
        if read.is_ok() {
            read = self.wait_for_held(stop, &mut report).await;
        }
        self.drain(0, &mut report).await;
        if let Err(error) = read {
            if self.begun == 0 || self.options.dry_run {
                return Err(error);
            }
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, "dead letters are not read to the end: the next run goes on");
            self.tally.interrupted = true;
        }
        let took = self.now().duration_since(self.began);
        self.tally.unreadable += selected.unreadable();
        // What failed, or another run holds, stands before it: the same call finds it again.
        let leaves_none = self.tally.failed == 0 && !self.held_by_others;
        let goes_on = self.tally.more && leaves_none && self.options.within.is_some();
        self.tally.next_cursor = selected.cursor().filter(|_| goes_on).cloned();
        self.tally.duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        Ok(self.tally)
    }

    async fn first_pass(
        &mut self,
        selected: &mut Selected,
        stop: &CancellationToken,
        report: &mut impl FnMut(&ReplayReport),
    ) -> Result<(), StoreError> {
        loop {
            if self.next(stop, report).await == AfterLetter::End {
                return Ok(());
            }
            // Where few match, it may read for long before it finds one.
            let letter = loop {
                if let Some(letter) = selected.next(&mut self.tally.missing).await? {
                    break letter;
                }
                if !selected.goes_on() || self.is_over(stop) {
                    return Ok(());
                }
            };
            if letter.replay_of.as_ref().is_some_and(|from| self.sent.contains(from)) {
                self.tally.died_again += 1;
                continue;
            }
            self.tally.found += 1;
            if letter.is_held(self.letters.clock.now()) && self.may(&letter) {
                self.held.push(letter.id);
            } else {
                self.begin(letter, report);
            }
        }
    }

    /// Waits for the runs that held the same letters; what they left is finished here.
    async fn wait_for_held(
        &mut self,
        stop: &CancellationToken,
        report: &mut impl FnMut(&ReplayReport),
    ) -> Result<(), StoreError> {
        let mut held = std::mem::take(&mut self.held);
        if self.options.dry_run || self.options.within.is_some() {
            self.tally.skipped += held.len() as u64;
            self.held_by_others = !held.is_empty();
            self.tally.more |= self.held_by_others;
            return Ok(());
        }
        'held: while let Some(id) = held.pop() {
            let letter = loop {
                let letter = match self.letters.store.dead_letters.get(&id).await {
                    // It stops no other.
                    Err(StoreError::Malformed { .. }) => {
                        self.tally.unreadable += 1;
                        continue 'held;
                    }
                    read => read?,
                };
                let now = self.letters.clock.now();
                let Some(until) =
                    letter.as_ref().filter(|letter| letter.is_held(now)).and_then(|l| l.held_until)
                else {
                    break letter;
                };
                let wait = until.since(now) + LOOK_AGAIN;
                if stop.run_until_cancelled(tokio::time::sleep(wait)).await.is_none() {
                    self.tally.interrupted = true;
                    self.tally.skipped += 1 + held.len() as u64;
                    return Ok(());
                }
            };
            if self.next(stop, report).await == AfterLetter::End {
                self.tally.skipped += 1 + held.len() as u64;
                return Ok(());
            }
            match letter {
                Some(letter) => self.begin(letter, report),
                None => self.tally.skipped += 1,
            }
        }
        Ok(())
    }

    /// Waits until the next letter may begin, or a reason to end.
    async fn next(
        &mut self,
        stop: &CancellationToken,
        report: &mut impl FnMut(&ReplayReport),
    ) -> AfterLetter {
        self.drain(AT_ONCE - 1, report).await;
        if self.options.limit.is_some_and(|limit| self.begun >= limit) {
            self.tally.more = true;
            return AfterLetter::End;
        }
        if let Some(rate) = self.options.rate.filter(|_| !self.options.dry_run) {
            let slot = self.slot;
            let paced = stop.run_until_cancelled(tokio::time::sleep_until(slot)).await;
            self.slot = slot.max(self.now()) + Duration::from_secs(1) / rate.max(1);
            if paced.is_none() {
                self.tally.interrupted = true;
                return AfterLetter::End;
            }
        }
        if self.is_over(stop) { AfterLetter::End } else { AfterLetter::On }
    }

    /// Whether it is stopped, or its time is over.
    fn is_over(&mut self, stop: &CancellationToken) -> bool {
        let stopped = stop.is_cancelled() || self.failures_in_a_row >= GIVE_UP_AFTER;
        let out_of_time =
            || self.options.within.is_some_and(|within| self.now().duration_since(self.began) >= within);
        let is_late = !stopped && out_of_time();
        self.tally.interrupted |= stopped;
        self.tally.more |= is_late;
        stopped || is_late
    }

    /// Whether the action is possible in the letter's state.
    fn may(&self, letter: &DeadLetter) -> bool {
        let event = match &*self.action {
            Action::Replay { .. } => DeadLetterEvent::Take,
            Action::Discard { .. } => DeadLetterEvent::Discard,
        };
        let sendable = event != DeadLetterEvent::Take || letter.source != Source::Unknown;
        sendable && letter.state.after(event).is_some()
    }

    fn begin(&mut self, letter: DeadLetter, report: &mut impl FnMut(&ReplayReport)) {
        // The table lets an action take again what it holds: each letter is sent once.
        let is_replay = matches!(&*self.action, Action::Replay { .. });
        if !self.may(&letter) || (is_replay && !self.sent.insert(letter.id.clone())) {
            self.tally.skipped += 1;
            return;
        }
        self.begun += 1;
        if self.options.dry_run {
            let now = self.letters.clock.now();
            let renew = matches!(&*self.action, Action::Replay { renew_deadline: true });
            self.tally.did(&letter, renew && with_renewed_deadline(&letter.body, now).is_some(), now);
            return report(&self.tally);
        }
        let (letters, action, actor) = (self.letters.clone(), Arc::clone(&self.action), self.actor.clone());
        self.acting.spawn(async move {
            let acted = letters.act(&action, &letter, actor).await;
            (letter, acted)
        });
    }

    /// Collects finished tasks, until at most `left` letters are in progress.
    async fn drain(&mut self, left: usize, report: &mut impl FnMut(&ReplayReport)) {
        while self.acting.len() > left {
            let Some(ended) = self.acting.join_next().await else { return };
            let now = self.letters.clock.now();
            self.count(ended, now);
            report(&self.tally);
        }
    }

    fn count(&mut self, ended: Result<Acted, JoinError>, now: Timestamp) {
        let problem = match ended {
            Ok((letter, Ok((Write::Applied, renewed)))) => {
                self.failures_in_a_row = 0;
                return self.tally.did(&letter, renewed, now);
            }
            Ok((_, Ok((Write::Rejected(()), _)))) => {
                self.failures_in_a_row = 0;
                self.tally.skipped += 1;
                return;
            }
            Ok((letter, Err(error))) => format!("{}: {error}", letter.id),
            Err(error) => error.to_string(),
        };
        tracing::warn!(problem, "a dead letter is left to the next run");
        self.failures_in_a_row += 1;
        self.tally.failed += 1;
    }

    fn now(&self) -> Instant {
        Instant::from_std(self.letters.clock.instant())
    }
}
