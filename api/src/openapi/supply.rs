//! Operations of supply: refill and quarantine.

use serde_json::Value;

use super::operation::{ADMIN, Components, Operation};
use super::parameters;
use crate::request::parameters as query;
use crate::response::bodies::{QuarantineList, QuarantineReportBody, RefillBody, RefillList};
use crate::response::codes::Code;

/// How an act goes on that was not done with all at once.
const GOES_ON: &str = "By `cause` or `all` a call acts on 1,000 at most, for no longer than its caller waits; if the response has \
                       `more`, the same call continues.";

pub(super) fn refill(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "listRefill", "Lists what flavours are short of, and why")
        .answers::<RefillList>(200, "The flavours that the policy refills.", &[])
        .finish()
}

pub(super) fn pause_refill(parts: &mut Components) -> Value {
    refill_switch(parts, "pauseRefill", "Asks for no more sandboxes of a flavour").finish()
}

pub(super) fn resume_refill(parts: &mut Components) -> Value {
    refill_switch(parts, "resumeRefill", "Asks for sandboxes of a flavour again")
        .says("Also after its hook failed so often that it is not called.")
        .finish()
}

pub(super) fn quarantine(parts: &mut Components) -> Value {
    Operation::by_operator(parts, ADMIN, "listQuarantine", "Lists the sandboxes in quarantine")
        .answers::<QuarantineList<'_>>(200, "The sandboxes.", &[])
        .finish()
}

pub(super) fn add_to_quarantine(parts: &mut Components) -> Value {
    act(parts, "addToQuarantine", "Takes sandboxes out of the pool")
        .says(
            "Available or arriving ones. They are offered again when an operator releases them, and not before.",
        )
        .takes_query(&[query::QUARANTINE_IDS, query::QUARANTINE_WHY, query::ACTION_DRY_RUN.parameter()])
        .finish()
}

pub(super) fn release_from_quarantine(parts: &mut Components) -> Value {
    act(parts, "releaseFromQuarantine", "Lets sandboxes in quarantine go, into the pool")
        .says(&format!("Not those that were ever handed out: they can only be retired. {GOES_ON}"))
        .takes_query(query::LEAVING)
        .takes(parameters::prefer())
        .finish()
}

pub(super) fn retire_from_quarantine(parts: &mut Components) -> Value {
    act(parts, "retireFromQuarantine", "Has sandboxes in quarantine deleted at the provider")
        .says(GOES_ON)
        .takes_query(query::LEAVING)
        .takes(parameters::prefer())
        .finish()
}

/// A pause of a flavour's refill, or its end.
fn refill_switch<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary)
        .takes(parameters::flavour_in_path())
        .answers::<RefillBody>(200, "Its state.", &[])
        .fails(&[Code::NotFound])
}

/// An act on the quarantine.
fn act<'g>(parts: &'g mut Components, id: &str, summary: &str) -> Operation<'g> {
    Operation::by_operator(parts, ADMIN, id, summary).answers::<QuarantineReportBody>(200, "The report.", &[])
}
