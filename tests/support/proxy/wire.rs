//! The AWS JSON protocols, as far as faults need them: errors that the SDK recognises, and bodies with a message moved.

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use rand::RngExt as _;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use serde_json::{Value, json};

use super::ShapedService;

/// The longest time by which a reordered message is held back, in seconds: SQS delays by whole ones.
const HELD_BACK_S: u64 = 2;

fn error(status: StatusCode, type_: &str, more: Value) -> Response<Full<Bytes>> {
    let mut body = json!({ "__type": type_, "message": "injected by the fault proxy" });
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    let response = Response::builder().status(status).header("content-type", "application/x-amz-json-1.0");
    response.body(Full::from(body.to_string())).expect("a response")
}

pub(super) fn throttled(service: ShapedService) -> Response<Full<Bytes>> {
    let type_ = match service {
        ShapedService::Sqs => "com.amazonaws.sqs#RequestThrottled",
        ShapedService::DynamoDb => "com.amazonaws.dynamodb.v20120810#ThrottlingException",
    };
    error(StatusCode::BAD_REQUEST, type_, Value::Null)
}

pub(super) fn refused(service: ShapedService, code: &str) -> Response<Full<Bytes>> {
    let namespace = match service {
        ShapedService::Sqs => "com.amazonaws.sqs",
        ShapedService::DynamoDb => "com.amazonaws.dynamodb.v20120810",
    };
    error(StatusCode::BAD_REQUEST, &format!("{namespace}#{code}"), Value::Null)
}

/// The answer to a batch of which no entry is taken.
pub(super) fn entries_refused(request: &[u8], code: &str) -> Response<Full<Bytes>> {
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let entries = request["Entries"].as_array().into_iter().flatten();
    let failed: Vec<_> = entries
        .map(|entry| json!({ "Id": entry["Id"], "Code": code, "SenderFault": true, "Message": "injected" }))
        .collect();
    let response = Response::builder().header("content-type", "application/x-amz-json-1.0");
    let body = json!({ "Successful": [], "Failed": failed }).to_string();
    response.body(Full::from(body)).expect("a response")
}

pub(super) fn server_error(service: ShapedService) -> Response<Full<Bytes>> {
    let type_ = match service {
        ShapedService::Sqs => "com.amazonaws.sqs#InternalError",
        ShapedService::DynamoDb => "com.amazonaws.dynamodb.v20120810#InternalServerError",
    };
    error(StatusCode::INTERNAL_SERVER_ERROR, type_, Value::Null)
}

pub(super) fn unknown_queue() -> Response<Full<Bytes>> {
    error(StatusCode::BAD_REQUEST, "com.amazonaws.sqs#QueueDoesNotExist", Value::Null)
}

/// Another transaction is in the way. `request` tells how many items a transaction has; the first is the one.
pub(super) fn conflict(operation: &str, request: &[u8]) -> Response<Full<Bytes>> {
    let prefix = "com.amazonaws.dynamodb.v20120810#";
    if !operation.starts_with("Transact") {
        return error(StatusCode::BAD_REQUEST, &format!("{prefix}TransactionConflictException"), Value::Null);
    }
    let request: Value = serde_json::from_slice(request).unwrap_or_default();
    let items = request["TransactItems"].as_array().map_or(1, Vec::len);
    let mut reasons = vec![json!({ "Code": "None" }); items];
    reasons[0] = json!({ "Code": "TransactionConflict", "Message": "injected by the fault proxy" });
    let type_ = format!("{prefix}TransactionCanceledException");
    error(StatusCode::BAD_REQUEST, &type_, json!({ "CancellationReasons": reasons }))
}

/// A SendMessageBatch whose messages arrive later, by different times.
pub(super) fn held_back(request: &[u8], rng: &mut SmallRng) -> Bytes {
    edit(request, |body| {
        for entry in body["Entries"].as_array_mut().into_iter().flatten() {
            entry["DelaySeconds"] = rng.random_range(0..=HELD_BACK_S).into();
        }
    })
}

/// An answer to ReceiveMessage in another order.
pub(super) fn shuffled(response: &[u8], rng: &mut SmallRng) -> Bytes {
    edit(response, |body| {
        if let Some(messages) = body["Messages"].as_array_mut() {
            messages.shuffle(rng);
        }
    })
}

/// An answer to a batch that tells one of its successes as a failure of the service.
pub(super) fn one_failed(response: &[u8], rng: &mut SmallRng) -> Bytes {
    edit(response, |body| {
        let Some(successful) = body["Successful"].as_array_mut().filter(|entries| !entries.is_empty()) else {
            return;
        };
        let victim = successful.swap_remove(rng.random_range(0..successful.len()));
        let failed = json!({ "Id": victim["Id"], "Code": "InternalError", "SenderFault": false,
                             "Message": "injected by the fault proxy" });
        match body["Failed"].as_array_mut() {
            Some(others) => others.push(failed),
            None => body["Failed"] = json!([failed]),
        }
    })
}

fn edit(body: &[u8], change: impl FnOnce(&mut Value)) -> Bytes {
    match serde_json::from_slice::<Value>(body) {
        Ok(mut value) => {
            change(&mut value);
            Bytes::from(value.to_string())
        }
        Err(_) => Bytes::copy_from_slice(body),
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn one_success_of_a_batch_becomes_a_failure_that_may_be_tried_again() {
        let answer = br#"{"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":[]}"#;
        let told = one_failed(answer, &mut SmallRng::seed_from_u64(1));
        let told: Value = serde_json::from_slice(&told).unwrap();
        assert_eq!(told["Successful"].as_array().unwrap().len(), 1);
        assert_eq!(told["Failed"][0]["SenderFault"], false);
        assert_ne!(told["Failed"][0]["Id"], told["Successful"][0]["Id"]);
    }

    #[test]
    fn every_message_of_a_reordered_batch_is_held_back_by_a_time_of_its_own() {
        let request =
            br#"{"QueueUrl":"u","Entries":[{"Id":"0","MessageBody":"a"},{"Id":"1","MessageBody":"b"}]}"#;
        let sent: Value =
            serde_json::from_slice(&held_back(request, &mut SmallRng::seed_from_u64(3))).unwrap();
        let delays: Vec<_> =
            sent["Entries"].as_array().unwrap().iter().map(|e| e["DelaySeconds"].as_u64()).collect();
        assert!(delays.iter().all(|delay| delay.is_some_and(|delay| delay <= HELD_BACK_S)), "{delays:?}");
    }
}
