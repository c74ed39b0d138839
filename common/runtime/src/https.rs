//! HTTP(S) client for the provider and the trace collector.
//!
//! Invariant: connecting and the size of a response are bounded; the caller bounds the time. TLS is the stack of the AWS
//! SDK, with the system's certificates, read only for https URLs. No retries, redirects or proxies.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Uri;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// A connection pool; clones share it.
pub type Client<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// A client for `url` with the timeout `connect` for each connection.
pub fn client<B>(url: &Uri, connect: Duration) -> Result<Client<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect));
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls(url)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector);
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector))
}

/// Reads certificates for https URLs only.
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

/// The whole body, if it has at most `limit` bytes.
pub async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, String> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error_chain(&error))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > limit {
                return Err(format!("a response of more than {limit} bytes"));
            }
            read.extend_from_slice(data);
        }
    }
    Ok(read.freeze())
}

/// An error with its causes, as one text.
pub fn error_chain(error: &(dyn std::error::Error + 'static)) -> String {
    let chain = std::iter::successors(Some(error), |&error| error.source());
    chain.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
