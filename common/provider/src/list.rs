//! Reading of the provider's list, page by page: bounded in pages, rows, bytes and time, and parsed on a blocking thread.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Uri};

use super::call::{Called, count};
use super::http::{Answer, LARGEST_BODY};
use super::listed::Listed;
use super::origin::{self, Leads};
use super::page::{self, PageIntake};
use super::says::{self, OfList};
use super::tally::{Rows, Tally};
use super::{Provider, ProviderError};

/// The most pages of one list; more are an error.
const MOST_PAGES: usize = 200_000;
/// The longest that one list may take.
const LONGEST_LIST: Duration = Duration::from_secs(60 * 60);
/// The longest pause before a page that the provider asks for, or its breaker, and the most such pauses before one page.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const PAUSES: usize = 5;
/// So much of a URL is told.
const TOLD: usize = 200;

impl Provider {
    /// Every active sandbox account, all pages, in memory.
    pub async fn accounts(&self) -> Result<Listed, ProviderError> {
        let (listed, tally) = self.list(Listed::default()).await?;
        Ok(listed.counted(tally))
    }

    /// Every row of the list, all pages, given to `rows` on a blocking thread. A short rest that the provider asks for is
    /// waited out, and so is a breaker that deletions open between two pages.
    pub async fn list<R: Rows>(&self, rows: R) -> Result<(R, Tally), ProviderError> {
        let listed = tokio::time::timeout(LONGEST_LIST, self.all_pages(rows)).await;
        listed.unwrap_or_else(|_elapsed| {
            let problem = format!("the list took more than {} minutes", LONGEST_LIST.as_secs() / 60);
            Err(ProviderError::Unavailable { problem })
        })
    }

    /// That it answers and knows us: its list is begun, and nothing is made of it.
    pub async fn probe(&self) -> Result<(), ProviderError> {
        let uri = self.http.at("/current_user/accounts")?;
        let (body, _) = self.page(&uri).await?;
        take_apart(body, PageIntake { tally: Tally::default(), rows: Listed::default() }, 1).await?;
        self.evidence.shown(self.clock.instant());
        Ok(())
    }

    async fn all_pages<R: Rows>(&self, rows: R) -> Result<(R, Tally), ProviderError> {
        let mut intake = PageIntake { tally: Tally::keeping(self.attributes.clone()), rows };
        let mut asked = HashSet::new();
        let mut next = Some(self.http.at("/current_user/accounts")?);
        let mut pauses = 0;
        while let Some(uri) = next.take() {
            let (body, from) = match self.page(&uri).await {
                Err(error) => {
                    let pause = pause(&error, !asked.is_empty()).filter(|_| pauses < PAUSES);
                    let Some(pause) = pause else { return Err(error) };
                    pauses += 1;
                    tokio::time::sleep(pause).await;
                    next = Some(uri);
                    continue;
                }
                Ok(page) => page,
            };
            pauses = 0;
            if !asked.insert(hash(&uri)) || asked.len() > MOST_PAGES {
                let problem = format!("the list does not end: {} again", short(&uri.to_string()));
                return Err(ProviderError::Malformed { problem });
            }
            let reference;
            (intake, reference) = take_apart(body, intake, asked.len()).await?;
            next = reference.map(|reference| follow(&reference, &from)).transpose()?;
        }
        self.evidence.shown(self.clock.instant());
        Ok((intake.rows, intake.tally))
    }

    /// One page as it came, and from where.
    async fn page(&self, uri: &Uri) -> Result<(Bytes, Uri), ProviderError> {
        let result = match self.call("list", Method::GET, uri, None).await {
            Ok(called) => self.sort_page(called),
            Err(error) => Err(error),
        };
        count("list", result.as_ref().map(|_| ()));
        result
    }

    /// The answer to a list opens the breaker only if the provider fails, not if it refuses the list.
    fn sort_page(&self, called: Called) -> Result<(Bytes, Uri), ProviderError> {
        let Called { answer, uri, pass } = called;
        let now = self.clock.instant();
        let answer = match answer {
            Ok(answer) => answer,
            Err(none) => {
                if !none.error.needs_setting() {
                    pass.failed(now, &none.error.to_string());
                }
                return Err(none.error);
            }
        };
        let status = answer.status.as_u16();
        let wrong = |problem| Err(ProviderError::WrongUrl { problem });
        match says::of_list(answer.status, answer.retry_after.is_some()) {
            OfList::Page if answer.is_html => wrong(format!("it answers {status} with a web page")),
            OfList::Page => {
                pass.succeeded();
                let Answer { body, .. } = answer;
                body.map(|body| (body, uri)).ok_or_else(|| ProviderError::Malformed {
                    problem: format!(
                        "a page of more than {} MiB is not read: it must list fewer accounts a page",
                        LARGEST_BODY / 1024 / 1024
                    ),
                })
            }
            OfList::Later => Err(self.come_again(&answer, pass)),
            OfList::Moved => wrong(format!("it answers {status}")),
            OfList::Token => Err(ProviderError::Unauthorized { status }),
            OfList::NotHere => wrong(format!("it answers {status} to {}", uri.path())),
            OfList::Broken => {
                let error = ProviderError::Unavailable { problem: format!("status {status}") };
                pass.failed(now, &error.to_string());
                Err(error)
            }
            OfList::Refused => Err(ProviderError::Refused { status }),
        }
    }
}

/// How long to wait before the page is asked for again: for a rest, and between two pages for the breaker.
fn pause(error: &ProviderError, is_between: bool) -> Option<Duration> {
    let again_after = match error {
        ProviderError::RateLimited { again_after } => *again_after,
        ProviderError::BreakerOpen { again_after, .. } if is_between => *again_after,
        ProviderError::BreakerOpen { .. }
        | ProviderError::Unauthorized { .. }
        | ProviderError::WrongUrl { .. }
        | ProviderError::Refused { .. }
        | ProviderError::Unavailable { .. }
        | ProviderError::Malformed { .. } => return None,
    };
    (again_after <= LONGEST_PAUSE).then_some(again_after)
}

/// Adds page `number` to `intake`, on a blocking thread; the reference to the next page.
async fn take_apart<R: Rows>(
    body: Bytes,
    mut intake: PageIntake<R>,
    number: usize,
) -> Result<(PageIntake<R>, Option<String>), ProviderError> {
    let read = tokio::task::spawn_blocking(move || page::read(&body, &mut intake).map(|next| (intake, next)));
    match read.await {
        Ok(read) => read.map_err(|problem| {
            let problem = format!("page {number}: {problem}");
            ProviderError::Malformed { problem }
        }),
        Err(ended) => match ended.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(ProviderError::Unavailable { problem: "the process ends".to_owned() }),
        },
    }
}

/// What a page that was asked for is known again by.
fn hash(uri: &Uri) -> u64 {
    let mut hasher = DefaultHasher::new();
    uri.hash(&mut hasher);
    hasher.finish()
}

/// The URL of the next page, at our own base.
fn follow(reference: &str, from: &Uri) -> Result<Uri, ProviderError> {
    let malformed = |problem| ProviderError::Malformed { problem };
    match origin::resolve(reference, from).map_err(malformed)? {
        Leads::Here(uri) => Ok(uri),
        Leads::Elsewhere(origin) => {
            Err(malformed(format!("next page {:?} is of another origin, {origin}", short(reference))))
        }
    }
}

fn short(text: &str) -> String {
    text.chars().take(TOLD).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_waited_for_and_between_two_pages_the_breaker_too() {
        let (second, long) = (Duration::from_secs(1), LONGEST_PAUSE + Duration::from_secs(1));
        let rest = |again_after| ProviderError::RateLimited { again_after };
        let breaker = |again_after| ProviderError::BreakerOpen { again_after, why: "status 500".to_owned() };
        for is_between in [false, true] {
            assert_eq!(pause(&rest(second), is_between), Some(second));
            assert_eq!(pause(&rest(long), is_between), None);
            assert_eq!(pause(&ProviderError::Refused { status: 409 }, is_between), None);
        }
        assert_eq!(pause(&breaker(LONGEST_PAUSE), true), Some(LONGEST_PAUSE));
        assert_eq!(pause(&breaker(second), false), None, "a list that has not begun is the next run's");
    }
}
