//! Permits: the slots of a tenant's limit. Each of its leases takes one.
//!
//! Invariant: a permit is held if and only if its lease is live: the claim takes it and the end gives it back, each in its own
//! transaction. So limits are exact, and there is no count that could be wrong.

use std::collections::BTreeSet;
use std::fmt;

use super::{AllocationId, Lease, LeaseKey, NamePrefix, SandboxName, TenantName};

/// What a limit is about: the sandboxes of a prefix, in the hands of a tenant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limit {
    /// Whose leases are limited.
    pub tenant: TenantName,
    /// The flavour's prefix: the names of its sandboxes begin so.
    pub prefix: NamePrefix,
}

impl Limit {
    /// Whether a sandbox of this name falls under it.
    pub fn covers(&self, name: &SandboxName) -> bool {
        name.as_str().starts_with(self.prefix.as_str())
    }

    /// Whether every sandbox that `wanted` fits falls under it.
    pub fn covers_all_of(&self, wanted: Option<&NamePrefix>) -> bool {
        wanted.is_some_and(|wanted| wanted.as_str().starts_with(self.prefix.as_str()))
    }
}

/// The slots of a limit of `max` that may be taken while these are held: all below the number returned that are free.
///
/// That is `max`, unless the limit was lowered: slots beyond it are held until their leases end, and so many fewer may be taken
/// below. Leases end and none takes a slot beyond, so the number only rises, and who saw an older one takes no more than it may.
pub fn open_below(held: &BTreeSet<u32>, max: u32) -> u32 {
    let mut open = max;
    loop {
        let beyond = u32::try_from(held.range(open..).count()).unwrap_or(u32::MAX);
        let fewer = max.saturating_sub(beyond);
        if fewer >= open {
            return open;
        }
        open = fewer;
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.tenant, self.prefix)
    }
}

/// One of the slots of a limit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permit {
    /// The limit.
    pub limit: Limit,
    /// Which slot: 0 and up, below the limit when it was taken.
    pub slot: u32,
}

impl Permit {
    /// From the text that [`Display`](fmt::Display) writes. Neither a tenant's name nor a slot has a `#`.
    pub fn parse(text: &str) -> Option<Self> {
        let (limit, slot) = text.rsplit_once('#')?;
        let (tenant, prefix) = limit.split_once('#')?;
        let limit = Limit { tenant: TenantName::new(tenant).ok()?, prefix: NamePrefix::new(prefix).ok()? };
        Some(Self { limit, slot: slot.parse().ok()? })
    }
}

impl fmt::Display for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.limit, self.slot)
    }
}

/// A permit that is held, and by whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PermitRecord {
    /// Which.
    pub permit: Permit,
    /// The allocation that took it.
    pub allocation_id: AllocationId,
    /// The key of that allocation's lease.
    pub lease_key: LeaseKey,
}

impl PermitRecord {
    /// Whether `lease`, its key's, is live and holds it.
    pub fn is_held_by(&self, lease: Option<&Lease>) -> bool {
        lease.is_some_and(|lease| {
            lease.end.is_none()
                && lease.allocation_id == self.allocation_id
                && lease.permit.as_ref() == Some(&self.permit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permit(tenant: &str, prefix: &str, slot: u32) -> Permit {
        let (tenant, prefix) = (TenantName::new(tenant).unwrap(), NamePrefix::new(prefix).unwrap());
        Permit { limit: Limit { tenant, prefix }, slot }
    }

    #[test]
    fn a_permit_is_read_as_it_is_written_whatever_its_prefix() {
        for permit in [permit("acme", "lab-", 0), permit("a.b:c@d-e_f", "#odd # name#7", 4_294_967_295)] {
            assert_eq!(Permit::parse(&permit.to_string()), Some(permit));
        }
        for wrong in ["", "acme", "acme#lab-", "acme#lab-#", "acme##1", "#lab-#1", "acme#lab-#-1", "acme#7"] {
            assert_eq!(Permit::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn below_a_lowered_limit_as_many_fewer_slots_are_open_as_are_held_beyond_it() {
        let open = |held: &[u32], max| open_below(&held.iter().copied().collect(), max);
        assert_eq!(open(&[], 3), 3);
        assert_eq!(open(&[0, 2], 3), 3);
        assert_eq!(open(&[5], 3), 2);
        assert_eq!(open(&[1, 5], 3), 2, "one more may be taken");
        assert_eq!(open(&[2, 5], 3), 1, "one more may be taken, and 1 would be the third");
        assert_eq!(open(&[0, 1, 5], 3), 2, "none");
        assert_eq!(open(&[3, 4, 5, 6], 3), 0);
        assert_eq!(open(&[0], 0), 0);
    }

    #[test]
    fn a_limit_covers_the_names_of_its_prefix() {
        let limit = permit("acme", "lab-", 0).limit;
        assert!(limit.covers(&SandboxName::new("lab-1").unwrap()));
        assert!(!limit.covers(&SandboxName::new("la-1").unwrap()));
        let wanted = |text: &str| Some(NamePrefix::new(text).unwrap());
        let covers = [None, wanted("la"), wanted("lab-"), wanted("lab-eu-"), wanted("gpu-")];
        let covers = covers.map(|wanted| limit.covers_all_of(wanted.as_ref()));
        assert_eq!(covers, [false, false, true, true, false]);
    }
}
