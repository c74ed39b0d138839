//! Refill: how many new sandboxes of a flavour are asked for, and what becomes of each that was (ARCHITECTURE.md, "Refill").
//!
//! A [`Ticket`] stands for one sandbox that was asked for. A round reads the flavour's [`Flow`], the census, the tickets and
//! how many are available, makes a [`Plan`], and writes it at the version of the flow that it read. Invariant: what
//! was asked for and is in the table, with the tickets that are open, is never more than the flavour's `max`, however many
//! rounds there are at a time, however old the census is. It reads, writes and calls nothing itself.

mod breaker;
mod bucket;
mod round;
#[cfg(test)]
mod tests;
mod ticket;

pub use breaker::{Answers, CALLS, HookBreaker};
pub use bucket::Bucket;
pub use round::{Counted, Flow, Need, Plan, Round};
pub use ticket::{READ_LAG, TICKET_LIFE, Ticket, TicketAnswer, TicketEnd, TicketState};
