//! Steps of workers, hook, provider and time.

use std::time::Duration;

use broker_domain::TicketId;
use broker_domain::policy::Refill;
use broker_domain::refill::{AppliedList, Counted, Flow, Round, Ticket, TicketAnswer, TicketState};

use super::world::{Action, Census, Hand, Heard, Record, World, ticket_id, time};
use super::{Scenario, TICK, Variant};

impl Scenario {
    /// What an idle worker may begin.
    pub(super) fn offer_work(&self, world: &World, worker: usize, actions: &mut Vec<Action>) {
        actions.push(Action::BeginRound(worker));
        let counted = count(world);
        if world.census.is_none_or(|stored| stored.as_of < counted.as_of || stored.live != counted.live) {
            actions.push(Action::BeginCensus(worker));
        }
        let unknown = (0..world.accounts).filter(|account| !world.knows(*account));
        actions.extend(unknown.map(|account| Action::BeginSync(worker, account)));
        if world.listed < world.now && !world.hands.iter().any(|hand| matches!(hand, Hand::Listed { .. })) {
            actions.push(Action::BeginList(worker));
        }
    }

    /// Only whether a version is the current one matters.
    pub(super) fn renumber(world: &mut World) {
        let current = std::mem::replace(&mut world.version, 1);
        for hand in &mut world.hands {
            match hand {
                Hand::FlowRead { version: Some(version), .. }
                | Hand::CensusRead { version: Some(version), .. }
                | Hand::Planned { version, .. } => *version = u64::from(*version == current),
                Hand::FlowRead { version: None, .. }
                | Hand::CensusRead { version: None, .. }
                | Hand::Idle
                | Hand::Calling { .. }
                | Hand::Answered { .. }
                | Hand::SyncRead { .. }
                | Hand::Counted(_)
                | Hand::Listed { .. } => {}
            }
        }
    }

    pub(super) fn step(&self, world: &mut World, action: Action) {
        match action {
            Action::Tick => {
                world.now += 1;
                // The index is up to date by now.
                world.records.iter_mut().for_each(|record| record.is_shown = true);
            }
            Action::Crash(worker) => world.hands[worker] = Hand::Idle,
            Action::Make => {
                world.promised -= 1;
                world.accounts += 1;
            }
            Action::Show(place) => world.records[place].is_shown = true,
            Action::Claim(place) => world.records[place].is_available = false,
            Action::Leave(place) => {
                world.records.remove(place);
            }
            Action::BeginRound(worker) => world.hands[worker] = self.begin_round(world),
            Action::BeginCensus(worker) => world.hands[worker] = Hand::Counted(count(world)),
            Action::BeginSync(worker, account) => {
                let ticket = world.open().next().map(|ticket| ticket.id);
                world.hands[worker] = Hand::SyncRead { account, ticket };
            }
            Action::BeginList(worker) => {
                world.beside |= world.promised > 0;
                world.hands[worker] = Hand::Listed { as_of: world.now, accounts: world.accounts };
            }
            Action::Call(worker, heard) => {
                call(world, worker, heard);
                // More will not come in this world.
                world.promised = world.promised.min(self.accounts.saturating_sub(world.accounts));
            }
            Action::Go(worker) => {
                let hand = std::mem::replace(&mut world.hands[worker], Hand::Idle);
                world.hands[worker] = self.go(world, hand);
            }
        }
    }

    fn begin_round(&self, world: &World) -> Hand {
        match self.variant {
            Variant::CensusFirst => Hand::FlowRead { version: None, census: world.census },
            Variant::FlowLast => Hand::FlowRead { version: None, census: None },
            _ => Hand::FlowRead { version: Some(world.version), census: None },
        }
    }

    fn go(&self, world: &mut World, hand: Hand) -> Hand {
        match hand {
            Hand::Idle | Hand::Calling { .. } => hand,
            Hand::FlowRead { version, census } => {
                let version = match self.variant {
                    Variant::CensusFirst => Some(world.version),
                    _ => version,
                };
                census.or(world.census).map_or(Hand::Idle, |census| Hand::CensusRead { version, census })
            }
            Hand::CensusRead { version, census } => self.plan(world, version, census),
            Hand::Planned { version, new, send, overdue, counted } => {
                if self.variant != Variant::WithoutVersion && version != world.version {
                    return Hand::Idle;
                }
                self.write_round(world, new, send, &overdue, &counted)
            }
            Hand::Answered { tickets, answer } => self.write_answer(world, tickets, answer),
            Hand::SyncRead { account, ticket } => self.insert(world, account, ticket),
            // Its inserts are steps of their own; applied is a list when all of them are done.
            Hand::Listed { as_of, accounts } if (0..accounts).all(|account| world.knows(account)) => {
                world.listed = world.listed.max(as_of);
                Hand::Idle
            }
            Hand::Listed { .. } => hand,
            Hand::Counted(census) => {
                let is_newer = world.census.is_none_or(|stored| stored.as_of < census.as_of);
                let same_tick = world
                    .census
                    .is_some_and(|stored| stored.as_of == census.as_of && stored.number < census.number);
                if is_newer || same_tick || self.variant == Variant::OldCensusOverwrites {
                    world.census = Some(census);
                }
                Hand::Idle
            }
        }
    }

    /// The round reads the tickets and decides.
    fn plan(&self, world: &World, version: Option<u64>, census: Census) -> Hand {
        let version = version.unwrap_or(world.version);
        let refill = Refill {
            min: self.min,
            max: self.max,
            rate_per_minute: 60_000,
            hook: Some(hook()),
            schedule: Vec::new(),
        };
        let flow = Flow { version, ..Flow::default() };
        let mut tickets = world.tickets.clone();
        if self.variant == Variant::CensusIsCurrent {
            for ticket in &mut tickets {
                if let TicketState::Taken { at } = &mut ticket.state
                    && *at <= time(census.as_of)
                {
                    *at = at.minus(TICK);
                }
            }
        }
        let available =
            world.records.iter().filter(|record| record.is_available && record.is_shown).count() as u64;
        let counted =
            Counted { available, arriving: 0, live: u64::from(census.live), as_of: time(census.as_of) };
        let now = time(world.now);
        let listed = if self.variant == Variant::OverdueByAge { now } else { time(world.listed) };
        let listed = Some(AppliedList { began: listed, hidden: 0 });
        let plan =
            Round { refill: &refill, flow: &flow, tickets: &tickets, counted, reserved: 0, listed, now }
                .plan(Duration::ZERO);
        if plan.is_empty() {
            return Hand::Idle;
        }
        let overdue = if self.variant == Variant::OverdueForever { Vec::new() } else { plan.overdue };
        let new = plan.new.min(u32::from(self.tickets.saturating_sub(world.made)));
        Hand::Planned { version, new, send: plan.send, overdue, counted: plan.counted }
    }

    /// One transaction: the flow, new tickets, and tickets that go. Then the hook is called.
    fn write_round(
        &self,
        world: &mut World,
        new: u32,
        mut send: Vec<TicketId>,
        overdue: &[TicketId],
        counted: &[TicketId],
    ) -> Hand {
        world.version += 1;
        world.beside |= !send.is_empty();
        let forced = self.variant == Variant::OverdueUnseen;
        world.tickets.retain(|ticket| {
            let ends = overdue.contains(&ticket.id) && (ticket.is_open() || forced);
            !ends && !counted.contains(&ticket.id)
        });
        for _ in 0..new {
            let id = ticket_id(world.made);
            world.made += 1;
            world.tickets.push(Ticket::new(id, time(world.now)));
            send.push(id);
        }
        calling(send)
    }

    fn write_answer(&self, world: &mut World, mut tickets: Vec<TicketId>, answer: TicketAnswer) -> Hand {
        let id = tickets.remove(0);
        let now = time(world.now);
        let open = world.tickets.iter().position(|ticket| ticket.id == id && ticket.is_open());
        if let Some(place) = open {
            match world.tickets[place].answered(answer, Duration::from_secs(60), now) {
                Ok(state) => world.tickets[place].state = state,
                Err(_end) => {
                    world.tickets.remove(place);
                }
            }
        }
        calling(tickets)
    }

    /// One transaction: the sandbox, and its ticket if there was one.
    fn insert(&self, world: &mut World, account: u8, ticket: Option<TicketId>) -> Hand {
        if world.knows(account) {
            return Hand::Idle;
        }
        if let Some(id) = ticket {
            let place = world.tickets.iter().position(|ticket| ticket.id == id);
            let takes = |ticket: &Ticket| ticket.is_open() || self.variant == Variant::TakenTwice;
            let Some(place) = place.filter(|place| takes(&world.tickets[*place])) else {
                // Another one, or none.
                let ticket = world.open().next().map(|ticket| ticket.id);
                return Hand::SyncRead { account, ticket };
            };
            if self.variant == Variant::TakenIsGone {
                world.tickets.remove(place);
            } else {
                world.tickets[place].state = TicketState::Taken { at: time(world.now) };
            }
        }
        world.known |= 1 << account;
        world.records.push(Record { took: ticket.is_some(), is_shown: false, is_available: true });
        Hand::Idle
    }
}

/// A census counts what the index shows.
fn count(world: &World) -> Census {
    let live = world.records.iter().filter(|record| record.is_shown).count();
    let number =
        world.census.filter(|stored| stored.as_of == world.now).map_or(0, |stored| stored.number + 1);
    Census { as_of: world.now, number, live: u8::try_from(live).unwrap_or(u8::MAX) }
}

fn call(world: &mut World, worker: usize, heard: Heard) {
    let Hand::Calling { tickets } = std::mem::replace(&mut world.hands[worker], Hand::Idle) else { return };
    let (made, answer) = match heard {
        Heard::Yes => (1, TicketAnswer::Yes),
        Heard::No => (0, TicketAnswer::No),
        Heard::YesTwice => (2, TicketAnswer::Yes),
        Heard::YesAndNone => (0, TicketAnswer::Yes),
        Heard::Failed => (0, TicketAnswer::Failed),
        Heard::FailedButMade => (1, TicketAnswer::Failed),
    };
    // A worker that stood still for half an hour with a ticket in its hand may call when a list has had its say.
    let now = time(world.now);
    let called = world.open().find(|ticket| tickets.first() == Some(&ticket.id));
    world.beside |= called.is_none_or(|ticket| ticket.made_at != now);
    world.lies += u8::from(!matches!(heard, Heard::Yes | Heard::No));
    world.promised += made;
    world.hands[worker] = Hand::Answered { tickets, answer };
}

fn calling(tickets: Vec<TicketId>) -> Hand {
    if tickets.is_empty() { Hand::Idle } else { Hand::Calling { tickets } }
}

fn hook() -> broker_domain::policy::Hook {
    let text = "[flavour.a]\nprefix = 'a'\nrefill = { min = 1, max = 1, rate_per_minute = 1, url = 'https://a.example' }";
    let policy = broker_domain::policy::Policy::parse(text).unwrap_or_default();
    let hook = policy.flavours().values().next().and_then(|flavour| flavour.refill.as_ref()?.hook.clone());
    hook.unwrap_or_else(|| unreachable!("the policy has a hook"))
}
