//! Tests of the places of the list of the pool.

use super::*;
use crate::PageKey;

#[test]
fn every_state_is_listed_but_that_of_tombstones() {
    let listed = |status: &Status| *status == Status::Deleted || LISTED.contains(status);
    assert!(Status::ALL.iter().all(listed));
    assert_eq!(LISTED.len() + 1, Status::ALL.len());
}

#[test]
fn a_place_is_read_as_it_was_written_and_nothing_else_is_one() {
    let id = SandboxId::new("seed-000001").unwrap();
    let row = IndexedAfter { key: "000001234567".to_owned(), id: id.clone() };
    let key = PageKey::parse(&hex::encode("LEASE#a#b\nMETA"));
    let places = [
        PoolPlace::Index { status: Status::Allocated, shard: 7, after: Some(row) },
        PoolPlace::Index { status: Status::Arriving, shard: 0, after: None },
        PoolPlace::Table { after: key, shown: Some(id), unlisted: false },
        PoolPlace::Table { after: None, shown: None, unlisted: true },
    ];
    for place in places {
        assert_eq!(PoolPlace::parse(&place.to_text()), Some(place));
    }
    let bad = [
        "",
        "index",
        "index\ndeleted\n0\n\n",
        "index\nlost\n0\n\n",
        "index\navailable\n256\n\n",
        "index\navailable\n-1\n\n",
        "index\navailable\n0\nkey\n",
        "index\navailable\n0\n\nseed-1",
        "index\navailable\n0\nkey\nseed-1\nmore",
        "table\nzz\n",
        "table\n\na b",
    ];
    for text in bad {
        assert_eq!(PoolPlace::parse(text), None, "{text:?}");
    }
    let long = format!("index\navailable\n0\n{}\nseed-1", "k".repeat(1_025));
    assert_eq!(PoolPlace::parse(&long), None);
}
