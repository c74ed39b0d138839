//! Tenants for operators: what each may hold and holds, how many of its requests wait, and what is reserved for it. The same
//! for `GET /v1/admin/tenants`, the console and `broker tenants`.
//!
//! Invariant: a page costs one read of the reservations, one of the lines, and one of the permits of each limit that it shows
//! (one more for each further megabyte of any of these). It ends with the tenant that brings it to [`MOST_LIMITS`].

use std::collections::BTreeSet;

use broker_domain::policy::{Policy, TenantLimit};
use broker_domain::waiting::minted_at;
use broker_domain::{Reservation, TenantName, Timestamp};
use broker_store::{ListedLine, Store, StoreError};
use tokio::task::JoinSet;

use crate::response::bodies::{OwnReservation, QuotaUse, TenantView};

/// A page ends with the tenant that brings it to so many limits.
pub const MOST_LIMITS: usize = 100;

/// A page of tenants, by name.
#[derive(Debug)]
pub struct TenantPage {
    /// The tenants.
    pub tenants: Vec<TenantView>,
    /// The last of them, if there are more.
    pub after: Option<TenantName>,
}

/// What is known of tenants: those that the policy names, that wait, or for which something is reserved.
#[derive(Debug)]
pub struct KnownTenants<'a> {
    /// The policy.
    pub policy: &'a Policy,
    /// The lines, empty ones as well.
    pub lines: &'a [ListedLine],
    /// The reservations, those that have ended as well.
    pub reservations: &'a [Reservation],
    /// The moment.
    pub now: Timestamp,
}

impl KnownTenants<'_> {
    /// A page of at most `most` tenants: of all `after` that one, or of `only` one.
    pub async fn page(
        &self,
        store: &Store,
        only: Option<&TenantName>,
        after: Option<&TenantName>,
        most: usize,
    ) -> Result<TenantPage, StoreError> {
        let mut names = self.names();
        names.retain(|name| only.is_none_or(|only| only == name) && after.is_none_or(|after| after < name));
        let (mut page, mut limits) = (TenantPage { tenants: Vec::new(), after: None }, 0);
        for name in &names {
            if page.tenants.len() == most || limits >= MOST_LIMITS {
                return Ok(page);
            }
            let tenant = self.tenant(store, name).await?;
            limits += tenant.limits.len();
            page.tenants.push(tenant);
            page.after = (names.last() != Some(name)).then(|| name.clone());
        }
        Ok(page)
    }

    fn names(&self) -> BTreeSet<TenantName> {
        let waiting = self.lines.iter().filter(|listed| listed.marks.length > 0);
        let reserved = self.reservations.iter().filter(|one| one.is_open());
        let names = self.policy.tenants().keys().cloned();
        let names = names.chain(waiting.map(|listed| listed.line.tenant.clone()));
        names.chain(reserved.map(|one| one.terms.tenant.clone())).collect()
    }

    async fn tenant(&self, store: &Store, name: &TenantName) -> Result<TenantView, StoreError> {
        let lines = || self.lines.iter().filter(|listed| listed.line.tenant == *name);
        let open = self.reservations.iter().filter(|one| one.is_open() && one.terms.tenant == *name);
        let (running, mut planned): (Vec<_>, Vec<_>) = open.partition(|one| one.terms.has_begun(self.now));
        planned.sort_by_key(|one| one.terms.begins_at());
        Ok(TenantView {
            tenant: name.to_string(),
            weight: self.policy.tenants().get(name).map_or(1, |tenant| tenant.weight),
            limits: uses(store, self.policy, name).await?,
            waiting: lines().map(|listed| listed.marks.length).sum(),
            oldest_since: lines()
                .filter_map(|listed| listed.marks.first())
                .map(minted_at)
                .min()
                .map(Timestamp::as_secs),
            running: running.into_iter().map(OwnReservation::from).collect(),
            next: planned.first().map(|one| OwnReservation::from(*one)),
            planned: planned.len(),
        })
    }
}

/// The limits of a tenant, by flavour, and how much of each is held: counted from the permits in the table, now.
pub(crate) async fn uses(
    store: &Store,
    policy: &Policy,
    tenant: &TenantName,
) -> Result<Vec<QuotaUse>, StoreError> {
    let mut counts = JoinSet::new();
    for limited in policy.limits_of(tenant) {
        let permits = store.permits.clone();
        counts.spawn(async move {
            let held = permits.slots(&limited.limit).await?.len();
            Ok::<_, StoreError>((limited, u32::try_from(held).unwrap_or(u32::MAX)))
        });
    }
    let mut uses = Vec::with_capacity(counts.len());
    for counted in counts.join_all().await {
        let (TenantLimit { flavour, limit, max }, held) = counted?;
        let (flavour, prefix) = (flavour.to_string(), limit.prefix.to_string());
        uses.push(QuotaUse { flavour, prefix, held, max, free: max.saturating_sub(held) });
    }
    uses.sort_by(|one, other| one.flavour.cmp(&other.flavour));
    Ok(uses)
}
