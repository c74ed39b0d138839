//! Refill: how many new sandboxes of a flavour are asked for, and what becomes of each that was (ARCHITECTURE.md, "Refill").
//!
//! A [`Ticket`] stands for one sandbox that was asked for. A round reads the flavour's [`Flow`], the census, the tickets and
//! the number of available sandboxes, makes a [`Plan`], and writes it if the flow still has the version that was read.
//! Invariant: the sandboxes in the table and the open tickets together are never more than the flavour's `max`, with any
//! number of rounds at a time and a census of any age. This module does no I/O.

mod breaker;
mod bucket;
mod round;
#[cfg(test)]
mod tests;
mod ticket;

pub use breaker::{Answers, CALLS, HookBreaker};
pub use bucket::Bucket;
pub use round::{Counted, Flow, Need, Plan, Round};
pub use ticket::{
    AppliedList, LateTickets, READ_LAG, TICKET_LIFE, Ticket, TicketAnswer, TicketEnd, TicketState,
};
