//! Bodies of responses to operators about supply: refill and quarantine.

use broker_store::RefillStatus;
use broker_store::quarantine::{QuarantineRefusal, QuarantineReport};
use schemars::JsonSchema;
use serde::Serialize;

use super::PooledSandbox;

/// The flavours that the policy refills.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RefillList {
    /// In the order of their names.
    pub(crate) flavours: Vec<RefillBody>,
}

/// What a flavour is short of, and what holds it up.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct RefillBody {
    /// The flavour.
    flavour: String,
    /// running, stopped, slowed, paused, signal, or "not counted yet".
    state: &'static str,
    /// How many are to be available now.
    desired: u64,
    /// How many are, by the last census.
    available: u64,
    /// How many are arriving.
    arriving: u64,
    /// Sandboxes that were asked for and have not arrived.
    tickets: u64,
    /// How many must be asked for yet.
    missing: u64,
    /// How many there may be.
    max: u32,
    /// How many there are in whatever state; null if they were not counted yet.
    live: Option<u64>,
    /// When the hook is called next, in seconds since the epoch; null if nothing holds it up.
    next_call_at: Option<u64>,
    /// Since when it is paused, in seconds since the epoch; null if it is not.
    paused_at: Option<u64>,
    /// Who paused it; null if it is not paused, or an earlier version stored it without.
    paused_by: Option<String>,
}

impl From<RefillStatus> for RefillBody {
    fn from(status: RefillStatus) -> Self {
        let RefillStatus {
            flavour,
            state,
            desired,
            available,
            arriving,
            tickets,
            missing,
            max,
            live,
            next_call_at,
            paused_at,
            paused_by,
        } = status;
        Self {
            flavour,
            state,
            desired,
            available,
            arriving,
            tickets,
            missing,
            max,
            live,
            next_call_at,
            paused_at,
            paused_by,
        }
    }
}

/// The sandboxes in quarantine.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuarantineList<'a> {
    /// The longest in quarantine first, 200 of them at most.
    pub(crate) sandboxes: Vec<PooledSandbox<'a>>,
    /// Whether there are more.
    pub(crate) more: bool,
}

/// What an act on the quarantine did, or would do.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct QuarantineReportBody {
    /// Whether nothing was written.
    dry_run: bool,
    /// Sandboxes that were selected.
    selected: u64,
    /// Of these, those that it was done with, or would be; what was so already counts.
    done: u64,
    /// Those of them that were so already, by whom and since when, 100 of them at most.
    already: Vec<QuarantineRefusalBody>,
    /// Why nothing was done with the others, 100 of them at most.
    refused: Vec<QuarantineRefusalBody>,
    /// Whether there are more that it can be done with: the same call goes on with those. Never of sandboxes that were named.
    more: bool,
}

/// Why nothing was done with a sandbox.
#[derive(Debug, Serialize, JsonSchema)]
struct QuarantineRefusalBody {
    /// The sandbox.
    sandbox_id: String,
    /// Why.
    why: String,
}

impl From<QuarantineReport> for QuarantineReportBody {
    fn from(report: QuarantineReport) -> Self {
        let QuarantineReport { dry_run, selected, done, already, refused, more } = report;
        let shown = |told: Vec<QuarantineRefusal>| {
            let told = told.into_iter();
            told.map(|one| QuarantineRefusalBody { sandbox_id: one.sandbox_id, why: one.why }).collect()
        };
        Self { dry_run, selected, done, already: shown(already), refused: shown(refused), more }
    }
}
