//! One HTTP call to the provider: bounded, with the token, to its own origin only.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use secrecy::ExposeSecret as _;

use super::ProviderError;
use crate::config::ProviderConfig;

/// How long opening a connection may take (DESIGN.md, "Provider").
const CONNECT: Duration = Duration::from_secs(5);
/// The largest page that is read.
const LARGEST_BODY: usize = 64 * 1024 * 1024;

/// An answer, read whole.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Bytes,
}

/// The connections to the provider.
#[derive(Clone, Debug)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    base: Uri,
    authorization: HeaderValue,
    timeout: Duration,
}

impl Http {
    pub(super) fn new(config: &ProviderConfig) -> Result<Self, ProviderError> {
        let wrong = |problem: String| ProviderError::Malformed { problem };
        let mut authorization = HeaderValue::from_str(&format!("Token {}", config.token.expose_secret()))
            .map_err(|_| wrong("the token is no header value".to_owned()))?;
        authorization.set_sensitive(true);
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(CONNECT));
        let tls = tls(&config.url).map_err(wrong)?;
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector);
        Ok(Self { client, base: config.url.clone(), authorization, timeout: config.timeout })
    }

    /// The URL of a path under the base.
    pub(super) fn at(&self, path: &str) -> Result<Uri, ProviderError> {
        let under = format!("{}{path}", self.base.path().trim_end_matches('/'));
        self.with_path(&under)
    }

    /// A URL that the provider gave us, if it is of the provider's own origin.
    pub(super) fn follow(&self, next: &str) -> Result<Uri, ProviderError> {
        let foreign =
            || ProviderError::Malformed { problem: format!("next page {next:?} is not of its origin") };
        let uri: Uri = next.parse().map_err(|_| foreign())?;
        let same = match (uri.scheme(), uri.authority()) {
            (None, None) => next.starts_with('/'),
            (scheme, authority) => scheme == self.base.scheme() && authority == self.base.authority(),
        };
        if !same {
            return Err(foreign());
        }
        self.with_path(uri.path_and_query().map_or("/", PathAndQuery::as_str))
    }

    fn with_path(&self, path: &str) -> Result<Uri, ProviderError> {
        let mut parts = self.base.clone().into_parts();
        let wrong = |problem: String| ProviderError::Malformed { problem };
        parts.path_and_query = Some(path.parse().map_err(|_| wrong(format!("{path:?} is no path")))?);
        Uri::from_parts(parts).map_err(|error| wrong(error.to_string()))
    }

    /// One call, from connecting to the last byte within the timeout.
    pub(super) async fn call(&self, method: Method, uri: &Uri) -> Result<Answer, ProviderError> {
        let unavailable = |problem: String| ProviderError::Unavailable { problem };
        let mut request = Request::new(Empty::new());
        *request.method_mut() = method;
        *request.uri_mut() = uri.clone();
        request.headers_mut().insert(header::AUTHORIZATION, self.authorization.clone());
        request.headers_mut().insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let call = async {
            let response = self.client.request(request).await.map_err(|error| told(&error))?;
            let (head, body) = response.into_parts();
            Ok(Answer {
                status: head.status,
                retry_after: retry_after(&head.headers),
                body: whole(body).await?,
            })
        };
        match tokio::time::timeout(self.timeout, call).await {
            Ok(answer) => answer.map_err(unavailable),
            Err(_elapsed) => Err(unavailable(format!("no answer within {} s", self.timeout.as_secs()))),
        }
    }
}

/// Certificates are read only where they are needed.
fn tls(url: &Uri) -> Result<rustls::ClientConfig, String> {
    use hyper_rustls::ConfigBuilderExt as _;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    if url.scheme_str() == Some("https") {
        let trusting = builder.with_native_roots().map_err(|error| format!("no certificates: {error}"))?;
        Ok(trusting.with_no_client_auth())
    } else {
        Ok(builder.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
    }
}

async fn whole(mut body: Incoming) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| told(&error))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > LARGEST_BODY {
                return Err(format!("an answer of more than {LARGEST_BODY} bytes"));
            }
            read.extend_from_slice(data);
        }
    }
    Ok(read.freeze())
}

/// Seconds; the form with a date is not used by this provider.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// An error and its causes.
fn told(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
