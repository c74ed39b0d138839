//! Quarantine by the broker itself: what a gate refuses, and what the provider does not delete.
//!
//! Invariant: nothing more of a flavour goes there while a fifth of it is there, however many processes put sandboxes there at
//! the same moment. Order: guard → census and index → one transaction that changes the sandbox, and the guard as it was
//! read. A process that loses this condition counts again. Of a flavour that the last census does not know, the index tells how
//! many there are at least.

use std::collections::BTreeSet;

use broker_domain::policy::Policy;
use broker_domain::quarantine::{QuarantineGuard, is_full, room_from};
use broker_domain::{FlavourName, Quarantine, SandboxId, Status, Timestamp};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Pages, Seen, StoreError, Write, retry_on_conflict};

use super::{Jobs, census, refill, serve};

impl Jobs {
    /// Puts a sandbox into quarantine, unless too much of its flavour is there: then `None`.
    pub(crate) async fn quarantine(
        &self,
        flavour: &FlavourName,
        seen: Seen<'_>,
        from: Status,
        why: &Quarantine,
    ) -> Result<Option<Write>, StoreError> {
        let write = || async {
            let Some(guard) = self.room(flavour).await? else { return Ok(None) };
            crash_points::point(Point::RoomCounted);
            let (sandboxes, now) = (&self.store.sandboxes, self.clock.now());
            sandboxes.quarantine_guarded(seen, from, why, (flavour, &guard), now).await.map(Some)
        };
        let written = retry_on_conflict(&self.entropy, write).await?;
        if written == Some(Write::Applied) {
            let labels = [("flavour", flavour.to_string()), ("cause", why.cause.to_string())];
            metrics::counter!("broker_quarantined_total", &labels).increment(1);
        }
        Ok(written)
    }

    /// The guard under which one more may go there; `None` if it may not, by what is there now and by the last census.
    async fn room(&self, flavour: &FlavourName) -> Result<Option<QuarantineGuard>, StoreError> {
        let guard = self.store.sandboxes.quarantine_guard(flavour).await?;
        let policy = self.policy.now().unwrap_or_default();
        // Also if the policy is newer than the census: what it knows of the flavour is nearer than what the index lists.
        let counted = census::live(self, flavour, Timestamp::from_ms(0)).await?;
        // The time before the index: what is too old for the guard by now, the index lists.
        let (now, mut listed) = (self.clock.now(), BTreeSet::new());
        let mut pages = Pages::new(|after| self.store.sandboxes.quarantined(now, after, serve::TOGETHER));
        while let Some(page) = pages.next().await? {
            let of_it = page.into_iter().filter(|one| policy.flavour_of(&one.name) == Some(flavour));
            listed.extend(of_it.map(|one| one.sandbox_id));
        }
        let there = guard.count(&listed, now);
        let live = match counted {
            Some((live, _)) => live,
            None => self.at_least(flavour, &policy, &listed, room_from(there)).await?,
        };
        Ok((!is_full(there, live)).then_some(guard))
    }

    /// How many sandboxes of a flavour there are at least, with those that are listed in quarantine; about `enough` suffice. What
    /// the index lists by name or in small numbers: a flavour that was never counted is new.
    async fn at_least(
        &self,
        flavour: &FlavourName,
        policy: &Policy,
        listed: &BTreeSet<SandboxId>,
        enough: u64,
    ) -> Result<u64, StoreError> {
        let Some(known) = policy.flavours().get(flavour) else { return Ok(0) };
        // In this order: what is admitted in between is missed, and not counted twice.
        let found = self.store.refill.available(&known.prefix, enough).await? + listed.len() as u64;
        if found >= enough {
            return Ok(found);
        }
        Ok(found + refill::arriving(self, &known.prefix).await?)
    }
}
