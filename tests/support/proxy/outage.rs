//! Outage of a service.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::ShapedService;

/// How a service is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Connections are closed at once, calls under way break off.
    Refused,
    /// Connections are accepted and nothing is ever answered.
    Silent,
}

/// Ends the outage when dropped.
#[derive(Debug)]
#[must_use = "dropped, the service is back"]
pub struct Away {
    service: ShapedService,
    outages: Arc<Inner>,
    number: u64,
}

#[derive(Clone, Debug)]
pub(super) struct Outages(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sqs: watch::Sender<Option<Outage>>,
    dynamodb: watch::Sender<Option<Outage>>,
    /// Which outage of each service is the newest: a guard of an older one ends nothing.
    numbers: Mutex<[u64; 2]>,
}

impl Inner {
    const fn of(&self, service: ShapedService) -> &watch::Sender<Option<Outage>> {
        match service {
            ShapedService::Sqs => &self.sqs,
            ShapedService::DynamoDb => &self.dynamodb,
        }
    }
}

impl Outages {
    pub(super) fn new() -> Self {
        let (sqs, dynamodb) = (watch::Sender::new(None), watch::Sender::new(None));
        Self(Arc::new(Inner { sqs, dynamodb, numbers: Mutex::default() }))
    }

    pub(super) fn begin(&self, service: ShapedService, outage: Outage) -> Away {
        let mut numbers = self.0.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        let number = &mut numbers[service as usize];
        *number += 1;
        self.0.of(service).send_replace(Some(outage));
        Away { service, outages: Arc::clone(&self.0), number: *number }
    }

    pub(super) fn end_all(&self) {
        for service in [ShapedService::Sqs, ShapedService::DynamoDb] {
            self.0.of(service).send_replace(None);
        }
    }

    /// The state of a service, which can be waited on.
    pub(super) fn watch(&self, service: ShapedService) -> watch::Receiver<Option<Outage>> {
        self.0.of(service).subscribe()
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        let numbers = self.outages.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        if numbers[self.service as usize] == self.number {
            self.outages.of(self.service).send_replace(None);
        }
    }
}
