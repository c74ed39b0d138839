//! Tests of the DynamoDB endpoint: claims, transactions, expiry, the data directory.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use aws_sdk_dynamodb::{
    Client,
    operation::{transact_write_items::TransactWriteItemsError, update_item::UpdateItemError},
    types::{
        AttributeDefinition, AttributeValue, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType,
        Projection, ProjectionType, Put, ReturnConsumedCapacity, ReturnValuesOnConditionCheckFailure,
        ScalarAttributeType, TimeToLiveSpecification, TransactWriteItem,
    },
};
use tokio::{task::JoinSet, time::timeout};

use super::{EndpointError, Local, SOON, Scratch, options};

const TABLE: &str = "sandboxes";

fn text(value: &str) -> AttributeValue {
    AttributeValue::S(value.to_owned())
}

pub(super) async fn create_table(client: &Client) {
    client
        .create_table()
        .table_name(TABLE)
        .billing_mode(BillingMode::PayPerRequest)
        .key_schema(KeySchemaElement::builder().attribute_name("PK").key_type(KeyType::Hash).build().unwrap())
        .attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name("PK")
                .attribute_type(ScalarAttributeType::S)
                .build()
                .unwrap(),
        )
        .send()
        .await
        .unwrap();
}

async fn put(client: &Client, key: &str, owner: &str) {
    client
        .put_item()
        .table_name(TABLE)
        .item("PK", text(key))
        .item("owner", text(owner))
        .send()
        .await
        .unwrap();
}

async fn owner(client: &Client, key: &str) -> Option<String> {
    let read = client.get_item().table_name(TABLE).key("PK", text(key)).consistent_read(true).send().await;
    read.unwrap().item?.get("owner")?.as_s().ok().cloned()
}

#[tokio::test]
async fn of_sixteen_simultaneous_claims_one_wins() {
    let local = Local::start().await;
    create_table(&local.dynamodb).await;
    for sandbox in 0..8 {
        let key = format!("SBX#{sandbox}");
        put(&local.dynamodb, &key, "nobody").await;
        let mut claims = JoinSet::new();
        for track in 0..16 {
            let claim = local
                .dynamodb
                .update_item()
                .table_name(TABLE)
                .key("PK", text(&key))
                .update_expression("SET #owner = :track")
                .condition_expression("#owner = :nobody")
                .expression_attribute_names("#owner", "owner")
                .expression_attribute_values(":track", text(&format!("track-{track}")))
                .expression_attribute_values(":nobody", text("nobody"));
            claims.spawn(async move {
                match claim.send().await.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error) {
                    Ok(_) => Some(format!("track-{track}")),
                    Err(UpdateItemError::ConditionalCheckFailedException(_)) => None,
                    Err(other) => panic!("neither won nor lost: {other:?}"),
                }
            });
        }
        let winners: Vec<String> = claims.join_all().await.into_iter().flatten().collect();
        assert_eq!(winners.len(), 1, "{winners:?}");
        assert_eq!(owner(&local.dynamodb, &key).await, Some(winners[0].clone()));
    }
}

#[tokio::test]
async fn a_cancelled_transaction_shows_the_item_that_stood_in_its_way() {
    let local = Local::start().await;
    create_table(&local.dynamodb).await;
    put(&local.dynamodb, "LEASE#track-1#key", "track-1").await;

    let put_if_absent = |key: &str| {
        let put = Put::builder()
            .table_name(TABLE)
            .item("PK", text(key))
            .item("owner", text("track-2"))
            .condition_expression("attribute_not_exists(PK)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld)
            .build()
            .unwrap();
        TransactWriteItem::builder().put(put).build()
    };
    let error = local
        .dynamodb
        .transact_write_items()
        .transact_items(put_if_absent("SBX#1"))
        .transact_items(put_if_absent("LEASE#track-1#key"))
        .send()
        .await
        .unwrap_err()
        .into_service_error();

    let TransactWriteItemsError::TransactionCanceledException(cancelled) = error else {
        panic!("not cancelled: {error:?}");
    };
    let reasons = cancelled.cancellation_reasons();
    assert_eq!(reasons[0].code(), Some("None"));
    assert_eq!(reasons[1].code(), Some("ConditionalCheckFailed"));
    assert_eq!(reasons[1].item().and_then(|item| item.get("owner")), Some(&text("track-1")));
    assert_eq!(owner(&local.dynamodb, "SBX#1").await, None, "nothing of it is written");
}

#[tokio::test]
async fn a_table_in_a_data_directory_survives_a_restart() {
    let scratch = Scratch::new();
    let data_dir = scratch.0.join("made/when/missing");
    let first = Local::start_with(options(Some(data_dir.clone()))).await.unwrap();
    create_table(&first.dynamodb).await;
    put(&first.dynamodb, "SBX#1", "track-1").await;
    first.stop().await;

    let second = Local::start_with(options(Some(data_dir))).await.unwrap();
    assert_eq!(owner(&second.dynamodb, "SBX#1").await.as_deref(), Some("track-1"));
    second.stop().await;
}

#[tokio::test]
async fn expired_items_are_gone_after_a_start() {
    let scratch = Scratch::new();
    let first = Local::start_with(options(Some(scratch.0.clone()))).await.unwrap();
    create_table(&first.dynamodb).await;
    let ttl = TimeToLiveSpecification::builder().attribute_name("ttl").enabled(true).build().unwrap();
    let enabled =
        first.dynamodb.update_time_to_live().table_name(TABLE).time_to_live_specification(ttl).send().await;
    enabled.unwrap();
    put(&first.dynamodb, "stays", "track-1").await;
    let expired = AttributeValue::N("1700000000".to_owned());
    let goes = first.dynamodb.put_item().table_name(TABLE).item("PK", text("goes")).item("ttl", expired);
    goes.item("owner", text("track-2")).send().await.unwrap();
    first.stop().await;

    let second = Local::start_with(options(Some(scratch.0.clone()))).await.unwrap();
    timeout(SOON, async { while owner(&second.dynamodb, "goes").await.is_some() {} })
        .await
        .expect("the sweep removes it");
    assert_eq!(owner(&second.dynamodb, "stays").await.as_deref(), Some("track-1"));
    second.stop().await;
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_broker_at_a_time() {
    let scratch = Scratch::new();
    let first = Local::start_with(options(Some(scratch.0.clone()))).await.unwrap();
    let refused = Local::start_with(options(Some(scratch.0.clone()))).await.err().unwrap();
    assert!(matches!(&refused, EndpointError::DataDirLocked(path) if *path == scratch.0), "{refused}");
    first.stop().await;
    Local::start_with(options(Some(scratch.0.clone()))).await.unwrap().stop().await;
}

#[tokio::test]
async fn a_data_directory_is_its_owners_and_says_its_format() {
    let scratch = Scratch::new();
    let data_dir = scratch.0.join("made");
    let local = Local::start_with(options(Some(data_dir.clone()))).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    for file in ["table.sqlite3", "table.sqlite3-wal", "table.sqlite3-shm"] {
        assert_eq!(mode(&data_dir.join(file)), 0o600, "{file}");
    }
    assert_eq!(fs::read_to_string(data_dir.join("format")).unwrap(), "sandbox-broker table 1\n");
    local.stop().await;
    fs::write(data_dir.join("format"), "sandbox-broker table 9\n").unwrap();
    let refused = Local::start_with(options(Some(data_dir.clone()))).await.err().unwrap();
    assert!(refused.to_string().contains("another version"), "{refused}");
    fs::write(data_dir.join("format"), "sandbox-broker table 1\n").unwrap();
    fs::write(data_dir.join("table.sqlite3"), "").unwrap();
    let refused = Local::start_with(options(Some(data_dir))).await.err().unwrap();
    assert!(refused.to_string().contains("is empty"), "{refused}");
}

#[tokio::test]
async fn an_unusable_data_directory_is_named() {
    let scratch = Scratch::new();
    let file = scratch.0.join("file");
    std::fs::write(&file, "in the way").unwrap();
    let refused = Local::start_with(options(Some(file.clone()))).await.err().unwrap();
    assert!(refused.to_string().contains(&file.display().to_string()), "{refused}");

    let table = scratch.0.join("table.sqlite3");
    std::fs::write(&table, "this is no SQLite file, and long enough to be looked at ".repeat(100)).unwrap();
    let refused = Local::start_with(options(Some(scratch.0.clone()))).await.err().unwrap();
    assert!(matches!(&refused, EndpointError::Table { path, .. } if *path == table), "{refused}");
}

/// The table's id and its number of items, as it is described.
async fn described(client: &Client) -> (String, i64) {
    let table = client.describe_table().table_name(TABLE).send().await.unwrap().table.unwrap();
    (table.table_id.unwrap(), table.item_count.unwrap())
}

#[tokio::test]
async fn a_table_is_described_without_counting_it_again_until_a_call_changes_it() {
    let local = Local::start().await;
    let client = &local.dynamodb;
    create_table(client).await;
    put(client, "SBX#1", "nobody").await;
    let (first, counted) = described(client).await;
    assert_eq!(counted, 1);
    put(client, "SBX#2", "nobody").await;
    // Also over another connection.
    let other = super::dynamodb_client(&local.urls().0);
    assert_eq!(described(client).await, (first.clone(), 1));
    assert_eq!(described(&other).await, (first.clone(), 1));
    // A table that is not there is not one that is.
    let missing = client.describe_table().table_name("others").send().await;
    assert!(missing.unwrap_err().into_service_error().is_resource_not_found_exception());

    client.delete_table().table_name(TABLE).send().await.unwrap();
    let gone = other.describe_table().table_name(TABLE).send().await;
    assert!(gone.unwrap_err().into_service_error().is_resource_not_found_exception());
    create_table(&other).await;
    let (second, counted) = described(client).await;
    assert_ne!(second, first, "another incarnation of the name");
    assert_eq!(counted, 0);
}

/// A table of which the index `by_state` lists each item that has a state, by `state` and `since`.
async fn create_indexed_table(client: &Client) {
    let key = |name: &str, of| KeySchemaElement::builder().attribute_name(name).key_type(of).build().unwrap();
    let attribute = |name: &str| {
        let definition = AttributeDefinition::builder().attribute_name(name);
        definition.attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let index = GlobalSecondaryIndex::builder()
        .index_name("by_state")
        .key_schema(key("state", KeyType::Hash))
        .key_schema(key("since", KeyType::Range))
        .projection(Projection::builder().projection_type(ProjectionType::All).build())
        .build()
        .unwrap();
    let table = client.create_table().table_name(TABLE).billing_mode(BillingMode::PayPerRequest);
    let table = table.key_schema(key("PK", KeyType::Hash)).global_secondary_indexes(index);
    let table = ["PK", "state", "since"]
        .map(attribute)
        .into_iter()
        .fold(table, |table, attribute| table.attribute_definitions(attribute));
    table.send().await.unwrap();
}

/// The keys that `statement` finds with `parameters`, the number of its pages, and the read units.
async fn selected(
    client: &Client,
    statement: &str,
    parameters: &[&str],
    limit: i32,
) -> (Vec<String>, u32, f64) {
    let (mut keys, mut pages, mut units, mut next) = (Vec::new(), 0, 0.0, None);
    loop {
        let asked = client.execute_statement().statement(statement).limit(limit).set_next_token(next);
        let asked = asked.set_parameters(Some(parameters.iter().map(|value| text(value)).collect()));
        let page = asked.return_consumed_capacity(ReturnConsumedCapacity::Total).send().await.unwrap();
        keys.extend(page.items().iter().map(|item| item["PK"].as_s().unwrap().clone()));
        units += page.consumed_capacity().and_then(|capacity| capacity.capacity_units()).unwrap();
        pages += 1;
        next = page.next_token;
        if next.is_none() {
            keys.sort();
            return (keys, pages, units);
        }
    }
}

#[tokio::test]
async fn partitions_of_an_index_are_read_however_large_the_others_are() {
    let local = Local::start().await;
    let client = &local.dynamodb;
    create_indexed_table(client).await;
    for (state, count) in [("busy", 200), ("a", 4), ("b", 3)] {
        for n in 0..count {
            let put = client.put_item().table_name(TABLE).item("PK", text(&format!("{state}-{n}")));
            put.item("state", text(state)).item("since", text(&format!("s{n}"))).send().await.unwrap();
        }
    }
    let begin = format!(r#"SELECT "PK" FROM "{TABLE}"."by_state" WHERE "state" IN [?, ?, ?]"#);
    let (found, pages, units) = selected(client, &begin, &["a", "none", "b"], 3).await;
    assert_eq!(found, ["a-0", "a-1", "a-2", "a-3", "b-0", "b-1", "b-2"]);
    assert!(pages <= 4 && units <= 4.0, "{pages} pages, {units} units");
    let until = format!(r#"{begin} AND "since" <= ?"#);
    let (found, ..) = selected(client, &until, &["a", "none", "b", "s1"], 100).await;
    assert_eq!(found, ["a-0", "a-1", "b-0", "b-1"]);
    let prefixed = format!(r#"{begin} AND begins_with("since", ?)"#);
    let (found, pages, _) = selected(client, &prefixed, &["a", "none", "b", "s2"], 100).await;
    assert_eq!((found, pages), (vec!["a-2".to_owned(), "b-2".to_owned()], 1));

    // What is not of that form is the library's, and so is every error.
    let (found, ..) =
        selected(client, &format!(r#"SELECT "PK" FROM "{TABLE}" WHERE "PK" = ?"#), &["b-1"], 9).await;
    assert_eq!(found, ["b-1"]);
    let first = client.execute_statement().statement(&begin).limit(2);
    let first = first.set_parameters(Some(["a", "b", "none"].map(text).to_vec())).send().await.unwrap();
    let other = client.execute_statement().statement(&begin).set_next_token(first.next_token);
    let other = other.set_parameters(Some(["b", "a", "none"].map(text).to_vec())).send().await;
    assert!(other.is_err(), "a token is good for the parameters that gave it");
    let unknown = client.execute_statement().statement(begin.replace(TABLE, "no-such-table"));
    let unknown = unknown.set_parameters(Some(["a", "b", "c"].map(text).to_vec())).send().await.unwrap_err();
    assert!(
        unknown.as_service_error().is_some_and(|error| error.is_resource_not_found_exception()),
        "{unknown:?}"
    );
}
