//! Property tests of pages and the loop over them.

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

#[tokio::test]
async fn pages_go_on_behind_the_last_key_and_end_with_the_last_or_with_an_error() {
    let mut pages = Pages::new(async |after: Option<u8>| {
        let page = after.unwrap_or_default();
        Ok(Page { items: page, next: (page < 2).then_some(page + 1) })
    });
    let mut read = Vec::new();
    while let Some(page) = pages.next().await.unwrap() {
        read.push(page);
    }
    assert_eq!(read, [0, 1, 2]);
    let mut failing = Pages::new(async |_: Option<u8>| Err::<Page<(), u8>, _>(StoreError::Conflict));
    assert!(matches!(failing.next().await, Err(StoreError::Conflict)));
    assert!(matches!(failing.next().await, Ok(None)));
}

proptest! {
    #[test]
    fn whatever_is_read_as_a_cursor_is_its_one_text(text in "([0-9a-fA-F+]{0,12}0[aA]){0,3}[0-9a-f]{0,12}") {
        if let Some(key) = PageKey::parse(&text) {
            prop_assert_eq!(key.encode(), text);
        }
    }
}
