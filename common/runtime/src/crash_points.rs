//! Crash points: named places at which a test kills or stops a process, or lets its work panic.
//!
//! `tests/crash` kills each process between any two of its effects, not somewhere near. Invariant: compiled in only with
//! debug assertions, so never into a release build; and inert unless
//! [`CRASH_SETTING`](crate::config::CRASH_SETTING) names a point. Nothing is cleaned up: the process is gone, as after a
//! power cut, or stopped with its messages in hand, as after a pause of its machine.

/// A crash point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::EnumString, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum Point {
    /// Worker: a message was received, nothing was done.
    Received,
    /// Worker: a claim is about to be written; its decision is made.
    BeforeClaim,
    /// Worker: the claim is written.
    Claimed,
    /// Worker: a return by the owner's default key is about to be written; nothing was read.
    BeforeReturn,
    /// Worker: the end of a lease is about to be written; its decision is made.
    BeforeEnd,
    /// Worker: a line is listed, no place is in it.
    LineListed,
    /// Worker: a request is parked, its message not yet deleted.
    Parked,
    /// Worker: a place is about to be granted; its decision is made.
    BeforeGrant,
    /// Worker: a place is granted, the reply is not sent.
    Granted,
    /// Worker: a place's request has ended and is answered, the place not yet deleted.
    BeforeLeave,
    /// Worker: the end of a lease is written.
    LeaseEnded,
    /// Worker: the outcome is stored, the reply is not sent.
    OutcomeStored,
    /// Worker: the reply is sent.
    Replied,
    /// Worker: the message is about to be deleted.
    BeforeDelete,
    /// Worker: a copy is sent to the dead-letter queue, its message not yet deleted.
    Buried,
    /// Worker: a dead letter is kept in the table, its message not yet deleted.
    LetterKept,
    /// Replay: a dead letter is taken, its message not yet sent.
    LetterTaken,
    /// Replay: the message of a dead letter is sent, the dead letter is not yet marked as replayed.
    LetterSent,
    /// Worker: a job's tick is taken, its message is not sent.
    TickTaken,
    /// Worker: the provider's list was read, nothing is written.
    Listed,
    /// Worker: one change of a job is written, the others are not.
    Stepped,
    /// Worker: a deletion is planned in the table, its message is not sent.
    Planned,
    /// Worker: a sandbox is deleted at the provider, its tombstone is not written.
    GoneAtProvider,
    /// Worker: sandboxes arrived, none of them is admitted.
    Arrived,
    /// Worker: one of them is admitted, the others are not.
    Admitted,
    /// Worker: it is noted that a gate is asked, it is not called.
    GateNoted,
    /// Worker: a gate has answered, nothing is written.
    GateAnswered,
    /// Worker: there is room in the quarantine of a flavour, nothing is written.
    RoomCounted,
    /// Worker: the pool is counted, the census is not stored.
    Counted,
    /// Worker: sandboxes are about to be put aside; the decision is made.
    BeforePutAside,
    /// Worker: sandboxes are put aside for a reservation, the others are not.
    PutAside,
    /// Worker: a reservation is ended, nothing has gone back.
    ReservationClosed,
    /// Worker: one sandbox has gone back, it is not admitted, the others are still put aside.
    GivenBack,
    /// Worker: tickets of refill are written, the hook is not called.
    TicketsWritten,
    /// Worker: the hook of refill was called, the flow does not say so.
    HookAnswered,
    /// Worker: a reply queue is deleted, its INSTANCE is not.
    Swept,
    /// Worker: a job ran, its report is not stored.
    Ran,
    /// Reconcile: the pool is marked as being reconciled, nothing else is written.
    ReconcileBegun,
    /// Reconcile: one step is written, the others are not.
    ReconcileStepped,
    /// Reconcile: everything is as it should be, the pool is not opened.
    Reconciled,
    /// Accounts: one record is written, the others are not.
    AccountRecorded,
    /// Adopt: the pool is paused, no row is taken over.
    AdoptBegun,
    /// Adopt: one row is taken over, the others are not.
    AdoptStepped,
    /// Adopt: every row is taken over, the pool is still paused.
    Adopted,
    /// Reshard: the table is marked, no sandbox has moved.
    ReshardBegun,
    /// Reshard: one sandbox has moved, the others have not.
    ReshardStepped,
    /// Reshard: every sandbox has moved, the table is bound to the old number.
    Resharded,
    /// API: the record of a request is written; the message is not sent, or 202 not returned.
    Recorded,
    /// API: the request is sent, its caller waits.
    Waiting,
    /// API: a lease is about to be renewed; its decision is made.
    BeforeRenew,
    /// API: a lease is renewed, the response is not sent.
    Renewed,
    /// API: the reply has arrived, the response is not sent.
    ReplyArrived,
}

impl Point {
    /// The word in [`CRASH_SETTING`](crate::config::CRASH_SETTING).
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Arms a point: `{point}=kill` (SIGKILL), `{point}=stop` (SIGSTOP) or `{point}=panic`, once, when it is first reached. With
/// `None` nothing ever happens.
#[cfg(not(debug_assertions))]
pub const fn arm(_order: Option<&str>) {}

/// Arms a point: `{point}=kill` (SIGKILL), `{point}=stop` (SIGSTOP) or `{point}=panic`, once, when it is first reached. With
/// `None` nothing ever happens.
#[cfg(debug_assertions)]
pub fn arm(order: Option<&str>) {
    armed::take(order);
}

/// Kills or stops this process here, if the point is armed.
#[cfg(not(debug_assertions))]
pub const fn point(_here: Point) {}

/// Kills or stops this process here, if the point is armed.
#[cfg(debug_assertions)]
pub fn point(here: Point) {
    armed::reached(here);
}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, Ordering};

    use nix::sys::signal::{Signal, raise};

    use super::Point;

    #[derive(Clone, Copy)]
    enum CrashAction {
        Raise(Signal),
        Panic,
    }

    struct Order {
        point: Point,
        action: CrashAction,
        carried_out: AtomicBool,
    }

    fn parse(text: &str) -> Option<Order> {
        let (point, action) = text.split_once('=')?;
        let point = point.parse().ok()?;
        let action = match action {
            "kill" => CrashAction::Raise(Signal::SIGKILL),
            "stop" => CrashAction::Raise(Signal::SIGSTOP),
            "panic" => CrashAction::Panic,
            _ => return None,
        };
        Some(Order { point, action, carried_out: AtomicBool::new(false) })
    }

    static ORDER: OnceLock<Order> = OnceLock::new();

    pub(super) fn take(order: Option<&str>) {
        let Some(text) = order else { return };
        match parse(text) {
            // A second process in this one has the same order.
            Some(order) => drop(ORDER.set(order)),
            None => tracing::error!(
                text,
                "the crash point setting names no point, or none of kill, stop and panic"
            ),
        }
    }

    pub(super) fn reached(here: Point) {
        let Some(order) = ORDER.get() else { return };
        if order.point == here && !order.carried_out.swap(true, Ordering::Relaxed) {
            tracing::warn!(point = here.as_str(), "crash point");
            match order.action {
                CrashAction::Raise(signal) => {
                    if let Err(error) = raise(signal) {
                        tracing::error!(%error, "crash point failed");
                    }
                }
                CrashAction::Panic => std::panic::resume_unwind(Box::new(here.as_str())),
            }
        }
    }
}
