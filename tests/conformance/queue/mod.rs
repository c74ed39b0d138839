//! Conformance of queues.

mod messages;
mod topology;

use std::time::Duration;

use broker_queue::{Delivery, PollOptions, Queue, ReceiveEnd, Receiver};
use broker_tests::wait::PATIENCE;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::place::Place;

/// A receiver at work, and what it handed on.
struct Receiving {
    handed_on: mpsc::UnboundedReceiver<Delivery>,
    stop: CancellationToken,
    run: JoinHandle<ReceiveEnd>,
}

impl Receiving {
    /// `visibility`: how long a received message is hidden; `None`: as the queue says.
    fn start(place: &Place, queue: &Queue, visibility: Option<Duration>) -> Self {
        let (hand_on, handed_on) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let options = PollOptions { wait: Duration::from_secs(1), visibility, max_polls: 4 };
        let (client, entropy) = (place.aws.sqs_receive.clone(), place.entropy.clone());
        let receiver = Receiver::new(client, queue.clone(), place.clock.clone(), entropy, options);
        let run = tokio::spawn(receiver.run(stop.clone(), move |delivery, _| {
            // A case that ended listens no longer.
            let _ = hand_on.send(delivery);
        }));
        Self { handed_on, stop, run }
    }

    async fn next(&mut self) -> Delivery {
        let next = timeout(PATIENCE, self.handed_on.recv()).await;
        next.expect("a message should have come").expect("the receiver lives")
    }

    /// Ends it; nothing may have come beyond what was looked at.
    async fn brought_nothing_more(mut self) {
        self.stop.cancel();
        let ended = timeout(PATIENCE, self.run).await.expect("the last poll ends").expect("no panic");
        assert_eq!(ended, ReceiveEnd::Stopped);
        let more = self.handed_on.try_recv();
        assert!(more.is_err(), "{more:?}");
    }
}
