//! Spans of AWS calls, by OpenTelemetry's conventions for the AWS SDK.

use opentelemetry::KeyValue;

use crate::trace::Span;

/// The span of `operation`, with AWS's name of it; none outside a recorded trace. A call that carries the work of several
/// callers has a span in the trace of each.
pub fn span(service: &str, operation: &str) -> Span {
    Span::client(|| {
        let mut attributes = vec![
            KeyValue::new("rpc.system", "aws-api"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", operation.to_owned()),
        ];
        if service == "DynamoDB" {
            attributes.push(KeyValue::new("db.system.name", "aws.dynamodb"));
            attributes.push(KeyValue::new("db.operation.name", operation.to_owned()));
        }
        (format!("{service}.{operation}").into(), attributes)
    })
}
