//! A round: from what was read of a flavour to what is written.
//!
//! Why the sum holds. A sandbox that took a ticket is counted by the census or by its ticket, which stays until a census
//! that surely shows the sandbox is stored. An open ticket is counted as itself. Removing a ticket and making new ones both
//! change the flow's version, and a round reads in the order flow, census, tickets: if another round removed a ticket
//! since the flow was read, this one is not written; if before, its census is stored already and is the one that is read.
//! So `live` and the tickets together are never less than what is there. An old census counts sandboxes that are gone, which
//! only delays.

use std::time::Duration;

use super::super::policy::Refill;
use super::super::{Pause, TicketId, Timestamp};
use super::{AppliedList, Bucket, HookBreaker, LateTickets, Ticket, TicketState};

/// Tickets that one round makes or removes at most: they are written in one transaction.
const MOST: usize = 45;
/// How long a flavour rests for a 429 is bounded.
const LONGEST_REST: Duration = Duration::from_secs(3_600);
/// The calls of a round never take as long.
const LONGEST_ROUND: Duration = Duration::from_secs(600);

/// What is stored of a flavour's refill.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Goes up with every write.
    pub version: u64,
    /// The rate.
    pub bucket: Bucket,
    /// The breaker.
    pub breaker: HookBreaker,
    /// No call until then: the hook asked to slow down.
    pub rests_until: Option<Timestamp>,
    /// Another round has it until then.
    pub busy_until: Option<Timestamp>,
    /// Who paused it, if it is paused.
    pub paused: Option<Pause>,
}

/// How many sandboxes of a flavour there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Available now, or about so.
    pub available: u64,
    /// Arriving now, or about so.
    pub arriving: u64,
    /// In whatever state but deleted, by the census.
    pub live: u64,
    /// When that census began.
    pub as_of: Timestamp,
}

/// What a round knows.
#[derive(Clone, Copy, Debug)]
pub struct Round<'a> {
    /// The policy's words.
    pub refill: &'a Refill,
    /// The flow.
    pub flow: &'a Flow,
    /// Every ticket of the flavour.
    pub tickets: &'a [Ticket],
    /// How many sandboxes there are.
    pub counted: Counted,
    /// How many more are to be there soon, because they are reserved.
    pub reserved: u64,
    /// The last list of the provider that sync applied, if one is known.
    pub listed: Option<AppliedList>,
    /// The time.
    pub now: Timestamp,
}

/// How many are needed, and why no more are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// How many should be available.
    pub desired: u64,
    /// How many were asked for and are to come.
    pub coming: u64,
    /// How many must be asked for yet; without a hook, as many of them as `room` allows: somebody creates them all.
    pub missing: u64,
    /// How many `max` leaves room for.
    pub room: u64,
    /// How many of those that the hook has not said yes to are needed still, and have room.
    pub due: u64,
}

/// What a round writes, at the version of its flow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// How many are needed.
    pub need: Need,
    /// New tickets; they are sent, too.
    pub new: u32,
    /// Existing tickets that are sent to the hook now.
    pub send: Vec<TicketId>,
    /// Tickets that end, unless an arrival takes them first.
    pub overdue: Vec<TicketId>,
    /// Tickets whose sandboxes the census has counted: they are removed.
    pub counted: Vec<TicketId>,
    /// The flow as it is written.
    pub flow: Flow,
}

impl Plan {
    /// Whether there is something to write.
    pub fn is_empty(&self) -> bool {
        self.new == 0 && self.send.is_empty() && self.overdue.is_empty() && self.counted.is_empty()
    }
}

impl Flow {
    /// Whether another round is under way.
    pub fn is_busy(&self, now: Timestamp) -> bool {
        self.busy_until.is_some_and(|until| until.is_to_come(now, LONGEST_ROUND))
    }

    /// When its hook is tried next that does not answer. Five calls that are under way for the first time stop nothing yet: they
    /// are counted before they are made.
    pub fn next_try(&self, now: Timestamp) -> Option<Timestamp> {
        let is_first = self.breaker.probes == 0 && self.is_busy(now);
        self.breaker.probe_at.filter(|_| !is_first)
    }

    /// Whether nothing is asked for until its hook answers, or what it has made arrives.
    pub fn is_stopped(&self, now: Timestamp) -> bool {
        self.breaker.nothing_arrives() || self.next_try(now).is_some()
    }

    /// Whether nothing is asked for: an operator paused it, or it is stopped.
    pub fn is_held(&self, now: Timestamp) -> bool {
        self.paused.is_some() || self.is_stopped(now)
    }

    /// Until when no call is made because the hook asked to slow down, if that is to come.
    pub fn rests(&self, now: Timestamp) -> Option<Timestamp> {
        self.rests_until.filter(|until| until.is_to_come(now, LONGEST_REST))
    }

    /// The hook asked to slow down for `by`.
    #[must_use]
    pub fn resting(self, by: Duration, now: Timestamp) -> Self {
        let until = now.plus(by.min(LONGEST_REST));
        Self { rests_until: self.rests(now).max(Some(until)), ..self }
    }
}

impl Round<'_> {
    /// How many are needed.
    pub fn need(&self) -> Need {
        let Counted { available, arriving, live, as_of } = self.counted;
        let count =
            |of: &dyn Fn(&Ticket) -> bool| self.tickets.iter().filter(|ticket| of(ticket)).count() as u64;
        let desired = u64::from(self.refill.min_at(self.now)) + self.reserved;
        let coming = count(&|ticket| ticket.is_coming(self.now));
        let missing = desired.saturating_sub(available + arriving + coming);
        let (max, stand_for) = (u64::from(self.refill.max), count(&|ticket| !ticket.is_counted(as_of)));
        let room = max.saturating_sub(live + stand_for);
        let missing = if self.refill.hook.is_none() { missing.min(room) } else { missing };
        // As if those did not stand for any.
        let due = count(&|ticket| matches!(ticket.state, TicketState::Due { .. }));
        let needed = desired.saturating_sub(available + arriving + coming - due);
        let due = due.min(needed).min(max.saturating_sub(live + stand_for - due));
        Need { desired, coming, missing, room, due }
    }

    /// What is to be written and sent. `lock` is how long the calls may take at most.
    pub fn plan(&self, lock: Duration) -> Plan {
        let (now, flow) = (self.now, self.flow);
        let need = self.need();
        let ids = |of: &dyn Fn(&Ticket) -> bool| -> Vec<TicketId> {
            self.tickets.iter().filter(|ticket| of(ticket)).map(|ticket| ticket.id).take(MOST).collect()
        };
        let late = LateTickets::of(self.tickets, self.listed, now);
        let overdue = ids(&|ticket| late.overdue.contains(&ticket.id));
        let counted = ids(&|ticket| ticket.is_counted(self.counted.as_of));
        let stopped = flow.paused.is_some() || self.refill.hook.is_none();
        let calls = if stopped || flow.rests(now).is_some() { 0 } else { flow.breaker.may_begin(now) };
        let mut send = ids(&|ticket| ticket.is_due(now) && !late.overdue.contains(&ticket.id));
        // Those that are not needed any more wait, and end when they are late.
        send.truncate(usize::try_from(need.due.min(calls.into())).unwrap_or(usize::MAX));
        let sending = u32::try_from(send.len()).unwrap_or(u32::MAX);
        // No more are asked for than are sent: those that wait are no use, and would time out while the hook is down.
        let waiting =
            self.tickets.iter().any(|ticket| matches!(ticket.state, TicketState::Due { at } if now < at));
        let may = if waiting && flow.breaker.unanswered > 0 { 0 } else { calls.saturating_sub(sending) };
        // One that the hook did not say yes to tells nothing of what it has made.
        let in_vain = |ticket: &Ticket| ticket.state == TicketState::Asked && overdue.contains(&ticket.id);
        let in_vain = self.tickets.iter().filter(|ticket| in_vain(ticket)).count();
        let in_vain = u32::try_from(in_vain).unwrap_or(u32::MAX);
        let breaker = flow.breaker.waited(in_vain, self.tickets.iter().any(|ticket| !ticket.is_open()));
        // While nothing arrives, one at a time finds out. One that cannot be read never does, nor does one of which a list that hides
        // rows says nothing: it stays as long as those do.
        let finds_out =
            |ticket: &Ticket| ticket.is_open() && ticket.is_readable() && !late.kept.contains(&ticket.id);
        let may = match breaker.nothing_arrives() {
            true if self.tickets.iter().any(finds_out) => 0,
            true => may.min(1),
            false => may,
        };
        let wanted = u32::try_from(need.missing.min(need.room)).unwrap_or(u32::MAX).min(may);
        let (new, bucket) = flow.bucket.take(self.refill.rate_per_minute, wanted, now);
        let begun = sending + new;
        let flow = Flow {
            version: flow.version + 1,
            bucket,
            breaker: breaker.begin(begun, now),
            busy_until: (begun > 0).then(|| now.plus(lock)),
            ..flow.clone()
        };
        Plan { need, new, send, overdue, counted, flow }
    }
}
