//! Dispatch of SQS operations, and the wire form of responses and errors.

use std::{future::Future, pin::Pin, sync::Arc};

use broker_runtime::entropy::Entropy;
use bytes::Bytes;
use http::Response;
use rustack_sqs_core::{handler::RustackSqsHandler, provider::RustackSqs};
use rustack_sqs_http::{body::SqsResponseBody, dispatch::SqsHandler};
use rustack_sqs_model::{
    error::{SqsError, SqsErrorCode},
    operations::SqsOperation,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use super::{
    fair::FairQueues,
    messages::Messages,
    missing::{exists, no_such_queue},
    queues::SqsQueues,
};

type Answer = Response<SqsResponseBody>;

/// Handles every operation: by [`SqsQueues`] and [`Messages`] where the library differs from SQS, else by the library.
pub(super) struct EndpointHandler {
    routes: Arc<Routes>,
}

struct Routes {
    provider: Arc<RustackSqs>,
    queues: SqsQueues,
    messages: Messages,
    library: RustackSqsHandler,
}

impl EndpointHandler {
    /// Receives that wait are ended when `shutdown` is cancelled.
    pub(super) fn new(provider: Arc<RustackSqs>, entropy: Entropy, shutdown: CancellationToken) -> Self {
        let fair = Arc::new(FairQueues::new(Arc::clone(&provider), entropy));
        Self {
            routes: Arc::new(Routes {
                queues: SqsQueues::new(Arc::clone(&provider), Arc::clone(&fair)),
                messages: Messages::new(Arc::clone(&provider), fair, shutdown),
                library: RustackSqsHandler::new(Arc::clone(&provider)),
                provider,
            }),
        }
    }
}

impl SqsHandler for EndpointHandler {
    fn handle_operation(
        &self,
        operation: SqsOperation,
        body: Bytes,
    ) -> Pin<Box<dyn Future<Output = Result<Answer, SqsError>> + Send>> {
        let routes = Arc::clone(&self.routes);
        Box::pin(async move {
            match routes.answer(operation, body.clone()).await {
                Ok(answer) => Ok(answer),
                Err(error) => refusal(&routes.explain(error, &body).await),
            }
        })
    }
}

impl Routes {
    async fn answer(&self, operation: SqsOperation, body: Bytes) -> Result<Answer, SqsError> {
        match operation {
            SqsOperation::CreateQueue => answer(&self.queues.create(read(&body)?).await?),
            SqsOperation::DeleteQueue => answer(&self.queues.delete(read(&body)?).await?),
            SqsOperation::ListQueues => answer(&self.queues.list(read(&body)?).await?),
            SqsOperation::GetQueueAttributes => answer(&self.queues.attributes(read(&body)?).await?),
            SqsOperation::SetQueueAttributes => answer(&self.queues.set_attributes(read(&body)?).await?),
            SqsOperation::ListDeadLetterSourceQueues => answer(&self.queues.sources(read(&body)?).await?),
            SqsOperation::SendMessage => answer(&self.messages.send(read(&body)?).await?),
            SqsOperation::SendMessageBatch => answer(&self.messages.send_batch(read(&body)?).await?),
            SqsOperation::ReceiveMessage => answer(&self.messages.receive(read(&body)?).await?),
            SqsOperation::DeleteMessage => answer(&self.messages.delete(read(&body)?).await?),
            SqsOperation::DeleteMessageBatch => answer(&self.messages.delete_batch(read(&body)?).await?),
            SqsOperation::ChangeMessageVisibility => {
                answer(&self.messages.set_visibility(read(&body)?).await?)
            }
            SqsOperation::ChangeMessageVisibilityBatch => {
                answer(&self.messages.set_visibility_batch(read(&body)?).await?)
            }
            SqsOperation::PurgeQueue => answer(&self.messages.purge(read(&body)?).await?),
            SqsOperation::GetQueueUrl
            | SqsOperation::TagQueue
            | SqsOperation::UntagQueue
            | SqsOperation::ListQueueTags
            | SqsOperation::AddPermission
            | SqsOperation::RemovePermission
            | SqsOperation::StartMessageMoveTask
            | SqsOperation::CancelMessageMoveTask
            | SqsOperation::ListMessageMoveTasks => self.library.handle_operation(operation, body).await,
        }
    }

    /// A queue that is deleted under a waiting call is an internal error of the library; SQS returns `QueueDoesNotExist`.
    async fn explain(&self, error: SqsError, body: &[u8]) -> SqsError {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct About {
            queue_url: String,
        }
        if error.code == SqsErrorCode::InternalError
            && let Ok(About { queue_url }) = serde_json::from_slice(body)
            && !exists(&self.provider, &queue_url).await
        {
            return no_such_queue();
        }
        error
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, SqsError> {
    serde_json::from_slice(body).map_err(|error| {
        let reason = error.to_string();
        if reason.contains("missing field") {
            SqsError::missing_parameter(reason)
        } else {
            SqsError::invalid_parameter_value(reason)
        }
    })
}

fn answer<T: Serialize>(output: &T) -> Result<Answer, SqsError> {
    let json = serde_json::to_vec(output).map_err(|error| SqsError::internal_error(error.to_string()))?;
    Ok(Response::new(SqsResponseBody::from_json(json)))
}

/// The error as SQS writes it: the JSON protocol's shape in the body, the older query protocol's code in a header, by which
/// the SDK distinguishes errors.
fn refusal(error: &SqsError) -> Result<Answer, SqsError> {
    const NAMESPACE: &str = "AWS.SimpleQueueService.";
    let code = error.code.error_type();
    let name = code.strip_prefix(NAMESPACE).unwrap_or(code);
    let shape = match name {
        "NonExistentQueue" => "QueueDoesNotExist",
        "QueueAlreadyExists" => "QueueNameExists",
        same => same,
    };
    let namespace = if code != name || name == "MessageNotInflight" { NAMESPACE } else { "" };
    let mut response = answer(&serde_json::json!({
        "__type": format!("com.amazonaws.sqs#{shape}"),
        "message": error.message,
    }))?;
    *response.status_mut() = error.code.status_code();
    let query_error = http::HeaderValue::try_from(format!("{namespace}{name};{}", error.code.fault()))
        .map_err(|error| SqsError::internal_error(error.to_string()))?;
    response.headers_mut().insert("x-amzn-query-error", query_error);
    Ok(response)
}
