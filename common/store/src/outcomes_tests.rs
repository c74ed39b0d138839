use proptest::prelude::*;

use super::*;

#[test]
fn a_cursor_reads_back_and_nothing_else_is_one() {
    let attribute = |name: &str, value: &str| (name.to_owned(), AttributeValue::S(value.to_owned()));
    let key = PageKey([attribute(PK, "SBX#a"), attribute(SK, "META")].into());
    assert_eq!(PageKey::parse(&key.encode()), Some(key));
    let long = "61".repeat(LONGEST_PK + 1) + "0a61";
    for bad in ["", "x", "zz", "5342", "ff0aff", "0a", "610A61", "+10a61", "\u{e4}\u{e4}", &long] {
        assert_eq!(PageKey::parse(bad), None, "{bad}");
    }
}

#[test]
fn the_longest_key_has_a_cursor_and_a_longer_one_none() {
    let encode = |pk: usize, sk: usize| {
        let key = [(PK, "a".repeat(pk)), (SK, "b".repeat(sk))];
        PageKey(key.map(|(name, value)| (name.to_owned(), AttributeValue::S(value))).into()).encode()
    };
    assert!(PageKey::parse(&encode(LONGEST_PK, LONGEST_SK)).is_some());
    assert!(PageKey::parse(&encode(LONGEST_PK + 1, LONGEST_SK)).is_none());
    assert!(PageKey::parse(&encode(LONGEST_PK, LONGEST_SK + 1)).is_none());
}

#[test]
fn a_lease_ends_when_the_hours_are_over_counted_from_a_whole_second() {
    let ask = crate::samples::ask(1, Timestamp::from_ms(0));
    let candidate = Candidate {
        sandbox_id: SandboxId::new("a").unwrap(),
        name: SandboxName::new("a").unwrap(),
        external_id: ExternalId::new("a").unwrap(),
        version: 1,
    };
    let allocation_id = crate::samples::allocation_id(1);
    let now = Timestamp::from_ms(1_000_999);
    let claim = Claim { request: &ask, candidate: &candidate, allocation_id, now };
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

proptest! {
    #[test]
    fn whatever_is_read_as_a_cursor_is_its_one_text(text in "([0-9a-fA-F+]{0,12}0[aA]){0,3}[0-9a-f]{0,12}") {
        if let Some(key) = PageKey::parse(&text) {
            prop_assert_eq!(key.encode(), text);
        }
    }
}
