//! Storage of dead letters (ARCHITECTURE.md, "Table").
//!
//! Invariants: a dead letter is put once, however often it is received; an asynchronous request is `failed` by the write
//! that keeps its dead letter, and queued again by the write that takes it for replay, so that a redelivered dead message
//! fails nothing that was replayed meanwhile. [`broker_dead_letters`] merges the partitions.

use std::time::Duration;

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use aws_sdk_dynamodb::types::{AttributeValue, Put, ReturnConsumedCapacity};
use aws_sdk_dynamodb::types::{TransactWriteItem, Update};

use super::attributes as a;
use super::errors::{built_wrong, cancelled, failed_condition, unread};
use super::keys::{self, Key, PK, SK};
use super::requests::RECORD_IS_KEPT;
use super::transact::Group;
use super::{DeadLetterStore, count_capacity, dead_letter_items, n, s};
use crate::{Actor, DeadLetterOrder, DeadLetterRows, Page, PendingRecord, Requeued, StoreError, Write};
use broker_domain::{
    CLOCKS_DIFFER, DeadLetter, DeadLetterId, DeadLetterState, JobReport, LETTER_HELD_FOR, Outcome,
    PersistedRequest, RequestState, ReturnRequest, Subject, Timestamp,
};

const LETTER_IS_NEW: &str = "attribute_not_exists(PK)";
/// [`DeadLetterEvent::Take`](broker_domain::DeadLetterEvent::Take): dead, or its replayer's hold has passed, or this action holds
/// it: a repeat finds its own success.
const LETTER_IS_FREE: &str = "#state = :dead or (#state = :replaying and \
     (held_until_ms <= :now or held_until_ms > :beyond or held_by = :action))";
/// [`DeadLetterEvent::Sent`](broker_domain::DeadLetterEvent::Sent): still held by this action.
const LETTER_IS_MINE: &str = "#state = :replaying and held_by = :action";
/// [`DeadLetterEvent::Discard`](broker_domain::DeadLetterEvent::Discard) of a dead one.
const LETTER_IS_DEAD: &str = "#state = :dead";
/// [`DeadLetterEvent::Discard`](broker_domain::DeadLetterEvent::Discard) of one whose replay did not come to its end.
const LETTER_IS_LEFT: &str = "#state = :replaying and (held_until_ms <= :now or held_until_ms > :beyond)";
/// The asynchronous request, or the return, still waits for its end. A synchronous allocation ends at its deadline.
///
/// What stands in a line does not wait for its message: it has a place.
const REQUEST_WAITS: &str =
    "#state = :queued and attribute_not_exists(parked) and (#async = :true or attribute_exists(sandbox_id))";
/// Nothing became of it but a dead letter, or it was queued again by a replay that did not come to its end. What stands in a line
/// waits there: its letter is of another delivery.
const REQUEST_DIED: &str = "(#async = :true or attribute_exists(sandbox_id)) and \
     ((#state = :queued and attribute_not_exists(parked)) or begins_with(#outcome, :died))";
/// The request waits for what this letter's replay sends, and no other letter's replay queued it since.
const REQUEST_WAITS_FOR_REPLAY: &str =
    "#state = :queued and attribute_not_exists(parked) and replayed_by = :letter";
/// The return has not ended, whether or not it is recorded.
const RETURN_IS_OPEN: &str = "attribute_not_exists(PK) or #state = :queued";
/// The run was asked for, and its report is waited for.
const RUN_WAITS: &str = "attribute_exists(PK) and attribute_not_exists(report)";
/// The run waits for what this letter's replay sends, and no other letter's replay reopened it since.
const RUN_WAITS_FOR_REPLAY: &str = "attribute_not_exists(report) and replayed_by = :letter";
/// Its report only says that its message died.
const RUN_DIED: &str = "attribute_exists(died)";
/// How long a finished dead letter is kept: longer than its message can be in the queue (14 days), so that a redelivery is
/// recognised.
const DONE_IS_KEPT: Duration = Duration::from_secs(15 * 24 * 3_600);

impl DeadLetterStore {
    /// Keeps a new dead letter, and fails the record that waits for its message in the same write.
    pub async fn record(
        &self,
        letter: &DeadLetter,
        pending: Option<&PendingRecord>,
    ) -> Result<Write, StoreError> {
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(dead_letter_items::write(letter)))
            .condition_expression(LETTER_IS_NEW)
            .build()
            .map_err(|error| built_wrong("keep_letter", error))?;
        let put = TransactWriteItem::builder().put(put).build();
        let update = pending.map(|pending| self.fail_pending(letter, pending)).transpose()?;
        self.with_record("keep_letter", keys::letter(&letter.id), put, update).await
    }

    fn fail_pending(
        &self,
        letter: &DeadLetter,
        pending: &PendingRecord,
    ) -> Result<(Key, TransactWriteItem), StoreError> {
        let outcome = Outcome::DeadLettered { reason: letter.reason.as_str().to_owned() };
        match pending {
            PendingRecord::Request(id) => {
                let update = self.request_update(keys::request(*id), REQUEST_WAITS);
                built(keys::request(*id), failed_request(update, &outcome))
            }
            PendingRecord::Return(mark) => {
                let record = PersistedRequest {
                    request_id: mark.request_id,
                    track: mark.track.clone(),
                    subject: Subject::Return(mark.sandbox_id.clone()),
                    asynchronous: false,
                    message: None,
                    state: RequestState::Ended(outcome),
                    parked: None,
                    created_at: mark.times.enqueued_at,
                    deadline: mark.times.deadline,
                };
                let put = Put::builder()
                    .table_name(&self.table.name)
                    .set_item(Some(a::write_request(&record, record.deadline.plus(RECORD_IS_KEPT))))
                    .condition_expression(RETURN_IS_OPEN)
                    .expression_attribute_names("#state", a::STATE)
                    .expression_attribute_values(":queued", s(a::QUEUED))
                    .build()
                    .map_err(|error| built_wrong("keep_letter", error))?;
                Ok((keys::request(mark.request_id), TransactWriteItem::builder().put(put).build()))
            }
            PendingRecord::Run(id, report) => {
                built(keys::run(*id), self.failed_run(keys::run(*id), report, RUN_WAITS))
            }
        }
    }

    /// Fails the record that waits for the message, if this letter's replay queued it again last.
    fn fail_replayed(
        &self,
        letter: &DeadLetter,
        pending: &PendingRecord,
    ) -> Result<(Key, TransactWriteItem), StoreError> {
        let (key, update) = match pending {
            PendingRecord::Request(id) | PendingRecord::Return(ReturnRequest { request_id: id, .. }) => {
                let update = self
                    .update_at(keys::request(*id), REQUEST_WAITS_FOR_REPLAY)
                    .expression_attribute_values(":queued", s(a::QUEUED));
                let outcome = Outcome::DeadLettered { reason: letter.reason.as_str().to_owned() };
                (keys::request(*id), failed_request(update, &outcome))
            }
            PendingRecord::Run(id, report) => {
                (keys::run(*id), self.failed_run(keys::run(*id), report, RUN_WAITS_FOR_REPLAY))
            }
        };
        built(key, update.expression_attribute_values(":letter", s(letter.id.as_str())))
    }

    /// Takes a dead letter for replay until `until`, and requeues the record of its message. The same action may repeat it, for one
    /// replay of the letter.
    pub async fn take(
        &self,
        id: &DeadLetterId,
        actor: &Actor,
        until: Timestamp,
        requeued: Option<&Requeued>,
    ) -> Result<Write, StoreError> {
        let take = self.update(id, LETTER_IS_FREE)
            .update_expression(
                "SET #state = :replaying, held_by = :action, held_until_ms = :until, touched_by = :by, touched_at_ms = :now",
            )
            .expression_attribute_values(":dead", s(DeadLetterState::Dead.as_str()))
            .expression_attribute_values(":replaying", s(DeadLetterState::Replaying.as_str()))
            .expression_attribute_values(":action", s(actor.action.to_string()))
            .expression_attribute_values(":until", n(until.as_ms()))
            .expression_attribute_values(":beyond", n(until.plus(CLOCKS_DIFFER).as_ms()))
            .expression_attribute_values(":by", s(&actor.by))
            .expression_attribute_values(":now", n(actor.at.as_ms()));
        let (key, take) = built(keys::letter(id), take)?;
        let requeued = requeued.map(|requeued| self.requeue(id, requeued)).transpose()?;
        self.with_record("take_letter", key, take, requeued).await
    }

    fn requeue(
        &self,
        letter: &DeadLetterId,
        requeued: &Requeued,
    ) -> Result<(Key, TransactWriteItem), StoreError> {
        let (key, update) = match requeued {
            Requeued::Request { id, message, deadline } => {
                let update = self
                    .request_update(keys::request(*id), REQUEST_DIED)
                    .update_expression(
                        "SET #state = :queued, message = :message, deadline_ms = :deadline, #ttl = :ttl, replayed_by = :letter \
                         REMOVE #outcome, parked",
                    )
                    .expression_attribute_names("#outcome", a::OUTCOME)
                    .expression_attribute_names("#ttl", a::TTL)
                    .expression_attribute_values(":died", s(dead_letter_items::DEAD_LETTERED))
                    .expression_attribute_values(":message", s(message))
                    .expression_attribute_values(":deadline", n(deadline.as_ms()))
                    .expression_attribute_values(":ttl", n(deadline.plus(RECORD_IS_KEPT).as_secs()));
                (keys::request(*id), update)
            }
            Requeued::Run(id) => {
                let update = Update::builder()
                    .table_name(&self.table.name)
                    .set_key(Some(keys::run(*id).into_map()))
                    .condition_expression(RUN_DIED)
                    .update_expression("SET replayed_by = :letter REMOVE report, died");
                (keys::run(*id), update)
            }
        };
        built(key, update.expression_attribute_values(":letter", s(letter.as_str())))
    }

    /// Marks a dead letter as replayed by the action that holds it.
    pub async fn mark_replayed(&self, id: &DeadLetterId, actor: &Actor) -> Result<Write, StoreError> {
        let sent = self
            .update(id, LETTER_IS_MINE)
            .update_expression(
                "SET #state = :replayed, touched_at_ms = :now, #ttl = :ttl REMOVE held_by, held_until_ms",
            )
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":replaying", s(DeadLetterState::Replaying.as_str()))
            .expression_attribute_values(":replayed", s(DeadLetterState::Replayed.as_str()))
            .expression_attribute_values(":action", s(actor.action.to_string()))
            .expression_attribute_values(":now", n(actor.at.as_ms()))
            .expression_attribute_values(":ttl", n(actor.at.plus(DONE_IS_KEPT).as_secs()));
        let (key, sent) = built(keys::letter(id), sent)?;
        self.with_record("letter_was_sent", key, sent, None).await
    }

    /// Discards a dead letter that is in the state that was read, and that no replay holds. One whose replay did not come to its
    /// end may have queued the record of its message again: `pending` fails in the same write, unless another letter's replay
    /// queued it since.
    pub async fn discard(
        &self,
        letter: &DeadLetter,
        pending: Option<&PendingRecord>,
        actor: &Actor,
        why: &str,
    ) -> Result<Write, StoreError> {
        let is_left = letter.state == DeadLetterState::Replaying;
        let discard = if is_left {
            let beyond = actor.at.plus(LETTER_HELD_FOR).plus(CLOCKS_DIFFER);
            self.update(&letter.id, LETTER_IS_LEFT)
                .expression_attribute_values(":replaying", s(DeadLetterState::Replaying.as_str()))
                .expression_attribute_values(":beyond", n(beyond.as_ms()))
        } else {
            self.update(&letter.id, LETTER_IS_DEAD)
                .expression_attribute_values(":dead", s(DeadLetterState::Dead.as_str()))
        };
        let discard = discard
            .update_expression(
                "SET #state = :discarded, touched_by = :by, touched_at_ms = :now, touched_why = :why, #ttl = :ttl \
                 REMOVE held_by, held_until_ms",
            )
            .expression_attribute_names("#ttl", a::TTL)
            .expression_attribute_values(":discarded", s(DeadLetterState::Discarded.as_str()))
            .expression_attribute_values(":by", s(&actor.by))
            .expression_attribute_values(":why", s(why))
            .expression_attribute_values(":now", n(actor.at.as_ms()))
            .expression_attribute_values(":ttl", n(actor.at.plus(DONE_IS_KEPT).as_secs()));
        let (key, discard) = built(keys::letter(&letter.id), discard)?;
        let update =
            pending.filter(|_| is_left).map(|pending| self.fail_replayed(letter, pending)).transpose()?;
        self.with_record("discard_letter", key, discard, update).await
    }

    /// The dead letter, if it is kept (a consistent read).
    pub async fn get(&self, id: &DeadLetterId) -> Result<Option<DeadLetter>, StoreError> {
        let item = self.table.get(keys::letter(id)).await?;
        item.map(|item| dead_letter_items::read(&item)).transpose()
    }

    /// A page of the dead letters of a partition with ids between `from` and `until`, inclusive, in `order` (a consistent
    /// read); at most `limit` of them, or 1 MB.
    pub async fn page(
        &self,
        shard: u8,
        order: DeadLetterOrder,
        from: &str,
        until: &str,
        limit: Option<i32>,
    ) -> Result<Page<DeadLetterRows, DeadLetterId>, StoreError> {
        let call = self
            .table
            .client
            .query()
            .table_name(&self.table.name)
            .consistent_read(true)
            .scan_index_forward(order == DeadLetterOrder::OldestFirst)
            .set_limit(limit)
            .key_condition_expression("#pk = :shard and #sk between :from and :until")
            .expression_attribute_names("#pk", PK)
            .expression_attribute_names("#sk", SK)
            .expression_attribute_values(":shard", s(keys::letters(shard)))
            .expression_attribute_values(":from", s(from))
            .expression_attribute_values(":until", s(until))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        let call = call.customize().config_override(super::scan::long_timeout());
        let answer = call.send().await.map_err(|error| unread("Query", &self.table.name, error))?;
        count_capacity("letters", answer.consumed_capacity());
        let mut rows = DeadLetterRows::default();
        for item in answer.items() {
            match dead_letter_items::read(item) {
                Ok(letter) => rows.letters.push(letter),
                Err(error) => rows.unreadable.push(error.to_string()),
            }
        }
        let last = answer.last_evaluated_key.as_ref();
        Ok(Page { items: rows, next: last.map(dead_letter_items::read_id).transpose()? })
    }

    /// Writes `item` at `key` together with `record`; if the record's condition fails, `item` alone.
    async fn with_record(
        &self,
        operation: &'static str,
        key: Key,
        item: TransactWriteItem,
        record: Option<(Key, TransactWriteItem)>,
    ) -> Result<Write, StoreError> {
        if let Some((record_key, record)) = record {
            let group = Group { keys: vec![key.clone(), record_key], items: vec![item.clone(), record] };
            match self.table.transactions.submit(operation, group).await? {
                Write::Applied => return Ok(Write::Applied),
                Write::Rejected(reasons) => match failed_condition(&reasons) {
                    Some(0) => return Ok(Write::Rejected(())),
                    Some(_) => {}
                    None => return Err(cancelled(operation, &reasons)),
                },
            }
        }
        self.table.transactions.transact(operation, vec![key], vec![item]).await
    }

    fn update(&self, id: &DeadLetterId, condition: &str) -> UpdateBuilder {
        self.update_at(keys::letter(id), condition)
    }

    fn request_update(&self, key: Key, condition: &str) -> UpdateBuilder {
        self.update_at(key, condition)
            .expression_attribute_names("#async", a::ASYNC)
            .expression_attribute_values(":queued", s(a::QUEUED))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
    }

    fn update_at(&self, key: Key, condition: &str) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(key.into_map()))
            .condition_expression(condition)
            .expression_attribute_names("#state", a::STATE)
    }

    fn failed_run(&self, key: Key, report: &JobReport, condition: &str) -> UpdateBuilder {
        Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(key.into_map()))
            .condition_expression(condition)
            .update_expression("SET report = :report, died = :true")
            .expression_attribute_values(":report", s(serde_json::to_string(report).unwrap_or_default()))
            .expression_attribute_values(":true", AttributeValue::Bool(true))
    }
}

fn failed_request(update: UpdateBuilder, outcome: &Outcome) -> UpdateBuilder {
    update
        .update_expression("SET #state = :failed, #outcome = :outcome REMOVE message")
        .expression_attribute_names("#outcome", a::OUTCOME)
        .expression_attribute_values(":failed", s("failed"))
        .expression_attribute_values(":outcome", a::write_outcome(outcome))
}

fn built(key: Key, update: UpdateBuilder) -> Result<(Key, TransactWriteItem), StoreError> {
    let update = update.build().map_err(|error| built_wrong("letter", error))?;
    Ok((key, TransactWriteItem::builder().update(update).build()))
}
