//! The replacement of a lease that is past its time: its end and the claim of its key's next sandbox, in one transaction.
//!
//! Invariant: a key loses its old sandbox only in the write that gives it a new one, so the owner of an expired lease always
//! has one of the two. The new lease takes the old one's place; the condition on it is that of an expiry, those on
//! both sandboxes and permits are those of a claim and of an end.

use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use super::attributes as a;
use super::claim::{explain, items_of};
use super::end::{Holder, LEASE_IS_OVERDUE};
use super::errors::{built_wrong, cancelled, failed_condition};
use super::transact::Group;
use super::{LeaseStore, keys, n, s};
use crate::{Claim, ClaimOutcome, StoreError, Write};
use broker_domain::{Lease, LeaseEnd, Timestamp};

impl LeaseStore {
    /// Tries to satisfy a request with one candidate in the place of `old`, its key's live lease, if that expires at `until`
    /// or before; `end` is how the old allocation ends. [`StoreError::Conflict`] also if the old sandbox does not agree
    /// with its lease.
    pub async fn replace(
        &self,
        claim: &Claim<'_>,
        old: &Lease,
        until: Timestamp,
        end: &LeaseEnd,
    ) -> Result<ClaimOutcome, StoreError> {
        let lease = claim.lease();
        let grant = lease.grant.clone();
        let old_sandbox = &old.grant.sandbox_id;
        let put = Put::builder()
            .table_name(&self.table.name)
            .set_item(Some(a::write_live_lease(&lease)))
            .condition_expression(LEASE_IS_OVERDUE)
            .expression_attribute_values(":seen", s(old.allocation_id.to_string()))
            .expression_attribute_values(":until", n(until.as_secs()))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .map_err(|error| built_wrong("replace", error))?;
        let put = TransactWriteItem::builder().put(put).build();
        let Group { mut keys, mut items } = self.group_with(claim, &lease, put, Some(old.allocation_id))?;
        keys.push(keys::sandbox(old_sandbox));
        items.push(self.retire_sandbox(old_sandbox, Holder::Allocation(&old.allocation()), end)?);
        // Its own permit is moved by the write that takes it.
        if let Some(given_back) = old.permit.as_ref().filter(|old| claim.permit != Some(*old)) {
            keys.push(keys::permit(given_back));
            items.push(self.table.delete_permit(given_back, old.allocation_id)?);
        }
        match self.table.transactions.submit("replace", Group { keys, items }).await? {
            Write::Applied => Ok(ClaimOutcome::Created(grant)),
            Write::Rejected(reasons) => explain_all(claim, &reasons),
        }
    }
}

/// The first reasons are those of a claim, the others the old sandbox's and its permit's.
fn explain_all(claim: &Claim<'_>, reasons: &[CancellationReason]) -> Result<ClaimOutcome, StoreError> {
    let (of_claim, of_end) = reasons.split_at(items_of(claim).min(reasons.len()));
    if failed_condition(of_claim).is_some() {
        return explain(claim, of_claim);
    }
    match failed_condition(of_end) {
        Some(_) => Err(StoreError::Conflict),
        None => Err(cancelled("replace", reasons)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Candidate;
    use crate::samples::{allocation_id, ask, external_id, name, sandbox_id};
    use broker_domain::Status;

    #[test]
    fn a_candidate_that_was_lost_is_told_from_an_old_sandbox_that_disagrees() {
        let explained = |recorded: bool, codes: &[&str]| {
            let mut request = ask(1, Timestamp::from_secs(1));
            request.asynchronous = recorded;
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
                permit: None,
            };
            let reasons = codes.iter().map(|code| CancellationReason::builder().code(*code).build());
            explain_all(&claim, &reasons.collect::<Vec<_>>())
        };
        let failed = "ConditionalCheckFailed";
        assert!(matches!(explained(false, &["None", failed, "None"]), Ok(ClaimOutcome::LostCandidate)));
        assert!(matches!(explained(true, &["None", "None", failed, "None"]), Ok(ClaimOutcome::RequestEnded)));
        assert!(matches!(explained(false, &["None", "None", failed]), Err(StoreError::Conflict)));
        assert!(matches!(explained(false, &["None", "None", "None", failed]), Err(StoreError::Conflict)));
        assert!(matches!(explained(false, &["None", failed, failed]), Ok(ClaimOutcome::LostCandidate)));
        let conflict = ["None", "None", "TransactionConflict"];
        assert!(matches!(explained(false, &conflict), Err(StoreError::Conflict)));
        assert!(matches!(
            explained(false, &["None", "None", "ValidationError"]),
            Err(StoreError::Refused { .. })
        ));
    }
}
