//! Selection of the dead letters of an action: by id, or by filter.

use std::collections::VecDeque;

use super::DeadLetterListing;
use super::listing::READ_AT_ONCE;
use broker_domain::{DeadLetter, DeadLetterFilter, DeadLetterId};
use broker_store::{DeadLetterOrder, Store, StoreError};

/// The letters of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These, in any state.
    These(Vec<DeadLetterId>),
    /// Those that match a filter.
    Matching(DeadLetterFilter),
    /// Those of them that come behind this one, where a run ended.
    Behind(DeadLetterId, DeadLetterFilter),
}

/// The selected letters.
pub(super) enum Selected {
    /// Named ones, and how many of them cannot be read so far.
    These(Box<Store>, VecDeque<DeadLetterId>, u64),
    Matching(Box<DeadLetterListing>),
}

impl Selected {
    pub(super) fn new(store: &Store, selection: Selection) -> Self {
        match selection {
            Selection::These(ids) => Self::These(Box::new(store.clone()), ids.into(), 0),
            Selection::Matching(filter) => Self::listed(store, filter, None),
            Selection::Behind(id, filter) => Self::listed(store, filter, Some(&id)),
        }
    }

    fn listed(store: &Store, filter: DeadLetterFilter, after: Option<&DeadLetterId>) -> Self {
        let listing = DeadLetterListing::new(store.clone(), filter, DeadLetterOrder::OldestFirst, after);
        // One read of each partition, then the run looks whether it may go on.
        Self::Matching(Box::new(listing.bounded(READ_AT_ONCE, 0)))
    }

    /// Where the listed letters that were returned end, if more may follow.
    pub(super) fn cursor(&self) -> Option<&DeadLetterId> {
        match self {
            Self::Matching(listing) => listing.cursor(),
            Self::These(..) => None,
        }
    }

    /// Lets [`next`](Self::next) look further; false if there is nothing more.
    pub(super) fn goes_on(&mut self) -> bool {
        match self {
            Self::Matching(listing) => listing.reads_on(),
            Self::These(..) => false,
        }
    }

    /// How many items that may be among them cannot be read as letters, so far.
    pub(super) fn unreadable(&self) -> u64 {
        match self {
            Self::Matching(listing) => listing.unreadable().len() as u64,
            Self::These(_, _, unreadable) => *unreadable,
        }
    }

    /// The next one; `None` if a part was read that has none. Ids without a letter are added to `missing`.
    pub(super) async fn next(
        &mut self,
        missing: &mut Vec<DeadLetterId>,
    ) -> Result<Option<DeadLetter>, StoreError> {
        match self {
            Self::Matching(listing) => listing.next().await,
            Self::These(store, ids, unreadable) => {
                while let Some(id) = ids.pop_front() {
                    match store.dead_letters.get(&id).await {
                        // It stops no other.
                        Err(StoreError::Malformed { .. }) => *unreadable += 1,
                        read => match read? {
                            Some(letter) => return Ok(Some(letter)),
                            None => missing.push(id),
                        },
                    }
                }
                Ok(None)
            }
        }
    }
}
