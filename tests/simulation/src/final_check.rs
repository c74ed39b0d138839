//! Final check of the simulation: `broker pool verify` finds nothing, every sandbox that ever existed is accounted for, and
//! none is in a wrong place.

use std::collections::{BTreeMap, BTreeSet};

use broker_domain::{AccountKey, DeadLetterCount, ExternalId, Status};
use broker_local::provider::account_of;
use broker_queue::topology;
use broker_store::Record;
use broker_store::pool_list::Browsed;

use super::Week;
use broker_store::verify::verify;

impl Week {
    pub(super) async fn everything_is_accounted_for(&mut self) {
        let verdict = verify(&self.store, self.now()).await.unwrap();
        assert!(verdict.violations.is_empty(), "{verdict:#?}");
        let records = self.read_all().await;

        let had: BTreeSet<_> = self.held.iter().map(|grant| &grant.external_id).collect();
        assert_eq!(had.len(), self.held.len(), "a used sandbox was handed out again");

        let now = self.now();
        // By account: one whose stale record was removed may have come back under the other label that a fault gave it.
        let account = |record: &Record| AccountKey::of(&record.sandbox.external_id);
        let known: BTreeMap<_, _> = records.iter().map(|record| (account(record), record)).collect();
        let world = self.stand_in.world.shown(now);
        let listed: BTreeSet<_> =
            world["accounts"].as_array().unwrap().iter().map(|id| id.as_str().unwrap().to_owned()).collect();
        let made = world["made"].as_u64().unwrap();
        for number in 0..made {
            let id = format!("seed-{number:06}");
            let record = known.get(&AccountKey::of(&ExternalId::new(account_of(&id)).unwrap()));
            let status = record.map(|record| record.sandbox.status);
            let right = match status {
                Some(Status::Available) => listed.contains(&id),
                Some(Status::Deleted) => !listed.contains(&id),
                Some(
                    Status::Arriving
                    | Status::Reserved
                    | Status::Allocated
                    | Status::Quarantined
                    | Status::PendingDeletion
                    | Status::Stale
                    | Status::DeletionFailed
                    | Status::Unknown,
                )
                | None => false,
            };
            assert!(right, "{id} is {status:?}, listed: {}\n{:#?}", listed.contains(&id), record);
        }
        let dead = topology::depths(&self.process.aws, &self.urls).await.unwrap();
        assert!(dead.iter().skip(2).all(|queue| queue.visible == 0), "dead letters: {dead:?}");
        let letters = broker_dead_letters::count_open(&self.store).await.unwrap();
        assert_eq!(letters, DeadLetterCount::default(), "dead letters");
        let deletions = world["deletions"].as_array().unwrap();
        self.figures.insert("sandboxes that ever existed", made);
        self.figures.insert("deletions asked for", deletions.len() as u64);
        let done = deletions.iter().filter(|deletion| deletion["outcome"] == "deleted").count();
        self.figures.insert("deletions done", done as u64);
        self.figures.insert("pages listed", world["lists"].as_u64().unwrap());
    }

    #[expect(clippy::print_stdout, reason = "the figures are what a long run is for")]
    pub(super) fn tell(&self, hours: u32) {
        println!("{hours} h: {:?}", self.figures);
    }

    pub(super) async fn read_all(&self) -> Vec<Record> {
        let all = Browsed::default();
        let (mut records, mut after) = (Vec::new(), None);
        loop {
            let page = self.store.sandboxes.browse(&all, after, usize::MAX, |_| true).await.unwrap().page;
            records.extend(page.items);
            after = page.next;
            if after.is_none() {
                return records;
            }
        }
    }
}
