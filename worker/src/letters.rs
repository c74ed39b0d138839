//! Counter and log line of each dead letter that this process writes into the table.

use broker_domain::DeadLetter;

/// Counts and logs a dead letter that was kept.
pub(crate) fn was_kept(letter: &DeadLetter) {
    let code = letter.reason.as_str();
    metrics::counter!("broker_dead_letters_total", "reason" => code).increment(1);
    tracing::error!(
        letter = %letter.id,
        queue = letter.source.as_str(),
        kind = letter.kind(),
        code,
        reason = letter.reason_text,
        receives = letter.receives,
        request_id = letter.summary.request_id.map(tracing::field::display),
        "dead letter"
    );
}
