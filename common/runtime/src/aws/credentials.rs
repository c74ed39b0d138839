//! Credentials of this process, refreshed in a task of their own.
//!
//! The SDK resolves an identity inside the time of an attempt. A source that takes longer than an attempt (SSO, a
//! `credential_process`, a slow metadata service) would fail every call for ever. [`Refreshed`] asks the source in a task
//! that no attempt can cancel: an attempt that gave up finds the credentials at its next try. It asks again before they
//! expire, and until the source answers, it goes on with what it has.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
use tokio::sync::watch;

use crate::clock::Clock;

/// How long before their end credentials are asked for again; AWS renews those of a role five minutes before.
const AHEAD: Duration = Duration::from_secs(4 * 60);
/// How long one question to the source may take.
const SOURCE: Duration = Duration::from_secs(30);
/// How long the source rests after it failed.
const REST: Duration = Duration::from_secs(1);

type Answer = Result<Credentials, Arc<CredentialsError>>;

/// A provider that asks `source` in a task of its own; clones share what it answered.
#[derive(Clone, Debug)]
pub(super) struct Refreshed {
    source: SharedCredentialsProvider,
    clock: Clock,
    state: Arc<Mutex<RefreshState>>,
}

#[derive(Debug, Default)]
struct RefreshState {
    current: Option<Credentials>,
    /// The question under way.
    asking: Option<watch::Receiver<Option<Answer>>>,
}

impl Refreshed {
    pub(super) fn new(source: SharedCredentialsProvider, clock: Clock) -> Self {
        Self { source, clock, state: Arc::default() }
    }

    /// Whether these credentials hold for longer than `margin`.
    fn holds(&self, credentials: &Credentials, margin: Duration) -> bool {
        let now = SystemTime::from(self.clock.now());
        credentials.expiry().is_none_or(|expiry| expiry > now + margin)
    }

    /// The current credentials; waits only if there are none that still hold.
    async fn get(&self) -> Result<Credentials, CredentialsError> {
        let mut asking = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let current = state.current.clone();
            if let Some(current) = &current
                && self.holds(current, AHEAD)
            {
                return Ok(current.clone());
            }
            let asking = self.ask(&mut state);
            match current {
                Some(current) if self.holds(&current, Duration::ZERO) => return Ok(current),
                _ => asking,
            }
        };
        let answered = asking.wait_for(Option::is_some).await;
        let answer = answered.ok().and_then(|answer| answer.clone());
        match answer {
            Some(Ok(credentials)) => Ok(credentials),
            Some(Err(error)) => Err(CredentialsError::provider_error(error)),
            None => {
                Err(CredentialsError::provider_error("the source of credentials ended without an answer"))
            }
        }
    }

    /// The question under way, which is begun if there is none.
    fn ask(&self, state: &mut RefreshState) -> watch::Receiver<Option<Answer>> {
        if let Some(asking) = &state.asking {
            return asking.clone();
        }
        let (tell, told) = watch::channel(None);
        state.asking = Some(told.clone());
        let own = self.clone();
        tokio::spawn(async move {
            let asked = tokio::time::timeout(SOURCE, own.source.provide_credentials()).await;
            let answer = asked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(SOURCE)));
            let failed = answer.is_err();
            if let Ok(credentials) = &answer {
                own.state.lock().unwrap_or_else(PoisonError::into_inner).current = Some(credentials.clone());
            }
            tell.send_replace(Some(answer.map_err(Arc::new)));
            if failed {
                tokio::time::sleep(REST).await;
            }
            own.state.lock().unwrap_or_else(PoisonError::into_inner).asking = None;
        });
        told
    }
}

impl ProvideCredentials for Refreshed {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.get())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use broker_domain::Timestamp;
    use tokio::sync::Notify;

    use super::*;

    /// A source that answers when it is let, or fails at once.
    #[derive(Clone, Debug, Default)]
    struct Slow {
        asked: Arc<AtomicUsize>,
        answers: Arc<Notify>,
        expires_at: Option<SystemTime>,
        fails: bool,
    }

    impl ProvideCredentials for Slow {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::new(async {
                let asked = self.asked.fetch_add(1, Ordering::SeqCst);
                if self.fails {
                    return Err(CredentialsError::not_loaded("none"));
                }
                self.answers.notified().await;
                Ok(Credentials::new(format!("id-{asked}"), "secret", None, self.expires_at, "slow"))
            })
        }
    }

    fn refreshed(source: &Slow, clock: &Clock) -> Refreshed {
        Refreshed::new(SharedCredentialsProvider::new(source.clone()), clock.clone())
    }

    async fn id(refreshed: &Refreshed) -> String {
        refreshed.provide_credentials().await.unwrap().access_key_id().to_owned()
    }

    #[tokio::test]
    async fn a_source_that_is_slower_than_an_attempt_is_asked_once_and_found_by_the_next_attempt() {
        let (source, clock) = (Slow::default(), Clock::manual(Timestamp::from_secs(1_000)));
        let refreshed = refreshed(&source, &clock);
        for _ in 0..3 {
            let attempt =
                tokio::time::timeout(Duration::from_millis(1), refreshed.provide_credentials()).await;
            assert!(attempt.is_err(), "no attempt outlasts the source");
        }
        source.answers.notify_one();
        assert_eq!((id(&refreshed).await.as_str(), source.asked.load(Ordering::SeqCst)), ("id-0", 1));
    }

    #[tokio::test]
    async fn credentials_that_end_soon_are_used_while_new_ones_are_fetched() {
        let clock = Clock::manual(Timestamp::from_secs(1_000));
        let expires_at = SystemTime::from(Timestamp::from_secs(1_060));
        let source = Slow { expires_at: Some(expires_at), ..Slow::default() };
        let refreshed = refreshed(&source, &clock);
        source.answers.notify_one();
        assert_eq!(id(&refreshed).await, "id-0");
        // The source is asked again and does not answer; no caller waits for it.
        while source.asked.load(Ordering::SeqCst) < 2 {
            assert_eq!(id(&refreshed).await, "id-0");
            tokio::task::yield_now().await;
        }
        clock.set(Timestamp::from_secs(1_061));
        source.answers.notify_one();
        assert_eq!(id(&refreshed).await, "id-1");
    }

    #[tokio::test]
    async fn a_source_that_fails_rests_and_is_asked_again() {
        let source = Slow { fails: true, ..Slow::default() };
        let refreshed = refreshed(&source, &Clock::manual(Timestamp::from_secs(1)));
        for _ in 0..5 {
            assert!(refreshed.provide_credentials().await.is_err());
        }
        assert_eq!(source.asked.load(Ordering::SeqCst), 1, "one question for all");
        while source.asked.load(Ordering::SeqCst) < 2 {
            assert!(refreshed.provide_credentials().await.is_err());
            tokio::task::yield_now().await;
        }
    }
}
