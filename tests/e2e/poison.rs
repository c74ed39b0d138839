//! Poison message: it does not block the good ones around it, and is kept with its reason, byte for byte.

use std::collections::BTreeMap;

use broker_tests::{Setup, story, together};

use crate::{count, distinct_sandboxes};

const POISON: [&str; 5] = [
    "this is not JSON",
    "{}",
    "[1, 2, 3]",
    "{\"kind\": \"make-coffee\"}",
    "\tbytes\r\n\"of\" \\u0000 \u{fffd} \u{1f4a5}, and a very old `version`\n",
];

#[tokio::test]
async fn poison_among_good_requests_is_kept_with_a_reason_and_the_good_are_answered() {
    story(Setup::new().workers(0).pool(20), async |broker| {
        let queues = broker.queues();
        let calls: Vec<_> = (0..20).map(|n| broker.allocate(&format!("student-{n}")).send()).collect();
        let calls = tokio::spawn(together(calls));
        for body in POISON {
            queues.send(&queues.name("requests"), body).await;
        }
        queues.holds_requests(25).await;
        for _ in 0..3 {
            broker.start_worker().await;
        }

        let answers = calls.await.expect("answers");
        assert_eq!(count(&answers, 201), 20, "{answers:#?}");
        assert_eq!(distinct_sandboxes(&answers).len(), 20);
        broker.holds_letters(POISON.len()).await;
        let listed =
            broker.letters(&["--queue", "requests", "--kind", "unknown", "--reason", "malformed"]).await;
        assert_eq!(listed.len(), POISON.len(), "{listed:#?}");
        let mut bodies = BTreeMap::new();
        for letter in &listed {
            assert_eq!(letter["receives"], 1, "{letter}");
            assert!(
                letter["reason_text"].as_str().is_some_and(|why| why.contains("not a valid message")),
                "{letter}"
            );
            let id = letter["id"].as_str().expect("an id");
            let raw = broker.cli_ok(&["dead-letters", "show", id, "--raw"]).await.stdout;
            assert_eq!(letter["bytes"], raw.len());
            assert_eq!(broker.letter(id).await["body"], raw.as_str());
            bodies.insert(raw, id.to_owned());
        }
        let mut poison = POISON;
        poison.sort_unstable();
        assert_eq!(bodies.keys().collect::<Vec<_>>(), poison.iter().collect::<Vec<_>>());

        assert_eq!(
            broker.cli(&["dead-letters", "discard", "--all", "--why", " "]).await.code,
            2,
            "needs a reason"
        );
        assert_eq!(broker.cli(&["dead-letters", "discard", "--why", "x"]).await.code, 2, "needs a selection");
        let discarded = broker.discard(&["--reason", "malformed", "--by", "night-shift"]).await;
        assert_eq!((discarded.done, discarded.skipped), (5, 0), "{discarded:?}");
        let letter = broker.letter(&bodies[POISON[0]]).await;
        assert_eq!(
            (&letter["state"], &letter["discarded_because"]),
            (&"discarded".into(), &"a story ends".into())
        );
        assert_eq!(broker.replay(&[&bodies[POISON[0]]]).await.skipped, 1, "discarded is done with");
        let audit = broker.audit().await;
        let line = &audit[0];
        let said = |name: &str| line[name].as_s().expect("text").clone();
        assert_eq!(
            (said("act"), said("who"), said("why")),
            ("discard".into(), "night-shift".into(), "a story ends".into())
        );
        assert!(said("act_ended").contains("\"done\":5"), "{line:#?}");
        assert!(broker.letters(&[]).await.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_message_that_claims_what_no_message_of_ours_does_is_a_dead_letter_that_says_so() {
    story(Setup::new().workers(0).pool(2), async |broker| {
        let queues = broker.queues();
        let queue = queues.name("requests");
        broker.allocate("student-1").wait(1).send().await.expect_status(202);
        let message = queues.take(&queue, 1).await.remove(0);
        let ours: serde_json::Value = serde_json::from_str(message.body().expect("a body")).expect("JSON");
        let enqueued = ours["enqueued_at_ms"].as_u64().expect("a time");
        let claims = [
            ("/body/lab_duration_hours", serde_json::json!(65_535), "lab_duration_hours"),
            ("/body/lab_duration_hours", serde_json::json!(0), "lab_duration_hours"),
            ("/body/fingerprint", "f".repeat(200).into(), "fingerprint"),
            ("/enqueued_at_ms", (enqueued + 600_000).into(), "enqueued_at_ms"),
            ("/deadline_ms", u64::MAX.into(), "deadline_ms"),
            ("/reply_by_ms", (enqueued + 40 * 24 * 3_600_000).into(), "reply_by_ms"),
        ];
        for (place, value, _) in &claims {
            let mut claim = ours.clone();
            *claim.pointer_mut(place).expect("there") = value.clone();
            queues.send(&queue, &claim.to_string()).await;
        }
        broker.start_worker().await;
        broker.holds_letters(claims.len()).await;
        let letters = broker.letters(&["--reason", "malformed"]).await;
        let told: Vec<_> = letters.iter().filter_map(|letter| letter["reason_text"].as_str()).collect();
        for (_, value, word) in &claims {
            assert!(told.iter().any(|why| why.contains(word)), "{word} {value}: {told:#?}");
        }
        assert_eq!(broker.stats().await.available, 2, "no sandbox was granted");
        broker.discard(&["--all"]).await;
    })
    .await;
}
