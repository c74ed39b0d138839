//! Patience of a client: how often and how long it tries a call again.
//!
//! A process has loops and gates that try again, so each of its calls ends soon. A command ends with its first error, so its
//! calls outlast what passes within seconds, also what the SDK takes for final: an expired token that is being renewed,
//! rights that have not reached every host of AWS yet.

use std::time::Duration;

use aws_sdk_sqs::config::retry::{RetryConfig, RetryPartition, TokenBucket};
use aws_smithy_runtime_api::client::interceptors::context::InterceptorContext;
use aws_smithy_runtime_api::client::retries::classifiers::{ClassifyRetry, RetryAction};
use aws_smithy_types::retry::ErrorKind;

use super::denials::is_denial;
use super::observe::error_code;

/// How a client tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// Three attempts: for a process, whose callers and loops try again.
    Short,
    /// As many as fill four seconds: for a command of an operator.
    Long,
}

impl Patience {
    /// Attempts of a call; the longest first backoff, from which the SDK draws and which it doubles; the longest backoff.
    const fn attempts(self) -> (u32, Duration, Duration) {
        match self {
            Self::Short => (3, Duration::from_millis(50), Duration::from_secs(1)),
            Self::Long => (12, Duration::from_millis(100), Duration::from_secs(1)),
        }
    }

    pub(super) fn retries(self) -> RetryConfig {
        let (attempts, first, longest) = self.attempts();
        RetryConfig::standard()
            .with_max_attempts(attempts)
            .with_initial_backoff(first)
            .with_max_backoff(longest)
    }

    /// The bucket that retries of the role `role` are spent from; the many calls of one command do not run dry together.
    pub(super) fn partition(self, role: &'static str) -> RetryPartition {
        let partition = RetryPartition::custom(role);
        match self {
            Self::Short => partition.build(),
            Self::Long => partition.token_bucket(TokenBucket::unlimited()).build(),
        }
    }

    pub(super) const fn classifier(self) -> DenialsPass {
        DenialsPass { pass: matches!(self, Self::Long) }
    }
}

/// The classifier that has what AWS does not accept just now tried again, if `pass` says so.
#[derive(Clone, Copy, Debug)]
pub(super) struct DenialsPass {
    pass: bool,
}

impl ClassifyRetry for DenialsPass {
    fn classify_retry(&self, context: &InterceptorContext) -> RetryAction {
        let failed = context.output_or_error().is_some_and(|result| result.is_err());
        let body =
            context.response().filter(|_| self.pass && failed).and_then(|response| response.body().bytes());
        match body.and_then(error_code) {
            Some(code) if is_denial(&code) => RetryAction::retryable_error(ErrorKind::ClientError),
            Some(_) | None => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "BrokerDenialsPass"
    }
}
