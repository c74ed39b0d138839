//! The claim: lease and sandbox (and the asynchronous request's record) change in one transaction, or nothing does.

use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
};

use super::attributes as a;
use super::errors::{built_wrong, cancelled};
use super::records::read_status;
use super::reservation_items::read_reserved_for;
use super::transact::Group;
use super::{LeaseStore, keys, n, s};
use crate::{Claim, ClaimOutcome, StoreError, Write};
use broker_domain::{AllocationId, Grant, Lease, Outcome, PermitRecord, Status};

/// Free, in the sense of [`broker_domain::judge`]: no lease, or one that ended before this request was made.
const LEASE_IS_FREE: &str = "attribute_not_exists(PK) or (attribute_exists(ended_at) and request_id <> :mine and fence_ms < :enqueued_at_ms)";
/// The sandbox is as the index listed it.
const SANDBOX_IS_AVAILABLE: &str = "#status = :available and version = :seen";
/// The recorded request was neither cancelled nor ended, and does not stand in a line: there it is served in its turn.
const REQUEST_IS_QUEUED: &str = "#state = :queued and attribute_not_exists(parked)";
/// The parked request was neither cancelled nor ended.
const REQUEST_STILL_WAITS: &str = "#state = :queued";

/// The position of each item in the transaction, and so in the reasons of a cancelled one. Record and permit follow, if it has
/// them.
const LEASE: usize = 0;
const SANDBOX: usize = 1;

impl LeaseStore {
    /// Tries to satisfy a request with one candidate: one transaction, alone or in a call with others.
    pub async fn claim(&self, claim: &Claim<'_>) -> Result<ClaimOutcome, StoreError> {
        match self.table.transactions.submit("claim", self.group(claim)?).await? {
            Write::Applied => Ok(ClaimOutcome::Created(claim.lease().grant)),
            Write::Rejected(reasons) => explain(claim, &reasons),
        }
    }

    /// Tries to satisfy requests that stand in lines, each with its candidate: one transaction, all or none. Outcomes in their
    /// order; `None` is one whose neighbour was in its way.
    pub async fn grant(&self, claims: &[Claim<'_>]) -> Result<Vec<Option<ClaimOutcome>>, StoreError> {
        let groups = claims.iter().map(|claim| self.group(claim)).collect::<Result<Vec<_>, _>>()?;
        match self.table.write_together("grant", &groups).await? {
            Write::Applied => {
                let created = claims.iter().map(|claim| Some(ClaimOutcome::Created(claim.lease().grant)));
                Ok(created.collect())
            }
            Write::Rejected(mut reasons) => {
                let mut outcomes = Vec::with_capacity(claims.len());
                for (claim, group) in claims.iter().zip(&groups) {
                    let own: Vec<_> = reasons.drain(..group.items.len().min(reasons.len())).collect();
                    let is_named = own.iter().any(|reason| reason.code().is_some_and(|code| code != "None"));
                    outcomes.push(if is_named { Some(explain(claim, &own)?) } else { None });
                }
                if outcomes.iter().all(Option::is_none) { Err(StoreError::Conflict) } else { Ok(outcomes) }
            }
        }
    }

    /// The writes of a claim.
    fn group(&self, claim: &Claim<'_>) -> Result<Group, StoreError> {
        let lease = claim.lease();
        let lease_item = self.put_lease(claim, &lease)?;
        self.group_with(claim, &lease, lease_item, None)
    }

    /// The writes of a claim whose lease is written by `lease_item`; its permit may be the one that `over` holds.
    pub(super) fn group_with(
        &self,
        claim: &Claim<'_>,
        lease: &Lease,
        lease_item: TransactWriteItem,
        over: Option<AllocationId>,
    ) -> Result<Group, StoreError> {
        let mut keys =
            vec![keys::lease(&claim.request.lease_key), keys::sandbox(&claim.candidate.sandbox_id)];
        let mut items = vec![lease_item, self.update_sandbox(claim, lease)?];
        if claim.request.is_recorded() {
            keys.push(keys::request(claim.request.request_id));
            items.push(self.update_request(claim, &lease.grant)?);
        }
        if let Some(permit) = claim.permit {
            let record = PermitRecord {
                permit: permit.clone(),
                allocation_id: claim.allocation_id,
                lease_key: claim.request.lease_key.clone(),
            };
            keys.push(keys::permit(permit));
            items.push(self.table.put_permit(&record, over)?);
        }
        Ok(Group { keys, items })
    }

    fn put_lease(&self, claim: &Claim<'_>, lease: &Lease) -> Result<TransactWriteItem, StoreError> {
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(a::write_live_lease(lease)))
            .condition_expression(LEASE_IS_FREE)
            .expression_attribute_values(":mine", s(claim.request.request_id.to_string()))
            .expression_attribute_values(":enqueued_at_ms", n(claim.request.times.enqueued_at.as_ms()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| built_wrong("claim", error))?;
        Ok(TransactWriteItem::builder().put(put).build())
    }

    fn update_sandbox(&self, claim: &Claim<'_>, lease: &Lease) -> Result<TransactWriteItem, StoreError> {
        let shard = keys::shard_of(&claim.candidate.sandbox_id, self.table.shards);
        let mut set = "SET #status = :allocated, version = :next, allocation_id = :allocation, allocated_to_track = :track, \
                       idempotency_key = :key, lab_duration_hours = :hours, allocated_at = :allocated_at, \
                       expires_at = :expires_at, updated_at = :allocated_at, state_shard = :shard, state_key = :state_key"
            .to_owned();
        let mut update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::sandbox(&claim.candidate.sandbox_id).into_map()))
            .condition_expression(SANDBOX_IS_AVAILABLE)
            .expression_attribute_names("#status", a::STATUS)
            .expression_attribute_values(":available", s(claim.listed.as_str()))
            .expression_attribute_values(":seen", n(claim.candidate.version))
            .expression_attribute_values(":next", n(claim.candidate.version + 1))
            .expression_attribute_values(":allocated", s(Status::Allocated.as_str()))
            .expression_attribute_values(":allocation", s(claim.allocation_id.to_string()))
            .expression_attribute_values(":track", s(lease.key.track.as_str()))
            .expression_attribute_values(":key", s(lease.key.key.as_str()))
            .expression_attribute_values(":hours", n(claim.request.lab_duration.hours()))
            .expression_attribute_values(":allocated_at", n(lease.grant.allocated_at.as_secs()))
            .expression_attribute_values(":expires_at", n(lease.grant.expires_at.as_secs()))
            .expression_attribute_values(":shard", s(keys::state_shard(Status::Allocated, shard)))
            .expression_attribute_values(":state_key", s(keys::time_key(lease.grant.expires_at)))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        if let Some(heartbeat) = claim.request.heartbeat {
            set.push_str(", heartbeat_s = :heartbeat");
            update = update.expression_attribute_values(":heartbeat", n(heartbeat.seconds()));
        }
        if let Some(track_name) = &claim.request.track_name {
            set.push_str(", track_name = :track_name");
            update = update.expression_attribute_values(":track_name", s(track_name.as_str()));
        }
        if let Some(permit) = claim.permit {
            set.push_str(", permit = :permit");
            update = update.expression_attribute_values(":permit", s(permit.to_string()));
        }
        let update = update.update_expression(set).build().map_err(|error| built_wrong("claim", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }

    fn update_request(&self, claim: &Claim<'_>, grant: &Grant) -> Result<TransactWriteItem, StoreError> {
        let outcome = Outcome::Created(grant.clone());
        let update = Update::builder()
            .table_name(&self.table.name)
            .set_key(Some(keys::request(claim.request.request_id).into_map()))
            .condition_expression(if claim.from_line { REQUEST_STILL_WAITS } else { REQUEST_IS_QUEUED })
            .update_expression("SET #state = :succeeded, #outcome = :outcome REMOVE message")
            .expression_attribute_names("#state", a::STATE)
            .expression_attribute_names("#outcome", a::OUTCOME)
            .expression_attribute_values(":queued", s(a::QUEUED))
            .expression_attribute_values(":succeeded", s("succeeded"))
            .expression_attribute_values(":outcome", a::write_outcome(&outcome))
            .build()
            .map_err(|error| built_wrong("claim", error))?;
        Ok(TransactWriteItem::builder().update(update).build())
    }
}

/// How many items its transaction has: lease, sandbox, and its record and its permit, if it has them.
pub(super) fn items_of(claim: &Claim<'_>) -> usize {
    SANDBOX + 1 + usize::from(claim.request.is_recorded()) + usize::from(claim.permit.is_some())
}

/// The outcome of a cancelled claim, from its reasons.
///
/// The lease is looked at first: a caller that holds one is told so, whatever became of the candidate.
pub(super) fn explain(claim: &Claim<'_>, reasons: &[CancellationReason]) -> Result<ClaimOutcome, StoreError> {
    let code = |position: usize| reasons.get(position).and_then(CancellationReason::code).unwrap_or("None");
    let failed_condition = |position| code(position) == "ConditionalCheckFailed";
    if failed_condition(LEASE) {
        return match reasons.get(LEASE).and_then(CancellationReason::item) {
            Some(item) => a::read_lease(item).map(|lease| ClaimOutcome::LeaseStands(Box::new(lease))),
            // AWS may leave the item out: another attempt meets it again.
            None => Err(StoreError::Conflict),
        };
    }
    let (record, permit) = (SANDBOX + 1, items_of(claim) - 1);
    if claim.request.is_recorded() && failed_condition(record) {
        return Ok(ClaimOutcome::RequestEnded);
    }
    if failed_condition(SANDBOX) {
        let now = reasons.get(SANDBOX).and_then(CancellationReason::item).and_then(claimable);
        return Ok(now.unwrap_or(ClaimOutcome::LostCandidate));
    }
    if claim.permit.is_some() && failed_condition(permit) {
        return Ok(ClaimOutcome::PermitTaken);
    }
    Err(cancelled("claim", reasons))
}

/// What a sandbox that is not as it was listed is now, if it may be claimed. The index may list it so only seconds later.
fn claimable(sandbox: &a::Item) -> Option<ClaimOutcome> {
    let status = read_status(sandbox).ok()?;
    let reservation = if status == Status::Reserved {
        Some(read_reserved_for(&a::Reader(sandbox)).ok()??)
    } else if status == Status::Available {
        None
    } else {
        return None;
    };
    let candidate = a::read_candidate(sandbox).ok()?;
    Some(ClaimOutcome::CandidateChanged(Box::new(candidate), reservation))
}

#[cfg(test)]
mod tests {
    use broker_domain::{Limit, NamePrefix, Permit, TenantName, Timestamp};

    use super::*;
    use crate::Candidate;
    use crate::samples::{allocation_id, ask, external_id, name, sandbox_id};

    /// What a claim with these items makes of these codes.
    fn explained(recorded: bool, limited: bool, codes: &[&str]) -> Result<ClaimOutcome, StoreError> {
        let mut request = ask(1, Timestamp::from_secs(1));
        request.asynchronous = recorded;
        let (tenant, prefix) = (TenantName::new("acme").unwrap(), NamePrefix::new("lab-").unwrap());
        let permit = Permit { limit: Limit { tenant, prefix }, slot: 0 };
        let candidate = Candidate {
            sandbox_id: sandbox_id(1),
            name: name(1),
            external_id: external_id(1),
            attributes: None,
            version: 1,
        };
        let claim = Claim {
            request: &request,
            candidate: &candidate,
            allocation_id: allocation_id(1),
            now: Timestamp::from_secs(1),
            listed: Status::Available,
            from_line: false,
            permit: limited.then_some(&permit),
        };
        assert_eq!(items_of(&claim), codes.len());
        let reasons = codes.iter().map(|code| CancellationReason::builder().code(*code).build());
        explain(&claim, &reasons.collect::<Vec<_>>())
    }

    const FAILED: &str = "ConditionalCheckFailed";

    #[test]
    fn a_lost_candidate_a_conflict_and_an_ended_request_are_told_apart() {
        let explained = |codes| explained(true, false, codes);
        assert!(matches!(explained(&["None", FAILED, "None"]), Ok(ClaimOutcome::LostCandidate)));
        assert!(matches!(explained(&["None", FAILED, FAILED]), Ok(ClaimOutcome::RequestEnded)));
        assert!(matches!(explained(&["TransactionConflict", "None", "None"]), Err(StoreError::Conflict)));
        let lost_in_a_conflict = ["TransactionConflict", FAILED, "None"];
        assert!(matches!(explained(&lost_in_a_conflict), Ok(ClaimOutcome::LostCandidate)));
        assert!(matches!(explained(&["None", "ValidationError", "None"]), Err(StoreError::Refused { .. })));
    }

    #[test]
    fn a_permit_that_is_taken_is_told_from_a_record_that_ended() {
        assert!(matches!(explained(false, true, &["None", "None", FAILED]), Ok(ClaimOutcome::PermitTaken)));
        let both = |codes| explained(true, true, codes);
        assert!(matches!(both(&["None", "None", "None", FAILED]), Ok(ClaimOutcome::PermitTaken)));
        assert!(matches!(both(&["None", "None", FAILED, FAILED]), Ok(ClaimOutcome::RequestEnded)));
        assert!(matches!(both(&["None", FAILED, "None", FAILED]), Ok(ClaimOutcome::LostCandidate)));
    }
}
