//! Named points at which a test ends, or stops, a process of ours.
//!
//! Purpose: `tests/crash` kills each process between any two of its effects, not somewhere near. Invariant: compiled in
//! only with the feature `crash-points` and debug assertions, so never into a release build; and inert unless
//! [`CRASH_SETTING`](crate::config::CRASH_SETTING) names a point. What it does not do: clean up. The process is gone, as after a power cut, or stands still
//! with everything in its hands, as after a pause of its machine.

/// Where a process can be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// Worker: a message was received, nothing was done.
    Received,
    /// Worker: a claim is about to be written; what it decided on was read.
    BeforeClaim,
    /// Worker: the claim is written.
    Claimed,
    /// Worker: a return is about to be written by its owner's default key; nothing was read.
    BeforeReturn,
    /// Worker: the end of a lease is about to be written; what it decided on was read.
    BeforeEnd,
    /// Worker: the end of a lease is written.
    LeaseEnded,
    /// Worker: the outcome is stored, nobody was told.
    OutcomeStored,
    /// Worker: the reply is sent.
    Replied,
    /// Worker: the message is about to be deleted.
    BeforeDelete,
    /// Worker: a dead letter is sent, its message not yet deleted.
    Buried,
    /// Drainer: a dead letter is kept, its message not yet deleted.
    LetterKept,
    /// Replay: a letter is taken, its message not yet sent.
    LetterTaken,
    /// Replay: the message of a letter is sent, which nobody knows yet.
    LetterSent,
    /// Worker: a job's tick is taken, its message is not sent.
    TickTaken,
    /// Worker: the provider's list was read, nothing of it is written.
    Listed,
    /// Worker: one change of a job is written, the others are not.
    Stepped,
    /// Worker: a deletion is planned in the table, its message is not sent.
    Planned,
    /// Worker: a sandbox is gone at the provider, its tombstone is not written.
    GoneAtProvider,
    /// Worker: the pool is counted, the census is not kept.
    Counted,
    /// Worker: a reply queue is swept, its instance is not forgotten.
    Swept,
    /// Worker: a job ran, its report is not stored.
    Ran,
    /// API: the record of a request is written; it was not sent, or 202 not said.
    Recorded,
    /// API: the request is sent, its caller waits.
    Waiting,
    /// API: the reply came, the caller was not told.
    ReplyArrived,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 24] = [
        Self::Received,
        Self::BeforeClaim,
        Self::Claimed,
        Self::BeforeReturn,
        Self::BeforeEnd,
        Self::LeaseEnded,
        Self::OutcomeStored,
        Self::Replied,
        Self::BeforeDelete,
        Self::Buried,
        Self::LetterKept,
        Self::LetterTaken,
        Self::LetterSent,
        Self::TickTaken,
        Self::Listed,
        Self::Stepped,
        Self::Planned,
        Self::GoneAtProvider,
        Self::Counted,
        Self::Swept,
        Self::Ran,
        Self::Recorded,
        Self::Waiting,
        Self::ReplyArrived,
    ];

    /// As [`CRASH_SETTING`](crate::config::CRASH_SETTING) names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Received => "received",
            Self::BeforeClaim => "before-claim",
            Self::Claimed => "claimed",
            Self::BeforeReturn => "before-return",
            Self::BeforeEnd => "before-end",
            Self::LeaseEnded => "lease-ended",
            Self::OutcomeStored => "outcome-stored",
            Self::Replied => "replied",
            Self::BeforeDelete => "before-delete",
            Self::Buried => "buried",
            Self::LetterKept => "letter-kept",
            Self::LetterTaken => "letter-taken",
            Self::LetterSent => "letter-sent",
            Self::TickTaken => "tick-taken",
            Self::Listed => "listed",
            Self::Stepped => "stepped",
            Self::Planned => "planned",
            Self::GoneAtProvider => "gone-at-provider",
            Self::Counted => "counted",
            Self::Swept => "swept",
            Self::Ran => "ran",
            Self::Recorded => "recorded",
            Self::Waiting => "waiting",
            Self::ReplyArrived => "reply-arrived",
        }
    }
}

/// Arms the point that a test asked for: `{point}=kill` (SIGKILL) or `{point}=stop` (SIGSTOP), once, at the first
/// time. Without an order nothing ever happens.
#[cfg(not(all(feature = "crash-points", debug_assertions)))]
pub const fn arm(_order: Option<&str>) {}

/// Arms the point that a test asked for: `{point}=kill` (SIGKILL) or `{point}=stop` (SIGSTOP), once, at the first
/// time. Without an order nothing ever happens.
#[cfg(all(feature = "crash-points", debug_assertions))]
pub fn arm(order: Option<&str>) {
    armed::take(order);
}

/// Ends or stops this process here, if a test asked for it.
#[cfg(not(all(feature = "crash-points", debug_assertions)))]
pub const fn point(_here: Point) {}

/// Ends or stops this process here, if a test asked for it.
#[cfg(all(feature = "crash-points", debug_assertions))]
pub fn point(here: Point) {
    armed::reached(here);
}

#[cfg(all(feature = "crash-points", debug_assertions))]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::Point;

    struct Order {
        point: Point,
        signal: Signal,
        carried_out: AtomicBool,
    }

    fn parse(text: &str) -> Option<Order> {
        let (point, action) = text.split_once('=')?;
        let point = Point::ALL.into_iter().find(|known| known.as_str() == point)?;
        let signal = match action {
            "kill" => Signal::SIGKILL,
            "stop" => Signal::SIGSTOP,
            _ => return None,
        };
        Some(Order { point, signal, carried_out: AtomicBool::new(false) })
    }

    static ORDER: OnceLock<Order> = OnceLock::new();

    pub(super) fn take(order: Option<&str>) {
        let Some(text) = order else { return };
        match parse(text) {
            // A second process in this one has the same order.
            Some(order) => drop(ORDER.set(order)),
            None => tracing::error!(text, "the crash order names no point, or neither kill nor stop"),
        }
    }

    pub(super) fn reached(here: Point) {
        let Some(order) = ORDER.get() else { return };
        if order.point == here && !order.carried_out.swap(true, Ordering::Relaxed) {
            tracing::warn!(point = here.as_str(), signal = order.signal.as_str(), "crash point");
            if let Err(error) = raise(order.signal) {
                tracing::error!(%error, "crash point without effect");
            }
        }
    }
}
