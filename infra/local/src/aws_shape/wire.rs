//! Answers of the AWS JSON protocols that the shape gives in place of an endpoint.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::Answer;

const SAID: &str = "as AWS may say";

pub(super) fn json(status: StatusCode, body: &Value) -> Answer {
    let mut answer = Response::new(Bytes::from(body.to_string()));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    answer.headers_mut().insert(header::CONTENT_TYPE, json);
    answer
}

pub(super) fn sqs_error(code: &str) -> Answer {
    let body = json!({ "__type": format!("com.amazonaws.sqs#{code}"), "message": SAID });
    json(StatusCode::BAD_REQUEST, &body)
}

pub(super) fn dynamodb_error(code: &str) -> Answer {
    let type_ = format!("com.amazonaws.dynamodb.v20120810#{code}");
    json(StatusCode::BAD_REQUEST, &json!({ "__type": type_, "message": SAID }))
}

/// A transaction of `items` items that is cancelled for those at `positions`.
pub(super) fn cancelled(items: usize, positions: &[usize], code: &str) -> Answer {
    let reason = |position| {
        if positions.contains(&position) {
            json!({ "Code": code, "Message": SAID })
        } else {
            json!({ "Code": "None" })
        }
    };
    let reasons: Vec<_> = (0..items).map(reason).collect();
    let type_ = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
    let body = json!({ "__type": type_, "message": SAID, "CancellationReasons": reasons });
    json(StatusCode::BAD_REQUEST, &body)
}

/// An answer whose JSON is changed.
pub(super) fn edited(answer: Answer, change: impl FnOnce(&mut Value)) -> Answer {
    let (head, body) = answer.into_parts();
    let body = match serde_json::from_slice::<Value>(&body) {
        Ok(mut value) => {
            change(&mut value);
            Bytes::from(value.to_string())
        }
        Err(_) => body,
    };
    Response::from_parts(head, body)
}
