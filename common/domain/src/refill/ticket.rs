//! Tickets: one for each sandbox that was asked for.
//!
//! ```text
//! (a round) ─▶ due ──the hook says yes──▶ asked ─┐
//!               ├──the hook says no──▶ refused   ├── overdue ──▶ gone
//!               └────────────────┬───────────────┘
//!                                └── an arrival ──▶ taken ── a later census has counted its sandbox ──▶ removed
//! ```
//!
//! A ticket is overdue once it is 30 minutes old and sync has applied a list that began after that: every sandbox of the list took
//! its ticket. A list may hide sandboxes that are new: it ends as many fewer, and keeps the youngest. While no list is applied
//! (sync fails, is refused or paused) nothing is overdue, however long it takes: its sandboxes may exist at the provider without
//! being in the pool, and as many again would exceed `max` there.
//!
//! Tickets of a flavour are alike: an arrival takes any that is open, in the transaction that inserts its sandbox. A ticket
//! that was taken is kept until a census has counted the sandbox, so that a reader of an older count counts the ticket.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::time::Duration;

use super::super::{TicketId, Timestamp};

/// How long a ticket counts at least without an arrival.
pub const TICKET_LIFE: Duration = Duration::from_secs(30 * 60);

/// How long an eventually consistent read may miss what was written. A census that began so long after counts it.
pub const READ_LAG: Duration = Duration::from_secs(15);

/// How long a sandbox that arrived may be missing among the available ones: until then its ticket says that it comes.
const ON_ITS_WAY: Duration = Duration::from_secs(10);

/// When a ticket was made that cannot be read.
const NOT_KNOWN: Timestamp = Timestamp::from_ms(u64::MAX);

/// A sandbox that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket {
    /// Its id; the idempotency key of what the hook is sent.
    pub id: TicketId,
    /// When a round made it.
    pub made_at: Timestamp,
    /// What became of it so far.
    pub state: TicketState,
}

/// What became of a ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TicketState {
    /// The hook has not said yes.
    Due {
        /// It is sent from then on.
        at: Timestamp,
    },
    /// The hook said yes.
    Asked,
    /// A sandbox arrived for it.
    Taken {
        /// When.
        at: Timestamp,
    },
}

/// What the hook answers to one ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TicketAnswer {
    /// It will come.
    Yes,
    /// It will never come.
    No,
    /// Ask again after this time.
    Later(Duration),
    /// No usable answer; it may come all the same.
    Failed,
}

/// How a ticket ends without an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TicketEnd {
    /// The hook said that it will never come.
    Refused,
    /// It did not come in time.
    Overdue,
}

impl Ticket {
    /// A new one, to be sent at once.
    pub const fn new(id: TicketId, now: Timestamp) -> Self {
        Self { id, made_at: now, state: TicketState::Due { at: now } }
    }

    /// One that cannot be read: it is open, it takes its room, and it is never late.
    pub const fn unreadable(id: TicketId) -> Self {
        Self { id, made_at: NOT_KNOWN, state: TicketState::Asked }
    }

    /// Whether it can be read.
    pub fn is_readable(&self) -> bool {
        self.made_at != NOT_KNOWN
    }

    /// Whether it has not ended, and no arrival took it.
    pub const fn is_open(&self) -> bool {
        match self.state {
            TicketState::Due { .. } | TicketState::Asked => true,
            TicketState::Taken { .. } => false,
        }
    }

    /// Whether the hook is to be sent it now, unless it is overdue.
    pub fn is_due(&self, now: Timestamp) -> bool {
        matches!(self.state, TicketState::Due { at } if at <= now)
    }

    /// Whether it has waited for so long that a list decides.
    pub fn is_late(&self, now: Timestamp) -> bool {
        self.is_open() && self.made_at.plus(TICKET_LIFE) <= now
    }

    /// Whether a census that began at `as_of` has counted the sandbox that took it.
    pub fn is_counted(&self, as_of: Timestamp) -> bool {
        matches!(self.state, TicketState::Taken { at } if at.plus(READ_LAG) < as_of)
    }

    /// Whether a sandbox is still to appear for it among those that are available.
    pub fn is_coming(&self, now: Timestamp) -> bool {
        match self.state {
            TicketState::Due { .. } | TicketState::Asked => true,
            TicketState::Taken { at } => now.since(at) < ON_ITS_WAY,
        }
    }

    /// What an answer of the hook makes of an open ticket. A failure is asked again after `pause`.
    pub fn answered(
        &self,
        answer: TicketAnswer,
        pause: Duration,
        now: Timestamp,
    ) -> Result<TicketState, TicketEnd> {
        match answer {
            TicketAnswer::Yes => Ok(TicketState::Asked),
            TicketAnswer::No => Err(TicketEnd::Refused),
            TicketAnswer::Later(by) => Ok(TicketState::Due { at: now.plus(by) }),
            TicketAnswer::Failed => Ok(TicketState::Due { at: now.plus(pause) }),
        }
    }
}

/// A list of the provider that a sync applied: everything in it was let in, or refused for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppliedList {
    /// When it began.
    pub began: Timestamp,
    /// How many of its rows may be of new sandboxes, and could not be read.
    pub hidden: u64,
}

/// What a list says of the tickets that were late when it began: none of their sandboxes is in what can be read of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LateTickets {
    /// Those that stay open: as many of the youngest as it hides rows, each of which may be one's.
    pub kept: BTreeSet<TicketId>,
    /// Those that end, unless an arrival takes them first.
    pub overdue: BTreeSet<TicketId>,
}

impl LateTickets {
    /// Those of `tickets` by the last list that was applied. Without one nothing is said of any.
    pub fn of(tickets: &[Ticket], list: Option<AppliedList>, now: Timestamp) -> Self {
        // A list of the future a clock began that was wrong.
        let list = list.filter(|list| !list.began.is_beyond(now, Duration::ZERO));
        let Some(AppliedList { began, hidden }) = list else { return Self::default() };
        let mut late: Vec<_> = tickets.iter().filter(|one| one.is_late(now) && one.is_late(began)).collect();
        late.sort_unstable_by_key(|ticket| Reverse((ticket.made_at, ticket.id)));
        let overdue = late.split_off(usize::try_from(hidden).unwrap_or(usize::MAX).min(late.len()));
        let ids = |of: Vec<&Ticket>| of.into_iter().map(|ticket| ticket.id).collect();
        Self { kept: ids(late), overdue: ids(overdue) }
    }
}

impl TicketEnd {
    /// Its word in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Overdue => "overdue",
        }
    }
}
