//! The policy: flavours of sandboxes and how many of each are kept, and what tenants may hold; one TOML file.
//!
//! Invariant: a [`Policy`] exists only if the whole file is right; [`Policy::parse`] tells everything that is wrong at once,
//! each with its line and column. Flavours' prefixes do not contain each other, so a sandbox has one flavour at most.

mod canonical;
mod count;
mod parse;
mod read;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

pub use canonical::{Change, PolicyDigest};
pub use count::{ByCause, ByStatus, PoolCount, ReservedCount};
pub use read::Problem;
pub use schedule::Window;

use super::{FlavourName, Limit, NamePrefix, SandboxName, TenantName, Timestamp};

/// The longest text of a policy, in bytes: the longest body that the API reads, and four read units of the table.
pub const MAX_POLICY_BYTES: usize = 16 * 1024;

/// What stands for sandboxes and requests without a flavour, in metrics and lists; no flavour may be called so.
pub const ANY_FLAVOUR: &str = "any";

/// Flavours, tenants and the default of requests. The default policy is empty: any sandbox for everyone, without limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    default_flavour: Option<FlavourName>,
    flavours: BTreeMap<FlavourName, Flavour>,
    tenants: BTreeMap<TenantName, Tenant>,
}

/// What a flavour is and how it is supplied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flavour {
    /// Its sandboxes' names begin so.
    pub prefix: NamePrefix,
    /// How many are kept, if the broker is to ask for new ones.
    pub refill: Option<Refill>,
    /// What is asked before a sandbox is offered.
    pub gate: Option<Gate>,
    /// What is asked before a sandbox is deleted.
    pub before_delete: Option<BeforeDelete>,
    /// What becomes of a sandbox that the provider did not delete in five attempts.
    pub failed_deletions: FailedDeletions,
}

/// How many sandboxes of a flavour are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refill {
    /// As many are kept available, outside of every window.
    pub min: u32,
    /// As many exist at most, in whatever state, with those that were asked for.
    pub max: u32,
    /// As many are asked for in a minute at most.
    pub rate_per_minute: u32,
    /// Where they are asked for; without it, the need is only told by metric and event.
    pub hook: Option<Hook>,
    /// Times in which more are kept.
    pub schedule: Vec<Window>,
}

/// A URL of the operator's that is sent signed requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Where, `https` or `http`.
    pub url: url::Url,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// The hook that says whether a new sandbox may be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gate {
    /// What is asked.
    pub hook: Hook,
    /// After so many attempts without an answer the sandbox is put into quarantine.
    pub attempts: u32,
}

/// The hook that is asked before a sandbox is deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeforeDelete {
    /// What is asked.
    pub hook: Hook,
    /// What becomes of the deletion if the hook fails.
    pub on_failure: OnFailure,
}

/// What becomes of a sandbox whose deletion was given up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FailedDeletions {
    /// It is tried again a day later.
    #[default]
    Retry,
    /// It goes into quarantine, for a person to look at.
    Quarantine,
}

impl FailedDeletions {
    const ALL: [Self; 2] = [Self::Retry, Self::Quarantine];

    /// As the policy writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Quarantine => "quarantine",
        }
    }
}

/// What becomes of a deletion whose hook fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// It waits, as after a failure of the provider.
    #[default]
    Block,
    /// It goes on.
    Pass,
}

impl OnFailure {
    const ALL: [Self; 2] = [Self::Block, Self::Pass];

    /// As the policy writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Pass => "pass",
        }
    }
}

/// What a tenant may hold, and its share among those that wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Live leases by flavour; a flavour that is not named has no limit, 0 is none at all.
    pub limits: BTreeMap<FlavourName, u32>,
    /// Places in turn among those that wait.
    pub weight: u32,
}

/// A limit of a tenant, as the policy says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantLimit {
    /// The flavour that is limited.
    pub flavour: FlavourName,
    /// What it is about.
    pub limit: Limit,
    /// How many live leases the tenant may have; 0 is none.
    pub max: u32,
}

/// A text that is no policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct InvalidPolicy {
    /// Everything that is wrong, in the order of the text; at least one.
    pub problems: Vec<Problem>,
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, problem) in self.problems.iter().enumerate() {
            let separator = if place == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}

impl Policy {
    /// The policy that `text` writes down, or everything that is wrong with it.
    pub fn parse(text: &str) -> Result<Self, InvalidPolicy> {
        parse::policy(text).map_err(|problems| InvalidPolicy { problems })
    }

    /// The policy in a text that an operator hands over. A blank one is refused: a file that is empty by mistake must not end every
    /// limit.
    pub fn given(text: &str) -> Result<Self, InvalidPolicy> {
        if text.trim_start_matches('\u{feff}').trim().is_empty() {
            let message = "there is no policy; a comment is one that says nothing".to_owned();
            let problem = Problem { line: 1, column: 1, key: String::new(), message };
            return Err(InvalidPolicy { problems: vec![problem] });
        }
        Self::parse(text)
    }

    /// Whether it says nothing: everything is as without a policy.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The flavour of requests that name none.
    pub const fn default_flavour(&self) -> Option<&FlavourName> {
        self.default_flavour.as_ref()
    }

    /// Its flavours, by name.
    pub const fn flavours(&self) -> &BTreeMap<FlavourName, Flavour> {
        &self.flavours
    }

    /// The tenants that it says something of, by name.
    pub const fn tenants(&self) -> &BTreeMap<TenantName, Tenant> {
        &self.tenants
    }

    /// The flavour whose prefix begins `name`.
    pub fn flavour_of(&self, name: &SandboxName) -> Option<&FlavourName> {
        let fits = |flavour: &Flavour| name.as_str().starts_with(flavour.prefix.as_str());
        self.flavours.iter().find(|(_, flavour)| fits(flavour)).map(|(name, _)| name)
    }

    /// The limits of a tenant.
    pub fn limits_of(&self, tenant: &TenantName) -> impl Iterator<Item = TenantLimit> {
        let limits = self.tenants.get(tenant).into_iter().flat_map(|tenant| &tenant.limits);
        limits.filter_map(move |(flavour, max)| {
            let prefix = self.flavours.get(flavour)?.prefix.clone();
            let limit = Limit { tenant: tenant.clone(), prefix };
            Some(TenantLimit { flavour: flavour.clone(), limit, max: *max })
        })
    }

    /// What the limits of all tenants are about.
    pub fn limits(&self) -> impl Iterator<Item = Limit> {
        self.tenants.keys().flat_map(|tenant| self.limits_of(tenant)).map(|limited| limited.limit)
    }

    /// The limit that a sandbox of this name falls under in the hands of `tenant`.
    pub fn limit_of(&self, tenant: &TenantName, name: &SandboxName) -> Option<TenantLimit> {
        self.limits_of(tenant).find(|limited| limited.limit.covers(name))
    }

    /// The flavour that stands for this prefix of a request, and what it says.
    pub fn flavour_with(&self, prefix: Option<&NamePrefix>) -> Option<(&FlavourName, &Flavour)> {
        self.flavours.iter().find(|(_, flavour)| Some(&flavour.prefix) == prefix)
    }

    /// The flavour that every sandbox has whose name begins with `prefix`, and what it says.
    pub fn flavour_within(&self, prefix: &NamePrefix) -> Option<(&FlavourName, &Flavour)> {
        self.flavours.iter().find(|(_, flavour)| prefix.as_str().starts_with(flavour.prefix.as_str()))
    }

    /// The gate that is asked before a sandbox of this name is offered.
    pub fn gate_of(&self, name: &SandboxName) -> Option<&Gate> {
        self.flavours.get(self.flavour_of(name)?)?.gate.as_ref()
    }
}

impl Refill {
    /// How many are to be available at `now`: the highest of `min` and of the windows that cover `now`.
    pub fn min_at(&self, now: Timestamp) -> u32 {
        let windows = self.schedule.iter().filter(|window| window.covers(now)).map(Window::min);
        windows.fold(self.min, u32::max)
    }
}
