//! Actions on dead letters: replay and discard.
//!
//! A replay of one letter, in this order: **take (`dead → replaying`; the record of its message waits again) → send →
//! `replayed`**. Killed in between, it leaves a letter that no other run takes for [`HOLD`] and the next run sends again. A
//! message that dies again becomes a new letter that names the replayed one: a run skips letters that it sent itself, so that
//! nothing loops. Whether the cause is fixed is not checked.

use std::collections::VecDeque;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::intake::REPLAY_OF;
use super::run::Run;
use super::{Listing, ReplayReport, Selection};
use broker_domain::{DeadLetter, DeadLetterId, Source, Timestamp};
use broker_messages::{MaintenanceMessage, MaintenanceTask, RequestMessage, with_renewed_deadline};
use broker_queue::{Outgoing, SendError, Sender};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_store::{Act, Actor, AuditLine, Changed, Requeued, Store, StoreError, retry_on_conflict};

/// How long a letter that is being replayed is held.
pub(super) const HOLD: Duration = Duration::from_secs(15);
/// A deadline is not renewed later than this: the fence against a late message is kept for 30 days.
const RENEWABLE_FOR: Duration = Duration::from_secs(14 * 24 * 3_600);

/// An action on dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send them again, with the original identity and enqueue time.
    Replay {
        /// Renew the deadline as if requested now; otherwise requests past their deadline end as expired.
        renew_deadline: bool,
    },
    /// Mark them as discarded.
    Discard {
        /// The reason.
        why: String,
    },
}

/// The options of an action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Only report what would be done.
    pub dry_run: bool,
    /// The most letters a second.
    pub rate: Option<u32>,
    /// The most letters in all.
    pub limit: Option<u64>,
    /// The time limit; the run then ends with what is done, without waiting for held letters.
    pub within: Option<Duration>,
}

/// The dead letters of one broker, for its operators. Clones share the connections.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub(super) store: Store,
    requests: Sender,
    maintenance: Sender,
    pub(super) clock: Clock,
    pub(super) entropy: Entropy,
}

impl DeadLetters {
    /// Letters of `store`; a replay sends to the source queues.
    pub const fn new(
        store: Store,
        requests: Sender,
        maintenance: Sender,
        clock: Clock,
        entropy: Entropy,
    ) -> Self {
        Self { store, requests, maintenance, clock, entropy }
    }

    /// What a run would find: reads all selected letters.
    pub async fn count(&self, selection: Selection) -> Result<ReplayReport, StoreError> {
        let options = Options { dry_run: true, ..Options::default() };
        let action = Action::Replay { renew_deadline: false };
        Run::new(self, action, options, self.actor("nobody"))
            .run(selection, &CancellationToken::new(), |_| ())
            .await
    }

    /// Performs the action until the end or `stop`, and writes an audit line. `told` is called for every letter.
    pub async fn perform(
        &self,
        action: Action,
        selection: Selection,
        options: Options,
        by: &str,
        stop: &CancellationToken,
        told: impl FnMut(&ReplayReport),
    ) -> Result<ReplayReport, StoreError> {
        let actor = self.actor(by);
        if !options.dry_run {
            self.store.audit(&line(&action, &selection, options, &actor)).await?;
        }
        let (id, began) = (actor.action, actor.at);
        let run = Run::new(self, action, options, actor);
        let ended = run.run(selection, stop, told).await;
        if !options.dry_run {
            let said = match &ended {
                Ok(tally) => serde_json::to_string(tally).unwrap_or_default(),
                Err(error) => serde_json::json!({ "error": error.to_string() }).to_string(),
            };
            tracing::info!(action = %id, by, said, "dead letters: done");
            self.store.audit_end(id, began, &said).await?;
        }
        ended
    }

    fn actor(&self, by: &str) -> Actor {
        Actor { action: self.entropy.uuid(), by: by.to_owned(), at: self.clock.now() }
    }

    /// Performs the action on one letter; returns whether its deadline was renewed.
    pub(super) async fn act(
        &self,
        action: &Action,
        letter: &DeadLetter,
        actor: Actor,
    ) -> Result<(Changed, bool), Undone> {
        let actor = Actor { at: self.clock.now(), ..actor };
        match action {
            Action::Replay { renew_deadline } => self.replay(letter, *renew_deadline, actor).await,
            Action::Discard { why } => {
                let discard = || self.store.discard_letter(&letter.id, &actor, why);
                Ok((retry_on_conflict(&self.entropy, discard).await?, false))
            }
        }
    }

    async fn replay(
        &self,
        letter: &DeadLetter,
        renew: bool,
        actor: Actor,
    ) -> Result<(Changed, bool), Undone> {
        let may_renew = renew && actor.at.since(letter.first_at) <= RENEWABLE_FOR;
        let renewed = may_renew.then(|| with_renewed_deadline(&letter.body, actor.at)).flatten();
        let (body, deadline) = match &renewed {
            Some((body, deadline)) => (body, Some(*deadline)),
            None => (&letter.body, letter.summary.deadline),
        };
        let reopened = reopened(letter, body, deadline);
        let take = || self.store.take_letter(&letter.id, &actor, actor.at.plus(HOLD), reopened.as_ref());
        if retry_on_conflict(&self.entropy, take).await? == Changed::MovedOn {
            return Ok((Changed::MovedOn, false));
        }
        crash_points::point(Point::LetterTaken);
        let sender = match letter.source {
            Source::Requests => &self.requests,
            Source::Maintenance => &self.maintenance,
        };
        let own = letter.attributes.iter();
        let message = own
            .fold(Outgoing::from(body.clone()), |message, (name, value)| message.with_attribute(name, value));
        sender.send(message.with_attribute(REPLAY_OF, letter.id.as_str())).await?;
        crash_points::point(Point::LetterSent);
        let actor = Actor { at: self.clock.now(), ..actor };
        // If another run holds it, this one took longer than the hold: the other sends once more, which changes nothing.
        retry_on_conflict(&self.entropy, || self.store.letter_was_sent(&letter.id, &actor)).await?;
        Ok((Changed::Done, renewed.is_some()))
    }
}

/// Why the action failed for a letter. The next run finds it again.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// The record of a letter's message that must wait again after the replay.
fn reopened(letter: &DeadLetter, body: &str, deadline: Option<Timestamp>) -> Option<Requeued> {
    match letter.source {
        Source::Requests => {
            let message = RequestMessage::decode(&letter.body).ok()?;
            let deadline = deadline.unwrap_or(message.times().deadline);
            let (id, message_text) = (message.request_id, body.to_owned());
            message.asynchronous.then_some(Requeued::Request { id, message: message_text, deadline })
        }
        Source::Maintenance => {
            let message = MaintenanceMessage::decode(&letter.body).ok()?;
            match message.body {
                MaintenanceTask::RunJob { .. } => Some(Requeued::Run(message.request_id)),
                MaintenanceTask::Delete { .. } => None,
            }
        }
    }
}

fn line(action: &Action, selection: &Selection, options: Options, actor: &Actor) -> AuditLine {
    let (act, renewed, why) = match action {
        Action::Replay { renew_deadline } => (Act::Replay, *renew_deadline, None),
        Action::Discard { why } => (Act::Discard, false, Some(why.clone())),
    };
    let mut target = match selection {
        Selection::These(ids) => ids.iter().map(DeadLetterId::as_str).collect::<Vec<_>>().join(" "),
        Selection::Matching(filter) => format!("{filter:?}"),
    };
    if let Some(limit) = options.limit {
        target.push_str(&format!(", at most {limit}"));
    }
    if renewed {
        target.push_str(", deadlines renewed");
    }
    AuditLine {
        at: actor.at,
        id: actor.action,
        who: actor.by.clone(),
        act,
        target,
        why,
        count: None,
        ended: None,
    }
}

/// The selected letters.
pub(super) enum Selected {
    These(Store, VecDeque<DeadLetterId>),
    Matching(Box<Listing>),
}

impl Selected {
    pub(super) fn new(store: &Store, selection: Selection) -> Self {
        match selection {
            Selection::These(ids) => Self::These(store.clone(), ids.into()),
            Selection::Matching(filter) => {
                Self::Matching(Box::new(Listing::new(store.clone(), filter, None)))
            }
        }
    }

    /// The next one; ids without a letter are added to `missing`.
    pub(super) async fn next(
        &mut self,
        missing: &mut Vec<DeadLetterId>,
    ) -> Result<Option<DeadLetter>, StoreError> {
        match self {
            Self::Matching(listing) => listing.next().await,
            Self::These(store, ids) => {
                while let Some(id) = ids.pop_front() {
                    match store.letter(&id).await? {
                        Some(letter) => return Ok(Some(letter)),
                        None => missing.push(id),
                    }
                }
                Ok(None)
            }
        }
    }
}

/// The result of the task for one letter.
pub(super) type Acted = (DeadLetter, Result<(Changed, bool), Undone>);
