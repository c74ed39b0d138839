use super::*;

fn key(name: &str, kind: KeyType) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(kind).build().unwrap()
}

/// A table with one index of these keys, this projection and this status.
fn table(
    name: &str,
    keys: [&str; 2],
    kind: ProjectionType,
    carried: &[&str],
    status: IndexStatus,
) -> TableDescription {
    let carried: Vec<_> = carried.iter().map(|name| (*name).to_owned()).collect();
    let projection =
        Projection::builder().projection_type(kind).set_non_key_attributes(Some(carried)).build();
    let index = aws_sdk_dynamodb::types::GlobalSecondaryIndexDescription::builder()
        .index_name(name)
        .key_schema(key(keys[0], KeyType::Hash))
        .key_schema(key(keys[1], KeyType::Range))
        .projection(projection)
        .index_status(status)
        .build();
    TableDescription::builder()
        .key_schema(key(PK, KeyType::Hash))
        .key_schema(key(SK, KeyType::Range))
        .global_secondary_indexes(index)
        .build()
}

#[test]
fn an_index_is_usable_once_it_is_active_and_carries_what_claims_need() {
    let (ours, include) = ([STATE_SHARD, STATE_KEY], ProjectionType::Include);
    let state =
        |name, keys, kind, carried: &[&str], status| index_state(&table(name, keys, kind, carried, status));
    let active = || IndexStatus::Active;
    assert_eq!(state(STATE_INDEX, ours, include.clone(), &PROJECTED, active()), IndexState::Usable);
    assert_eq!(state(STATE_INDEX, ours, ProjectionType::All, &[], active()), IndexState::Usable);
    assert_eq!(state(STATE_INDEX, ours, include.clone(), &PROJECTED[1..], active()), IndexState::Foreign);
    assert_eq!(state(STATE_INDEX, ours, ProjectionType::KeysOnly, &[], active()), IndexState::Foreign);
    let other = [STATE_KEY, STATE_SHARD];
    assert_eq!(state(STATE_INDEX, other, include.clone(), &PROJECTED, active()), IndexState::Foreign);
    assert_eq!(state("OtherIndex", ours, include.clone(), &PROJECTED, active()), IndexState::Missing);
    let building = state(STATE_INDEX, ours, include, &PROJECTED, IndexStatus::Creating);
    assert_eq!(building, IndexState::NotActive);
}

#[test]
fn a_table_is_ours_by_its_keys_and_by_the_keys_of_its_index() {
    let all = || ProjectionType::All;
    let stands = |name, keys| must_be_ours(&table(name, keys, all(), &[], IndexStatus::Active)).is_ok();
    assert!(stands(STATE_INDEX, [STATE_SHARD, STATE_KEY]));
    assert!(!stands(STATE_INDEX, [STATE_KEY, STATE_SHARD]));
    assert!(!stands("OtherIndex", [STATE_SHARD, STATE_KEY]));
    let index = table(STATE_INDEX, [STATE_SHARD, STATE_KEY], all(), &[], IndexStatus::Active);
    let foreign = TableDescription::builder().key_schema(key("id", KeyType::Hash));
    let foreign = foreign.set_global_secondary_indexes(index.global_secondary_indexes).build();
    assert!(must_be_ours(&foreign).is_err());
}
