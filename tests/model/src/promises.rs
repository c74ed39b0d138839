//! Invariants of the claim protocol, checked in every state.

use broker_domain::{Inventory, suspects};

use crate::domain::{lease, sandbox, time};
use crate::scenario::Scenario;
use crate::world::{Index, Out, Record, World};

impl Scenario {
    /// What a claim tells of earlier ones.
    pub(crate) fn remember_claim(&self, world: &mut World, request: Index, key: Index) {
        let row = &mut world.requests[request];
        row.claims += 1;
        let enqueued = time(row.sent.unwrap_or_default()).as_ms();
        if row.claims > 1 {
            world.broken = Some("one request claimed twice");
        }
        if world.fences[key].is_some_and(|fence| enqueued <= fence) {
            world.broken = Some("a request from before the key's return claimed after it, for nobody");
        }
    }
}

/// The promise that `world` breaks.
pub(crate) fn broken(world: &World) -> Option<String> {
    if let Some(broken) = world.broken {
        return Some(broken.to_owned());
    }
    let mut inventory = Inventory::default();
    for (id, row) in world.sandboxes.iter().enumerate() {
        let Some(row) = row else { continue };
        inventory.add_sandbox(&sandbox(id, row));
        let offered = row.status.is_unused();
        if offered && world.used.contains(&row.incarnation) {
            return Some(format!("sandbox {id} was used and is offered again"));
        }
    }
    for (key, row) in world.leases.iter().enumerate() {
        let Some(row) = row else { continue };
        inventory.add_lease(&lease(key, row));
        if world.requests[row.request].record == Some(Record::Ended(Out::Cancelled)) {
            return Some(format!("request {} was cancelled and has a sandbox", row.request));
        }
    }
    let twice = world.used.iter().enumerate().any(|(nth, used)| world.used[..nth].contains(used));
    if twice {
        return Some("a sandbox was handed out twice".to_owned());
    }
    suspects(&inventory).first().map(|suspect| suspect.violation.to_string())
}
