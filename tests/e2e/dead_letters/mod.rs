//! Dead letters: listed, shown, replayed, discarded.

mod admin;
mod causes;
#[path = "../../letters/many.rs"]
mod many;
mod outcomes;
mod together;

use broker_tests::{Broker, Call};
use serde_json::Value;

/// Makes a call that no worker answers, and takes its message out of the queue; the message, and where the outcome is asked
/// for.
async fn taken(broker: &Broker, call: Call) -> (Value, String) {
    let queued = call.send().await.expect_status(202);
    let queues = broker.queues();
    let message = queues.take(&queues.name("requests"), 1).await.remove(0);
    let message = serde_json::from_str(message.body().expect("a body")).expect("JSON");
    (message, queued.must_have("location").to_owned())
}

/// Puts a message into the dead-letter queue, as redrive or another program would.
async fn bury(broker: &Broker, message: &Value) {
    let queues = broker.queues();
    queues.send(&queues.name("requests-dlq"), &message.to_string()).await;
}

/// As if it had been made an hour ago: its deadline is over.
fn aged(mut message: Value) -> Value {
    for name in ["enqueued_at_ms", "reply_by_ms", "deadline_ms"] {
        message[name] = (message[name].as_u64().expect("a time") - 3_600_000).into();
    }
    message
}

/// The state of the request at `location`.
async fn status(broker: &Broker, location: &str, track: &str) -> String {
    broker.request(location, track).send().await.expect_status(200).text_of("status").to_owned()
}

#[tokio::test]
async fn hundreds_are_drained_listed_half_replayed_by_a_process_that_is_killed_and_replayed_again() {
    const LETTERS: usize = 600;
    broker_tests::story(
        broker_tests::Setup::new().apis(0).workers(0).pool(LETTERS / 4 + 10),
        async |broker| {
            let figures = many::tell(broker, LETTERS).await;
            println!(
                "{figures:?} {:?}",
                (figures.drained, figures.listed, figures.filtered, figures.replay_calls.len())
            );
        },
    )
    .await;
}
