//! The hook before a deletion: the operator's side is asked before the provider is.
//!
//! Its place in the order of effects: pending at the planned version → **hook → slot → provider → tombstone**. It is asked
//! again with the same `webhook-id` whenever the deletion is tried again, so it may hear of a sandbox several times, also of
//! one whose deletion then has to wait. A no is an answer about this sandbox and spends an attempt, like a refusal of the
//! provider. A failure spends none: the deletion waits, or goes on where the policy says so (`on_failure = "pass"`).

use std::time::Duration;

use broker_domain::policy::OnFailure;
use broker_provider::hooks::{HookAnswer, HookEvent, HookKind};
use broker_store::Record;
use serde_json::json;

use super::Jobs;

/// How long a deletion waits for the policy to be known.
const UNTIL_KNOWN: Duration = Duration::from_secs(10);

/// What is to become of a deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HookVerdict {
    /// The provider is asked.
    Delete,
    /// It waits so long; no attempt is spent.
    Wait(Duration),
    /// It failed for this reason.
    Refused(String),
}

impl Jobs {
    /// Asks the hook of the sandbox's flavour, if it has one.
    pub(super) async fn ask_before_delete(&self, record: &Record) -> HookVerdict {
        let Ok(policy) = self.policy.now() else { return HookVerdict::Wait(UNTIL_KNOWN) };
        let sandbox = &record.sandbox;
        let flavour = policy.flavour_of(&sandbox.name);
        let found =
            flavour.and_then(|name| Some((name, policy.flavours().get(name)?.before_delete.as_ref()?)));
        let Some((name, before)) = found else { return HookVerdict::Delete };
        let requested_at = sandbox.deletion_requested_at.map_or(0, |at| at.as_secs());
        let event = HookEvent {
            id: format!("before_delete_{}_{requested_at}", sandbox.id),
            kind: HookKind::BeforeDelete,
            at: self.clock.now(),
            data: json!({
                "sandbox_id": sandbox.id, "name": sandbox.name, "external_id": sandbox.external_id, "flavour": name,
                "deletion_requested_at": requested_at, "attempts": record.attempts,
            }),
        };
        let answer = self.hooks.ask(&before.hook, &event).await;
        let verdict = verdict(answer, before.on_failure, self.settings.deletion_backoff);
        match &verdict {
            HookVerdict::Delete => {}
            HookVerdict::Wait(by) => {
                let again_after = by.as_secs();
                tracing::warn!(sandbox = %sandbox.id, again_after, "deletion postponed: the hook did not answer yes");
            }
            HookVerdict::Refused(reason) => {
                tracing::warn!(sandbox = %sandbox.id, reason, "its hook refuses the deletion")
            }
        }
        verdict
    }
}

fn verdict(answer: HookAnswer, on_failure: OnFailure, backoff: Duration) -> HookVerdict {
    let failed = |by: Duration| match on_failure {
        OnFailure::Block => HookVerdict::Wait(by),
        OnFailure::Pass => HookVerdict::Delete,
    };
    match answer {
        HookAnswer::Yes { .. } => HookVerdict::Delete,
        HookAnswer::No { reason, .. } => {
            HookVerdict::Refused(format!("the hook before_delete says no: {reason}"))
        }
        // It was heard and asks for time: that is no failure.
        HookAnswer::Later { again_after } => HookVerdict::Wait(again_after),
        HookAnswer::Failed { problem, .. } => {
            tracing::warn!(problem, "the hook before_delete failed");
            failed(backoff)
        }
        HookAnswer::NotAsked { again_after, .. } => failed(again_after),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failure_can_be_passed_over_and_only_a_no_spends_an_attempt() {
        let second = Duration::from_secs(1);
        let failed = || HookAnswer::Failed { status: Some(500), problem: "down".to_owned() };
        let shut = || HookAnswer::NotAsked { again_after: 7 * second, why: "down".to_owned() };
        let of = |answer, on_failure| verdict(answer, on_failure, second);
        assert_eq!(of(failed(), OnFailure::Block), HookVerdict::Wait(second));
        assert_eq!(of(shut(), OnFailure::Block), HookVerdict::Wait(7 * second));
        assert_eq!(
            [of(failed(), OnFailure::Pass), of(shut(), OnFailure::Pass)],
            [HookVerdict::Delete, HookVerdict::Delete]
        );
        for on_failure in [OnFailure::Block, OnFailure::Pass] {
            let no = HookAnswer::No { status: 409, reason: "in use".to_owned() };
            assert!(
                matches!(of(no, on_failure), HookVerdict::Refused(reason) if reason.ends_with(": in use"))
            );
            let later = HookAnswer::Later { again_after: 3 * second };
            assert_eq!(of(later, on_failure), HookVerdict::Wait(3 * second));
            assert_eq!(of(HookAnswer::Yes { status: 200 }, on_failure), HookVerdict::Delete);
        }
    }
}
