//! Reads of the provider's attributes, which the index does not hold.
//!
//! Invariant: what is told of a candidate is what its item says at the candidate's version. One that moved on is told nothing
//! of: whatever is written at its version fails. An item that cannot be read costs no other sandbox anything.

use std::collections::{HashMap, HashSet};

use super::attributes::{Item, Reader, VERSION, read_provider_attributes};
use super::pool::passable;
use super::reads::{self, KEYS};
use super::{SandboxStore, keys};
use crate::{Candidate, StoreError};
use broker_domain::{ProviderAttributes, SandboxId};

impl SandboxStore {
    /// Candidates that are to be claimed, with their attributes (consistent reads, a hundred a call). One that cannot be read is
    /// left out. [`StoreError::Conflict`] if the table did not get to one: ask again.
    pub async fn with_attributes(
        &self,
        mut candidates: Vec<Candidate>,
    ) -> Result<Vec<Candidate>, StoreError> {
        let mut unreadable = HashSet::new();
        for portion in candidates.chunks_mut(KEYS) {
            let keys: Vec<_> = portion.iter().map(|one| keys::sandbox(&one.sandbox_id)).collect();
            let found = reads::read(&self.table.client, &self.table.name, &keys, true).await?;
            for (candidate, key) in portion.iter_mut().zip(&keys) {
                let Some(item) = found.answer(key)? else { continue };
                match passable(read_versioned(&item)) {
                    Some((version, attributes)) if version == candidate.version => {
                        candidate.attributes = Some(attributes);
                    }
                    Some(_) => {}
                    None => {
                        unreadable.insert(candidate.sandbox_id.clone());
                    }
                }
            }
        }
        candidates.retain(|candidate| !unreadable.contains(&candidate.sandbox_id));
        Ok(candidates)
    }

    /// The attributes of sandboxes, each with the version at which it has them (eventually consistent reads, a hundred a call).
    /// What the table did not get to, or cannot be read, is left out.
    pub async fn attributes_of(
        &self,
        sandboxes: &[SandboxId],
    ) -> Result<HashMap<SandboxId, (u64, ProviderAttributes)>, StoreError> {
        let mut known = HashMap::with_capacity(sandboxes.len());
        for portion in sandboxes.chunks(KEYS) {
            let keys: Vec<_> = portion.iter().map(keys::sandbox).collect();
            let found = reads::read(&self.table.client, &self.table.name, &keys, false).await?;
            for (id, key) in portion.iter().zip(&keys) {
                let Ok(Some(item)) = found.answer(key) else { continue };
                known.extend(passable(read_versioned(&item)).map(|read| (id.clone(), read)));
            }
        }
        Ok(known)
    }
}

/// The attributes of a sandbox's item, with its version.
fn read_versioned(item: &Item) -> Result<(u64, ProviderAttributes), StoreError> {
    let read = Reader(item);
    Ok((read.number(VERSION)?, read_provider_attributes(&read)?))
}
