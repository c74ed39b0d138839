//! Tests of the comparison of a table with the schema.

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
        .set_attribute_definitions(Some([PK, SK, STATE_SHARD, STATE_KEY].map(text).to_vec()))
        .table_arn("arn:aws:dynamodb:eu-central-1:1:table/t")
        .global_secondary_indexes(index)
        .build()
}

fn text(name: &str) -> AttributeDefinition {
    attribute(name, ScalarAttributeType::S)
}

fn attribute(name: &str, kind: ScalarAttributeType) -> AttributeDefinition {
    AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
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

#[test]
fn keys_of_another_type_or_role_are_not_ours() {
    let ours = || table(STATE_INDEX, [STATE_SHARD, STATE_KEY], ProjectionType::All, &[], IndexStatus::Active);
    assert!(must_be_ours(&ours()).is_ok());
    let mut of_numbers = ours();
    let number = attribute(SK, ScalarAttributeType::N);
    of_numbers.attribute_definitions = Some(vec![text(PK), number, text(STATE_SHARD), text(STATE_KEY)]);
    let mut turned = ours();
    turned.key_schema = Some(vec![key(SK, KeyType::Hash), key(PK, KeyType::Range)]);
    let mut alone = ours();
    alone.key_schema = Some(vec![key(PK, KeyType::Hash)]);
    for foreign in [of_numbers, turned, alone] {
        assert!(must_be_ours(&foreign).is_err(), "{foreign:?}");
    }
    let bare =
        table(STATE_INDEX, [STATE_SHARD, STATE_KEY], ProjectionType::KeysOnly, &[], IndexStatus::Active);
    assert!(must_be_ours(&bare).is_err(), "it lacks what claims need");
}

#[test]
fn a_table_with_a_replica_in_another_region_is_refused() {
    use aws_sdk_dynamodb::types::ReplicaDescription;
    let with = |regions: &[&str]| {
        let mut table =
            table(STATE_INDEX, [STATE_SHARD, STATE_KEY], ProjectionType::All, &[], IndexStatus::Active);
        let replica = |region: &&str| ReplicaDescription::builder().region_name(*region).build();
        table.replicas = Some(regions.iter().map(replica).collect());
        table
    };
    assert!(must_be_ours(&with(&["eu-central-1"])).is_ok(), "itself");
    let two = with(&["eu-central-1", "us-east-1"]);
    assert_eq!(replicas(&two), ["us-east-1"]);
    let StoreError::Refused { source, .. } = must_be_ours(&two).unwrap_err() else { panic!("not refused") };
    assert!(source.to_string().contains("us-east-1"), "{source}");
    let mut old = with(&[]);
    old.global_table_version = Some("2017.11.29".to_owned());
    assert!(must_be_ours(&old).is_err());
}
