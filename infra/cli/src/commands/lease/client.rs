//! Client of the broker's HTTP API, as far as `broker lease` needs it.
//!
//! Invariant: the same owner in every call of a run, so a call whose answer was lost is repeated and finds its own sandbox.

use std::time::{Duration, Instant};

use broker_domain::{FlavourName, Heartbeat, LabDuration, TrackId, TrackName};
use broker_runtime::clock::Clock;
use broker_runtime::config::ConfigError;
use broker_runtime::https;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value, json};

use crate::output;

const CONNECT: Duration = Duration::from_secs(5);
/// How long one call may take.
const CALL: Duration = Duration::from_secs(40);
/// How long a broker that does not answer is asked again.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// The pause where the answer names none.
pub(super) const PAUSE: Duration = Duration::from_secs(2);
/// How often a wait says that it goes on.
const SAY_EVERY: Duration = Duration::from_secs(15);
/// The largest answer that is read.
const LARGEST: usize = 256 * 1024;

/// The sandbox that is wanted.
#[derive(Debug)]
pub(super) struct WantedLease<'a> {
    pub(super) flavour: Option<&'a FlavourName>,
    pub(super) heartbeat: Heartbeat,
    pub(super) hours: Option<LabDuration>,
    pub(super) lab: Option<&'a TrackName>,
    pub(super) wait: Duration,
}

/// A sandbox that was allocated.
#[derive(Debug)]
pub(super) struct HeldLease {
    pub(super) sandbox_id: String,
    pub(super) name: String,
    pub(super) external_id: String,
    pub(super) expires_at: u64,
    /// Attributes of the provider, by the names of variables.
    pub(super) attributes: Vec<(String, String)>,
}

/// Why there is none.
#[derive(Debug)]
pub(super) enum NoSandbox {
    /// The wait is over; this was said last.
    NotInTime(String),
    /// The call is wrong and stays wrong.
    Refused(String),
    /// A signal came first.
    Interrupted,
}

/// What a heartbeat was told.
#[derive(Debug)]
pub(super) enum Beat {
    /// The lease ends then, and can be renewed until then.
    Live { expires_at: u64, max_expires_at: u64 },
    /// The lease is over: so it was said.
    Over(String),
    /// An answer that says nothing of the lease, and that the next heartbeat may get, too: a token that is refused, a page of a
    /// load balancer.
    Denied(String),
    /// The outcome is unknown.
    Unknown(String),
}

impl Beat {
    fn of(answer: &LeaseAnswer) -> Self {
        let second = |name: &str| answer.body[name].as_u64();
        match (answer.status, second("expires_at"), second("max_expires_at")) {
            (200, Some(expires_at), Some(max_expires_at)) => Self::Live { expires_at, max_expires_at },
            _ if answer.ends_the_lease() => Self::Over(answer.told()),
            _ if answer.is_for_now() => Self::Unknown(answer.told()),
            _ => Self::Denied(answer.told()),
        }
    }
}

/// An answer of the broker.
#[derive(Debug)]
pub(super) struct LeaseAnswer {
    pub(super) status: u16,
    headers: HeaderMap,
    pub(super) body: Value,
}

/// The client of one owner.
#[derive(Debug)]
pub(super) struct Client {
    http: https::Client<Full<Bytes>>,
    url: Uri,
    authorization: HeaderValue,
    owner: TrackId,
    pub(super) clock: Clock,
}

impl Client {
    pub(super) fn new(url: Uri, token: &str, owner: TrackId, clock: Clock) -> Result<Self, ConfigError> {
        let of_url = |problem: String| ConfigError::new("BROKER_URL", problem);
        if url.scheme().is_none() || url.host().is_none() {
            return Err(of_url("is no URL such as https://broker.example".to_owned()));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| ConfigError::new("BROKER_TOKEN", "is no text of one line"))?;
        authorization.set_sensitive(true);
        let http = https::client(&url, CONNECT).map_err(of_url)?;
        Ok(Self { http, url, authorization, owner, clock })
    }

    /// Asks for a sandbox; the request may wait for `max_wait`, and the call is held for `hold` seconds.
    pub(super) async fn ask(
        &self,
        wanted: &WantedLease<'_>,
        max_wait: Duration,
        hold: u64,
    ) -> Result<LeaseAnswer, String> {
        let mut headers = HeaderMap::new();
        headers.extend(
            HeaderValue::try_from(format!("wait={hold}"))
                .map(|wait| (http::header::HeaderName::from_static("prefer"), wait)),
        );
        let lab = wanted.lab.and_then(|lab| HeaderValue::try_from(lab.as_str()).ok());
        headers.extend(lab.map(|lab| (http::header::HeaderName::from_static("x-instruqt-track-id"), lab)));
        let body = json!(body_of(wanted, max_wait)).to_string();
        self.call(Method::POST, "/v1/allocate", headers, body).await
    }

    /// The state of the request at `location`.
    pub(super) async fn get(&self, location: &str) -> Result<LeaseAnswer, String> {
        self.call(Method::GET, location, HeaderMap::new(), String::new()).await
    }

    /// Cancels the request at `location`.
    pub(super) async fn cancel(&self, location: &str) -> Result<LeaseAnswer, String> {
        self.call(Method::DELETE, location, HeaderMap::new(), String::new()).await
    }

    /// One heartbeat.
    pub(super) async fn beat(&self, sandbox_id: &str) -> Beat {
        let path = format!("/v1/sandboxes/{sandbox_id}/renew");
        match self.call(Method::POST, &path, HeaderMap::new(), String::new()).await {
            Ok(answer) => Beat::of(&answer),
            Err(why) => Beat::Unknown(why),
        }
    }

    /// Gives a sandbox back; says so if it cannot within a minute.
    pub(super) async fn give_back(&self, sandbox_id: &str) {
        let mut patience = RetryBudget::new(PATIENCE, self.clock.instant());
        let path = format!("/v1/sandboxes/{sandbox_id}/mark-for-deletion");
        loop {
            let (pause, last) = match self.call(Method::POST, &path, HeaderMap::new(), String::new()).await {
                Ok(LeaseAnswer { status: 200, .. }) => return,
                Ok(answer) if !answer.ends_the_lease() => (answer.retry_after(), answer.told()),
                Ok(answer) => {
                    return output::complain(&format!("{sandbox_id} was not given back: {}", answer.told()));
                }
                Err(why) => (PAUSE, why),
            };
            if patience.is_over(pause, self.clock.instant()) {
                let when = "it is taken back when its heartbeats have been missed";
                return output::complain(&format!("{sandbox_id} was not given back ({last}); {when}"));
            }
            patience.say(&last, self.clock.instant());
            tokio::time::sleep(pause).await;
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: String,
    ) -> Result<LeaseAnswer, String> {
        let uri = format!("{}{path}", self.url.to_string().trim_end_matches('/'));
        let mut request = Request::builder().method(method).uri(uri);
        if let Some(all) = request.headers_mut() {
            *all = headers;
            all.insert(AUTHORIZATION, self.authorization.clone());
        }
        let request = request
            .header("x-instruqt-sandbox-id", self.owner.as_str())
            .header("content-type", "application/json")
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let answered = async {
            let answer = self.http.request(request).await.map_err(|error| chain(&error))?;
            let (head, body) = answer.into_parts();
            let bytes = https::whole(body, LARGEST).await.map_err(|error| error.to_string())?;
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            Ok(LeaseAnswer { status: head.status.as_u16(), headers: head.headers, body })
        };
        tokio::time::timeout(CALL, answered).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

impl LeaseAnswer {
    /// Whether the same call may be answered otherwise later.
    pub(super) const fn is_for_now(&self) -> bool {
        matches!(self.status, 408 | 409 | 429 | 500..)
    }

    /// Whether the broker says that the caller has no lease of the sandbox any more.
    fn ends_the_lease(&self) -> bool {
        matches!(self.code(), "ALLOCATION_EXPIRED" | "NOT_SANDBOX_OWNER" | "SANDBOX_NOT_FOUND")
    }

    pub(super) fn location(&self) -> Option<String> {
        let location = self.headers.get(LOCATION)?.to_str().ok()?;
        location.starts_with('/').then(|| location.to_owned())
    }

    pub(super) fn retry_after(&self) -> Duration {
        let told = self.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        told.map_or(PAUSE, Duration::from_secs)
    }

    pub(super) fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("no code")
    }

    /// What a person is told.
    pub(super) fn told(&self) -> String {
        format!("{} {}: {}", self.status, self.code(), self.detail())
    }

    /// The same in words alone.
    pub(super) fn detail(&self) -> String {
        self.body["detail"].as_str().unwrap_or_default().to_owned()
    }

    /// The answer that the call of an ended request would have had, of its state.
    pub(super) fn stored(self) -> Self {
        let response = &self.body["response"];
        let status = response["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        let body = response["body"].clone();
        Self { status: status.unwrap_or_default(), headers: self.headers, body }
    }
}

fn body_of(wanted: &WantedLease<'_>, max_wait: Duration) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("heartbeat_s".to_owned(), wanted.heartbeat.seconds().into());
    if !max_wait.is_zero() {
        // A second that has begun is waited for.
        let seconds = max_wait.as_secs() + u64::from(max_wait.subsec_nanos() > 0);
        body.insert("max_wait_s".to_owned(), seconds.into());
    }
    if let Some(flavour) = wanted.flavour {
        body.insert("flavour".to_owned(), flavour.as_str().into());
    }
    if let Some(hours) = wanted.hours {
        body.insert("lab_duration_hours".to_owned(), hours.hours().into());
    }
    body
}

/// The sandbox that an answer gave.
pub(super) fn held(body: &Value) -> Result<HeldLease, NoSandbox> {
    let text = |name: &str| body[name].as_str().map(str::to_owned);
    let held = || {
        Some(HeldLease {
            sandbox_id: text("sandbox_id")?,
            name: text("name")?,
            external_id: text("external_id")?,
            expires_at: body["expires_at"].as_u64()?,
            attributes: attributes(body),
        })
    };
    held()
        .ok_or_else(|| NoSandbox::Refused("the answer names no sandbox: is BROKER_URL a broker?".to_owned()))
}

/// What an answer says of every sandbox; all else is an attribute of the provider's (`BROKER_PROVIDER_ATTRIBUTES`).
const FIXED: [&str; 8] = [
    "sandbox_id",
    "name",
    "external_id",
    "allocated_at",
    "expires_at",
    "track_name",
    "request_id",
    "max_expires_at",
];

/// `region` is `SANDBOX_REGION`: letters and digits in capitals, anything else an underscore.
fn attributes(body: &Value) -> Vec<(String, String)> {
    let members = body.as_object().into_iter().flatten();
    let others = members.filter(|(name, _)| !FIXED.contains(&name.as_str()));
    let variable = |name: &str| {
        let character = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
        format!("SANDBOX_{}", name.chars().map(character).collect::<String>())
    };
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()).filter(|text| !text.contains('\0')),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    others.filter_map(|(name, value)| Some((variable(name), text(value)?))).collect()
}

/// How long a call is repeated, and when that is said.
pub(super) struct RetryBudget {
    until: Instant,
    began: Instant,
    said: Instant,
}

impl RetryBudget {
    pub(super) fn new(wait: Duration, now: Instant) -> Self {
        Self { until: now + wait, began: now, said: now }
    }

    /// Says that it goes on, now and then.
    pub(super) fn say(&mut self, last: &str, now: Instant) {
        if now.duration_since(self.said) >= SAY_EVERY {
            self.said = now;
            output::complain(&format!(
                "still waiting after {} s: {last}",
                now.duration_since(self.began).as_secs()
            ));
        }
    }

    /// Whether a repeat after `pause` would come too late.
    pub(super) fn is_over(&self, pause: Duration, now: Instant) -> bool {
        now + pause > self.until
    }

    /// How much of it is left.
    pub(super) fn left(&self, now: Instant) -> Duration {
        self.until.saturating_duration_since(now)
    }

    /// Whether it has been over for longer than `by`.
    pub(super) fn is_over_by(&self, by: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.until) > by
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_words_of_the_broker_end_a_lease() {
        let beat = |status, body| Beat::of(&LeaseAnswer { status, headers: HeaderMap::new(), body });
        let problem = |code| json!({ "error": { "code": code }, "detail": "so it is" });
        assert!(matches!(
            beat(200, json!({ "expires_at": 7, "max_expires_at": 9 })),
            Beat::Live { expires_at: 7, max_expires_at: 9 }
        ));
        for (status, code) in
            [(403, "ALLOCATION_EXPIRED"), (403, "NOT_SANDBOX_OWNER"), (404, "SANDBOX_NOT_FOUND")]
        {
            assert!(matches!(beat(status, problem(code)), Beat::Over(_)), "{status} {code}");
        }
        for (status, body) in [
            (401, problem("UNAUTHORIZED")),
            (403, problem("FORBIDDEN")),
            (403, Value::Null),
            (404, problem("NOT_FOUND")),
            (404, Value::Null),
            (301, Value::Null),
            (200, Value::Null),
        ] {
            assert!(matches!(beat(status, body.clone()), Beat::Denied(_)), "{status} {body}");
        }
        for status in [429, 500, 503] {
            assert!(matches!(beat(status, Value::Null), Beat::Unknown(_)), "{status}");
        }
    }

    #[test]
    fn attributes_of_the_provider_are_variables_of_the_command() {
        let body = json!({
            "sandbox_id": "s", "name": "n", "external_id": "e", "allocated_at": 1, "expires_at": 2, "track_name": null,
            "request_id": "r", "region": "eu-1", "sfdc-account.id": 7, "is_new": true, "none": null, "bad": "a\0b",
        });
        let attributes = held(&body).unwrap().attributes;
        let named =
            |name: &str| attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(attributes.len(), 3, "{attributes:?}");
        assert_eq!(named("SANDBOX_REGION"), Some("eu-1"));
        assert_eq!(named("SANDBOX_SFDC_ACCOUNT_ID"), Some("7"));
        assert_eq!(named("SANDBOX_IS_NEW"), Some("true"));
    }
}
