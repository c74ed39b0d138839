//! A message that nobody can read does not block the good ones around it, and is kept with its reason.

use aws_sdk_sqs::types::Message;
use broker_tests::{Setup, story, together};

use crate::{count, distinct_sandboxes};

const POISON: [&str; 4] = ["this is not JSON", "{}", "[1, 2, 3]", "{\"kind\": \"make-coffee\"}"];

/// The attribute that says why a dead letter is one.
fn reason(message: &Message) -> Option<&str> {
    let attributes = message.message_attributes()?;
    let (_, value) = attributes.iter().find(|(name, _)| name.to_lowercase().contains("reason"))?;
    value.string_value().filter(|text| !text.is_empty())
}

#[tokio::test]
async fn poison_among_good_requests_is_dead_lettered_with_a_reason_and_the_good_are_answered() {
    story(Setup::new().workers(0).pool(20), async |broker| {
        let queues = broker.queues();
        let calls: Vec<_> = (0..20).map(|n| broker.allocate(&format!("student-{n}")).send()).collect();
        let calls = tokio::spawn(together(calls));
        for body in POISON {
            queues.send(&queues.name("requests"), body).await;
        }
        queues.holds_requests(24).await;
        for _ in 0..3 {
            broker.start_worker().await;
        }

        let answers = calls.await.expect("answers");
        assert_eq!(count(&answers, 201), 20, "{answers:#?}");
        assert_eq!(distinct_sandboxes(&answers).len(), 20);
        let dead = queues.take(&queues.name("requests-dlq"), POISON.len()).await;
        let mut bodies: Vec<_> = dead.iter().filter_map(Message::body).collect();
        bodies.sort_unstable();
        let mut poison = POISON;
        poison.sort_unstable();
        assert_eq!(bodies, poison);
        for letter in &dead {
            assert!(reason(letter).is_some(), "no reason: {letter:#?}");
        }
    })
    .await;
}
