//! Evidence from other calls: whether a failed deletion is about its account, or about the provider as a whole.
//!
//! A 500, or no answer, is about its account as long as no other account failed since the last successful deletion, and if
//! the same account failed before and others were deleted since. A 403 is about the token, unless the same holds of it. A
//! 404 counts only if an answer of the last minute showed that the URL is the provider's API. Each process knows its own
//! calls only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::account::AccountId;

/// The most accounts that are kept of each kind of failure.
const REMEMBERED: usize = 1_000;
/// How long an answer of the provider's API counts as proof that the URL is right.
const SHOWN_FOR: Duration = Duration::from_secs(60);

/// The results of the last calls. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Evidence(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    deleted: u64,
    failing: Failing,
    failed: Earlier,
    refused: Earlier,
    shown_at: Option<Instant>,
}

/// How many accounts were deleted when one failed last.
#[derive(Debug, Default)]
struct Earlier(HashMap<AccountId, u64>);

impl Earlier {
    /// Notes a failure; whether the account failed before, and others were deleted since.
    fn again(&mut self, account: AccountId, deleted: u64) -> bool {
        if self.0.len() >= REMEMBERED {
            self.0.clear();
        }
        self.0.insert(account, deleted).is_some_and(|before| before < deleted)
    }
}

/// Whether deletions failed since the last one that succeeded, and of which account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Failing {
    #[default]
    No,
    One(AccountId),
    Several,
}

impl Evidence {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The provider gave an answer that no other server gives.
    pub(super) fn shown(&self, now: Instant) {
        self.told().shown_at = Some(now);
    }

    /// Whether it did just now.
    pub(super) fn is_there(&self, now: Instant) -> bool {
        self.told().shown_at.is_some_and(|at| now.saturating_duration_since(at) < SHOWN_FOR)
    }

    /// An account was deleted, or is gone.
    pub(super) fn deleted(&self, account: AccountId) {
        let mut told = self.told();
        told.deleted += 1;
        told.failing = Failing::No;
        told.failed.0.remove(&account);
        told.refused.0.remove(&account);
    }

    /// A deletion failed or was not answered; whether that is about its account.
    pub(super) fn failed(&self, account: AccountId) -> bool {
        let mut told = self.told();
        let deleted = told.deleted;
        let again = told.failed.again(account, deleted);
        told.failing = match told.failing {
            Failing::No => Failing::One(account),
            Failing::One(same) if same == account => Failing::One(account),
            Failing::One(_) | Failing::Several => Failing::Several,
        };
        again || told.failing != Failing::Several
    }

    /// A deletion was answered 403; whether that is about its account.
    pub(super) fn forbidden(&self, account: AccountId) -> bool {
        let mut told = self.told();
        let deleted = told.deleted;
        told.refused.again(account, deleted)
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::ExternalId;
    use uuid::Uuid;

    use super::*;

    fn account(number: u128) -> AccountId {
        let external_id = format!("identity/accounts/{}", Uuid::from_u128(number));
        AccountId::of(&ExternalId::new(external_id).unwrap()).unwrap()
    }

    #[test]
    fn a_failure_is_about_its_account_until_another_one_fails_too() {
        let evidence = Evidence::default();
        assert!((0..5).all(|_| evidence.failed(account(1))));
        assert!(!evidence.failed(account(2)) && !evidence.failed(account(1)));
        evidence.deleted(account(3));
        assert!(evidence.failed(account(2)));
    }

    #[test]
    fn accounts_that_fail_each_time_are_to_blame_while_others_are_deleted() {
        let evidence = Evidence::default();
        evidence.failed(account(1));
        assert!(!evidence.failed(account(2)), "perhaps the provider");
        for round in 0..5 {
            evidence.deleted(account(10 + round));
            assert!(evidence.failed(account(1)) && evidence.failed(account(2)), "in round {round}");
        }
        assert!(!evidence.failed(account(1)) && !evidence.failed(account(2)), "nothing was deleted since");
        evidence.deleted(account(2));
        assert!(evidence.failed(account(1)), "another was deleted");
        assert!(!evidence.failed(account(2)), "its own deletion is no other's");
    }

    #[test]
    fn a_403_is_about_the_token_unless_others_were_deleted_since() {
        let evidence = Evidence::default();
        assert!((0..20).all(|n| !evidence.forbidden(account(n % 3))));
        evidence.deleted(account(4));
        assert!(!evidence.forbidden(account(4)), "never refused before");
        assert!(evidence.forbidden(account(1)));
        assert!(!evidence.forbidden(account(1)), "no account was deleted since");
    }
}
