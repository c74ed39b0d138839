//! Tests of the errors and outcomes of table operations.

use super::*;

#[test]
fn a_lease_ends_when_the_hours_are_over_counted_from_a_whole_second() {
    let ask = crate::samples::ask(1, Timestamp::from_ms(0));
    let candidate = Candidate {
        sandbox_id: SandboxId::new("a").unwrap(),
        name: SandboxName::new("a").unwrap(),
        external_id: ExternalId::new("a").unwrap(),
        attributes: None,
        version: 1,
    };
    let allocation_id = crate::samples::allocation_id(1);
    let now = Timestamp::from_ms(1_000_999);
    let claim = Claim {
        request: &ask,
        candidate: &candidate,
        allocation_id,
        now,
        listed: broker_domain::Status::Available,
        from_line: false,
        permit: None,
    };
    assert_eq!(claim.expires_at(), Timestamp::from_secs(1_000 + 4 * 3_600));
}

#[test]
fn each_trouble_has_its_word_and_says_whether_it_passes() {
    let source = || Box::<dyn std::error::Error + Send + Sync>::from("why");
    let troubles = [
        (StoreError::Conflict, "conflict", true),
        (StoreError::Unavailable { operation: "GetItem", source: source() }, "unavailable", true),
        (StoreError::NoTable { table: "t".to_owned() }, "no_table", true),
        (
            StoreError::Denied { operation: "GetItem", code: "ExpiredToken".to_owned(), source: source() },
            "denied",
            true,
        ),
        (StoreError::Refused { operation: "PutItem", source: source() }, "refused", false),
        (StoreError::Malformed { item: "SBX#a".to_owned(), attribute: "name" }, "malformed", false),
    ];
    for (error, word, passes) in troubles {
        assert_eq!((error.as_str(), error.is_retryable()), (word, passes));
    }
}
