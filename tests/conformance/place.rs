//! Place of a case: a table of its own, or queues of their own, at the implementation under test.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aws_sdk_dynamodb::config::timeout::TimeoutConfig;
use broker_domain::{
    AllocateRequest, Allocation, ExternalId, Fingerprint, IdempotencyKey, LabDuration, LeaseKey, SandboxId,
    SandboxName, Times, Timestamp, TrackId, TrackName,
};
use broker_queue::{QueueNames, QueueUrls, topology};
use broker_runtime::aws::{self, Aws};
use broker_runtime::clock::Clock;
use broker_runtime::entropy::Entropy;
use broker_store::{Candidate, Claim, ClaimOutcome, NewSandbox, Store, Write, schema};
use broker_tests::endpoint::{Endpoints, Urls};
use broker_tests::together;

/// Index partitions of a state: few, so that a handful of sandboxes fills them.
pub(crate) const SHARDS: u8 = 4;
/// The visibility timeout of the queues.
pub(crate) const VISIBILITY: Duration = Duration::from_secs(30);
/// How long an attempt at the second implementation may take.
const SECOND_ATTEMPT: Duration = Duration::from_secs(15);
/// How long a poll waits.
const POLL_WAIT: Duration = Duration::from_secs(2);

/// Which implementation answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The endpoints of `broker up`.
    Embedded,
    /// Amazon's DynamoDB Local, and ministack for SQS.
    Second,
}

/// Clients of the implementation under test, and names that no other case has.
pub(crate) struct Place {
    pub(crate) aws: Aws,
    pub(crate) clock: Clock,
    pub(crate) entropy: Entropy,
    pub(crate) store: Store,
    pub(crate) table: String,
    pub(crate) names: QueueNames,
    side: Side,
}

/// The subject of this run, if it is named: the second implementation, or (`tests/mutation`) the embedded endpoints
/// that run already.
#[expect(clippy::disallowed_methods, reason = "tests/conformance/run names the implementation under test")]
fn named() -> Option<(Urls, Side)> {
    let url = |name: &str| std::env::var(name).ok();
    let side = if url("CONFORMANCE_EMBEDDED").is_some() { Side::Embedded } else { Side::Second };
    match (url("CONFORMANCE_DYNAMODB_URL"), url("CONFORMANCE_SQS_URL")) {
        (Some(dynamodb_url), Some(sqs_url)) => Some((Urls { dynamodb_url, sqs_url }, side)),
        (None, None) => None,
        (dynamodb, sqs) => panic!("both or neither must be named: {dynamodb:?}, {sqs:?}"),
    }
}

/// Clients that wait for implementations which are slow to start and share their processors with the stories: what is
/// compared is what they answer, not when.
fn patient(aws: &Aws) -> Aws {
    let timeouts = || TimeoutConfig::builder().operation_attempt_timeout(SECOND_ATTEMPT).build();
    let dynamodb = aws.dynamodb.config().to_builder().timeout_config(timeouts()).build();
    let sqs = aws.sqs.config().to_builder().timeout_config(timeouts()).build();
    Aws {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb),
        sqs: aws_sdk_sqs::Client::from_conf(sqs),
        sqs_receive: aws.sqs_receive.clone(),
    }
}

impl Place {
    /// Clients and names; nothing is made yet.
    pub(crate) async fn empty() -> Self {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let (urls, side) = match named() {
            Some(named) => named,
            None => (Endpoints::shared().await.urls.clone(), Side::Embedded),
        };
        let clock = Clock::system();
        let mut aws = aws::connect_locally(&urls.dynamodb_url, &urls.sqs_url, &clock, POLL_WAIT);
        if side == Side::Second {
            aws = patient(&aws);
        }
        let number = PLACES.fetch_add(1, Ordering::Relaxed);
        let table = format!("c{}-{number}", std::process::id());
        Self {
            store: Store::new(aws.dynamodb.clone(), &table, SHARDS),
            names: QueueNames::new(&table).expect("a valid prefix"),
            entropy: Entropy::from_system(),
            aws,
            clock,
            table,
            side,
        }
    }

    /// With the table.
    pub(crate) async fn with_table() -> Self {
        let place = Self::empty().await;
        // Made or there: a call that is repeated for want of an answer finds its own success.
        schema::ensure(&place.aws.dynamodb, &place.table).await.expect("the table is made");
        place
    }

    /// With the four queues.
    pub(crate) async fn with_queues() -> (Self, QueueUrls) {
        let place = Self::empty().await;
        topology::ensure(&place.aws, &place.names, VISIBILITY).await.expect("the queues are made");
        let urls = QueueUrls::resolve(&place.aws, &place.names).await.expect("the queues are there");
        (place, urls)
    }

    /// Notes a difference: what the embedded endpoint says, and what the second implementation says.
    pub(crate) fn differs<T>(&self, embedded: T, second: T) -> T {
        match self.side {
            Side::Embedded => embedded,
            Side::Second => second,
        }
    }

    /// The same table, through a store of its own: its calls are not coalesced with those of others.
    pub(crate) fn another_store(&self) -> Store {
        Store::new(self.aws.dynamodb.clone(), &self.table, SHARDS)
    }

    /// Puts `count` sandboxes into the pool; they are returned as the index will list them.
    pub(crate) async fn seed(&self, count: usize) -> Vec<Candidate> {
        let sandboxes: Vec<_> = (0..count).map(sandbox).collect();
        // A few at a time: an answer that comes too late is asked for again, and finds its own success.
        for some in sandboxes.chunks(16) {
            let seeded = some.iter().cloned().map(|sandbox| {
                let store = self.store.clone();
                async move {
                    // Versions begin at the moment of the insert: here they are 0, and 1 once it is admitted.
                    let began = Timestamp::from_ms(0);
                    let told = store.sandboxes.seed(&sandbox, began).await.expect("seeded");
                    assert_eq!(told, Write::Applied, "{sandbox:?} is new");
                    let arrival = sandbox.clone().arrived(NewSandbox::first_version(began));
                    let told = store.sandboxes.admit(&arrival, began).await.expect("asked");
                    assert_eq!(told, Write::Applied, "{sandbox:?} is admitted");
                }
            });
            together(seeded.collect::<Vec<_>>()).await;
        }
        sandboxes.iter().map(candidate).collect()
    }

    /// A request of `track` with its default key.
    pub(crate) fn ask(&self, track: &str) -> AllocateRequest {
        let now = self.clock.now();
        let track = TrackId::new(track).expect("a valid track");
        let lease_key = LeaseKey { key: IdempotencyKey::from(&track), track };
        AllocateRequest {
            request_id: self.entropy.request_id(now),
            lease_key,
            key_is_explicit: false,
            fingerprint: Fingerprint::of([Some("conformance")]),
            track_name: Some(TrackName::new("lab").expect("a valid lab")),
            prefix: None,
            lab_duration: LabDuration::new(4).expect("a duration"),
            heartbeat: None,
            may_wait: false,
            limited: false,
            tenant: None,
            asynchronous: false,
            times: Times { enqueued_at: now, reply_by: now, deadline: now.plus(Duration::from_secs(60)) },
        }
    }

    /// A sandbox that student-1 holds by the default key, and by which allocation.
    pub(crate) async fn held(&self) -> (Candidate, Allocation) {
        let free = self.seed(1).await.remove(0);
        self.hold(free).await
    }

    /// The same of a sandbox that is there.
    pub(crate) async fn hold(&self, free: Candidate) -> (Candidate, Allocation) {
        self.claim(&self.ask("student-1"), &free).await;
        let sandbox = self.store.sandboxes.get(&free.sandbox_id).await.expect("read").expect("there");
        (free, sandbox.allocation.expect("allocated"))
    }

    /// One claim, through `store`.
    pub(crate) async fn claim_through(
        &self,
        store: &Store,
        ask: &AllocateRequest,
        candidate: &Candidate,
    ) -> ClaimOutcome {
        let allocation_id = self.entropy.allocation_id();
        let claim = Claim {
            request: ask,
            candidate,
            allocation_id,
            now: self.clock.now(),
            listed: broker_domain::Status::Available,
            from_line: false,
            permit: None,
        };
        store.leases.claim(&claim).await.expect("the table answers")
    }

    /// One claim.
    pub(crate) async fn claim(&self, ask: &AllocateRequest, candidate: &Candidate) -> ClaimOutcome {
        self.claim_through(&self.store, ask, candidate).await
    }
}

/// The sandbox with this number.
pub(crate) fn sandbox(number: usize) -> NewSandbox {
    NewSandbox {
        id: SandboxId::new(format!("sandbox-{number:03}")).expect("a valid id"),
        name: SandboxName::new(format!("name-{number:03}")).expect("a valid name"),
        external_id: ExternalId::new(format!("identity/accounts/{number}")).expect("a valid id"),
        attributes: None,
    }
}

/// A new sandbox, as the index lists it.
pub(crate) fn candidate(sandbox: &NewSandbox) -> Candidate {
    Candidate {
        sandbox_id: sandbox.id.clone(),
        name: sandbox.name.clone(),
        external_id: sandbox.external_id.clone(),
        attributes: sandbox.attributes.clone(),
        version: 1,
    }
}
