//! Action on one dead letter: replay or discard.
//!
//! A replay of one letter, in this order: **take (`dead → replaying`; the record of its message waits again) → send →
//! `replayed`**. Killed in between, it leaves a letter that no other run takes for [`LETTER_HELD_FOR`] and the next run sends again. A
//! message that dies again becomes a new letter that names the replayed one: a run skips letters that it sent itself, so that
//! nothing loops. Whether the cause is fixed is not checked.

use std::time::Duration;

use super::intake::{MOST_ATTRIBUTES, REPLAY_OF, is_recorded, pending_record};
use broker_domain::{DeadLetter, LETTER_HELD_FOR, Source, Timestamp};
use broker_messages::{
    MaintenanceMessage, MaintenanceTask, RequestMessage, tenant_of, with_renewed_deadline,
};
use broker_queue::{Outgoing, SendError, Sender};
use broker_runtime::clock::Clock;
use broker_runtime::crash_points::{self, Point};
use broker_runtime::entropy::Entropy;
use broker_store::{Actor, Requeued, Store, StoreError, Write, retry_on_conflict};

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
pub struct ActionOptions {
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

    /// Performs the action on one letter; returns whether its deadline was renewed.
    pub(super) async fn act(
        &self,
        action: &Action,
        letter: &DeadLetter,
        actor: Actor,
    ) -> Result<(Write, bool), ActionError> {
        let actor = Actor { at: self.clock.now(), ..actor };
        match action {
            Action::Replay { renew_deadline } => self.replay(letter, *renew_deadline, actor).await,
            Action::Discard { why } => {
                let pending = pending_record(letter);
                let discard = || self.store.dead_letters.discard(letter, pending.as_ref(), &actor, why);
                Ok((retry_on_conflict(&self.entropy, discard).await?, false))
            }
        }
    }

    async fn replay(
        &self,
        letter: &DeadLetter,
        renew: bool,
        actor: Actor,
    ) -> Result<(Write, bool), ActionError> {
        let sender = match letter.source {
            Source::Requests => &self.requests,
            Source::Maintenance => &self.maintenance,
            // Its own program replays it.
            Source::Unknown => return Ok((Write::Rejected(()), false)),
        };
        let renewed = renew.then(|| with_renewed_deadline(&letter.body, actor.at)).flatten();
        let (body, deadline) = match &renewed {
            Some((body, deadline)) => (body, Some(*deadline)),
            None => (&letter.body, letter.summary.deadline),
        };
        let message = message_again(letter, body);
        if !message.fits() {
            // From before its queue had this bound.
            tracing::warn!(
                letter = letter.id.as_str(),
                "not replayed: larger than its queue takes; discard it"
            );
            return Ok((Write::Rejected(()), false));
        }
        let requeued = requeued(letter, body, deadline);
        let until = actor.at.plus(LETTER_HELD_FOR);
        let take = || self.store.dead_letters.take(&letter.id, &actor, until, requeued.as_ref());
        if !retry_on_conflict(&self.entropy, take).await?.is_applied() {
            return Ok((Write::Rejected(()), false));
        }
        crash_points::point(Point::LetterTaken);
        sender.send(message).await?;
        crash_points::point(Point::LetterSent);
        let actor = Actor { at: self.clock.now(), ..actor };
        // If another run holds it, this one took longer than the hold: the other sends once more, which changes nothing.
        retry_on_conflict(&self.entropy, || self.store.dead_letters.mark_replayed(&letter.id, &actor))
            .await?;
        Ok((Write::Applied, renewed.is_some()))
    }
}

/// A letter's message with this text, to be sent again. Keeps its own attributes as far as SQS has room for them.
fn message_again(letter: &DeadLetter, body: &str) -> Outgoing {
    let tenant = match letter.source {
        Source::Requests => tenant_of(body),
        Source::Maintenance | Source::Unknown => None,
    };
    let own = letter.attributes.iter().take(MOST_ATTRIBUTES - 1);
    own.fold(Outgoing::from(body.to_owned()), |message, (name, value)| message.with_attribute(name, value))
        .with_attribute(REPLAY_OF, letter.id.as_str())
        .of_tenant(tenant)
}

/// Why the action failed for a letter. The next run finds it again.
#[derive(Debug, thiserror::Error)]
pub(super) enum ActionError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Send(#[from] SendError),
}

/// The record of a letter's message that must wait again after the replay.
fn requeued(letter: &DeadLetter, body: &str, deadline: Option<Timestamp>) -> Option<Requeued> {
    match letter.source {
        Source::Requests => {
            let message = RequestMessage::decode(&letter.body).ok()?;
            let deadline = deadline.unwrap_or(message.times().deadline);
            let (id, message_text) = (message.request_id, body.to_owned());
            is_recorded(&message).then_some(Requeued::Request { id, message: message_text, deadline })
        }
        Source::Maintenance => {
            let message = MaintenanceMessage::decode(&letter.body).ok()?;
            match message.body {
                MaintenanceTask::RunJob { .. } => Some(Requeued::Run(message.request_id)),
                MaintenanceTask::Delete { .. } => None,
            }
        }
        Source::Unknown => None,
    }
}

/// The result of the task for one letter.
pub(super) type Acted = (DeadLetter, Result<(Write, bool), ActionError>);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intake::of_place;
    use broker_domain::Reason;

    #[test]
    fn what_is_sent_again_has_no_more_attributes_than_sqs_takes_and_says_what_it_is_a_replay_of() {
        let now = Timestamp::from_ms(9_000);
        let letter = of_place("m", "text".to_owned(), (Reason::Unknown, String::new()), now, now);
        for own in [0, 9, 10] {
            let attributes = (0..own).map(|number| (format!("own-{number}"), "x".to_owned())).collect();
            let letter = DeadLetter { attributes, ..letter.clone() };
            let message = message_again(&letter, &letter.body);
            assert_eq!(message.attributes().len(), MOST_ATTRIBUTES.min(own + 1), "{own}");
            let replay_of = (REPLAY_OF.to_owned(), letter.id.as_str().to_owned());
            assert!(message.attributes().contains(&replay_of), "{own}");
        }
    }
}
