//! HTTP(S) client for the provider, the hooks and the trace collector.
//!
//! Invariant: connecting and the size of a response are bounded; the caller bounds the time. TLS is the stack of the AWS
//! SDK, with the system's certificates, read only for https URLs. No retries, redirects or proxies. A [`GuardedClient`]
//! connects only to addresses that its [`Guard`] lets through.

mod guard;

use std::sync::Arc;
use std::time::Duration;

pub use guard::{Guard, NotAllowed};

use bytes::{Bytes, BytesMut};
use http::Uri;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Incoming};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::errors;

/// A connection pool; clones share it.
pub type Client<B> = legacy::Client<HttpsConnector<HttpConnector>, B>;

/// A connection pool that opens connections only where its guard allows.
pub type GuardedClient<B> = legacy::Client<HttpsConnector<HttpConnector<Guard>>, B>;

/// A client for `url` with the timeout `connect` for each connection.
pub fn client<B>(url: &Uri, connect: Duration) -> Result<Client<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector(
        HttpConnector::new(),
        url,
        connect,
    )?))
}

/// A client for `url` that looks at the addresses of its host, whenever it connects, with `guard`. The guard does not see
/// a host that is an address itself: ask [`Guard::check_host`] first.
pub fn guarded_client<B>(url: &Uri, connect: Duration, guard: Guard) -> Result<GuardedClient<B>, String>
where
    B: Body + Send,
    B::Data: Send,
{
    Ok(legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(connector(
        HttpConnector::new_with_resolver(guard),
        url,
        connect,
    )?))
}

fn connector<R>(
    mut connector: HttpConnector<R>,
    url: &Uri,
    connect: Duration,
) -> Result<HttpsConnector<HttpConnector<R>>, String> {
    connector.enforce_http(false);
    connector.set_connect_timeout(Some(connect));
    Ok(hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(tls(url)?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(connector))
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

/// Why a body was not read whole.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotWhole {
    /// It has more bytes than are read.
    #[error("an answer of more than {limit} bytes")]
    TooLarge {
        /// How many are read at most.
        limit: usize,
    },
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

/// The whole of a body that has at most `limit` bytes.
pub async fn whole(mut body: Incoming, limit: usize) -> Result<Bytes, NotWhole> {
    if body.size_hint().lower() > limit as u64 {
        return Err(NotWhole::TooLarge { limit });
    }
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| NotWhole::Broken(errors::chain(&error)))?;
        if let Some(data) = frame.data_ref() {
            if read.len() + data.len() > limit {
                return Err(NotWhole::TooLarge { limit });
            }
            read.extend_from_slice(data);
        }
    }
    Ok(read.freeze())
}

/// Whether a call failed because the two sides do not agree on TLS: a certificate that is not trusted, another name in
/// it, or a side that does not speak TLS.
pub fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // An I/O error does not name what it wraps as its source, but that one's source.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match wrapped {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        };
    }
    false
}
