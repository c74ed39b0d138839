//! Tickets of refill that arrivals take: the oldest open one of the sandbox's flavour, in the transaction of its insert.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use broker_domain::policy::Policy;
use broker_domain::refill::{TICKET_LIFE, Ticket};
use broker_domain::{FlavourName, SandboxName, Timestamp};
use broker_provider::Account;
use broker_store::{EntryConflict, NewSandbox, OpenTicket, Record, StoreError, Write};

/// How an insert ended.
type Inserted = Write<EntryConflict<Box<Record>>>;

use super::super::{JobError, Jobs, refill};
use super::spool::{Portions, Spool};

/// An open ticket, and when it was made.
struct AskedTicket {
    ticket: OpenTicket,
    made_at: Timestamp,
}

impl AskedTicket {
    /// Counts that it was taken; how long its sandbox took. What a ticket waits beyond its life, it may have waited for a list:
    /// an outage of sync is no time that the provider takes.
    fn count_taken(&self, now: Timestamp) -> Duration {
        let flavour = self.ticket.flavour.to_string();
        let labels = [("flavour", flavour.clone()), ("outcome", "taken".to_owned())];
        metrics::counter!("broker_refill_tickets_total", &labels).increment(1);
        let took = now.since(self.made_at);
        metrics::histogram!("broker_refill_arrival_seconds", "flavour" => flavour).record(took);
        took.min(TICKET_LIFE)
    }
}

/// The open tickets as they were read after the provider's list: what the list has was asked for before.
pub(super) struct Tickets {
    policy: Arc<Policy>,
    open: Mutex<BTreeMap<FlavourName, Vec<AskedTicket>>>,
    taken: AtomicU64,
    /// Accounts that are new, and enter with a later list.
    left_out: AtomicU64,
    /// The longest that one of each flavour took.
    longest: Mutex<BTreeMap<FlavourName, Duration>>,
}

/// The open ones of `tickets` that can be read, the oldest at the end, where they are taken from: it is overdue first. One that
/// cannot keeps no other from its sandbox.
fn oldest_last(flavour: &FlavourName, tickets: &[Ticket]) -> Vec<AskedTicket> {
    let mut open: Vec<_> = tickets.iter().filter(|ticket| ticket.is_open() && ticket.is_readable()).collect();
    open.sort_by_key(|ticket| Reverse(ticket.made_at));
    let asked = open.into_iter().map(|ticket| AskedTicket {
        ticket: OpenTicket { flavour: flavour.clone(), id: ticket.id },
        made_at: ticket.made_at,
    });
    asked.collect()
}

impl Tickets {
    /// Reads those of the flavours of `unknown`, which it gives back.
    pub(super) async fn read(
        jobs: &Jobs,
        unknown: Spool<Account>,
    ) -> Result<(Self, Arc<Spool<Account>>), JobError> {
        let policy = jobs.policy.now().unwrap_or_default();
        let unknown = Arc::new(unknown);
        let mut portions = Portions::new(Arc::clone(&unknown));
        let mut arriving = BTreeSet::new();
        loop {
            let portion;
            (portions, portion) = super::next(portions).await?;
            if portion.is_empty() {
                break;
            }
            arriving.extend(portion.iter().filter_map(|account| policy.flavour_of(&account.name)));
        }
        let mut open = BTreeMap::new();
        for (flavour, ..) in refill::refilled(&policy).filter(|(name, ..)| arriving.contains(name)) {
            open.insert(flavour.clone(), oldest_last(flavour, &jobs.store.refill.tickets(flavour).await?));
        }
        Ok((
            Self {
                policy,
                open: Mutex::new(open),
                taken: AtomicU64::new(0),
                left_out: AtomicU64::new(0),
                longest: Mutex::default(),
            },
            unknown,
        ))
    }

    /// Inserts a sandbox with a ticket if there is one, else without.
    pub(super) async fn insert(
        &self,
        jobs: &Jobs,
        sandbox: &NewSandbox,
        now: Timestamp,
    ) -> Result<Inserted, StoreError> {
        let sandboxes = &jobs.store.sandboxes;
        while let Some(asked) = self.next(&sandbox.name) {
            let inserted = sandboxes.insert_with_ticket(sandbox, &asked.ticket, now).await;
            if let Some(ended) = self.settled(asked, inserted, now) {
                return ended;
            }
        }
        sandboxes.insert(sandbox, now).await
    }

    /// The same in place of a tombstone of the same id.
    pub(super) async fn insert_over_tombstone(
        &self,
        jobs: &Jobs,
        sandbox: &NewSandbox,
        tombstone: &Record,
        created_at: Timestamp,
        now: Timestamp,
    ) -> Result<Write<EntryConflict>, StoreError> {
        let sandboxes = &jobs.store.sandboxes;
        while let Some(asked) = self.next(&sandbox.name) {
            let ticket = &asked.ticket;
            let inserted = sandboxes
                .insert_over_tombstone_with_ticket(sandbox, tombstone, created_at, ticket, now)
                .await;
            if let Some(ended) = self.settled(asked, inserted, now) {
                return ended;
            }
        }
        sandboxes.insert_over_tombstone(sandbox, tombstone, created_at, now).await
    }

    /// How an insert with `asked` ended; `None` if another arrival has that ticket, or it ended.
    fn settled<C>(
        &self,
        asked: AskedTicket,
        inserted: Result<Option<Write<EntryConflict<C>>>, StoreError>,
        now: Timestamp,
    ) -> Option<Result<Write<EntryConflict<C>>, StoreError>> {
        match inserted {
            Ok(Some(Write::Applied)) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                let took = asked.count_taken(now);
                let mut longest = self.longest();
                let of_flavour = longest.entry(asked.ticket.flavour).or_default();
                *of_flavour = took.max(*of_flavour);
            }
            Ok(Some(Write::Rejected(_))) | Err(_) => self.give_back(asked),
            Ok(None) => {}
        }
        inserted.transpose()
    }

    /// How many were taken.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts an account that is new, and enters with a later list: until then it may be what a ticket stands for.
    pub(super) fn count_left_out(&self) {
        self.left_out.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether there was none.
    pub(super) fn all_entered(&self) -> bool {
        self.left_out.load(Ordering::Relaxed) == 0
    }

    /// Keeps how long they took, by which reservations ask early enough.
    pub(super) async fn note_times(&self, jobs: &Jobs) -> Result<(), StoreError> {
        let longest = std::mem::take(&mut *self.longest());
        for (flavour, took) in longest {
            // Another sync measured meanwhile, as well.
            let (Write::Applied | Write::Rejected(())) = jobs.store.refill.note_ready(&flavour, took).await?;
        }
        Ok(())
    }

    fn longest(&self) -> MutexGuard<'_, BTreeMap<FlavourName, Duration>> {
        self.longest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self, name: &SandboxName) -> Option<AskedTicket> {
        self.open().get_mut(self.policy.flavour_of(name)?)?.pop()
    }

    fn give_back(&self, asked: AskedTicket) {
        self.open().entry(asked.ticket.flavour.clone()).or_default().push(asked);
    }

    fn open(&self) -> MutexGuard<'_, BTreeMap<FlavourName, Vec<AskedTicket>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use broker_domain::TicketId;
    use broker_domain::refill::TicketState;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_oldest_open_ticket_is_taken_first() {
        let flavour = FlavourName::new("small").unwrap();
        let made = |id: u128, at: u64, state| Ticket {
            id: TicketId::from_uuid(Uuid::from_u128(id)),
            made_at: Timestamp::from_secs(at),
            state,
        };
        let taken = TicketState::Taken { at: Timestamp::from_secs(9) };
        // As they are listed: by ids, which chance made.
        let listed = [
            made(1, 30, TicketState::Asked),
            made(2, 10, TicketState::Due { at: Timestamp::from_secs(40) }),
            made(3, 5, taken),
            made(4, 20, TicketState::Asked),
            Ticket::unreadable(TicketId::from_uuid(Uuid::from_u128(5))),
        ];
        let mut open = oldest_last(&flavour, &listed);
        let order: Vec<_> = std::iter::from_fn(|| open.pop()).map(|asked| asked.made_at.as_secs()).collect();
        assert_eq!(order, [10, 20, 30]);
    }

    #[test]
    fn a_new_sandbox_takes_no_longer_than_a_ticket_lives() {
        let ticket = OpenTicket {
            flavour: FlavourName::new("small").unwrap(),
            id: TicketId::from_uuid(Uuid::from_u128(1)),
        };
        let asked = AskedTicket { ticket, made_at: Timestamp::from_secs(100) };
        let took = |secs: u64| asked.count_taken(Timestamp::from_secs(100 + secs)).as_secs();
        assert_eq!((took(60), took(1_800), took(6 * 3_600)), (60, 1_800, 1_800));
    }
}
