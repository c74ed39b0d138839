//! Plan of one run: its broker, its load, its results.

use std::time::Duration;

use broker_tests::{Broker, Latency, Setup};

use crate::metrics;
use crate::scenario::{Play, Scenario};
use crate::shape::Shape;
use crate::tally::Tally;

/// What `pool verify` found after a run.
#[derive(Debug)]
pub(crate) struct Violation;

/// A broker and a load.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: Scenario,
    pub(crate) users: usize,
    pub(crate) seconds: u64,
    /// Requests per second, where the scenario has a rate.
    pub(crate) rate: u64,
    /// Sandboxes; by default enough for the scenario.
    pub(crate) pool: Option<usize>,
    pub(crate) apis: usize,
    pub(crate) workers: usize,
    /// Environment variables of the processes.
    pub(crate) vars: Vec<(&'static str, &'static str)>,
    /// What each SQS and each DynamoDB call takes more, in milliseconds.
    pub(crate) hops: Option<(u64, u64)>,
    pub(crate) shape: Shape,
}

impl Plan {
    /// Fifty users, ten seconds, one API and two workers.
    pub(crate) const fn of(scenario: Scenario) -> Self {
        Self {
            scenario,
            users: 50,
            seconds: 10,
            rate: 1_000,
            pool: None,
            apis: 1,
            workers: 2,
            vars: Vec::new(),
            hops: None,
            shape: Shape::Loopback,
        }
    }

    /// One run on a broker of its own.
    pub(crate) async fn measure(&self) -> Result<Tally, Violation> {
        let pool = self.pool.unwrap_or_else(|| self.scenario.pool(self.users, self.rate, self.seconds));
        let mut setup = self.shape.on(Setup::new().apis(self.apis).workers(self.workers).pool(pool));
        for (name, value) in &self.vars {
            setup = setup.var(name, value);
        }
        if self.hops.is_some() {
            setup = setup.faults(1);
        }
        let broker = Broker::start(setup).await;
        if let Some((sqs, dynamodb)) = self.hops {
            let (sqs, dynamodb) = (Duration::from_millis(sqs), Duration::from_millis(dynamodb));
            let latency = Latency { sqs: (sqs, sqs), dynamodb: (dynamodb, dynamodb), ..Latency::none() };
            broker.proxy().set_latency(latency);
        }
        self.shape.begin(&broker);
        let idle = broker.resources().await;
        let duration = Duration::from_secs(self.seconds);
        let play = Play::prepare(&broker, self.scenario, self.users, duration).await;
        let before = (metrics::costs(&broker).await, broker.resources().await);
        let samples = play.run(self.rate, duration).await;
        let after = (metrics::costs(&broker).await, broker.resources().await);
        let tally = Tally::new(&samples, &idle, &before, &after);
        let verdict = broker.cli(&["pool", "verify"]).await;
        broker.finish().await;
        if verdict.code == 0 {
            Ok(tally)
        } else {
            println!("pool verify: {}{}", verdict.stdout, verdict.stderr);
            Err(Violation)
        }
    }
}
