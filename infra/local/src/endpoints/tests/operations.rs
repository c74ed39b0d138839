//! Tests of the operations that are run without the library's server: their answers are the library's.

use aws_sdk_dynamodb::error::ProvideErrorMetadata as _;
use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem, Update};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::Local;

/// The content type of the SDKs, and one that is left to the library's server.
const HERE: &str = "application/x-amz-json-1.0";
const LIBRARY: &str = "application/json";

#[derive(Debug)]
struct Told {
    status: u16,
    body: Value,
    /// Whether the library's server said it.
    by_server: bool,
}

async fn told(local: &Local, content_type: &str, operation: &str, body: &str) -> Told {
    let (url, _) = local.urls();
    let host = url.trim_start_matches("http://");
    let length = body.len();
    let signature = "AWS4-HMAC-SHA256 Credential=a/20261130/eu-west-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0";
    let asked = format!(
        "POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\nX-Amz-Target: DynamoDB_20120810.{operation}\r\nX-Amz-Date: 20261130T000000Z\r\nAuthorization: {signature}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let mut stream = TcpStream::connect(host).await.unwrap();
    stream.write_all(asked.as_bytes()).await.unwrap();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read).to_ascii_lowercase();
        if let Some((head, _)) = text.split_once("\r\n\r\n") {
            let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
            let begin = head.len() + 4;
            if read.len() >= begin + length.parse::<usize>().unwrap() {
                return Told {
                    status: head.split(' ').nth(1).unwrap().parse().unwrap(),
                    body: serde_json::from_slice(&read[begin..]).unwrap(),
                    by_server: head.contains("server: dynoxide"),
                };
            }
        }
        assert_ne!(stream.read_buf(&mut read).await.unwrap(), 0, "{text}");
    }
}

fn key(name: &str) -> Value {
    json!({ "PK": { "S": name } })
}

/// A row with the state `state` in the index.
fn row(name: &str, state: &str, number: &str) -> Value {
    json!({ "PK": { "S": name }, "state": { "S": state }, "number": { "N": number }, "tags": { "SS": ["b", "a"] } })
}

fn item_calls() -> Vec<(&'static str, Value)> {
    let absent = |name: &str| json!({ "TableName": "rows", "Item": row(name, "free", "1"), "ConditionExpression": "attribute_not_exists(PK)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD" });
    let counted = json!({
        "TableName": "rows", "Key": key("a"), "UpdateExpression": "SET #n = #n + :one", "ConditionExpression": "#n >= :one",
        "ExpressionAttributeNames": { "#n": "number" }, "ExpressionAttributeValues": { ":one": { "N": "1" } },
        "ReturnValues": "ALL_NEW", "ReturnConsumedCapacity": "TOTAL",
    });
    vec![
        ("PutItem", absent("a")),
        ("PutItem", absent("a")),
        ("PutItem", json!({ "TableName": "rows", "Item": row("b", "free", "0012.50") })),
        ("UpdateItem", counted.clone()),
        ("UpdateItem", counted),
        ("GetItem", json!({ "TableName": "rows", "Key": key("a"), "ConsistentRead": true })),
        ("GetItem", json!({ "TableName": "rows", "Key": key("none") })),
        (
            "BatchGetItem",
            json!({ "RequestItems": { "rows": { "Keys": [key("a"), key("none")], "ProjectionExpression": "PK" } } }),
        ),
        (
            "BatchWriteItem",
            json!({ "RequestItems": { "rows": [{ "PutRequest": { "Item": row("c", "held", "3") } }, { "DeleteRequest": { "Key": key("b") } }] } }),
        ),
        (
            "Query",
            json!({
                "TableName": "rows", "IndexName": "by-state", "KeyConditionExpression": "#s = :s",
                "ExpressionAttributeNames": { "#s": "state" }, "ExpressionAttributeValues": { ":s": { "S": "free" } },
                "Limit": 1, "ReturnConsumedCapacity": "INDEXES",
            }),
        ),
        (
            "DeleteItem",
            json!({ "TableName": "rows", "Key": key("c"), "ConditionExpression": "attribute_not_exists(PK)" }),
        ),
        ("DeleteItem", json!({ "TableName": "rows", "Key": key("c"), "ReturnValues": "ALL_OLD" })),
    ]
}

fn transactions() -> Vec<(&'static str, Value)> {
    let put = |name: &str| json!({ "Put": { "TableName": "rows", "Item": row(name, "free", "1"), "ConditionExpression": "attribute_not_exists(PK)", "ReturnValuesOnConditionCheckFailure": "ALL_OLD" } });
    let update = json!({ "Update": {
        "TableName": "rows", "Key": key("a"), "UpdateExpression": "SET #n = :one REMOVE tags", "ConditionExpression": "#n > :one",
        "ExpressionAttributeNames": { "#n": "number" }, "ExpressionAttributeValues": { ":one": { "N": "1" } },
    } });
    let check = json!({ "ConditionCheck": { "TableName": "rows", "Key": key("a"), "ConditionExpression": "attribute_exists(PK)" } });
    let delete = json!({ "Delete": { "TableName": "rows", "Key": key("d") } });
    let of = |items: Value| ("TransactWriteItems", json!({ "TransactItems": items }));
    let mut with_capacity = of(json!([put("d"), update]));
    with_capacity.1["ReturnConsumedCapacity"] = json!("INDEXES");
    vec![
        with_capacity,
        of(json!([put("e"), update])),
        of(json!([put("a"), put("f")])),
        of(json!([check, delete])),
    ]
}

/// What is refused, and in which words.
fn refused() -> Vec<(&'static str, Value)> {
    let put = |item: Value| ("PutItem", json!({ "TableName": "rows", "Item": item }));
    let transact = |items: Value| ("TransactWriteItems", json!({ "TransactItems": items }));
    let delete = json!({ "Delete": { "TableName": "rows", "Key": key("x") } });
    vec![
        ("GetItem", json!({ "TableName": "none", "Key": key("a") })),
        ("GetItem", json!({ "TableName": "rows", "Key": { "other": { "S": "a" } } })),
        ("GetItem", json!({ "TableName": "rows", "Key": "a" })),
        ("GetItem", json!({ "TableName": "rows" })),
        ("GetItem", json!(7)),
        put(json!({ "PK": { "S": "" } })),
        put(json!({ "PK": { "S": "n" }, "number": { "N": "12345678901234567890123456789012345678901" } })),
        put(json!({ "PK": { "S": "n" }, "number": { "N": "one" } })),
        put(json!({ "PK": { "S": "n" }, "two": { "S": "a", "N": "1" } })),
        put(json!({ "PK": { "S": "n" }, "none": {} })),
        ("PutItem", json!({ "TableName": "rows", "Item": row("n", "s", "1"), "ReturnValues": "ALL_NEW" })),
        (
            "UpdateItem",
            json!({ "TableName": "rows", "Key": key("a"), "UpdateExpression": "SET size = :v", "ExpressionAttributeValues": { ":v": { "N": "1" } } }),
        ),
        (
            "UpdateItem",
            json!({ "TableName": "rows", "Key": key("a"), "UpdateExpression": "SET a = a + :v", "ExpressionAttributeValues": { ":v": { "N": "1" } } }),
        ),
        ("Query", json!({ "TableName": "rows", "KeyConditionExpression": "PK > :v" })),
        transact(json!([])),
        transact(json!([delete, delete])),
        transact(json!([{ "Put": { "TableName": "none", "Item": key("x") } }])),
        transact(
            json!([{ "Delete": { "TableName": "rows", "Key": key("x") }, "Put": { "TableName": "rows", "Item": key("x") } }]),
        ),
        transact(
            json!([{ "Put": { "TableName": "rows", "Item": { "PK": { "S": "x" }, "number": { "N": "1e200" } } } }]),
        ),
        transact(Value::Array(vec![delete.clone(); 101])),
        ("TransactWriteItems", json!({ "TransactItems": [delete], "ClientRequestToken": "x".repeat(37) })),
        ("BatchWriteItem", json!({ "RequestItems": { "rows": [] } })),
        ("BatchGetItem", json!({ "RequestItems": {} })),
    ]
}

#[tokio::test]
async fn an_operation_that_is_run_here_is_answered_as_by_the_library() {
    let (here, library) = (Local::start().await, Local::start().await);
    let table = json!({
        "TableName": "rows", "BillingMode": "PAY_PER_REQUEST", "KeySchema": [{ "AttributeName": "PK", "KeyType": "HASH" }],
        "AttributeDefinitions": [{ "AttributeName": "PK", "AttributeType": "S" }, { "AttributeName": "state", "AttributeType": "S" }],
        "GlobalSecondaryIndexes": [{ "IndexName": "by-state", "KeySchema": [{ "AttributeName": "state", "KeyType": "HASH" }], "Projection": { "ProjectionType": "ALL" } }],
    });
    for local in [&here, &library] {
        assert_eq!(told(local, LIBRARY, "CreateTable", &table.to_string()).await.status, 200);
    }
    let rows = ("Scan", json!({ "TableName": "rows" }));
    for (operation, body) in item_calls().into_iter().chain(transactions()) {
        let (ours, theirs) = (
            told(&here, HERE, operation, &body.to_string()).await,
            told(&library, LIBRARY, operation, &body.to_string()).await,
        );
        assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body), "{operation} {body}");
        assert!(!ours.by_server && theirs.by_server, "{operation} {body}: {ours:?}");
    }
    for (operation, body) in refused() {
        let (ours, theirs) = (
            told(&here, HERE, operation, &body.to_string()).await,
            told(&library, LIBRARY, operation, &body.to_string()).await,
        );
        assert_eq!(theirs.status, 400, "{operation} {body}: {theirs:?}");
        assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body), "{operation} {body}");
    }
    for body in ["", "{", "null", "{\"TableName\":\"t\"}{}"] {
        let (ours, theirs) =
            (told(&here, HERE, "PutItem", body).await, told(&library, LIBRARY, "PutItem", body).await);
        assert_eq!((ours.status, &ours.body), (theirs.status, &theirs.body), "{body}");
    }
    let (ours, theirs) = (
        told(&here, LIBRARY, rows.0, &rows.1.to_string()).await,
        told(&library, LIBRARY, rows.0, &rows.1.to_string()).await,
    );
    assert_eq!(ours.body["Count"], json!(1), "{ours:?}");
    assert_eq!(ours.body, theirs.body);
    here.stop().await;
    library.stop().await;
}

fn counted(key: &str) -> TransactWriteItem {
    let update = Update::builder()
        .table_name("sandboxes")
        .key("PK", AttributeValue::S(key.to_owned()))
        .update_expression("ADD #times :one SET #a = :a, #b = :b")
        .expression_attribute_names("#times", "times")
        .expression_attribute_names("#a", "a")
        .expression_attribute_names("#b", "b")
        .expression_attribute_values(":one", AttributeValue::N("1".to_owned()))
        .expression_attribute_values(":a", AttributeValue::S("a".to_owned()))
        .expression_attribute_values(":b", AttributeValue::L(vec![AttributeValue::Bool(true)]));
    TransactWriteItem::builder().update(update.build().unwrap()).build()
}

async fn times(local: &Local, key: &str) -> Option<String> {
    let get = local.dynamodb.get_item().table_name("sandboxes").consistent_read(true);
    let read = get.key("PK", AttributeValue::S(key.to_owned())).send().await.unwrap();
    read.item?.get("times")?.as_n().ok().cloned()
}

#[tokio::test]
async fn of_simultaneous_transactions_with_a_token_one_is_done_and_another_content_is_refused() {
    let local = Local::start().await;
    super::dynamodb::create_table(&local.dynamodb).await;
    let send = |key: &str| {
        local
            .dynamodb
            .transact_write_items()
            .client_request_token("token-1")
            .transact_items(counted(key))
            .send()
    };
    let mut sent = JoinSet::new();
    for _ in 0..16 {
        sent.spawn(send("a"));
    }
    for done in sent.join_all().await {
        done.unwrap();
    }
    assert_eq!(times(&local, "a").await.as_deref(), Some("1"));
    let refused = send("b").await.unwrap_err();
    assert_eq!(refused.code(), Some("IdempotentParameterMismatchException"));
    assert_eq!(times(&local, "b").await, None);
    local.stop().await;
}

#[tokio::test]
async fn a_transaction_that_failed_may_be_sent_again_with_its_token() {
    let local = Local::start().await;
    let send = || {
        let call = local.dynamodb.transact_write_items().client_request_token("token-1");
        call.transact_items(counted("a")).send()
    };
    let refused = send().await.unwrap_err();
    assert_eq!(refused.code(), Some("ResourceNotFoundException"));
    super::dynamodb::create_table(&local.dynamodb).await;
    for _ in 0..2 {
        send().await.unwrap();
        assert_eq!(times(&local, "a").await.as_deref(), Some("1"));
    }
    local.stop().await;
}
