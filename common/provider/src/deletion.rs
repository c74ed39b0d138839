//! Deletion of one account, and what its answer means ([`says`](super::says) sorts the statuses).

use std::time::Duration;

use http::Method;

use super::account::AccountId;
use super::breaker::Pass;
use super::call::{Called, count};
use super::http::{Answer, CallFailure};
use super::rest::PAUSE;
use super::says::{self, OfDeletion};
use super::{Deleted, NotDeleted, Provider, ProviderError};

/// The result of a deletion, unless it depends on whether the URL is the provider's API.
enum Came {
    To(Result<Deleted, NotDeleted>),
    /// There is no such account, if this is the provider at all.
    Gone {
        is_sure: bool,
    },
}

impl Came {
    /// The same, and this account rests for as long as its answer says.
    fn with_rest(self, retry_after: Option<Duration>) -> Self {
        match self {
            Self::To(Err(none)) => {
                Self::To(Err(NotDeleted { rest: retry_after.unwrap_or(Duration::ZERO), ..none }))
            }
            Self::To(Ok(_)) | Self::Gone { .. } => self,
        }
    }
}

impl Provider {
    /// Deletes an account.
    pub async fn delete(&self, account: &AccountId) -> Result<Deleted, NotDeleted> {
        let result = self.try_to_delete(account).await;
        count("delete", result.as_ref().map(|_| ()).map_err(|none| &none.error));
        result
    }

    async fn try_to_delete(&self, account: &AccountId) -> Result<Deleted, NotDeleted> {
        let uri = self.http.at(&format!("/sandbox/accounts/{account}")).map_err(NotDeleted::failed)?;
        let called = self.call("delete", Method::DELETE, &uri, Some(account)).await;
        let Called { answer, pass, .. } = called.map_err(NotDeleted::not_now)?;
        let came = match answer {
            Ok(answer) => self.sort(account, &answer, pass).with_rest(answer.retry_after),
            Err(none) => Came::To(Err(self.no_answer(account, none, pass))),
        };
        match came {
            Came::To(result) => result,
            Came::Gone { is_sure } => {
                if !is_sure && let Err(error) = self.probe().await {
                    if error.needs_setting() {
                        self.breaker.open(self.clock.instant(), &error.to_string());
                    }
                    return Err(NotDeleted::not_now(error));
                }
                self.evidence.deleted(*account);
                Ok(Deleted::AlreadyGone)
            }
        }
    }

    fn no_answer(&self, account: &AccountId, none: CallFailure, pass: Pass) -> NotDeleted {
        let CallFailure { error, was_asked } = none;
        if error.needs_setting() {
            return self.refused(error, pass);
        }
        pass.failed(self.clock.instant(), &error.to_string());
        self.blame(was_asked && self.evidence.failed(*account), error)
    }

    fn sort(&self, account: &AccountId, answer: &Answer, pass: Pass) -> Came {
        let (now, status) = (self.clock.instant(), answer.status.as_u16());
        let wrong = |problem| ProviderError::WrongUrl { problem };
        let unavailable = || ProviderError::Unavailable { problem: format!("status {status}") };
        let not_deleted = match says::of_deletion(answer.status, answer.retry_after.is_some()) {
            OfDeletion::Done if answer.is_html => {
                self.refused(wrong(format!("it answers {status} with a web page")), pass)
            }
            OfDeletion::Done => {
                pass.succeeded();
                self.evidence.shown(now);
                self.evidence.deleted(*account);
                return Came::To(Ok(Deleted::Now));
            }
            OfDeletion::Gone => {
                let is_sure = self.evidence.is_there(now) && !answer.is_html;
                // Unsure, it is as if it had not been asked: the probe is, next.
                if is_sure {
                    pass.succeeded();
                }
                return Came::Gone { is_sure };
            }
            OfDeletion::Later => self.later(answer, pass),
            OfDeletion::Token => self.refused(ProviderError::Unauthorized { status }, pass),
            OfDeletion::Forbidden => {
                let error = ProviderError::Unauthorized { status };
                pass.failed(now, &error.to_string());
                self.blame(self.evidence.forbidden(*account), error)
            }
            OfDeletion::Moved | OfDeletion::NotThisWay => {
                self.refused(wrong(format!("it answers a deletion with {status}")), pass)
            }
            OfDeletion::Broken => {
                let error = unavailable();
                pass.failed(now, &error.to_string());
                self.blame(self.evidence.failed(*account), error)
            }
            OfDeletion::ThisOne => {
                pass.succeeded();
                NotDeleted::failed(ProviderError::Refused { status })
            }
        };
        Came::To(Err(not_deleted))
    }

    /// Everything will be refused like this.
    fn refused(&self, error: ProviderError, pass: Pass) -> NotDeleted {
        pass.refused(self.clock.instant(), &error.to_string());
        NotDeleted::not_now(error)
    }

    fn later(&self, answer: &Answer, pass: Pass) -> NotDeleted {
        NotDeleted::not_now(self.come_again(answer, pass))
    }

    const fn blame(&self, it_is_this_one: bool, error: ProviderError) -> NotDeleted {
        if it_is_this_one { NotDeleted::failed(error) } else { NotDeleted::not_now(error) }
    }

    /// The provider asks to come again: a rest, if it says for how long or that it is asked too much, else a failure.
    pub(super) fn come_again(&self, answer: &Answer, pass: Pass) -> ProviderError {
        let now = self.clock.instant();
        let status = answer.status;
        let unavailable = ProviderError::Unavailable { problem: format!("status {}", status.as_u16()) };
        let too_many = status == http::StatusCode::TOO_MANY_REQUESTS;
        let again_after = answer.retry_after.or_else(|| too_many.then_some(PAUSE));
        if status.is_server_error() || again_after.is_none() {
            pass.failed(now, &unavailable.to_string());
        } else {
            pass.succeeded();
        }
        match again_after {
            Some(again_after) => {
                self.rest.begin(now + again_after);
                ProviderError::RateLimited { again_after }
            }
            None => unavailable,
        }
    }
}
