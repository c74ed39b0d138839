//! Provider stand-in: an HTTP server with the provider's API, for `broker up` and tests.
//!
//! | method, path | what |
//! |---|---|
//! | `GET /current_user/accounts?page=` | a page of its accounts, with the next page's URL |
//! | `DELETE /sandbox/accounts/{uuid}` | deletes one |
//! | `GET /stand-in` | its accounts and every requested deletion, with its time |
//! | `PUT /stand-in/faults` | sets its faults ([`Faults`]) |
//! | `POST /stand-in/accounts` | adds accounts, or replaces one (`csp_id`) |
//! | `POST /hooks/gate`, `/hooks/before-delete`, `/hooks/refill` | the operator's hooks (`hooks`) |
//!
//! Invariant: without a fault it answers as in ARCHITECTURE.md, "Provider", so the same client runs against it and against the
//! real one. It serves loopback only, and keeps nothing on disk.

mod faults;
mod hooks;
mod world;

use std::net::SocketAddr;
use std::sync::Arc;

use broker_domain::{ExternalId, Sandbox};
use broker_runtime::clock::Clock;
use broker_runtime::own_pages::OwnPages;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use self::faults::{Fault, Faults};
use self::hooks::HookAt;
pub use self::hooks::HookFault;
pub use self::world::{StandInOptions, Wish, WishedRow, World};

/// A response, or the order to break the connection without one.
type Answer = Result<Response<Full<Bytes>>, Silence>;

/// The fault that loses a response.
#[derive(Debug, thiserror::Error)]
#[error("the response is lost")]
struct Silence;

/// The stand-in. Clones share its accounts.
#[derive(Clone, Debug)]
pub struct StandIn {
    /// Its accounts and faults.
    pub world: Arc<World>,
    clock: Clock,
    token: String,
    verifiers: hooks::Verifiers,
    /// Its URL, without a slash at the end.
    pub base: String,
}

impl StandIn {
    /// A stand-in at `address` for clients with `token`.
    pub fn new(address: SocketAddr, token: &str, options: StandInOptions, clock: Clock) -> Self {
        let world = Arc::new(World::new(options, clock.now()));
        Self {
            world,
            clock,
            token: token.to_owned(),
            verifiers: hooks::Verifiers::default(),
            base: format!("http://{address}"),
        }
    }

    /// It as the provider of a pool that another stand-in fed before.
    pub fn with_pool(self, pool: &[Sandbox]) -> Self {
        self.world.resume(pool, self.clock.now());
        self
    }

    /// Serves until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, _)) = accepted else { continue };
            let (stand_in, stop) = (self.clone(), stop.clone());
            let service = service_fn(move |request| {
                let stand_in = stand_in.clone();
                async move { stand_in.answer(request).await }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            // A broken connection is a fault, or its client's problem.
            tokio::spawn(async move { stop.run_until_cancelled(connection).await.and_then(Result::err) });
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let (head, body) = request.into_parts();
        if let Err(refused) = OwnPages::on_loopback().check(&head.headers, head.uri.authority()) {
            return Ok(told(StatusCode::FORBIDDEN, &json!({ "detail": refused.to_string() })));
        }
        let asked = head.uri.path();
        let path = asked.trim_end_matches('/').to_owned();
        if path.starts_with("/stand-in") {
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return Ok(self.control(&head.method, &path, &body));
        }
        if let Some(hook) = HookAt::parse(&path).filter(|_| head.method == Method::POST) {
            let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
            return self.hook(hook, &head.headers, &body).await;
        }
        let expected = format!("Token {}", self.token);
        let token = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if token != Some(expected.as_str()) {
            return Ok(told(StatusCode::UNAUTHORIZED, &json!({ "detail": "Invalid token." })));
        }
        match (&head.method, path.strip_prefix("/sandbox/accounts/")) {
            (&Method::GET, None) if path == "/current_user/accounts" => {
                self.list(asked, head.uri.query().unwrap_or_default()).await
            }
            (&Method::DELETE, Some(id)) => {
                let traceparent = head.headers.get("traceparent").and_then(|value| value.to_str().ok());
                self.delete(asked, id, traceparent.map(str::to_owned)).await
            }
            _ => Ok(told(StatusCode::NOT_FOUND, &json!({ "detail": "Not found." }))),
        }
    }

    async fn list(&self, path: &str, query: &str) -> Answer {
        let fault = self.world.list_fault();
        tokio::time::sleep(fault.delay()).await;
        if let Some(answer) = self.failure(&fault, path) {
            return Ok(answer);
        }
        let number = query.strip_prefix("page=").and_then(|page| page.parse().ok()).unwrap_or(1);
        let page = self.world.page(number, &fault, self.clock.now());
        let is_last = number >= page.last || fault.no_next || fault.empty;
        let next = match (fault.looping && !fault.empty, is_last) {
            (true, _) => json!(self.next_of(&fault, number)),
            (false, false) => json!(self.next_of(&fault, number + 1)),
            (false, true) => fault.last.clone().unwrap_or_default(),
        };
        let results = if fault.empty { Vec::new() } else { page.rows };
        let mut body = json!({ "results": results, "next": next });
        if let Some(count) = fault.count {
            body["count"] = if count == json!(true) { json!(page.count) } else { count };
        }
        if fault.padding > 0 {
            body["padding"] = json!("x".repeat(fault.padding));
        }
        if fault.truncated {
            let text = body.to_string();
            return Ok(Response::new(Full::from(text[..text.len() / 2].to_owned())));
        }
        Ok(told(StatusCode::OK, &body))
    }

    /// How page `number` is named.
    fn next_of(&self, fault: &Fault, number: usize) -> String {
        let Some(named) = &fault.next else {
            return format!("{}/current_user/accounts?page={number}", self.base);
        };
        let address = self.base.trim_start_matches("http://");
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        named
            .replace("{page}", &number.to_string())
            .replace("{base}", &self.base)
            .replace("{host}", host)
            .replace("{port}", port)
    }

    async fn delete(&self, path: &str, id: &str, traceparent: Option<String>) -> Answer {
        let account = Uuid::try_parse(id).ok();
        let csp_id = account.and_then(|account| self.world.csp_id(account));
        let fault = self.world.delete_fault(csp_id.as_deref());
        tokio::time::sleep(fault.delay()).await;
        let now = self.clock.now();
        let (answer, outcome) = match (self.failure(&fault, path), account) {
            (Some(answer), _) => {
                let status = answer.status().as_u16();
                (answer, format!("fault {status}"))
            }
            (None, None) => (told(StatusCode::NOT_FOUND, &json!({})), "malformed".to_owned()),
            (None, Some(_)) if fault.not_found => {
                (told(StatusCode::NOT_FOUND, &json!({})), "lied".to_owned())
            }
            (None, Some(id)) if self.world.remove(id, now) => {
                (told(StatusCode::NO_CONTENT, &json!({})), "deleted".to_owned())
            }
            (None, Some(_)) => (told(StatusCode::NOT_FOUND, &json!({})), "unknown".to_owned()),
        };
        self.world.log(id, &outcome, traceparent, now);
        if fault.lost { Err(Silence) } else { Ok(answer) }
    }

    /// The answer of a fault that does nothing else.
    fn failure(&self, fault: &Fault, path: &str) -> Option<Response<Full<Bytes>>> {
        let status = match fault.status {
            Some(status) => StatusCode::from_u16(status).ok()?,
            None if fault.html => StatusCode::OK,
            None => return None,
        };
        if fault.location.is_some() && path.ends_with('/') {
            return None;
        }
        let mut answer = told(status, &json!({ "detail": "a planted fault" }));
        if fault.html {
            *answer.body_mut() = Full::from("<!doctype html><title>Sign in</title>");
            answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
        }
        let headers = answer.headers_mut();
        let mut put = |name, text: Option<String>| {
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(&text).ok()) {
                headers.insert(name, value);
            }
        };
        put(header::RETRY_AFTER, fault.retry_after_s.map(|seconds| seconds.to_string()));
        put(header::RETRY_AFTER, fault.retry_after.clone());
        let location = fault.location.as_ref();
        put(header::LOCATION, location.map(|to| to.replace("{path}", path).replace("{base}", &self.base)));
        Some(answer)
    }

    fn control(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let bad =
            |error: serde_json::Error| told(StatusCode::BAD_REQUEST, &json!({ "detail": error.to_string() }));
        match (method.as_str(), path) {
            ("GET", "/stand-in") => told(StatusCode::OK, &self.world.shown(self.clock.now())),
            ("PUT", "/stand-in/faults") => match serde_json::from_slice::<Faults>(body) {
                Ok(faults) => {
                    self.world.misbehave(faults);
                    told(StatusCode::OK, &json!({}))
                }
                Err(error) => bad(error),
            },
            ("POST", "/stand-in/accounts") => match serde_json::from_slice(body) {
                Ok(wish) => told(StatusCode::OK, &self.world.add(&wish, self.clock.now())),
                Err(error) => bad(error),
            },
            _ => told(StatusCode::NOT_FOUND, &json!({})),
        }
    }
}

/// The provider's id of account number `number`, the same in the stand-in and in `broker pool seed`.
pub fn uuid_of(number: usize) -> Uuid {
    Uuid::from_u128(u128::try_from(number).unwrap_or(u128::MAX))
}

/// The number of the account with this id, if a stand-in made it. A UUID of another provider is greater than any number.
fn number_of(account: &ExternalId) -> Option<usize> {
    let uuid = Uuid::try_parse(account.as_str().rsplit('/').next()?).ok()?;
    usize::try_from(uuid.as_u128()).ok()
}

/// The account's id, as rows say it, of the account that is made with the label `csp_id` (`seed-000017`).
pub fn account_of(csp_id: &str) -> String {
    let number = csp_id.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or_default();
    format!("identity/accounts/{}", uuid_of(number))
}

fn told(status: StatusCode, body: &Value) -> Response<Full<Bytes>> {
    let text = if status == StatusCode::NO_CONTENT { String::new() } else { body.to_string() };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
