//! Limits of tenants in a track's story: how many leases are held, and how many may be.
//!
//! Invariant: at most [`COUNTED`] limits are counted for a story, each by one query of its permits, and at most [`MOST`] are told,
//! reached ones before others. The tenant of a track is known from its lease or its place in a line; for a track with neither the
//! story shows the reached limits of all tenants, and says so if not all were counted.

use broker_domain::TenantName;
use broker_domain::policy::{Policy, TenantLimit};
use broker_store::{Store, StoreError};
use schemars::JsonSchema;
use serde::Serialize;

/// The most limits that are told.
const MOST: usize = 8;
/// The most limits that are counted: a tenant has no more.
const COUNTED: usize = 100;

/// A limit and its use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct HeldLimit {
    /// The tenant.
    pub tenant: String,
    /// The flavour.
    pub flavour: String,
    /// How many sandboxes of it the tenant holds, as its permits are counted now; leases from before its first limit have none.
    pub held: u32,
    /// How many it may hold.
    pub max: u32,
}

impl HeldLimit {
    /// Whether an allocate of the tenant would be refused for it.
    pub(crate) const fn is_reached(&self) -> bool {
        self.held >= self.max
    }
}

/// The limits of `tenant`; if it is not known, those of all that are reached. And whether more may be reached.
pub(crate) async fn held(
    store: &Store,
    policy: &Policy,
    tenant: Option<&TenantName>,
) -> Result<(Vec<HeldLimit>, bool), StoreError> {
    let tenants = policy.tenants().keys().filter(|name| tenant.is_none_or(|tenant| tenant == *name));
    let mut limits = tenants.flat_map(|name| policy.limits_of(name).map(move |limit| (name, limit)));
    let (mut told, mut reached) = (Vec::new(), 0);
    for (name, TenantLimit { flavour, limit, max }) in limits.by_ref().take(COUNTED) {
        let held = u32::try_from(store.permits.slots(&limit).await?.len()).unwrap_or(u32::MAX);
        let limit = HeldLimit { tenant: name.to_string(), flavour: flavour.to_string(), held, max };
        if limit.is_reached() {
            told.insert(reached, limit);
            reached += 1;
        } else if tenant.is_some() {
            told.push(limit);
        }
        if reached == MOST {
            break;
        }
    }
    told.truncate(MOST);
    Ok((told, limits.next().is_some()))
}

/// The sentence for those that are reached; empty without one.
pub(crate) fn told(limits: &[HeldLimit], there_may_be_more: bool) -> String {
    let more = if there_may_be_more { " More limits may be reached: not all were counted." } else { "" };
    let reached = limits.iter().filter(|limit| limit.is_reached());
    let told = reached.map(|HeldLimit { tenant, flavour, held, max }| {
        format!(
            " Tenant {tenant} holds {held} of {max} of {flavour}: an allocate of it is answered 409 QUOTA_EXCEEDED, or waits if it may."
        )
    });
    told.chain([more.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_reached_is_told_with_its_numbers_and_nothing_else_is() {
        let limit =
            |held, max| HeldLimit { tenant: "acme".to_owned(), flavour: "small".to_owned(), held, max };
        assert_eq!(told(&[limit(3, 5)], false), "");
        let text = told(&[limit(3, 5), limit(5, 5)], false);
        assert!(text.contains("acme holds 5 of 5 of small") && !text.contains("3 of 5"), "{text}");
        assert!(told(&[limit(0, 0)], false).contains("0 of 0"));
        assert!(told(&[], true).contains("not all were counted"));
    }
}
