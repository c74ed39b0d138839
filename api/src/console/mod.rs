//! `GET /console` and `/console/{file}`: the operator's page.
//!
//! Invariants: every byte comes from this executable; the policy lets a browser load nothing else and run nothing inline; the
//! page has no data: what it shows it asks of the operators' routes, with the token that is typed into it.

use bytes::Bytes;
use http::StatusCode;
use http::header::{self, HeaderValue};

use crate::response::codes::Code;
use crate::response::problem::Problem;
use crate::response::{Content, Response};

/// What the page may load: its own files, and this API. No inline script and no inline style.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";
/// Files change only with the executable; a browser asks again whether they did.
const KEPT: &str = "no-cache";

/// A file of the page.
struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! files {
    ($($name:literal $media:expr,)*) => {
        &[$(Asset { name: $name, media_type: $media, bytes: include_bytes!($name) },)*]
    };
}

const INDEX: &[u8] = include_bytes!("index.html");

/// The files of the page.
const FILES: &[Asset] = files![
    "console.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "app.js" SCRIPT,
    "api.js" SCRIPT,
    "audit.js" SCRIPT,
    "bulk.js" SCRIPT,
    "chart.js" SCRIPT,
    "dom.js" SCRIPT,
    "jobs.js" SCRIPT,
    "letters.js" SCRIPT,
    "overview.js" SCRIPT,
    "quarantine.js" SCRIPT,
    "reservations.js" SCRIPT,
    "runbook.js" SCRIPT,
    "sandboxes.js" SCRIPT,
    "supply.js" SCRIPT,
    "tenants.js" SCRIPT,
    "tracks.js" SCRIPT,
    "waiting.js" SCRIPT,
];

/// The runbook, which the page shows beside what is wrong.
const RUNBOOK: Asset = Asset {
    name: "runbook",
    media_type: "text/markdown; charset=utf-8",
    bytes: include_bytes!("../../../infra/docs/RUNBOOK.md"),
};

fn all() -> impl Iterator<Item = &'static Asset> {
    FILES.iter().chain([&RUNBOOK])
}

/// The names of the files.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    all().map(|file| file.name)
}

/// The page.
pub(crate) fn page() -> Response {
    shown("text/html; charset=utf-8", INDEX, "page")
        .with(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY))
}

/// A file of the page.
pub(crate) fn file(name: &str) -> Result<Response, Problem> {
    let file = all().find(|file| file.name == name);
    let file = file.ok_or_else(|| Problem::new(Code::NotFound, "There is nothing at this path."))?;
    let answer = shown(file.media_type, file.bytes, "file");
    Ok(answer.with(header::CACHE_CONTROL, HeaderValue::from_static(KEPT)))
}

fn shown(media_type: &'static str, bytes: &'static [u8], outcome: &'static str) -> Response {
    Response::new(StatusCode::OK, Content::File { media_type, bytes: Bytes::from_static(bytes) }, outcome)
}

#[cfg(test)]
mod tests {
    use broker_domain::Timestamp;
    use broker_runtime::entropy::Entropy;

    use super::*;

    fn text(file: &Asset) -> &'static str {
        str::from_utf8(file.bytes).unwrap()
    }

    #[test]
    fn the_page_has_a_policy_without_anything_inline_and_sends_no_referrer() {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let page = page().into_http(id);
        let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(!policy.contains("unsafe") && !policy.contains("http") && !policy.contains('*'), "{policy}");
        assert_eq!(page.headers()[header::REFERRER_POLICY], "no-referrer");
        assert_eq!(page.headers()[header::CACHE_CONTROL], "no-store");
        let index = str::from_utf8(INDEX).unwrap();
        for inline in [" style=", "<style", " onclick", " onload", "javascript:", "<script>"] {
            assert!(!index.contains(inline), "{inline}");
        }
        assert_eq!(file("../Cargo.toml").unwrap_err().code(), Code::NotFound);
    }

    #[test]
    fn the_page_is_small_names_no_other_host_and_keeps_nothing_but_what_a_bulk_action_needs() {
        let own: usize = FILES.iter().map(|file| file.bytes.len()).sum::<usize>() + INDEX.len();
        assert!(own < 150_000, "{own} bytes");
        for file in FILES {
            let text = text(file);
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("://"), "{}", file.name);
            for kept in ["localStorage", "document.cookie", "innerHTML", "eval("] {
                assert!(!text.contains(kept), "{} in {}", kept, file.name);
            }
            assert!(!text.contains("sessionStorage") || file.name == "bulk.js", "{}", file.name);
        }
    }

    #[test]
    fn every_file_that_is_asked_for_is_there_and_every_one_is_asked_for() {
        let texts: Vec<_> = FILES.iter().filter(|file| file.media_type == SCRIPT).map(text).collect();
        let texts = texts.into_iter().chain([str::from_utf8(INDEX).unwrap()]).collect::<String>();
        for name in names() {
            let (page, module) = (format!("console/{name}"), format!("./{name}"));
            assert!(texts.contains(&page) || texts.contains(&module), "{name} is not asked for");
        }
        let imports = texts.split("from \"./").skip(1).filter_map(|rest| rest.split('"').next());
        for import in imports {
            assert!(names().any(|name| name == import), "{import} is not there");
        }
    }
}
