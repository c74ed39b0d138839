//! Group commit: the transactions of many callers in one TransactWriteItems call.
//!
//! A group is the items of one caller, all or none. Invariants: groups in one call touch different items (AWS refuses an
//! item twice in a call; a group that meets an item again goes back to the end of the line, so that a hot key delays no
//! other); a group does not fail with its neighbours: when a call is cancelled, the groups that the reasons name get their
//! result and the others are sent again, and when a call is refused whole, its groups are sent one by one. A group that met
//! a conflict is not retried; its caller decides.

use std::collections::HashSet;
use std::time::Duration;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{CancellationReason, ReturnConsumedCapacity, TransactWriteItem};

use super::count_capacity;
use super::errors::{Shared, failed};
use super::keys::Key;
use crate::StoreError;
use broker_runtime::aws::calls;
use broker_runtime::aws::{Batcher, Bounds};

/// Groups in one call: 25 measured best on the embedded endpoint (ARCHITECTURE.md, "Measured facts").
const GROUPS: usize = 25;
/// AWS: items in one call.
const ITEMS: usize = 100;
/// Calls in flight at a time; further groups collect meanwhile.
const CALLS: usize = 2;

/// The writes of one caller, all or none.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// The keys of the items, to separate them from other groups'.
    pub(super) keys: Vec<Key>,
    /// The writes, in the order in which their reasons come back.
    pub(super) items: Vec<TransactWriteItem>,
}

/// The result of a group.
#[derive(Debug)]
pub(super) enum Committed {
    /// Every item was written.
    Written,
    /// None was; the reasons, one per item of the group.
    Cancelled(Vec<CancellationReason>),
}

/// The result of a group in one call.
type Answer = Result<Flown, StoreError>;

#[derive(Debug)]
enum Flown {
    Committed(Committed),
    /// Another group of the call touches an item of it: it is sent later.
    Crowded(Group),
}

/// Commits groups for all callers of one process.
#[derive(Clone, Debug)]
pub(super) struct GroupCommit(Batcher<Group, Answer>);

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
        Self(Batcher::new(bounds, |group: &Group| group.items.len(), flight))
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
            Ok(Committed::Written) => span.set("broker.committed", true),
            Ok(Committed::Cancelled(_)) => span.set("broker.committed", false),
            Err(error) => span.failed(error.as_str()),
        }
        committed
    }

    async fn commit(&self, mut group: Group) -> Result<Committed, StoreError> {
        let lost =
            |error| Err(StoreError::Unavailable { operation: "TransactWriteItems", source: Box::new(error) });
        loop {
            match self.0.submit(group).await.unwrap_or_else(lost)? {
                Flown::Committed(committed) => return Ok(committed),
                Flown::Crowded(again) => group = again,
            }
        }
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
        for position in crowded(&groups) {
            answers[position] = Some(Ok(Flown::Crowded(groups[position].clone())));
        }
        loop {
            let round: Vec<_> = (0..groups.len()).filter(|position| answers[*position].is_none()).collect();
            if round.is_empty() {
                return answers.into_iter().flatten().collect();
            }
            match self.write(round.iter().map(|position| &groups[*position])).await {
                Ok(Committed::Written) => {
                    round
                        .into_iter()
                        .for_each(|p| answers[p] = Some(Ok(Flown::Committed(Committed::Written))));
                }
                Ok(Committed::Cancelled(reasons)) => {
                    answer_cancelled(&groups, &round, &reasons, &mut answers)
                }
                Err(StoreError::Refused { .. }) if round.len() > 1 => {
                    for position in round {
                        let alone = self.write(std::iter::once(&groups[position])).await;
                        answers[position] = Some(alone.map(Flown::Committed));
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
        match call.send().await {
            Ok(answer) => {
                count_capacity("transaction", answer.consumed_capacity());
                Ok(Committed::Written)
            }
            Err(error) => match error.as_service_error() {
                Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) => {
                    Ok(Committed::Cancelled(cancelled.cancellation_reasons().to_vec()))
                }
                _ => Err(failed("TransactWriteItems", &self.table, error)),
            },
        }
    }
}

/// The groups that touch an item of an earlier group.
fn crowded(groups: &[Group]) -> Vec<usize> {
    let mut touched: HashSet<&Key> = HashSet::new();
    let meets =
        |group: &'_ Group, touched: &HashSet<&Key>| group.keys.iter().any(|key| touched.contains(key));
    let mut crowded = Vec::new();
    for (position, group) in groups.iter().enumerate() {
        if meets(group, &touched) {
            crowded.push(position);
        }
        // Also the items of groups that are sent later: groups of one item keep their order.
        touched.extend(&group.keys);
    }
    crowded
}

/// Adds the results of the groups that a cancelled round's reasons name; if they name none, of all.
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
            answers[position] = Some(Ok(Flown::Committed(Committed::Cancelled(reasons.to_vec()))));
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
    fn groups_of_one_item_go_in_different_calls_in_their_order() {
        let groups = [group(&["a", "b"]), group(&["b", "c"]), group(&["c"]), group(&["d"])];
        assert_eq!(crowded(&groups), [1, 2]);
    }

    #[test]
    fn a_cancelled_call_answers_the_groups_that_its_reasons_name_and_keeps_the_others() {
        let groups = [group(&["a", "b"]), group(&["c", "d"]), group(&["e"])];
        let mut answers = [None, None, None];
        let codes = reasons(&["None", "None", "None", "ConditionalCheckFailed", "None"]);
        answer_cancelled(&groups, &[0, 1, 2], &codes, &mut answers);
        assert!(answers[0].is_none() && answers[2].is_none());
        let Some(Ok(Flown::Committed(Committed::Cancelled(own)))) = &answers[1] else {
            panic!("{answers:?}")
        };
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
