//! Messages of the last release, byte for byte (`tests/fixtures/last_release`): they are read, and written again as they
//! were, so the last release reads what this one writes.

use super::{Incoming, Reply, RequestMessage};

const MESSAGES: &str = include_str!("../../../tests/fixtures/last_release/messages.txt");

fn of(queue: &str) -> Vec<&'static str> {
    let lines = MESSAGES.lines().filter_map(|line| line.split_once('\t'));
    lines.filter(|(of, _)| *of == queue).map(|(_, text)| text).collect()
}

#[test]
fn messages_of_the_last_release_are_read_and_written_byte_for_byte() {
    assert_eq!([of("requests").len(), of("maintenance").len(), of("scheduled").len()], [3, 4, 1]);
    for told in of("requests") {
        assert_eq!(RequestMessage::decode(told).expect(told).encode(), told);
    }
    for told in [of("maintenance"), of("scheduled")].concat() {
        let again = match Incoming::decode(told).expect(told) {
            Incoming::Ours(message) => message.encode(),
            Incoming::Trigger(trigger) => trigger.encode(),
        };
        assert_eq!(again, told);
    }
    assert_eq!(of("replies").len(), 5);
    for told in of("replies") {
        assert_eq!(Reply::decode(told).expect(told).encode(), told);
    }
}
