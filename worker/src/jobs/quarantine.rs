//! Quarantine by the broker itself: what a gate refuses, and what the provider does not delete.
//!
//! Invariant: nothing more of a flavour goes there while a fifth of it is there, however many processes put sandboxes there at
//! the same moment. Order: guard → census and index → one transaction that changes the sandbox, and the guard as it was
//! read. A process that loses this condition counts again.

use std::collections::BTreeSet;

use broker_domain::quarantine::{QuarantineGuard, is_full};
use broker_domain::{FlavourName, Quarantine, Status};
use broker_runtime::crash_points::{self, Point};
use broker_store::{Pages, Seen, StoreError, Write, retry_on_conflict};

use super::{Jobs, serve};

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
        let Some(census) = self.store.census.get().await? else { return Ok(Some(guard)) };
        let counts = census.by_flavour.get(flavour.as_str()).unwrap_or(&census.by_status);
        let live =
            counts.iter().filter(|(status, _)| **status != Status::Deleted).map(|(_, count)| count).sum();
        let policy = self.policy.now().unwrap_or_default();
        // The time before the index: what is too old for the guard by now, the index lists.
        let (now, mut listed) = (self.clock.now(), BTreeSet::new());
        let mut pages = Pages::new(|after| self.store.sandboxes.quarantined(now, after, serve::TOGETHER));
        while let Some(page) = pages.next().await? {
            let of_it = page.into_iter().filter(|one| policy.flavour_of(&one.name) == Some(flavour));
            listed.extend(of_it.map(|one| one.sandbox_id));
        }
        Ok((!is_full(guard.count(&listed, now), live)).then_some(guard))
    }
}
