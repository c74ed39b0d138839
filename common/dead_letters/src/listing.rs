//! Listing of dead letters in the order of their time or against it, over all partitions, filtered, page by page.
//!
//! Invariant: with the cursor, pages together hold every matching letter that does not change meanwhile, once. It is no
//! snapshot.

use std::cmp::Reverse;
use std::collections::VecDeque;

use broker_domain::{DEAD_LETTER_SHARDS, DeadLetter, DeadLetterCount, DeadLetterFilter, DeadLetterId};
use broker_store::{DeadLetterOrder, Store, StoreError};

/// Letters of one read of all: about a megabyte, and few enough for an endpoint that reads all that is left unless it is told
/// how many.
pub(super) const READ_AT_ONCE: usize = 1_000;
/// Sorts before every id. DynamoDB accepts no empty text in a key condition.
const BEFORE_ALL: &str = "0";
/// Sorts behind every id.
const BEHIND_ALL: &str = "~";

/// Reads the letters that match a filter, in either order.
#[derive(Debug)]
pub struct DeadLetterListing {
    store: Store,
    filter: DeadLetterFilter,
    order: DeadLetterOrder,
    /// The most letters of one read, if the caller wants few.
    page: Option<i32>,
    /// The reads left; without any the listing ends early and its cursor says where.
    reads: usize,
    partitions: Vec<Partition>,
    /// Everything up to here was returned, or does not match.
    told_to: Option<DeadLetterId>,
    ended: bool,
    unreadable: Vec<String>,
}

#[derive(Debug)]
struct Partition {
    shard: u8,
    /// The ids that are not read yet, both ends included.
    from: String,
    until: String,
    /// Matching letters that were read and not returned.
    waiting: VecDeque<DeadLetter>,
    /// How far it was read.
    read_to: Option<DeadLetterId>,
    exhausted: bool,
}

impl DeadLetterListing {
    /// The letters that match `filter` and come after `after` in `order`.
    pub fn new(
        store: Store,
        filter: DeadLetterFilter,
        order: DeadLetterOrder,
        after: Option<&DeadLetterId>,
    ) -> Self {
        let mut from = filter.since.map_or_else(|| BEFORE_ALL.to_owned(), DeadLetterId::time);
        let mut until = filter.before.map_or_else(|| BEHIND_ALL.to_owned(), DeadLetterId::time);
        match (after, order) {
            (Some(after), DeadLetterOrder::OldestFirst) => from = behind(after),
            (Some(after), DeadLetterOrder::NewestFirst) => until = before(after),
            (None, _) => {}
        }
        let partitions = (0..DEAD_LETTER_SHARDS).map(|shard| Partition {
            shard,
            from: from.clone(),
            until: until.clone(),
            waiting: VecDeque::new(),
            read_to: None,
            exhausted: from > until,
        });
        let partitions = partitions.collect();
        Self {
            store,
            filter,
            order,
            page: None,
            reads: usize::MAX,
            partitions,
            told_to: after.cloned(),
            ended: false,
            unreadable: Vec::new(),
        }
    }

    /// Limits reads to `letters` each, and their number to `reads` (but at least one for each partition).
    pub fn bounded(self, letters: usize, reads: usize) -> Self {
        let page = i32::try_from(letters).ok().filter(|letters| *letters > 0);
        Self { page, reads: reads.max(self.partitions.len()), ..self }
    }

    /// The next letter; `None` at the end, or when the reads are used up.
    pub async fn next(&mut self) -> Result<Option<DeadLetter>, StoreError> {
        self.fill().await?;
        let order = self.order;
        let first =
            |partition: &Partition| partition.waiting.front().map(|letter| Rank::of(order, &letter.id));
        let candidate = self.partitions.iter().enumerate().filter_map(|(at, p)| Some((first(p)?, at))).min();
        // Where a partition was not read to its end, no letter behind that place may be returned yet.
        let unread = self.partitions.iter().filter(|p| p.waiting.is_empty() && !p.exhausted);
        let bound = unread.map(|p| p.read_to.as_ref().map(|id| Rank::of(order, id))).min();
        match (candidate, bound) {
            (Some((place, at)), bound)
                if bound.as_ref().is_none_or(|bound| bound.as_ref() >= Some(&place)) =>
            {
                self.told_to = Some(place.id());
                Ok(self.partitions[at].waiting.pop_front())
            }
            (Some(_) | None, Some(bound)) => {
                self.told_to = bound.map(Rank::id).or(self.told_to.take());
                Ok(None)
            }
            (Some(_) | None, None) => {
                self.ended = true;
                Ok(None)
            }
        }
    }

    /// Reads each partition until it has a letter to return, in turns, so that none is left unread when the reads end.
    async fn fill(&mut self) -> Result<(), StoreError> {
        let Self { store, filter, order, page, reads, partitions, unreadable, .. } = self;
        let wants = |partition: &Partition| partition.waiting.is_empty() && !partition.exhausted;
        while *reads > 0 && partitions.iter().any(wants) {
            for partition in partitions.iter_mut().filter(|partition| wants(partition)) {
                *reads = reads.saturating_sub(1);
                let Partition { shard, from, until, .. } = partition;
                let read = store.dead_letters.page(*shard, *order, from, until, *page).await?;
                unreadable.extend(read.items.unreadable);
                match (&read.next, *order) {
                    (Some(to), DeadLetterOrder::OldestFirst) => *from = behind(to),
                    (Some(to), DeadLetterOrder::NewestFirst) => *until = before(to),
                    (None, _) => partition.exhausted = true,
                }
                partition.read_to = read.next;
                partition
                    .waiting
                    .extend(read.items.letters.into_iter().filter(|letter| filter.matches(letter)));
            }
        }
        Ok(())
    }

    /// Allows a read more of each partition; false if the listing is at its end.
    pub(super) fn reads_on(&mut self) -> bool {
        self.reads = self.partitions.len();
        !self.ended
    }

    /// The cursor behind the returned letters; `None` at the end.
    pub fn cursor(&self) -> Option<&DeadLetterId> {
        if self.ended { None } else { self.told_to.as_ref() }
    }

    /// The errors of items that cannot be read as letters, so far.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable
    }
}

/// Counts the open letters, by reading all of them.
pub async fn count_open(store: &Store) -> Result<DeadLetterCount, StoreError> {
    let (all, order) = (DeadLetterFilter::default(), DeadLetterOrder::OldestFirst);
    let listing = DeadLetterListing::new(store.clone(), all, order, None);
    let mut listing = listing.bounded(READ_AT_ONCE, usize::MAX);
    let mut count = DeadLetterCount::default();
    while let Some(letter) = listing.next().await? {
        count.add(&letter);
    }
    for problem in listing.unreadable() {
        tracing::error!(problem, "an item that should be a dead letter cannot be read");
    }
    Ok(count)
}

/// Sorts directly behind `id` and before every other one: ids have one length.
fn behind(id: &DeadLetterId) -> String {
    format!("{id}0")
}

/// Sorts directly before `id` and behind every smaller one: ids have one length, and end in a hexadecimal digit.
fn before(id: &DeadLetterId) -> String {
    let mut text = id.to_string();
    let last = text.pop().and_then(|digit| u8::try_from(digit).ok()).filter(|digit| *digit > b'0');
    text.extend(last.map(|digit| char::from(digit - 1)));
    text
}

/// The place of a letter in a listing: the smallest comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    OldestFirst(DeadLetterId),
    NewestFirst(Reverse<DeadLetterId>),
}

impl Rank {
    fn of(order: DeadLetterOrder, id: &DeadLetterId) -> Self {
        match order {
            DeadLetterOrder::OldestFirst => Self::OldestFirst(id.clone()),
            DeadLetterOrder::NewestFirst => Self::NewestFirst(Reverse(id.clone())),
        }
    }

    fn id(self) -> DeadLetterId {
        match self {
            Self::OldestFirst(id) | Self::NewestFirst(Reverse(id)) => id,
        }
    }
}
