//! `GET` and `PUT /v1/admin/policy`: the policy as its TOML text, under an entity tag.
//!
//! Invariant: a PUT replaces the policy whose tag it names in `If-Match`, or nothing (412); a text that is wrong changes
//! nothing, and everything that is wrong is told. The same policy again is answered 200 and writes nothing, whatever the tag.

use broker_domain::RequestId;
use broker_domain::policy::{InvalidPolicy, Policy};
use broker_store::{Act, AuditLine, PolicyPlan, PolicyWrite, StoredPolicy};
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use serde_json::json;

use super::Operator;
use crate::request::parameters::POLICY_DRY_RUN;
use crate::request::query::Query;
use crate::response::bodies::PolicyReport;
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::response::{Content, Response};

/// The most problems of a policy that one response tells.
const TOLD: usize = 20;

impl Operator {
    pub(super) async fn policy(&self) -> Result<Response, Problem> {
        let stored = self.rpc.store.policy.get().await?.unwrap_or_else(StoredPolicy::none);
        let tag = tag(&stored.digest);
        let content = Content::File { media_type: "text/plain; charset=utf-8", bytes: stored.text.into() };
        Ok(tagged(Response::new(StatusCode::OK, content, "shown"), tag))
    }

    pub(super) async fn put_policy(
        &self,
        id: RequestId,
        who: &str,
        query: &Query,
        head: &Parts,
        body: &[u8],
    ) -> Result<Response, Problem> {
        query.only(&[&[POLICY_DRY_RUN.parameter()]])?;
        let dry_run = query.flag(&POLICY_DRY_RUN)?;
        let text =
            std::str::from_utf8(body).map_err(|_| Problem::invalid("The policy is not UTF-8 text."))?;
        let policy = Policy::given(text).map_err(|invalid| wrong(&invalid))?;
        let (store, clock) = (&self.rpc.store, &self.rpc.clock);
        let plan = PolicyPlan::new(store, policy.clone()).await?;
        if dry_run || plan.is_done() {
            return Ok(report(&plan, &plan.before, false));
        }
        match if_match(&head.headers, &plan.before.digest)? {
            None => {
                return Err(Problem::new(
                    Code::IfMatchMissing,
                    "Name the policy that this one replaces: If-Match with its ETag, or *.",
                ));
            }
            Some(false) => return Err(changed(&plan.before)),
            Some(true) => {}
        }
        let line = AuditLine {
            count: u64::try_from(plan.changes.len()).ok(),
            ..AuditLine::new(clock.now(), *id.as_uuid(), who, Act::ApplyPolicy, policy.digest().to_string())
        };
        let applied = Box::pin(async {
            match plan.apply(store, who, clock.now()).await? {
                PolicyWrite::Applied(after) => Ok(report(&plan, &after, true)),
                PolicyWrite::MovedOn => {
                    let stands = store.policy.get().await?.unwrap_or_else(StoredPolicy::none);
                    Err(changed(&stands))
                }
            }
        });
        self.act(&line, applied).await
    }
}

fn report(plan: &PolicyPlan, stands: &StoredPolicy, applied: bool) -> Response {
    let body = PolicyReport::new(plan, stands, applied);
    tagged(
        Response::json(StatusCode::OK, json!(body), if applied { "applied" } else { "unchanged" }),
        tag(&stands.digest),
    )
}

fn wrong(invalid: &InvalidPolicy) -> Problem {
    let mut told: Vec<String> = invalid.problems.iter().take(TOLD).map(ToString::to_string).collect();
    let more = invalid.problems.len().saturating_sub(TOLD);
    if more > 0 {
        told.push(format!("and {more} more"));
    }
    Problem::invalid(format!("The policy is not valid, nothing was changed. {}", told.join("; ")))
}

fn changed(stands: &StoredPolicy) -> Problem {
    let problem = Problem::new(Code::PolicyChanged, "Another policy stands there.");
    match tag(&stands.digest) {
        Some(tag) => problem.with(header::ETAG, tag),
        None => problem,
    }
}

/// A strong entity tag. Digests are hexadecimal, which is valid in a header.
fn tag(digest: &str) -> Option<HeaderValue> {
    HeaderValue::from_str(&format!("\"{digest}\"")).ok()
}

fn tagged(answer: Response, tag: Option<HeaderValue>) -> Response {
    match tag {
        Some(tag) => answer.with(header::ETAG, tag),
        None => answer,
    }
}

/// Whether `If-Match` names `digest` (RFC 9110, 13.1.1), if it is there. A weak tag never matches.
fn if_match(headers: &HeaderMap, digest: &str) -> Result<Option<bool>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Ok(None);
    }
    let own = format!("\"{digest}\"");
    let mut matches = false;
    for value in values {
        let value = value.to_str().map_err(|_| Problem::invalid("If-Match is not valid."))?;
        for tag in value.split(',').map(str::trim) {
            let is_tag = tag == "*" || (tag.trim_start_matches("W/").starts_with('"') && tag.ends_with('"'));
            if !is_tag {
                return Err(Problem::invalid("If-Match holds entity tags in quotes, or *."));
            }
            matches |= tag == "*" || tag == own;
        }
    }
    Ok(Some(matches))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_is_compared_as_entity_tags_are() {
        let matches = |values: &[&str]| {
            let pairs = values.iter().map(|value| HeaderValue::from_str(value).unwrap());
            let headers = pairs.fold(HeaderMap::new(), |mut headers, value| {
                headers.append(header::IF_MATCH, value);
                headers
            });
            if_match(&headers, "0a")
        };
        assert_eq!(matches(&[]).unwrap(), None);
        for yes in [&["\"0a\""][..], &["*"], &["\"1\", \"0a\""], &["\"1\"", "\"0a\""]] {
            assert_eq!(matches(yes).unwrap(), Some(true), "{yes:?}");
        }
        for no in [&["\"0b\""][..], &["W/\"0a\""], &["\"0A\""]] {
            assert_eq!(matches(no).unwrap(), Some(false), "{no:?}");
        }
        for bad in [&["0a"][..], &[""], &["\"0a\", x"]] {
            assert!(matches(bad).is_err(), "{bad:?}");
        }
    }
}
