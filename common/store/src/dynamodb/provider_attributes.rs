//! Reads of the provider's attributes, which the index does not hold.
//!
//! Invariant: what is told of a candidate is what its item says at the candidate's version. One that moved on is told nothing
//! of: whatever is written at its version fails.

use std::collections::HashMap;

use super::attributes::{Reader, VERSION, read_provider_attributes};
use super::reads::{self, KEYS};
use super::{SandboxStore, keys};
use crate::{Candidate, StoreError};
use broker_domain::{ProviderAttributes, SandboxId};

impl SandboxStore {
    /// Adds the attributes to candidates that are to be claimed (consistent reads, a hundred a call).
    /// [`StoreError::Conflict`] if the table did not get to one: ask again.
    pub async fn add_attributes(&self, candidates: &mut [Candidate]) -> Result<(), StoreError> {
        for portion in candidates.chunks_mut(KEYS) {
            let keys: Vec<_> = portion.iter().map(|one| keys::sandbox(&one.sandbox_id)).collect();
            let found = reads::read(&self.table.client, &self.table.name, &keys, true).await?;
            for (candidate, key) in portion.iter_mut().zip(&keys) {
                let Some(item) = found.answer(key)? else { continue };
                let read = Reader(&item);
                if read.number(VERSION)? == candidate.version {
                    candidate.attributes = Some(read_provider_attributes(&read)?);
                }
            }
        }
        Ok(())
    }

    /// The attributes of sandboxes, each with the version at which it has them (eventually consistent reads, a hundred a call).
    /// What the table did not get to is left out.
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
                let read = Reader(&item);
                known.insert(id.clone(), (read.number(VERSION)?, read_provider_attributes(&read)?));
            }
        }
        Ok(known)
    }
}
