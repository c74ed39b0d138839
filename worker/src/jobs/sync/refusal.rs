//! Refusal of a provider's list: an empty one, one that misses much of the pool, or another provider's. Pure.

use broker_domain::{FEW_MISSING, most_missing};

use super::diff::Diff;

/// Whether the list is another provider's, or another account's: it has not the accounts of more than half of what is available,
/// allocated and in quarantine together, and more than half of what it names is unknown, whatever an earlier list had and whether
/// or not it contradicts itself. A provider that has lost much of what is in use names what it still has.
pub(super) fn is_foreign(diff: &Diff) -> bool {
    diff.unlisted > FEW_MISSING.max((diff.available + diff.in_use) / 2) && unknown(diff) > diff.listed / 2
}

/// How many of the list are no accounts of ours.
fn unknown(diff: &Diff) -> u64 {
    diff.unknown.len() + diff.doubtful.len() + diff.remade
}

/// Why what the list does not have may be there all the same, but for the rows that it hides.
pub(super) fn incomplete(diff: &Diff) -> Option<String> {
    let misses = || format!("it misses {} of {} available sandboxes", diff.missing.len(), diff.available);
    let unbelieved = diff.is_unconfirmed || misses_much(diff);
    diff.tally.incomplete().or_else(|| unbelieved.then(misses))
}

/// Whether the list misses more of the available sandboxes than one list may make stale.
fn misses_much(diff: &Diff) -> bool {
    diff.missing.len() > most_missing(diff.available)
}

/// The reason to refuse this list, if there is one; what is missing counts if the list does not contradict itself.
pub(super) fn refusal(diff: &Diff) -> Option<String> {
    if diff.is_empty {
        return Some("the provider lists nothing at all".to_owned());
    }
    if misses_much(diff) && diff.doubt.is_none() {
        let (missing, most) = (diff.missing.len(), most_missing(diff.available));
        return Some(format!(
            "{missing} of {} available sandboxes are missing at the provider, more than {most}: look there, then run it with \
             --accept-stale if that is true",
            diff.available
        ));
    }
    is_foreign(diff).then(|| {
        format!(
            "{} of {} available and allocated sandboxes are missing at the provider, and {} of {} that it lists are unknown, as of \
             another provider or account: look there, then run it with --accept-stale if that is true",
            diff.unlisted,
            diff.available + diff.in_use,
            unknown(diff),
            diff.listed
        )
    })
}
