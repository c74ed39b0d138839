//! The state of the small world.

use broker_domain::refill::{Ticket, TicketAnswer};
use broker_domain::{TicketId, Timestamp};
use uuid::Uuid;

use super::TICK;

/// All of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    /// Ticks since the beginning.
    pub(super) now: u8,
    /// The version of the flow.
    pub(super) version: u64,
    pub(super) tickets: Vec<Ticket>,
    /// The table's sandboxes.
    pub(super) records: Vec<Record>,
    /// The last census.
    pub(super) census: Option<Census>,
    /// The tick at which the last list began that sync applied.
    pub(super) listed: u8,
    /// An account may be there, or come, that no ticket stands for and that nobody is to blame for: one was still to come when a
    /// list began, or a ticket was sent twice, or half an hour after it was made.
    pub(super) beside: bool,
    /// Sandboxes that the hook had made and that the provider does not list yet.
    pub(super) promised: u8,
    /// How many accounts the provider made, by number.
    pub(super) accounts: u8,
    /// Accounts that have been in the table, a bit for each.
    pub(super) known: u8,
    /// How often the hook lied or failed.
    pub(super) lies: u8,
    /// How many tickets were made.
    pub(super) made: u8,
    pub(super) hands: Vec<Hand>,
}

/// A sandbox in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Record {
    /// It took a ticket.
    pub(super) took: bool,
    /// The index shows it.
    pub(super) is_shown: bool,
    pub(super) is_available: bool,
}

/// A count of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Census {
    /// The tick at which it began.
    pub(super) as_of: u8,
    /// Which census it is, within its tick.
    pub(super) number: u8,
    pub(super) live: u8,
}

/// What a worker read or decided and has not written yet; it may wait any time, or be lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Hand {
    Idle,
    /// A round read the flow's version, and in some variants more.
    FlowRead {
        version: Option<u64>,
        census: Option<Census>,
    },
    /// And the census.
    CensusRead {
        version: Option<u64>,
        census: Census,
    },
    /// And the tickets: this is to be written.
    Planned {
        version: u64,
        new: u32,
        send: Vec<TicketId>,
        overdue: Vec<TicketId>,
        counted: Vec<TicketId>,
    },
    /// These are to be sent to the hook.
    Calling {
        tickets: Vec<TicketId>,
    },
    /// The hook answered the first of these.
    Answered {
        tickets: Vec<TicketId>,
        answer: TicketAnswer,
    },
    /// Sync found an account that is not in the table, and an open ticket for it.
    SyncRead {
        account: u8,
        ticket: Option<TicketId>,
    },
    /// A census counted.
    Counted(Census),
    /// Sync read a list that began at this tick and has so many accounts.
    Listed {
        as_of: u8,
        accounts: u8,
    },
}

/// What a hook does, and what of it is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has one made and says so.
    Yes,
    /// It has none made and says so.
    No,
    /// It has two made.
    YesTwice,
    /// It says yes and has none made.
    YesAndNone,
    /// It fails.
    Failed,
    /// One is made, and the answer is lost.
    FailedButMade,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the steps are told in `steps`")]
pub enum Action {
    Tick,
    BeginRound(usize),
    BeginCensus(usize),
    BeginSync(usize, u8),
    BeginList(usize),
    Go(usize),
    Call(usize, Heard),
    Crash(usize),
    Make,
    Show(usize),
    Claim(usize),
    Leave(usize),
}

impl World {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            now: 0,
            version: 1,
            tickets: Vec::new(),
            records: Vec::new(),
            census: Some(Census { as_of: 0, number: 0, live: 0 }),
            listed: 0,
            beside: false,
            promised: 0,
            accounts: 0,
            known: 0,
            lies: 0,
            made: 0,
            hands: vec![Hand::Idle; workers],
        }
    }

    pub(super) const fn knows(&self, account: u8) -> bool {
        self.known & 1 << account != 0
    }

    pub(super) fn open(&self) -> impl Iterator<Item = &Ticket> {
        self.tickets.iter().filter(|ticket| ticket.is_open())
    }
}

pub(super) fn time(tick: u8) -> Timestamp {
    Timestamp::from_secs(1_795_000_000).plus(TICK * u32::from(tick))
}

pub(super) fn ticket_id(number: u8) -> TicketId {
    TicketId::from_uuid(Uuid::from_u128(u128::from(number)))
}
