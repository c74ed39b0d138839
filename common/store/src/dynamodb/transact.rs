//! Group commit: the transactions of many callers in one TransactWriteItems call.
//!
//! A group is the items of one caller, all or none. Invariants: of the groups that touch one item, one at a time is handed
//! in, the others wait for it outside the line (`turns`), in their order: a hot key delays no other, and no two calls of
//! this process conflict. A group is not lost to a neighbour: when a call is cancelled, the groups that the reasons name get
//! their answer and the others go again, and when a call is refused whole, its groups go one by one. What it does not do:
//! retry a group that met a conflict; its caller knows whether that is still wanted.

use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{CancellationReason, ReturnConsumedCapacity, TransactWriteItem};

use super::TableClient;
use super::count_capacity;
use super::errors::{Shared, cancelled, failed, failed_condition};
use super::keys::Key;
use super::turns::Turns;
use crate::{StoreError, Write};
use broker_runtime::aws::calls;
use broker_runtime::aws::{Batcher, Bounds};

/// Groups in one call: 25 measured best on the embedded endpoint (ARCHITECTURE.md, "Measured facts").
const GROUPS: usize = 25;
/// AWS: items in one call.
const ITEMS: usize = 100;
/// Calls in flight at a time; further groups collect meanwhile.
const CALLS: usize = 4;

/// The writes of one caller, all or none.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The keys of the items, to separate them from other groups'.
    pub(super) keys: Vec<Key>,
    /// The writes, in the order in which their reasons come back.
    pub(super) items: Vec<TransactWriteItem>,
}

/// The result of a group: every item was written, or none was. Then the reasons, one per item of the group.
pub(super) type Committed = Write<Vec<CancellationReason>>;

/// What a call makes of a group.
type Answer = Result<Committed, StoreError>;

/// Commits groups for all callers of one process.
#[derive(Clone, Debug)]
pub(super) struct GroupCommit {
    calls: Batcher<Group, Answer>,
    turns: Turns,
}

impl GroupCommit {
    pub(super) fn new(client: Client, table: String) -> Self {
        let bounds = Bounds {
            in_flight: CALLS,
            items: GROUPS,
            weight: ITEMS,
            min_interval: Duration::ZERO,
            max_wait: Bounds::MAX_WAIT,
        };
        let flight = move |groups| {
            let call = Call { client: client.clone(), table: table.clone() };
            async move { call.commit(groups).await }
        };
        let calls = Batcher::new(bounds, |group: &Group| group.items.len(), flight);
        Self { calls, turns: Turns::default() }
    }

    /// The same with calls of its own. An item has one writer at a time in both.
    pub(super) fn beside(&self, client: Client, table: String) -> Self {
        Self { turns: self.turns.clone(), ..Self::new(client, table) }
    }

    /// Commits `group`, the transition of that name, in a call of its own or with others.
    pub(super) async fn submit(
        &self,
        transition: &'static str,
        group: Group,
    ) -> Result<Committed, StoreError> {
        let mut span = calls::span("DynamoDB", "TransactWriteItems");
        span.set("broker.transition", transition);
        let committed = self.commit(group).await;
        match &committed {
            Ok(Write::Applied) => span.set("broker.committed", true),
            Ok(Write::Rejected(_)) => span.set("broker.committed", false),
            Err(error) => span.failed(error.as_str()),
        }
        committed
    }

    /// Commits a group of which each condition says that the items are as they were read.
    pub(super) async fn transact(
        &self,
        operation: &'static str,
        keys: Vec<Key>,
        items: Vec<TransactWriteItem>,
    ) -> Result<Write, StoreError> {
        match self.submit(operation, Group { keys, items }).await? {
            Write::Applied => Ok(Write::Applied),
            Write::Rejected(reasons) if failed_condition(&reasons).is_some() => Ok(Write::Rejected(())),
            Write::Rejected(reasons) => Err(cancelled(operation, &reasons)),
        }
    }

    async fn commit(&self, group: Group) -> Result<Committed, StoreError> {
        let lost =
            |error| Err(StoreError::Unavailable { operation: "TransactWriteItems", source: Box::new(error) });
        let _turn = self.turns.take(&group.keys).await;
        self.calls.submit(group).await.unwrap_or_else(lost)
    }
}

impl TableClient {
    /// Writes `groups` in one call of their own, all or none; the reasons are of all their items, in order.
    pub(super) async fn write_together(
        &self,
        transition: &'static str,
        groups: &[Group],
    ) -> Result<Committed, StoreError> {
        let mut span = calls::span("DynamoDB", "TransactWriteItems");
        span.set("broker.transition", transition);
        Call { client: self.client.clone(), table: self.name.clone() }.write(groups.iter()).await
    }
}

struct Call {
    client: Client,
    table: String,
}

impl Call {
    /// One result per group, in their order. Every round answers at least one group, so it ends.
    async fn commit(&self, groups: Vec<Group>) -> Vec<Answer> {
        let mut answers: Vec<Option<Answer>> = groups.iter().map(|_| None).collect();
        loop {
            let round: Vec<_> = (0..groups.len()).filter(|position| answers[*position].is_none()).collect();
            if round.is_empty() {
                return answers.into_iter().flatten().collect();
            }
            match self.write(round.iter().map(|position| &groups[*position])).await {
                Ok(Write::Applied) => {
                    round.into_iter().for_each(|position| answers[position] = Some(Ok(Write::Applied)));
                }
                Ok(Write::Rejected(reasons)) => answer_cancelled(&groups, &round, &reasons, &mut answers),
                Err(StoreError::Refused { .. }) if round.len() > 1 => {
                    for position in round {
                        let alone = self.write(std::iter::once(&groups[position])).await;
                        answers[position] = Some(alone);
                    }
                }
                Err(error) => {
                    let shared = Shared::new(error);
                    round.into_iter().for_each(|position| answers[position] = Some(Err(shared.error())));
                }
            }
        }
    }

    async fn write(&self, groups: impl Iterator<Item = &Group>) -> Result<Committed, StoreError> {
        let items: Vec<_> = groups.flat_map(|group| group.items.iter().cloned()).collect();
        let call = self
            .client
            .transact_write_items()
            .set_transact_items(Some(items))
            .return_consumed_capacity(ReturnConsumedCapacity::Total);
        match Box::pin(call.send()).await {
            Ok(answer) => {
                count_capacity("transaction", answer.consumed_capacity());
                Ok(Write::Applied)
            }
            Err(error) => match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    Ok(Write::Rejected(cancelled.cancellation_reasons().to_vec()))
                }
                _ => Err(failed("TransactWriteItems", &self.table, error)),
            },
        }
    }
}

/// Answers the groups of a cancelled round that the reasons name; if they name none, all of them.
fn answer_cancelled(
    groups: &[Group],
    round: &[usize],
    reasons: &[CancellationReason],
    answers: &mut [Option<Answer>],
) {
    let mut rest = reasons;
    let own = round.iter().map(|position| {
        let (own, others) = rest.split_at(groups[*position].items.len().min(rest.len()));
        rest = others;
        (*position, own)
    });
    let own: Vec<_> = own.collect();
    let is_named =
        |reasons: &[CancellationReason]| reasons.iter().any(|r| r.code().is_some_and(|code| code != "None"));
    let names_nobody = !own.iter().any(|(_, reasons)| is_named(reasons));
    for (position, reasons) in own {
        if names_nobody || is_named(reasons) {
            answers[position] = Some(Ok(Write::Rejected(reasons.to_vec())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dynamodb::keys;
    use broker_domain::SandboxId;

    fn group(ids: &[&str]) -> Group {
        let keys = ids.iter().map(|id| keys::sandbox(&SandboxId::new(*id).unwrap())).collect();
        Group { keys, items: ids.iter().map(|_| TransactWriteItem::builder().build()).collect() }
    }

    fn reasons(codes: &[&str]) -> Vec<CancellationReason> {
        codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect()
    }

    #[test]
    fn a_cancelled_call_answers_the_groups_that_its_reasons_name_and_keeps_the_others() {
        let groups = [group(&["a", "b"]), group(&["c", "d"]), group(&["e"])];
        let mut answers = [None, None, None];
        let codes = reasons(&["None", "None", "None", "ConditionalCheckFailed", "None"]);
        answer_cancelled(&groups, &[0, 1, 2], &codes, &mut answers);
        assert!(answers[0].is_none() && answers[2].is_none());
        let Some(Ok(Write::Rejected(own))) = &answers[1] else { panic!("{answers:?}") };
        assert_eq!(
            own.iter().filter_map(CancellationReason::code).collect::<Vec<_>>(),
            ["None", "ConditionalCheckFailed"]
        );
    }

    #[test]
    fn a_cancelled_call_that_names_nobody_answers_all() {
        let groups = [group(&["a"]), group(&["b"])];
        let mut answers = [None, None];
        answer_cancelled(&groups, &[0, 1], &[], &mut answers);
        assert!(answers.iter().all(Option::is_some));
    }
}
