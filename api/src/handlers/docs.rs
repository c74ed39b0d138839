//! `GET /v1/openapi.json` and the pages that show it: `GET /v1/docs`, `/v1/docs/{file}`.
//!
//! Invariants: every byte comes from this executable, and the policy of the pages lets a browser load nothing else; pages
//! have no inline scripts. Swagger UI is sent compressed (gzip, whatever the client accepts: only browsers want it).

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::openapi;
use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::response::{Content, Response};
use crate::routes::Audience;

/// What a page may load: its own files, and this API. Swagger UI sets `style` attributes and has its icons in its style
/// sheet.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
                           connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// Files change only with the executable.
const KEPT: &str = "public, max-age=3600";

/// The OpenAPI document of what a listener for `audience` answers.
pub(crate) fn document(audience: Audience) -> Response {
    shown("application/json", openapi::text(audience), "document")
}

/// The page.
pub(crate) fn page() -> Response {
    let bytes = Bytes::from_static(openapi::page::INDEX);
    shown("text/html; charset=utf-8", bytes, "page")
        .with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(PAGE_POLICY))
}

/// A file of the page.
pub(crate) fn file(name: &str) -> Result<Response, Problem> {
    let file = openapi::page::FILES.iter().find(|file| file.name == name);
    let file = file.ok_or_else(|| Problem::new(Code::NotFound, "There is nothing at this path."))?;
    let answer = shown(file.media_type, Bytes::from_static(file.bytes), "file")
        .with(header::CACHE_CONTROL, HeaderValue::from_static(KEPT));
    Ok(if file.gzipped {
        answer.with(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"))
    } else {
        answer
    })
}

fn shown(media_type: &'static str, bytes: Bytes, outcome: &'static str) -> Response {
    Response::new(StatusCode::OK, Content::File { media_type, bytes }, outcome)
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;

    use super::*;

    #[test]
    fn pages_have_a_policy_of_their_own_that_names_no_other_host_and_keep_the_other_headers() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let page = page().into_http(id);
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(
            !policy.contains("http") && !policy.contains("unsafe-eval") && !policy.contains('*'),
            "{policy}"
        );
        assert_eq!(page.headers()[header::X_FRAME_OPTIONS], "DENY");
        let bundle = file("swagger-ui-bundle.js").unwrap().into_http(id);
        assert_eq!(bundle.headers()[header::CONTENT_ENCODING], "gzip");
        assert_eq!(bundle.headers()[header::CACHE_CONTROL], KEPT);
        assert!(bundle.body().starts_with(&[0x1f, 0x8b]));
        assert_eq!(file("../Cargo.toml").unwrap_err().code(), Code::NotFound);
        assert_eq!(document(Audience::Everybody).into_http(id).headers()[header::CACHE_CONTROL], "no-store");
    }
}
