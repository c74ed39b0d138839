//! The AWS clients of one process, with their timeouts, retries and metrics.
//!
//! Invariants: no attempt is unbounded; a call is retried by the SDK alone (as [`Patience`] says), except long
//! polls, whose loop is `queue::Receiver`; the roles (claims, sends, polls) spend retries from buckets of their own, so
//! failing polls cannot starve claims. Every response's `Date` reaches the [`Clock`]. Tables and queues are not known here.
//!
//! Endpoints, region and credentials come from the usual AWS environment (`AWS_ENDPOINT_URL[_SQS|_DYNAMODB]`,
//! `AWS_REGION`, ...). Clients are cheap to clone and share their connections; a connection is opened per call in
//! flight (HTTP/1.1) and there is no bound on their number.

mod batcher;
pub mod calls;
mod credentials;
mod denials;
mod distance;
mod environment;
mod foreign;
mod observe;
mod patience;
mod source;

pub use batcher::{BatchLost, Batcher, Bounds};
pub use denials::is_denial;
pub use distance::Distance;
pub use environment::{AwsEnvironment, ToldEnvironment};
pub use foreign::ForeignSettings;
pub use patience::Patience;

use std::time::Duration;

use aws_config::identity::IdentityCache;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use aws_sdk_sqs::config::SharedHttpClient;
use aws_sdk_sqs::config::retry::RetryConfig;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::error::DisplayErrorContext;
use aws_smithy_http_client::tls;

use self::credentials::Refreshed;
use self::observe::Observer;
use crate::clock::Clock;

/// Timeout of opening a connection.
const CONNECT: Duration = Duration::from_secs(1);
/// Timeout of one DynamoDB attempt, connecting included.
const TABLE_ATTEMPT: Duration = Duration::from_secs(1);
/// Timeout of one SQS attempt that is not a long poll.
const QUEUE_ATTEMPT: Duration = Duration::from_secs(2);
/// Timeout of a long poll, beyond its wait.
const POLL_MARGIN: Duration = Duration::from_secs(5);
/// Region and credentials of [`connect_locally`].
const LOCAL: &str = "local";

/// The AWS clients of this process.
#[derive(Clone, Debug)]
pub struct Aws {
    /// The table.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// Sends, deletes, visibility, attributes.
    pub sqs: aws_sdk_sqs::Client,
    /// Long polls: one attempt, with a timeout 5 s beyond the wait.
    pub sqs_receive: aws_sdk_sqs::Client,
}

/// The clients for the AWS environment of this process. `poll_wait` is the longest wait of a long poll.
///
/// Credentials are resolved before this returns, so that a slow source spends no call's time. Without credentials the
/// clients are made all the same: each call says so.
pub async fn connect(
    environment: AwsEnvironment,
    clock: &Clock,
    poll_wait: Duration,
    patience: Patience,
) -> Aws {
    let config = load(environment, clock).await;
    if let Some(provider) = config.credentials_provider()
        && let Err(error) = provider.provide_credentials().await
    {
        tracing::warn!("no AWS credentials yet: {}", DisplayErrorContext(error));
    }
    Aws::with_patience(&config, clock, poll_wait, patience)
}

/// Region and credentials of the AWS environment, with credentials that are refreshed in the background.
async fn load(environment: AwsEnvironment, clock: &Clock) -> SdkConfig {
    // With retries of ours the SDK does not read those of the environment, which it may not know.
    let mut loader =
        aws_config::defaults(BehaviorVersion::v2026_01_12()).retry_config(Patience::Short.retries());
    if environment.on_this_machine {
        loader = loader.http_client(direct()).use_fips(false).use_dual_stack(false);
    }
    let mut config = Box::pin(loader.load()).await;
    // An endpoint on this machine that a profile names.
    let url = config.endpoint_url().and_then(|url| url.parse().ok());
    if url.is_some_and(|url| environment::is_loopback(&url)) {
        let own = config.into_builder().http_client(direct());
        config = own.use_fips(false).use_dual_stack(false).build();
    }
    let Some(source) = config.credentials_provider() else { return config };
    let refreshed = Refreshed::new(source, clock.clone());
    config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(refreshed))
        .identity_cache(IdentityCache::no_cache())
        .build()
}

/// An HTTP client without the proxies of the environment.
fn direct() -> SharedHttpClient {
    aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::AwsLc))
        .build_https()
}

/// Region and credentials in the AWS environment of this process.
#[derive(Clone, Debug)]
pub struct AwsIdentity {
    /// The region, if one is set.
    pub region: Option<String>,
    /// Where the credentials come from, or the reason why there are none. Only a call shows whether AWS accepts them.
    pub credentials: Result<&'static str, String>,
}

/// Looks up region and credentials.
pub async fn identity(environment: AwsEnvironment, clock: &Clock) -> AwsIdentity {
    let config = load(environment, clock).await;
    let credentials = match config.credentials_provider() {
        None => Err("nothing provides any".to_owned()),
        Some(provider) => match provider.provide_credentials().await {
            Ok(credentials) => Ok(source::of(&credentials)),
            Err(error) => Err(DisplayErrorContext(error).to_string()),
        },
    };
    let region = config.region().map(ToString::to_string).filter(|region| !region.is_empty());
    AwsIdentity { region, credentials }
}

/// The clients for endpoints on this machine, which take any credentials. Nothing of the environment is read.
pub fn connect_locally(dynamodb_url: &str, sqs_url: &str, clock: &Clock, poll_wait: Duration) -> Aws {
    let at = |url: &str| {
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(aws_config::Region::from_static(LOCAL))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                LOCAL, LOCAL, None, None, LOCAL,
            )))
            .http_client(direct())
            .endpoint_url(url)
            .build()
    };
    Aws {
        dynamodb: Aws::new(&at(dynamodb_url), clock, poll_wait).dynamodb,
        ..Aws::new(&at(sqs_url), clock, poll_wait)
    }
}

impl Aws {
    /// The clients for `config`, as [`connect`] makes them for a process.
    pub fn new(config: &SdkConfig, clock: &Clock, poll_wait: Duration) -> Self {
        Self::with_patience(config, clock, poll_wait, Patience::Short)
    }

    fn with_patience(config: &SdkConfig, clock: &Clock, poll_wait: Duration, patience: Patience) -> Self {
        let observer = Observer::new(clock.clone());
        let poll = POLL_MARGIN + poll_wait;
        let sqs = |role: &'static str, attempt, retries| {
            aws_sdk_sqs::Client::from_conf(
                aws_sdk_sqs::config::Builder::from(config)
                    .behavior_version(BehaviorVersion::v2026_01_12())
                    .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                    .timeout_config(timeouts(attempt))
                    .retry_config(retries)
                    .retry_partition(patience.partition(role))
                    .retry_classifier(patience.classifier())
                    .interceptor(observer.clone())
                    .build(),
            )
        };
        Self {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(
                aws_sdk_dynamodb::config::Builder::from(config)
                    .behavior_version(BehaviorVersion::v2026_01_12())
                    .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
                    .timeout_config(timeouts(TABLE_ATTEMPT))
                    .retry_config(patience.retries())
                    .retry_partition(patience.partition("claims"))
                    .retry_classifier(patience.classifier())
                    .interceptor(observer.clone())
                    .build(),
            ),
            sqs: sqs("sends", QUEUE_ATTEMPT, patience.retries()),
            sqs_receive: sqs("polls", poll, RetryConfig::disabled()),
        }
    }
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT).operation_attempt_timeout(attempt).build()
}
