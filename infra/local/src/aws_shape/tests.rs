//! Tests of the AWS shape: latencies, the lag of the index, conflicts, queues and credentials.

use std::time::{Duration, Instant};

use broker_runtime::clock::Clock;
use bytes::Bytes;
use http::{Response, StatusCode};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::index_lag::{IndexLag, reads_index};
use super::queues::Queues;
use super::writes::{Writes, items};
use super::*;

fn answer(body: &Value) -> Answer {
    Response::new(Bytes::from(body.to_string()))
}

fn body(answer: &Answer) -> Value {
    serde_json::from_slice(answer.body()).unwrap()
}

fn put(pk: &str) -> Value {
    json!({ "Put": { "TableName": "t", "Item": { "PK": { "S": pk }, "SK": { "S": "META" } } } })
}

fn now() -> Instant {
    Clock::system().instant()
}

#[test]
fn transactions_that_meet_on_an_item_conflict_there_and_nowhere_else() {
    let mut writes = Writes::default();
    let first = items("TransactWriteItems", &json!({ "TransactItems": [put("a"), put("b")] }));
    let second = items("TransactWriteItems", &json!({ "TransactItems": [put("c"), put("b")] }));
    let alone = items("PutItem", &put("b")["Put"]);
    writes.begin("TransactWriteItems", &first).unwrap();
    let refused = body(&writes.begin("TransactWriteItems", &second).unwrap_err());
    assert_eq!(refused["CancellationReasons"][0]["Code"], "None");
    assert_eq!(refused["CancellationReasons"][1]["Code"], "TransactionConflict");
    let refused = body(&writes.begin("PutItem", &alone).unwrap_err());
    assert!(refused["__type"].as_str().unwrap().ends_with("#TransactionConflictException"));
    writes.begin("PutItem", &items("PutItem", &put("d")["Put"])).unwrap();
}

#[test]
fn a_partition_takes_a_thousand_writes_a_second_and_then_some_more_later() {
    let (mut writes, at) = (Writes::default(), now());
    let mut write = |at| writes.throttle("PutItem", 1, vec!["t available#00".to_owned()], at);
    assert!((0..1_000).all(|_| write(at).is_none()));
    let refused = body(&write(at).unwrap());
    assert!(refused["__type"].as_str().unwrap().contains("ProvisionedThroughputExceeded"));
    assert!(write(at + Duration::from_millis(100)).is_none());
}

#[test]
fn the_index_shows_a_change_later_and_until_then_what_was() {
    let row = |id: &str, shard: &str| {
        json!({ "PK": { "S": format!("SBX#{id}") }, "sandbox_id": { "S": id }, "state_shard": { "S": shard },
                "state_key": { "S": id } })
    };
    let asked = |shard: &str| json!({ "TableName": "t", "IndexName": "StateIndex", "ExpressionAttributeValues": { ":shard": { "S": shard } } });
    assert!(
        reads_index("Query", &asked("available#00")) && !reads_index("Query", &json!({ "TableName": "t" }))
    );
    let (mut lag, at) = (IndexLag::default(), now());
    let item = items("PutItem", &put("SBX#b")["Put"]).remove(0);
    lag.changed(&item, Some(row("b", "available#00")), at + Duration::from_secs(1));
    let mut seen = |shard: &str, rows: Vec<Value>, at| {
        let page = answer(&json!({ "Count": rows.len(), "Items": rows }));
        let page = body(&lag.as_seen("Query", &asked(shard), page, at));
        let ids = page["Items"].as_array().unwrap().iter().map(|row| row["sandbox_id"]["S"].clone());
        ids.collect::<Vec<_>>()
    };
    // As the table stands: b is allocated.
    let (available, allocated) =
        (vec![row("a", "available#00"), row("c", "available#00")], vec![row("b", "allocated#00")]);
    assert_eq!(seen("available#00", available.clone(), at), ["a", "b", "c"]);
    assert!(seen("allocated#00", allocated.clone(), at).is_empty());
    let later = at + Duration::from_secs(2);
    assert_eq!(seen("available#00", available, later), ["a", "c"]);
    assert_eq!(seen("allocated#00", allocated, later), ["b"]);
    assert!(lag.is_current(later));
}

#[test]
fn a_statement_on_the_index_is_seen_as_late() {
    let statement = "SELECT \"sandbox_id\" FROM \"t\".\"StateIndex\" WHERE \"state_shard\" IN [?, ?]";
    let asked =
        json!({ "Statement": statement, "Parameters": [{ "S": "available#00" }, { "S": "available#01" }] });
    assert!(reads_index("ExecuteStatement", &asked));
    let (mut lag, at) = (IndexLag::default(), now());
    let item = items("PutItem", &put("SBX#b")["Put"]).remove(0);
    let was = json!({ "PK": { "S": "SBX#b" }, "sandbox_id": { "S": "b" }, "state_shard": { "S": "available#01" },
                      "state_key": { "S": "b" } });
    lag.changed(&item, Some(was), at + Duration::from_secs(1));
    let page = body(&lag.as_seen("ExecuteStatement", &asked, answer(&json!({ "Items": [] })), at));
    assert_eq!(page["Items"][0]["sandbox_id"]["S"], "b");
}

#[test]
fn a_deleted_queue_takes_what_is_lost_and_its_name_is_not_free() {
    let (mut queues, mut rng, at) = (Queues::default(), SmallRng::seed_from_u64(1), now());
    let url = "http://127.0.0.1:1/000000000000/q";
    queues.after("DeleteQueue", &json!({ "QueueUrl": url }), answer(&json!({})), at, &mut rng);
    let mut send = json!({ "QueueUrl": url, "Entries": [{ "Id": "7", "MessageBody": "x" }] });
    let told = body(&queues.before("SendMessageBatch", &mut send, at, &mut rng).unwrap());
    assert_eq!(told["Successful"][0]["Id"], "7");
    let listed = queues.after("ListQueues", &json!({}), answer(&json!({ "QueueUrls": [] })), at, &mut rng);
    assert_eq!(body(&listed)["QueueUrls"], json!([url]));
    let again = queues.before("CreateQueue", &mut json!({ "QueueName": "q" }), at, &mut rng).unwrap();
    assert_eq!(again.status(), StatusCode::BAD_REQUEST);
    let later = at + Duration::from_secs(61);
    assert!(queues.before("SendMessageBatch", &mut send, later, &mut rng).is_none());
    assert!(queues.before("CreateQueue", &mut json!({ "QueueName": "q" }), later, &mut rng).is_none());
}

#[test]
fn a_new_queue_is_listed_late_and_receives_are_short() {
    let (mut queues, mut rng, at) = (Queues::default(), SmallRng::seed_from_u64(1), now());
    queues.after("CreateQueue", &json!({ "QueueName": "q" }), answer(&json!({})), at, &mut rng);
    let mut listed = |at| {
        queues.before("ListQueues", &mut json!({}), at, &mut rng);
        let page = answer(&json!({ "QueueUrls": ["http://h/0/q"] }));
        body(&queues.after("ListQueues", &json!({}), page, at, &mut rng))["QueueUrls"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!((listed(at), listed(at + Duration::from_secs(4))), (0, 1));
    let mut asked = || {
        let mut poll = json!({ "QueueUrl": "http://h/0/r", "MaxNumberOfMessages": 10 });
        queues.before("ReceiveMessage", &mut poll, at, &mut rng);
        poll["MaxNumberOfMessages"].as_u64().unwrap()
    };
    let sizes: Vec<_> = (0..100).map(|_| asked()).collect();
    assert!(sizes.iter().all(|size| (1..=10).contains(size)));
    assert!(sizes.iter().any(|size| *size < 10) && sizes.contains(&10));
}

#[tokio::test]
async fn credentials_are_for_programs_of_this_machine_not_for_pages() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    let url = credentials::start(1, CancellationToken::new()).await.unwrap();
    let address = url.trim_start_matches("http://").trim_end_matches("/credentials").to_owned();
    for (host, more, status) in [
        (address.as_str(), "", "200"),
        (&address, "Origin: https://evil.example\r\n", "403"),
        (&address, "Sec-Fetch-Site: cross-site\r\n", "403"),
        ("evil.example", "", "403"),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let asked = format!("GET /credentials HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n");
        stream.write_all(asked.as_bytes()).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        assert!(told.starts_with(&format!("HTTP/1.1 {status}")), "{host} {more}: {told}");
        assert_eq!(told.contains("SecretAccessKey"), status == "200", "{told}");
    }
}
