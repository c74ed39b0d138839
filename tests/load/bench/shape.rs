//! Shape of the hops between the processes and the endpoints.

use broker_tests::{Broker, Setup};
use clap::ValueEnum;

/// How long the hops are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shape {
    /// As on one machine.
    #[default]
    Loopback,
    /// With AWS's times, tails, conflicts and lag.
    Aws,
}

impl Shape {
    pub(crate) const BOTH: [Self; 2] = [Self::Loopback, Self::Aws];
    /// The mean of a call of SQS in AWS's shape, in milliseconds: 8 to 25, the shorter more often, and the tails.
    const SQS_MS: f64 = 8.0 + 17.0 / 3.0 + 0.01 * 95.0 + 0.001 * 550.0;
    /// The same of DynamoDB: 4 to 12.
    const DYNAMODB_MS: f64 = 4.0 + 8.0 / 3.0 + 0.01 * 95.0 + 0.001 * 550.0;
    /// How long a transaction has its items, beyond its hop: 2 to 6 ms.
    const TRANSACTION_MS: f64 = 4.0;
    /// What an allocation crosses in AWS's shape, one after the other: send, receive, claim, send, receive.
    pub(crate) const HOPS_MS: f64 = 4.0 * Self::SQS_MS + Self::DYNAMODB_MS + Self::TRANSACTION_MS;

    /// A broker of its own, with hops of this shape from [`begin`](Self::begin) on.
    pub(crate) fn on(self, setup: Setup) -> Setup {
        let setup = setup.alone();
        if self == Self::Aws { setup.faults(1) } else { setup }
    }

    /// What is asked before is not measured, and takes no longer than it must.
    pub(crate) fn begin(self, broker: &Broker) {
        if self == Self::Aws {
            broker.proxy().behave_as_aws(1);
        }
    }
}
