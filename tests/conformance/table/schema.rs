//! Schema: created once, expiry on, a foreign table refused, a missing one reported.

use std::cell::RefCell;

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ProvisionedThroughput, ScalarAttributeType,
    TimeToLiveStatus,
};
use broker_store::{Stage, StoreError, adopt_table, schema};

use crate::place::{Place, SHARDS};

#[tokio::test]
async fn a_table_is_made_once_and_expires_by_ttl() {
    let place = Place::with_table().await;
    let again = schema::ensure(&place.aws.dynamodb, &place.table).await.expect("found");
    assert_eq!(again, schema::Ensured::Existed);
    let stands = schema::inspect(&place.aws.dynamodb, &place.table).await.expect("described");
    let index = schema::IndexState::Usable;
    assert_eq!(
        stands,
        schema::Inspection {
            active: true,
            keys: true,
            index,
            expires: true,
            foreign_ttl: None,
            replicas: Vec::new()
        }
    );
    assert_eq!((place.store.table(), place.store.shards()), (place.table.as_str(), SHARDS));
    let told = place.aws.dynamodb.describe_time_to_live().table_name(&place.table).send().await;
    let told = told.expect("DescribeTimeToLive").time_to_live_description.expect("described");
    assert_eq!(told.attribute_name(), Some("ttl"));
    assert_eq!(told.time_to_live_status(), Some(&TimeToLiveStatus::Enabled));
}

#[tokio::test]
async fn a_table_of_somebody_else_is_refused() {
    let place = Place::empty().await;
    let key = KeySchemaElement::builder().attribute_name("id").key_type(KeyType::Hash).build();
    let id = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let create = place.aws.dynamodb.create_table().table_name(&place.table);
    let create = create.billing_mode(BillingMode::PayPerRequest).key_schema(key.expect("all is set"));
    create.attribute_definitions(id.build().expect("all is set")).send().await.expect("CreateTable");
    let refused = schema::ensure(&place.aws.dynamodb, &place.table).await.expect_err("refused");
    assert!(matches!(refused, StoreError::Refused { .. }), "{refused:?}");
    let stands = schema::inspect(&place.aws.dynamodb, &place.table).await.expect("described");
    let index = schema::IndexState::Missing;
    assert_eq!(
        stands,
        schema::Inspection {
            active: true,
            keys: false,
            index,
            expires: false,
            foreign_ttl: None,
            replicas: Vec::new()
        }
    );
}

#[tokio::test]
async fn a_missing_table_is_told_by_every_kind_of_call() {
    let place = Place::empty().await;
    let (store, now) = (&place.store, place.clock.now());
    let free = crate::place::candidate(&crate::place::sandbox(0));
    let (ask, allocation_id) = (place.ask("student-1"), place.entropy.allocation_id());
    let claim = broker_store::Claim {
        request: &ask,
        candidate: &free,
        allocation_id,
        now,
        listed: broker_domain::Status::Available,
        from_line: false,
        permit: None,
    };
    let told = [
        store.leases.claim(&claim).await.map(drop),
        store.sandboxes.get(&free.sandbox_id).await.map(drop),
        store.ping().await,
        store.sandboxes.available(0, None, None, 10).await.map(drop),
        store.sandboxes.sweep(None, None, 10).await.map(drop),
        store.scans.page(0, 1, None).await.map(drop),
        store.sandboxes.insert(&crate::place::sandbox(0), now).await.map(drop),
        store.sandboxes.remove_stale(&free).await.map(drop),
        store.scans.together(std::slice::from_ref(&free.sandbox_id), &[], &[], &[]).await.map(drop),
    ];
    for (call, told) in told.into_iter().enumerate() {
        assert!(matches!(told, Err(StoreError::NoTable { .. })), "call {call}: {told:?}");
    }
}

/// A table with our keys and no index, as another tool makes it.
async fn bare(place: &Place, provisioned: bool) {
    let text = |name: &str| {
        let text = AttributeDefinition::builder().attribute_name(name);
        text.attribute_type(ScalarAttributeType::S).build().expect("all is set")
    };
    let key = |name: &str, kind| {
        KeySchemaElement::builder().attribute_name(name).key_type(kind).build().expect("all is set")
    };
    let create = place.aws.dynamodb.create_table().table_name(&place.table);
    let create = create.attribute_definitions(text("PK")).attribute_definitions(text("SK"));
    let create = create.key_schema(key("PK", KeyType::Hash)).key_schema(key("SK", KeyType::Range));
    let create = if provisioned {
        let units = ProvisionedThroughput::builder().read_capacity_units(5).write_capacity_units(7).build();
        create.billing_mode(BillingMode::Provisioned).provisioned_throughput(units.expect("all is set"))
    } else {
        create.billing_mode(BillingMode::PayPerRequest)
    };
    create.send().await.expect("CreateTable");
}

#[tokio::test]
async fn a_table_without_the_index_gets_it_with_what_it_holds() {
    for provisioned in [false, true] {
        let place = Place::empty().await;
        bare(&place, provisioned).await;
        // Before it has an index, as a row that the index is to list.
        let seeded = place.seed(1).await;
        let stages = RefCell::new(Vec::new());
        let tell = |stage| stages.borrow_mut().push(stage);
        adopt_table(&place.aws.dynamodb, &place.table, &tell).await.expect("the index is built");
        adopt_table(&place.aws.dynamodb, &place.table, &tell).await.expect("it is there");
        assert_eq!(stages.borrow().last(), Some(&Stage::Ready));
        let stands = schema::inspect(&place.aws.dynamodb, &place.table).await.expect("described");
        let index = schema::IndexState::Usable;
        assert_eq!((stands.active, stands.keys, stands.index, stands.expires), (true, true, index, true));
        let again = schema::ensure(&place.aws.dynamodb, &place.table).await.expect("it is ours");
        assert_eq!(again, schema::Ensured::Existed);
        let listed = place.store.sandboxes.sweep(None, None, 10).await.expect("listed");
        assert_eq!(listed.items.len(), seeded.len(), "{listed:?}");
    }
}
