//! The deal: the assignment of free sandboxes to waiting places.
//!
//! Tenants are dealt to in a weighted random order, each as many places in turn as its weight is. So each of k
//! tenants of the same weight gets a single arrival with probability 1/k. A tenant's own places are served in
//! the order of asking, except those that no remaining sandbox fits: none goes past what was not read of a line. A tenant gets no
//! more of a limit than it has free permits; what it may not take goes to the next tenant.

use std::collections::BTreeMap;

use super::Line;
use crate::{Limit, RequestId, SandboxName, TenantName};

/// A sandbox that is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FreeSandbox {
    /// Its name.
    pub name: SandboxName,
    /// The only tenant that may have it: it is put aside for a reservation.
    pub only_for: Option<TenantName>,
}

impl FreeSandbox {
    /// Whether a place of `line` may have it.
    pub fn fits(&self, line: &Line) -> bool {
        line.fits(&self.name) && self.only_for.as_ref().is_none_or(|tenant| *tenant == line.tenant)
    }
}

impl From<SandboxName> for FreeSandbox {
    fn from(name: SandboxName) -> Self {
        Self { name, only_for: None }
    }
}

/// The first places of one tenant that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantPlaces {
    /// The tenant.
    pub tenant: TenantName,
    /// Its share beside others; at least 1.
    pub weight: u32,
    /// Its places, of all its lines.
    pub places: Vec<(RequestId, Line)>,
    /// Its lines that were not read to their ends, each with the last request that was read: others may stand behind it.
    pub read_to: Vec<(Line, RequestId)>,
    /// Its limits, each with how many permits are free. Names do not fall under two of them.
    pub room: Vec<(Limit, usize)>,
    /// Places whose own leases, past their time, hold a permit of these limits: it is handed over, also where none is free.
    pub handed_over: Vec<(RequestId, Limit)>,
}

/// A sandbox and the place that gets it, each by where it stood in what was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dealt {
    /// The sandbox.
    pub sandbox: usize,
    /// The request of the place.
    pub request_id: RequestId,
}

/// Deals `sandboxes` to `tenants`. `chance` is a number from 0 to 1 for each tenant, drawn anew for each deal.
pub fn deal(sandboxes: &[FreeSandbox], tenants: &[TenantPlaces], chance: &[f64]) -> Vec<Dealt> {
    let mut queues: Vec<PlacesOfTenant<'_>> =
        tenants.iter().zip(chance).map(|(of, chance)| PlacesOfTenant::new(of, *chance)).collect();
    queues.sort_by(|a, b| b.drawn.total_cmp(&a.drawn).then_with(|| a.of.tenant.cmp(&b.of.tenant)));
    let mut left: Vec<usize> = (0..sandboxes.len()).collect();
    let mut dealt = Vec::new();
    loop {
        let before = dealt.len();
        for turn in 0..queues.len() {
            for _ in 0..queues[turn].of.weight.max(1) {
                let wanted = wanted(&queues);
                let Some((place, at)) = queues[turn].next(sandboxes, &left, &wanted) else {
                    // Its next place was not read: it does not lose its turn to another tenant.
                    if queues[turn].may_have_more(sandboxes, &left) {
                        return dealt;
                    }
                    break;
                };
                dealt.push(Dealt { sandbox: left.remove(at), request_id: place });
            }
        }
        if dealt.len() == before {
            return dealt;
        }
    }
}

/// How many places each line has that are not served yet.
fn wanted<'t>(queues: &[PlacesOfTenant<'t>]) -> BTreeMap<&'t Line, usize> {
    let mut wanted = BTreeMap::new();
    for (_, line) in queues.iter().flat_map(|queue| &queue.left) {
        *wanted.entry(*line).or_default() += 1;
    }
    wanted
}

/// The places of a tenant that are not served yet, in the order of asking.
struct PlacesOfTenant<'t> {
    of: &'t TenantPlaces,
    drawn: f64,
    left: Vec<(RequestId, &'t Line)>,
    /// What is left of its room.
    room: Vec<(&'t Limit, usize)>,
}

impl<'t> PlacesOfTenant<'t> {
    fn new(of: &'t TenantPlaces, chance: f64) -> Self {
        let mut left: Vec<_> = of.places.iter().map(|(id, line)| (*id, line)).collect();
        left.sort_by_key(|(id, _)| *id);
        // Efraimidis and Spirakis: the first of an order by u^(1/w) is each with its share of the weights.
        let drawn = chance.clamp(0.0, 1.0).powf(1.0 / f64::from(of.weight.max(1)));
        let room = of.room.iter().map(|(limit, free)| (limit, *free)).collect();
        Self { of, drawn, left, room }
    }

    /// The first place that a sandbox which is left fits, and where that one stands in `left`: of those that fit, the one
    /// that is of use to the fewest others.
    fn next(
        &mut self,
        sandboxes: &[FreeSandbox],
        left: &[usize],
        wanted: &BTreeMap<&Line, usize>,
    ) -> Option<(RequestId, usize)> {
        for position in 0..self.left.len() {
            let (id, line) = self.left[position];
            let use_of = |sandbox: usize| {
                let lines = wanted.iter().filter(|(line, _)| sandboxes[sandbox].fits(line));
                lines.map(|(_, places)| places).sum::<usize>()
            };
            let fitting = left.iter().enumerate().filter(|(_, sandbox)| {
                let free = &sandboxes[**sandbox];
                let earlier = |(line, last): &(Line, RequestId)| *last < id && free.fits(line);
                free.fits(line) && !self.is_full(free, Some(id)) && !self.of.read_to.iter().any(earlier)
            });
            // What is put aside for the tenant goes first: no other tenant can use it.
            let least = fitting.min_by_key(|(_, sandbox)| {
                (sandboxes[**sandbox].only_for.is_none(), use_of(**sandbox), **sandbox)
            });
            if let Some((at, sandbox)) = least {
                let name = &sandboxes[*sandbox].name;
                if let Some((_, free)) = self.room.iter_mut().find(|(limit, _)| limit.covers(name)) {
                    *free = free.saturating_sub(1);
                }
                self.left.remove(position);
                return Some((id, at));
            }
        }
        None
    }

    /// Whether no permit is left for `free`; nor one that the place `of` has itself.
    fn is_full(&self, free: &FreeSandbox, of: Option<RequestId>) -> bool {
        let has_own =
            |limit: &Limit| self.of.handed_over.iter().any(|(id, own)| Some(*id) == of && own == limit);
        self.room.iter().any(|(limit, room)| *room == 0 && limit.covers(&free.name) && !has_own(limit))
    }

    /// Whether a sandbox that is left may fit places that were not read.
    fn may_have_more(&self, sandboxes: &[FreeSandbox], left: &[usize]) -> bool {
        let mut left =
            left.iter().map(|sandbox| &sandboxes[*sandbox]).filter(|free| !self.is_full(free, None));
        left.any(|free| self.of.read_to.iter().any(|(line, _)| free.fits(line)))
    }
}

#[cfg(test)]
#[path = "deal_tests.rs"]
mod tests;
