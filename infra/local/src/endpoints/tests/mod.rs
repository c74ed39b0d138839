//! Tests of the endpoints through the AWS SDK.

mod dynamodb;
mod fair;
mod letters;
mod lifecycle;
mod operations;
mod pages;
mod queues;
mod receiving;

use broker_runtime::clock::Clock;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use aws_sdk_sqs::{
    config::{BehaviorVersion, Credentials, Region, retry::RetryConfig},
    error::SdkError,
    operation::receive_message::{ReceiveMessageError, ReceiveMessageOutput},
};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{EndpointError, EndpointOptions, Endpoints, start};

/// The timeout of every wait.
const SOON: Duration = Duration::from_secs(10);

type Received = Result<ReceiveMessageOutput, SdkError<ReceiveMessageError>>;

/// Endpoints on free ports, with clients. Dropped, they end.
struct Local {
    endpoints: Endpoints,
    sqs: aws_sdk_sqs::Client,
    dynamodb: aws_sdk_dynamodb::Client,
    shutdown: CancellationToken,
    _ends_them: DropGuard,
}

impl Local {
    async fn start() -> Self {
        Self::start_with(options(None)).await.unwrap()
    }

    async fn start_with(options: EndpointOptions) -> Result<Self, EndpointError> {
        let shutdown = CancellationToken::new();
        let endpoints = start(options, shutdown.clone()).await?;
        Ok(Self {
            sqs: sqs_client(&endpoints.sqs_url),
            dynamodb: dynamodb_client(&endpoints.dynamodb_url),
            endpoints,
            _ends_them: shutdown.clone().drop_guard(),
            shutdown,
        })
    }

    /// Where DynamoDB and SQS are.
    fn urls(&self) -> (String, String) {
        (self.endpoints.dynamodb_url.clone(), self.endpoints.sqs_url.clone())
    }

    async fn queue(&self, name: &str) -> String {
        self.sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap()
    }

    async fn send(&self, queue_url: &str, body: &str) {
        self.sqs.send_message().queue_url(queue_url).message_body(body).send().await.unwrap();
    }

    /// A receive that waits for a message. Later calls have been answered when it returns, so it is being served too.
    async fn long_poll(&self, queue_url: &str) -> JoinHandle<Received> {
        let poll = tokio::spawn(self.sqs.receive_message().queue_url(queue_url).wait_time_seconds(20).send());
        self.some_calls().await;
        assert!(!poll.is_finished());
        poll
    }

    /// Gives the endpoint time to notice events of other connections.
    async fn some_calls(&self) {
        for _ in 0..3 {
            self.sqs.list_queues().send().await.unwrap();
        }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        tokio::time::timeout(SOON, self.endpoints.stopped()).await.expect("they end after shutdown");
    }
}

fn options(data_dir: Option<PathBuf>) -> EndpointOptions {
    let host = IpAddr::V4(Ipv4Addr::LOCALHOST);
    EndpointOptions { host, dynamodb_port: 0, sqs_port: 0, data_dir, clock: Clock::system() }
}

fn credentials() -> Credentials {
    Credentials::new("local", "local", None, None, "test")
}

fn sqs_client(url: &str) -> aws_sdk_sqs::Client {
    aws_sdk_sqs::Client::from_conf(
        aws_sdk_sqs::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(credentials())
            .endpoint_url(url)
            .retry_config(RetryConfig::disabled()) // a first answer that is wrong is to be seen
            .build(),
    )
}

fn dynamodb_client(url: &str) -> aws_sdk_dynamodb::Client {
    aws_sdk_dynamodb::Client::from_conf(
        aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new("eu-west-1"))
            .credentials_provider(credentials())
            .endpoint_url(url)
            .build(),
    )
}

/// A directory that is removed on drop.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("broker-endpoints-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A leftover in the temporary directory does no harm.
        let _ = fs::remove_dir_all(&self.0);
    }
}
