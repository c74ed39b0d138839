//! Gauges of the pool and the queues, which every worker shows: figures of the last census, and depths that it reads itself.
//!
//! Invariant: each figure comes with the time of which it is, `broker_census_timestamp_seconds` and
//! `broker_queue_depths_timestamp_seconds`, so that one that is no longer renewed is known as old. A quiet worker reads the
//! depths seldom: nothing changes, and each look is four calls.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker_domain::policy::{ANY_FLAVOUR, ByStatus, Policy};
use broker_domain::quarantine::is_full;
use broker_domain::waiting::minted_at;
use broker_domain::{DeadLetterCount, Reason, Reservation, Status, Timestamp};
use broker_queue::QueueKind;
use broker_queue::topology::{self, Depth};
use broker_store::{Census, ListedLine, SeenEmpty, StoreError, reservations, shown_causes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Jobs, refill, sync};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(15);
/// While the queues are empty only one look in so many reads their depths.
const IDLE_LOOKS: u32 = 8;

/// Exports pool and queues as metrics until `stop`, and says to `empty` when the queues were seen without a message.
pub(crate) async fn show(jobs: Jobs, empty: watch::Sender<SeenEmpty>, stop: CancellationToken) {
    let (mut looks, mut flavours) = (Looks::default(), BTreeSet::new());
    // A flavour without a waiting request is shown as 0: an alert needs the value before it grows.
    let mut lines = BTreeSet::from([ANY_FLAVOUR.to_owned()]);
    let (mut reserved, mut refilled) = (lines.clone(), BTreeSet::new());
    loop {
        if let Err(error) = show_standing(&jobs, &mut refilled).await {
            tracing::debug!("what stands of refill and sync not read: {error}");
        }
        match jobs.store.census.get().await {
            Ok(Some(census)) => {
                show_census(&census, jobs.clock.now());
                show_flavours(&census.by_flavour, &mut flavours);
            }
            Ok(None) => {}
            Err(error) => tracing::debug!("census not read: {error}"),
        }
        match jobs.store.waiting.lines(jobs.clock.now()).await {
            Ok(listed) => {
                let policy = jobs.policy.now().unwrap_or_default();
                show_waiting(&listed, &policy, &mut lines, jobs.clock.now());
            }
            Err(error) => tracing::debug!("lines not read: {error}"),
        }
        if let Err(error) = show_reservations(&jobs, &mut reserved).await {
            tracing::debug!("reservations not read: {error}");
        }
        if looks.is_due() {
            match topology::depths(&jobs.aws, &jobs.urls).await {
                Ok(depths) => {
                    show_depths(&depths, jobs.clock.now());
                    empty.send_modify(|seen| note_empty(seen, &depths, &jobs));
                    looks.saw(&depths);
                }
                Err(error) => tracing::debug!("depths of the queues not read: {error}"),
            }
        }
        if stop.run_until_cancelled(tokio::time::sleep(jobs.entropy.jitter(EVERY))).await.is_none() {
            return;
        }
    }
}

/// What would stand as it was shown by the last run or call of this process: refills that ended, whether the others are stopped or
/// paused, the breaker, and the figures of a sync before the last one.
async fn show_standing(jobs: &Jobs, refilled: &mut BTreeSet<String>) -> Result<(), StoreError> {
    let policy = jobs.policy.now().unwrap_or_default();
    refill::show_ended(&policy, refilled);
    if let Some(provider) = &jobs.provider {
        provider.breaker().show(jobs.clock.instant());
    }
    let names: Vec<_> = refill::refilled(&policy).map(|(name, ..)| name.clone()).collect();
    for (flavour, flow) in jobs.store.refill.flows(&names).await? {
        refill::show_flow(&flavour, flow.as_ref(), jobs.clock.now());
    }
    sync::show_superseded(jobs).await
}

/// When the depths are read next.
#[derive(Debug, Default)]
struct Looks {
    /// Looks that are left out.
    skip: u32,
}

impl Looks {
    const fn is_due(&mut self) -> bool {
        match self.skip.checked_sub(1) {
            Some(left) => {
                self.skip = left;
                false
            }
            None => true,
        }
    }

    fn saw(&mut self, depths: &[Depth]) {
        let idle = depths.iter().all(is_without_messages);
        self.skip = if idle { IDLE_LOOKS - 1 } else { 0 };
    }
}

fn note_empty(seen: &mut SeenEmpty, depths: &[Depth], jobs: &Jobs) {
    let is_empty = |kind| {
        let name = jobs.urls.names().name(kind);
        depths.iter().any(|depth| depth.queue == name && is_without_messages(depth))
    };
    let now = jobs.clock.now();
    if is_empty(QueueKind::Requests) {
        seen.requests = Some(now);
    }
    if is_empty(QueueKind::Maintenance) {
        seen.maintenance = Some(now);
    }
}

const fn is_without_messages(depth: &Depth) -> bool {
    depth.visible + depth.in_flight + depth.delayed == 0
}

fn show_census(census: &Census, now: Timestamp) {
    for status in Status::ALL {
        let count = census.by_status.get(&status).copied().unwrap_or(0);
        metrics::gauge!(format!("broker_pool_{status}")).set(as_f64(count));
    }
    show_quarantine(ANY_FLAVOUR, &census.by_status);
    for (cause, count) in shown_causes(&census.by_cause) {
        metrics::gauge!("broker_quarantined_sandboxes", "cause" => cause).set(as_f64(count));
    }
    metrics::gauge!("broker_pool_total").set(as_f64(census.by_status.values().sum()));
    metrics::gauge!("broker_census_timestamp_seconds").set(as_f64(census.as_of.as_secs()));
    show_letters(&census.letters, now);
}

/// Whether nothing more of a flavour goes into quarantine by itself.
fn show_quarantine(flavour: &str, counts: &ByStatus) {
    let quarantined = counts.get(&Status::Quarantined).copied().unwrap_or(0);
    let live = counts.iter().filter(|(status, _)| **status != Status::Deleted).map(|(_, count)| count).sum();
    let full = if is_full(quarantined, live) { 1.0 } else { 0.0 };
    metrics::gauge!("broker_quarantine_full", "flavour" => flavour.to_owned()).set(full);
}

/// Every flavour, also those of `shown` that the policy does not name any more.
fn show_flavours(by_flavour: &BTreeMap<String, ByStatus>, shown: &mut BTreeSet<String>) {
    shown.extend(by_flavour.keys().cloned());
    for flavour in shown.iter() {
        if flavour != ANY_FLAVOUR {
            show_quarantine(flavour, by_flavour.get(flavour).unwrap_or(&ByStatus::new()));
        }
        for status in Status::ALL {
            let count = by_flavour.get(flavour).and_then(|counts| counts.get(&status)).copied().unwrap_or(0);
            let labels = [("flavour", flavour.clone()), ("status", status.to_string())];
            metrics::gauge!("broker_flavour_sandboxes", &labels).set(as_f64(count));
        }
    }
}

/// Gauges of the waiting requests by flavour, as the last walk counted them. Flavours of `shown` without one are set to 0.
fn show_waiting(listed: &[ListedLine], policy: &Policy, shown: &mut BTreeSet<String>, now: Timestamp) {
    let mut waiting: BTreeMap<String, (u64, Duration)> = BTreeMap::new();
    for line in listed {
        let flavour = policy.flavour_with(line.line.prefix.as_ref());
        let flavour = flavour.map_or(ANY_FLAVOUR, |(name, _)| name.as_str()).to_owned();
        let (count, oldest) = waiting.entry(flavour).or_default();
        *count += line.marks.length;
        let since = line.marks.first().map_or(Duration::ZERO, |first| now.since(minted_at(first)));
        *oldest = (*oldest).max(since);
    }
    shown.extend(waiting.keys().cloned());
    for flavour in shown.iter() {
        let (count, oldest) = waiting.get(flavour).copied().unwrap_or_default();
        metrics::gauge!("broker_waiting_requests", "flavour" => flavour.clone()).set(as_f64(count));
        metrics::gauge!("broker_waiting_oldest_seconds", "flavour" => flavour.clone())
            .set(oldest.as_secs_f64());
    }
}

/// What is reserved, by flavour: how much of it is put aside, and how much will be missing when it is needed; also of those of
/// `shown` that nothing is reserved of any more.
async fn show_reservations(jobs: &Jobs, shown: &mut BTreeSet<String>) -> Result<(), StoreError> {
    let (policy, now) = (jobs.policy.now().unwrap_or_default(), jobs.clock.now());
    let all = jobs.store.reservations.all().await?;
    let risks = reservations::outlook(&jobs.store, &policy, &all, now).await?;
    let mut figures: BTreeMap<String, [u64; 3]> = BTreeMap::new();
    for one in all.iter().filter(|one| one.is_open() && one.terms.has_begun(now)) {
        let [wanted, held, _] = figures.entry(flavour_of(&policy, one)).or_default();
        *wanted += u64::from(one.terms.count);
        *held += u64::from(one.held);
    }
    for one in &all {
        if let Some(risk) = risks.get(&one.id) {
            figures.entry(flavour_of(&policy, one)).or_default()[2] += risk;
        }
    }
    shown.extend(figures.keys().cloned());
    for flavour in shown.iter() {
        let of_flavour = figures.get(flavour).copied().unwrap_or_default();
        let names = ["wanted", "held", "at_risk"].map(|word| format!("broker_reservations_{word}_sandboxes"));
        for (name, count) in names.into_iter().zip(of_flavour) {
            metrics::gauge!(name, "flavour" => flavour.clone()).set(as_f64(count));
        }
    }
    Ok(())
}

/// The flavour that all sandboxes of a reservation have, as a label.
fn flavour_of(policy: &Policy, reservation: &Reservation) -> String {
    let flavour = policy.flavour_within(&reservation.terms.prefix);
    flavour.map_or(ANY_FLAVOUR, |(name, _)| name.as_str()).to_owned()
}

fn show_depths(depths: &[Depth], now: Timestamp) {
    for depth in depths {
        let gauge = |name: &'static str, count| {
            metrics::gauge!(name, "queue" => depth.queue.clone()).set(as_f64(count));
        };
        gauge("broker_queue_visible_messages", depth.visible);
        gauge("broker_queue_in_flight_messages", depth.in_flight);
        gauge("broker_queue_delayed_messages", depth.delayed);
    }
    metrics::gauge!("broker_queue_depths_timestamp_seconds").set(as_f64(now.as_secs()));
}

/// Every reason, also those without a dead letter: a gauge that is not set any more would keep its last value.
fn show_letters(letters: &DeadLetterCount, now: Timestamp) {
    for reason in Reason::ALL {
        let count = letters.by_reason.get(reason.as_str()).copied().unwrap_or(0);
        metrics::gauge!("broker_dead_letters", "reason" => reason.as_str()).set(as_f64(count));
    }
    let oldest = letters.oldest.map_or(Duration::ZERO, |oldest| now.since(oldest));
    metrics::gauge!("broker_dead_letter_oldest_age_seconds").set(oldest.as_secs_f64());
}

/// Counts are far below 2^53.
fn as_f64(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_queues_are_looked_at_seldom_and_others_each_time() {
        let depth = |delayed| Depth { queue: "q".to_owned(), visible: 0, in_flight: 0, delayed };
        let mut looks = Looks::default();
        assert!(looks.is_due() && looks.is_due(), "what could not be read is read at the next look");
        looks.saw(&[depth(0), depth(1)]);
        assert!(looks.is_due());
        looks.saw(&[depth(0), depth(0)]);
        let left_out = std::iter::repeat_with(|| looks.is_due()).take_while(|due| !due).count();
        assert_eq!(left_out, 7);
    }
}
