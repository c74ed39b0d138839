//! The replacement of a lease that is past its time: its end and the claim of its key's next sandbox, in one transaction.
//!
//! Invariant: a key gives up its old sandbox only in the write that gives it a new one, so an owner whose time is over
//! never stands with neither. The new lease takes the old one's place; the condition on it is that of an expiry, those on
//! both sandboxes are those of a claim and of an end.

use aws_sdk_dynamodb::types::{
    CancellationReason, Put, ReturnValuesOnConditionCheckFailure, TransactWriteItem,
};

use super::attributes as a;
use super::claim::{explain, lease_of};
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
        let lease = lease_of(claim);
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
        let mut keys =
            vec![keys::lease(&claim.request.lease_key), keys::sandbox(&claim.candidate.sandbox_id)];
        let mut items = vec![put, self.update_sandbox(claim, &lease)?];
        if claim.request.is_recorded() {
            keys.push(keys::request(claim.request.request_id));
            items.push(self.update_request(claim, &grant)?);
        }
        keys.push(keys::sandbox(old_sandbox));
        items.push(self.retire_sandbox(old_sandbox, Holder::Allocation(&old.allocation()), end)?);
        match self.table.transactions.submit("replace", Group { keys, items }).await? {
            Write::Applied => Ok(ClaimOutcome::Created(grant)),
            Write::Rejected(reasons) => explain_all(&reasons),
        }
    }
}

/// The last reason is the old sandbox's, the others are those of a claim.
fn explain_all(reasons: &[CancellationReason]) -> Result<ClaimOutcome, StoreError> {
    let (old, of_claim) = reasons.split_last().map_or((None, reasons), |(old, others)| (Some(old), others));
    if failed_condition(of_claim).is_some() {
        return explain(of_claim);
    }
    match old.and_then(CancellationReason::code) {
        Some("ConditionalCheckFailed") => Err(StoreError::Conflict),
        Some(_) | None => Err(cancelled("replace", reasons)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_that_was_lost_is_told_from_an_old_sandbox_that_disagrees() {
        let explained = |codes: &[&str]| {
            let reasons = codes.iter().map(|code| CancellationReason::builder().code(*code).build());
            explain_all(&reasons.collect::<Vec<_>>())
        };
        let failed = "ConditionalCheckFailed";
        assert!(matches!(explained(&["None", failed, "None"]), Ok(ClaimOutcome::LostCandidate)));
        assert!(matches!(explained(&["None", "None", failed, "None"]), Ok(ClaimOutcome::RequestEnded)));
        assert!(matches!(explained(&["None", "None", failed]), Err(StoreError::Conflict)));
        assert!(matches!(explained(&["None", failed, failed]), Ok(ClaimOutcome::LostCandidate)));
        assert!(matches!(explained(&["None", "None", "TransactionConflict"]), Err(StoreError::Conflict)));
        assert!(matches!(explained(&["None", "None", "ValidationError"]), Err(StoreError::Refused { .. })));
    }
}
