//! Faults of the provider: it renames, doubles, reorders and omits rows, sends other types, refuses, or does not answer. Each says what
//! it must not cause: a list that has every account makes no sandbox stale, and an answer that is about no sandbox spends no
//! attempt.

use std::collections::BTreeMap;

use broker_domain::Status;
use broker_local::provider::account_of;
use serde_json::{Value, json};

use super::Week;

/// So many accounts are spoken of otherwise: as many may be missing without a list being refused.
const SOME: usize = 5;

/// How the provider misbehaves, and what that is no reason for.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    faults: Value,
    /// Whatever its list looks like, it names every account, or it contradicts itself.
    names_all: bool,
    /// What it answers to deletions speaks of none of them.
    blames_none: bool,
}

impl Default for Fault {
    fn default() -> Self {
        Self { faults: json!({}), names_all: true, blames_none: true }
    }
}

/// Which fault comes next.
#[derive(Clone, Copy, Debug)]
pub(super) enum FaultOrder {
    /// Any, in three of ten steps.
    Drawn,
    /// The next one, in every step.
    InTurn,
}

/// What may have come of a fault: nothing of it may grow where the fault is no reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Blame {
    stale: usize,
    attempts: u64,
}

/// What faults there are; `some` are accounts that are listed now, few enough to become stale if they were missing.
fn faults(some: &[String]) -> Vec<Fault> {
    let fault = |names_all, blames_none, faults| Fault { faults, names_all, blames_none };
    let list = |list: Value| fault(true, true, json!({ "list": list }));
    let rows = |says: Value| {
        let rows: BTreeMap<_, _> = some.iter().map(|csp_id| (csp_id, says.clone())).collect();
        list(json!({ "rows": rows }))
    };
    let forget = |list: Value| fault(false, true, json!({ "list": list }));
    let (one, two) = (&some[0], &some[1]);
    let delete = |delete: Value| fault(true, true, json!({ "delete": delete }));
    let this_one = |delete: Value| fault(true, false, json!({ "delete": delete }));
    vec![
        Fault::default(),
        Fault::default(),
        this_one(json!({ "status": 500, "every": 2 })),
        this_one(json!({ "lost": true, "every": 3 })),
        this_one(json!({ "status": 409, "every": 2 })),
        this_one(json!({ "status": 403 })),
        this_one(json!({ "delay_ms": 2_500, "every": 4 })),
        forget(json!({ "empty": true })),
        forget(json!({ "no_next": true })),
        forget(json!({ "forget": some })),
        forget(json!({ "forget": some, "every": 4 })),
        delete(json!({ "not_found": true, "every": 2 })),
        delete(json!({ "status": 429, "retry_after_s": 2, "every": 2 })),
        this_one(json!({ "status": 403, "retry_after_s": 2 })),
        delete(json!({ "status": 401, "every": 3 })),
        delete(json!({ "status": 410, "every": 3 })),
        delete(json!({ "html": true, "every": 3 })),
        delete(json!({ "status": 308, "location": "{path}/" })),
        fault(true, true, json!({ "list": { "status": 503 }, "delete": { "status": 503 } })),
        list(json!({ "truncated": true })),
        list(json!({ "loop": true })),
        list(json!({ "double": true, "reorder": true, "count": 7, "next": "?page={page}", "last": "" })),
        list(json!({ "shift": 3 })),
        list(json!({ "more_rows": [null, 7, { "account_type": "sandbox", "state": "active" }] })),
        // Labels change places, one is written otherwise, an account is listed under a second label, a label twice.
        list(json!({ "rows": { one: { "csp_id": two }, two: { "csp_id": one } } })),
        list(json!({ "rows": { one: { "csp_id": one.to_uppercase() } } })),
        list(json!({ "more_rows": [twin("twin", one)] })),
        list(json!({ "more_rows": [twin(one, two)] })),
        rows(json!({ "name": null })),
        rows(json!({ "name": "another name" })),
        rows(json!({ "id": 4711 })),
        rows(json!({ "csp_id": null })),
        rows(json!({ "state": null, "account_type": [] })),
        rows(json!({ "created_at": 1_795_873_861 })),
    ]
}

/// A row with the label `csp_id` for the account of the seed `of`, which is listed under its own label, too.
fn twin(csp_id: &str, of: &str) -> Value {
    let (account_type, state) = ("sandbox", "active");
    json!({ "csp_id": csp_id, "id": account_of(of), "name": csp_id, "account_type": account_type, "state": state })
}

impl Week {
    pub(super) fn the_provider_has_faults(&mut self) {
        if matches!(self.fault_order, FaultOrder::Drawn) && !self.chance(30) {
            return;
        }
        let world = self.stand_in.world.shown(self.now());
        let listed: Vec<String> = serde_json::from_value(world["accounts"].clone()).unwrap();
        let some: Vec<_> =
            (0..SOME).map(|_| listed[self.process.entropy.below(listed.len())].clone()).collect();
        let faults = faults(&some);
        let had = self.figures.get("faults of the provider").copied().unwrap_or_default();
        let next = match self.fault_order {
            FaultOrder::Drawn => self.process.entropy.below(faults.len()),
            FaultOrder::InTurn => usize::try_from(had).unwrap_or_default() % faults.len(),
        };
        self.fault = faults[next].clone();
        self.stand_in.world.misbehave(serde_json::from_value(self.fault.faults.clone()).unwrap());
        self.count("faults of the provider");
    }

    /// What the provider's faults have led to so far.
    pub(super) async fn blame(&self) -> Blame {
        let records = self.read_all().await;
        let stale = records.iter().filter(|record| record.sandbox.status == Status::Stale).count();
        Blame { stale, attempts: records.iter().map(|record| record.attempts).sum() }
    }

    pub(super) async fn no_sandbox_is_blamed_for_a_fault(&self, before: Blame) {
        let after = self.blame().await;
        let fault = &self.fault;
        assert!(
            !fault.names_all || after.stale <= before.stale,
            "what the provider names is stale: {before:?} {after:?} {fault:?}"
        );
        assert!(
            !fault.blames_none || after.attempts <= before.attempts,
            "an attempt was spent by an answer that speaks of no sandbox: {before:?} {after:?} {fault:?}"
        );
    }
}
