//! Client of the broker's HTTP API, as far as `broker lease` needs it.
//!
//! Invariant: the same owner in every call of a run, so a call whose answer was lost is repeated and finds its own sandbox.

use std::time::{Duration, Instant};

use broker_domain::{FlavourName, Heartbeat, LabDuration, TrackId, TrackName};
use broker_runtime::clock::Clock;
use broker_runtime::https;
use bytes::Bytes;
use http::header::{AUTHORIZATION, HeaderValue, LOCATION, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::Full;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::output;

const CONNECT: Duration = Duration::from_secs(5);
/// How long one call of an allocate waits for its sandbox.
const HELD_CALL_S: u64 = 20;
/// How long one call may take.
const CALL: Duration = Duration::from_secs(40);
/// How long a broker that does not answer is asked again.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause where the answer names none.
const PAUSE: Duration = Duration::from_secs(2);
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
    Refused(String),
    /// Nobody could say.
    Unknown(String),
}

/// An answer of the broker.
#[derive(Debug)]
struct LeaseAnswer {
    status: u16,
    headers: HeaderMap,
    body: Value,
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
    pub(super) fn new(url: Uri, token: &str, owner: TrackId, clock: Clock) -> Result<Self, String> {
        if url.scheme().is_none() || url.host().is_none() {
            return Err("is no URL such as https://broker.example".to_owned());
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| "the token is no text of one line".to_owned())?;
        authorization.set_sensitive(true);
        let http = https::client(&url, CONNECT)?;
        Ok(Self { http, url, authorization, owner, clock })
    }

    /// A sandbox, within the wait.
    pub(super) async fn allocate(
        &self,
        wanted: &WantedLease<'_>,
        stop: &CancellationToken,
    ) -> Result<HeldLease, NoSandbox> {
        let mut patience = RetryBudget::new(wanted.wait, self.clock.instant());
        let unreached = RetryBudget::new(PATIENCE, self.clock.instant());
        // A broker that lets nothing wait is asked again and again instead.
        let mut in_line = !wanted.wait.is_zero();
        loop {
            if stop.is_cancelled() {
                return Err(NoSandbox::Interrupted);
            }
            let mut headers = HeaderMap::new();
            let hold = HELD_CALL_S.min(wanted.wait.as_secs().max(10));
            headers.extend(
                HeaderValue::try_from(format!("wait={hold}"))
                    .map(|wait| (http::header::HeaderName::from_static("prefer"), wait)),
            );
            let lab = wanted.lab.and_then(|lab| HeaderValue::try_from(lab.as_str()).ok());
            headers
                .extend(lab.map(|lab| (http::header::HeaderName::from_static("x-instruqt-track-id"), lab)));
            let body = json!(body_of(wanted, in_line)).to_string();
            let mut answer = self.call(Method::POST, "/v1/allocate", headers, body).await;
            if in_line && answer.as_ref().is_ok_and(|answer| answer.code() == "CANNOT_WAIT") {
                in_line = false;
                continue;
            }
            if let Ok(accepted) = &answer
                && accepted.status == 202
                && let Some(location) = accepted.location()
            {
                answer = self.outcome(&location, &mut patience, stop).await;
            }
            let none_free = matches!(&answer, Ok(LeaseAnswer { status: 409, .. }));
            let (pause, last) = match answer {
                Ok(LeaseAnswer { status: 200 | 201, body, .. }) => return held(&body),
                Ok(answer) if answer.is_for_now() => (answer.retry_after(), answer.told()),
                Ok(answer) => return Err(NoSandbox::Refused(answer.told())),
                Err(why) => (PAUSE, why),
            };
            let now = self.clock.instant();
            patience.say(&last, now);
            // A broker that cannot be reached is asked again for a while, whatever the wait: it says nothing of the pool.
            if patience.is_over(pause, now) && (none_free || unreached.is_over(pause, now)) {
                return Err(NoSandbox::NotInTime(last));
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
    }

    /// How the request at `location` ended; cancelled if `stop` comes first.
    async fn outcome(
        &self,
        location: &str,
        patience: &mut RetryBudget,
        stop: &CancellationToken,
    ) -> Result<LeaseAnswer, String> {
        let mut cancelled = false;
        loop {
            let answer = self.call(Method::GET, location, HeaderMap::new(), String::new()).await?;
            if answer.status != 200 {
                return Ok(answer);
            }
            if answer.body["status"] != "queued" {
                let status = answer.body["response"]["status"].as_u64().unwrap_or_default();
                let body = answer.body["response"]["body"].clone();
                let status = u16::try_from(status).unwrap_or_default();
                return Ok(LeaseAnswer { status, headers: answer.headers, body });
            }
            if stop.is_cancelled() && !cancelled {
                self.call(Method::DELETE, location, HeaderMap::new(), String::new()).await?;
                cancelled = true;
                continue;
            }
            if let Some(ahead) = answer.body["waiting"]["ahead"].as_u64() {
                patience.say(&format!("{ahead} before this one"), self.clock.instant());
            }
            let pause = answer.retry_after();
            if stop.is_cancelled() {
                tokio::time::sleep(pause).await;
            } else {
                let _ = stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        }
    }

    /// One heartbeat.
    pub(super) async fn beat(&self, sandbox_id: &str) -> Beat {
        let path = format!("/v1/sandboxes/{sandbox_id}/renew");
        match self.call(Method::POST, &path, HeaderMap::new(), String::new()).await {
            Ok(answer) if answer.status == 200 => {
                let second = |name: &str| answer.body[name].as_u64().unwrap_or_default();
                Beat::Live { expires_at: second("expires_at"), max_expires_at: second("max_expires_at") }
            }
            Ok(answer) if answer.is_for_now() => Beat::Unknown(answer.told()),
            Ok(answer) => Beat::Refused(answer.told()),
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
                Ok(answer) if answer.status == 202 || answer.is_for_now() => {
                    (answer.retry_after(), answer.told())
                }
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
    const fn is_for_now(&self) -> bool {
        matches!(self.status, 408 | 409 | 429 | 500..)
    }

    fn location(&self) -> Option<String> {
        let location = self.headers.get(LOCATION)?.to_str().ok()?;
        location.starts_with('/').then(|| location.to_owned())
    }

    fn retry_after(&self) -> Duration {
        let told = self.headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()?.parse().ok());
        told.map_or(PAUSE, Duration::from_secs)
    }

    fn code(&self) -> &str {
        self.body["error"]["code"].as_str().unwrap_or("no code")
    }

    /// What a person is told.
    fn told(&self) -> String {
        let code = self.code();
        let detail = self.body["detail"].as_str().unwrap_or_default();
        format!("{} {code}: {detail}", self.status)
    }
}

fn body_of(wanted: &WantedLease<'_>, in_line: bool) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("heartbeat_s".to_owned(), wanted.heartbeat.seconds().into());
    if in_line {
        body.insert("max_wait_s".to_owned(), wanted.wait.as_secs().into());
    }
    if let Some(flavour) = wanted.flavour {
        body.insert("flavour".to_owned(), flavour.as_str().into());
    }
    if let Some(hours) = wanted.hours {
        body.insert("lab_duration_hours".to_owned(), hours.hours().into());
    }
    body
}

fn held(body: &Value) -> Result<HeldLease, NoSandbox> {
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
struct RetryBudget {
    until: Instant,
    began: Instant,
    said: Instant,
}

impl RetryBudget {
    fn new(wait: Duration, now: Instant) -> Self {
        Self { until: now + wait, began: now, said: now }
    }

    /// Says that it goes on, now and then.
    fn say(&mut self, last: &str, now: Instant) {
        if now.duration_since(self.said) >= SAY_EVERY {
            self.said = now;
            output::complain(&format!(
                "still waiting after {} s: {last}",
                now.duration_since(self.began).as_secs()
            ));
        }
    }

    /// Whether a repeat after `pause` would come too late.
    fn is_over(&self, pause: Duration, now: Instant) -> bool {
        now + pause > self.until
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
