//! Tests of the queues over HTTP: the real SDK against an embedded SQS endpoint on 127.0.0.1.

mod acknowledgement;
mod endpoint;
mod receiving;
mod sending;
mod topology;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::endpoint::Sqs;
use super::{Delivery, PollOptions, Queue, ReceiveEnd, Receiver};

/// The timeout of every wait.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running receiver and its messages.
struct Receiving {
    handed_on: mpsc::UnboundedReceiver<(Delivery, Option<OwnedSemaphorePermit>)>,
    stop: CancellationToken,
    run: JoinHandle<ReceiveEnd>,
}

impl Receiving {
    fn start(receiver: Receiver) -> Self {
        let (hand_on, handed_on) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let run = tokio::spawn(receiver.run(stop.clone(), move |delivery, permit| {
            // A test that has ended does not listen.
            let _ = hand_on.send((delivery, permit));
        }));
        Self { handed_on, stop, run }
    }

    async fn next(&mut self) -> (Delivery, Option<OwnedSemaphorePermit>) {
        let next = tokio::time::timeout(PATIENCE, self.handed_on.recv()).await;
        next.expect("a message should have come").expect("the receiver lives")
    }

    async fn bodies(&mut self, count: usize) -> Vec<String> {
        let mut bodies = Vec::new();
        for _ in 0..count {
            bodies.push(self.next().await.0.body);
        }
        bodies.sort();
        bodies
    }

    async fn stop(self) -> ReceiveEnd {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.run).await.expect("the last poll ends").expect("no panic")
    }
}

fn options() -> PollOptions {
    PollOptions { wait: Duration::from_secs(1), visibility: None, max_polls: 4 }
}

fn receiver(sqs: &Sqs, queue: Queue) -> Receiver {
    Receiver::new(sqs.aws.sqs_receive.clone(), queue, sqs.clock.clone(), sqs.entropy.clone(), options())
}

fn with_permits(sqs: &Sqs, queue: Queue, permits: usize) -> (Receiver, Arc<Semaphore>) {
    let permits = Arc::new(Semaphore::new(permits));
    (receiver(sqs, queue).with_permits(Arc::clone(&permits)), permits)
}

/// Polls a condition until it is true.
async fn until<F: Future<Output = bool>>(what: &str, ask: impl Fn() -> F) {
    let asking = async {
        while !ask().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, asking).await.is_ok(), "never came true: {what}");
}
