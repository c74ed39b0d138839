//! HTTP client: one [`Api`] per `broker-api` process, keep-alive, and a [`Call`] to build a request.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::answer::Answer;

/// The bearer token of the platform, as `BROKER_TRACK_TOKENS` knows it.
pub const TRACK_TOKEN: &str = "tok-platform-0123456789";
/// The bearer token of the operator, as `BROKER_ADMIN_TOKENS` knows it.
pub const ADMIN_TOKEN: &str = "tok-ops-0123456789";

/// The header that names the owner of a request.
pub const OWNER: &str = "x-instruqt-sandbox-id";
/// The header that names the lab.
pub const LAB: &str = "x-instruqt-track-id";
/// The header that asks for sandboxes by the beginning of their name.
pub const NAME_PREFIX: &str = "x-sandbox-name-prefix";
/// The header that names the intent of an allocation.
pub const KEY: &str = "idempotency-key";

/// One `broker-api` process, seen by a client. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Api {
    address: Arc<str>,
    http: Client<HttpConnector, Full<Bytes>>,
}

impl Api {
    /// The server at `address` (`host:port`); nothing is sent yet.
    pub fn new(address: &str) -> Self {
        Self { address: address.into(), http: Client::builder(TokioExecutor::new()).build_http() }
    }

    /// Its `host:port`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `POST /v1/allocate` by `track`.
    pub fn allocate(&self, track: &str) -> Call {
        self.call(Method::POST, "/v1/allocate").header(OWNER, track)
    }

    /// `POST /v1/sandboxes/{sandbox}/mark-for-deletion` by `track`.
    pub fn return_sandbox(&self, sandbox: &str, track: &str) -> Call {
        self.call(Method::POST, &format!("/v1/sandboxes/{sandbox}/mark-for-deletion")).header(OWNER, track)
    }

    /// `GET /v1/sandboxes/{sandbox}` by `track`.
    pub fn sandbox(&self, sandbox: &str, track: &str) -> Call {
        self.call(Method::GET, &format!("/v1/sandboxes/{sandbox}")).header(OWNER, track)
    }

    /// `GET` of a request's `location`, as a 202 named it, by `track`.
    pub fn request(&self, location: &str, track: &str) -> Call {
        self.call(Method::GET, location).header(OWNER, track)
    }

    /// `DELETE` of a request's `location`, as a 202 named it, by `track`.
    pub fn cancel(&self, location: &str, track: &str) -> Call {
        self.call(Method::DELETE, location).header(OWNER, track)
    }

    /// Any method and path, with the platform's token and no owner.
    pub fn call(&self, method: Method, path: &str) -> Call {
        let call = Call { api: self.clone(), request: Request::new(Bytes::new()) };
        let mut call = call.header("authorization", format!("Bearer {TRACK_TOKEN}"));
        *call.request.method_mut() = method;
        *call.request.uri_mut() = self.uri(path);
        call
    }

    /// `GET path` without a token, as a probe or a scraper does; `None` without a response.
    pub async fn probe(&self, path: &str) -> Option<(u16, String)> {
        let response = self.http.get(self.uri(path)).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// The sum of all samples of a metric, or of one series (`name{label="value"}`); 0 if there is none.
    ///
    /// # Panics
    ///
    /// When the process does not serve `/metrics`.
    pub async fn metric(&self, name: &str) -> f64 {
        let Some((200, text)) = self.probe("/metrics").await else {
            panic!("no metrics at {}", self.address)
        };
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.filter_map(|line| line.rsplit_once(' '));
        let of_name = samples.filter(|(series, _)| *series == name || series.split('{').next() == Some(name));
        of_name.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }

    fn uri(&self, path: &str) -> Uri {
        let uri = format!("http://{}{path}", self.address);
        uri.parse().unwrap_or_else(|error| panic!("{uri}: {error}"))
    }
}

/// A request that is being put together.
#[derive(Clone, Debug)]
pub struct Call {
    api: Api,
    request: Request<Bytes>,
}

impl Call {
    /// Sets a header, in place of an earlier value. Takes bytes, since a bad client may send any.
    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value.as_ref());
        self.request.headers_mut().insert(name, value);
        self
    }

    /// Adds a header beside an earlier value.
    pub fn another(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        let (name, value) = header(name, value.as_ref());
        self.request.headers_mut().append(name, value);
        self
    }

    /// Takes a header away.
    pub fn without(mut self, name: &str) -> Self {
        self.request.headers_mut().remove(name);
        self
    }

    /// With this bearer token.
    pub fn token(self, token: &str) -> Self {
        self.header("authorization", format!("Bearer {token}"))
    }

    /// `Idempotency-Key: key`.
    pub fn key(self, key: &str) -> Self {
        self.header(KEY, key)
    }

    /// For this lab.
    pub fn lab(self, lab: &str) -> Self {
        self.header(LAB, lab)
    }

    /// Only sandboxes whose name starts so.
    pub fn name_prefix(self, prefix: &str) -> Self {
        self.header(NAME_PREFIX, prefix)
    }

    /// `Prefer: wait=seconds`.
    pub fn wait(self, seconds: u32) -> Self {
        self.header("prefer", format!("wait={seconds}"))
    }

    /// `Prefer: respond-async`.
    pub fn respond_async(self) -> Self {
        self.header("prefer", "respond-async")
    }

    /// With a JSON body.
    pub fn json(self, body: &Value) -> Self {
        self.body(body.to_string())
    }

    /// With these bytes as the JSON body.
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let mut call = self.header("content-type", "application/json");
        *call.request.body_mut() = body.into();
        call
    }

    /// Sends it.
    ///
    /// # Panics
    ///
    /// When no answer comes, or one that breaks what holds for every answer (see [`Answer`]).
    pub async fn send(self) -> Answer {
        let told = format!("{} {}", self.request.method(), self.request.uri());
        match self.try_send().await {
            Ok(answer) => answer,
            Err(error) => panic!("{told}: {error}"),
        }
    }

    /// Sends it with another method to another path.
    pub async fn send_to(mut self, method: Method, path: &str) -> Answer {
        *self.request.method_mut() = method;
        *self.request.uri_mut() = self.api.uri(path);
        self.send().await
    }

    /// Sends it; `Err` tells why no answer came.
    pub async fn try_send(self) -> Result<Answer, String> {
        let told = format!("{} {}", self.request.method(), self.request.uri());
        let sent = self.api.http.request(self.request.map(Full::new)).await;
        let (head, body) = sent.map_err(|error| format!("{error:?}"))?.into_parts();
        let body = body.collect().await.map_err(|error| format!("the body broke off: {error}"))?;
        Ok(Answer::new(told, head.status.as_u16(), head.headers, &body.to_bytes()))
    }
}

fn header(name: &str, value: &[u8]) -> (HeaderName, HeaderValue) {
    let name = name.parse().expect("a header name");
    (name, HeaderValue::from_bytes(value).expect("a header value"))
}
