//! Fuzz tests of client input: streams, heads, bodies, cursors. Nothing panics or hangs, and bad input is refused with a
//! 4xx that does not repeat it.
//!
//! Short in `cargo test`; `.ci/fuzz` runs it for minutes.

use broker_runtime::config::Networks;
use broker_store::PageKey;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use proptest::prelude::*;

use crate::handlers::Cursors;
use crate::http::smuggling::Framing;
use crate::request::auth::{Authenticator, TokenRole};
use crate::request::body::{AllocateBody, expect_none};
use crate::request::prefer::Preferences;
use crate::request::query::Query;
use crate::request::{client_addr, headers};
use crate::response::problem::Problem;
use crate::routes::{self, Audience};

/// A header that the API reads.
fn any_name() -> impl Strategy<Value = HeaderName> {
    let names = [
        "x-instruqt-sandbox-id",
        "x-track-id",
        "x-instruqt-track-id",
        "x-sandbox-name-prefix",
        "idempotency-key",
        "prefer",
        "authorization",
        "x-forwarded-for",
        "content-length",
        "origin",
        "host",
    ];
    prop::sample::select(names.to_vec()).prop_map(HeaderName::from_static)
}

fn any_value() -> impl Strategy<Value = HeaderValue> {
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..160),
        "[A-Za-z0-9._:@-]{0,140}".prop_map(String::into_bytes),
        "\"[ -~]{0,140}\"?".prop_map(String::into_bytes),
        "([Bb]earer ){0,3}[!-~]{0,40}".prop_map(String::into_bytes),
        "((wait=[0-9\"]{0,12}|respond-async|[a-z]=\"[^\"]{0,9}\")[,;] ?){0,4}".prop_map(String::into_bytes),
        "([0-9a-f.:]{1,20}, ?){0,5}".prop_map(String::into_bytes),
    ];
    let allowed = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    bytes.prop_map(move |bytes| {
        let bytes: Vec<u8> = bytes.into_iter().filter(allowed).collect();
        HeaderValue::from_bytes(&bytes).unwrap()
    })
}

fn any_headers() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((any_name(), any_value()), 0..8).prop_map(|pairs| {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(name, value);
        }
        headers
    })
}

/// The refusal is a 4xx and repeats nothing of the input.
fn is_a_good_refusal(problem: &Problem, headers: &HeaderMap) -> bool {
    let status = problem.code().entry().status;
    let repeats = |value: &HeaderValue| {
        value.to_str().is_ok_and(|value| value.len() > 12 && format!("{problem:?}").contains(value))
    };
    status.is_client_error() && !headers.values().any(repeats)
}

/// Bytes of a connection: pieces of requests, and anything.
fn any_stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "POST / HTTP/1.1\r\n",
        "content-length: 3\r\n",
        "Content-Length: ",
        "transfer-encoding: chunked\r\n",
        "a;x=\"y\"\r\n",
        "3\r\nabc\r\n",
        "0\r\n\r\n",
        "\r\n",
        "\n",
        "\r",
        ":",
    ];
    let piece = prop_oneof![
        4 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..80),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_stream_is_followed_the_same_in_whatever_pieces_it_comes(stream in any_stream(), piece in 1_usize..40) {
        let (mut whole, mut in_pieces) = (stream.clone(), stream.clone());
        Framing::default().follow(&mut whole);
        let mut framing = Framing::default();
        in_pieces.chunks_mut(piece).for_each(|piece| _ = framing.follow(piece));
        prop_assert_eq!(&whole, &in_pieces);
        let spoilt = whole.iter().zip(&stream).filter(|(now, before)| now != before);
        prop_assert!(spoilt.count() <= 1 && whole.len() == stream.len());
    }

    #[test]
    fn any_headers_are_understood_or_refused(headers in any_headers()) {
        let owner = headers::owner(&headers);
        let others = [
            headers::track_name(&headers).map(drop),
            headers::name_prefix(&headers).map(drop),
            headers::idempotency_key(&headers).map(drop),
        ];
        if let Ok(owner) = &owner {
            let sent = headers.get("x-instruqt-sandbox-id").or_else(|| headers.get("x-track-id"));
            prop_assert_eq!(sent.and_then(|sent| sent.to_str().ok()), Some(owner.as_str()));
        }
        for refused in others.into_iter().chain([owner.map(drop)]).filter_map(Result::err) {
            prop_assert!(is_a_good_refusal(&refused, &headers), "{:?}", refused);
        }
        let preferences = Preferences::of(&headers);
        prop_assert!(headers.contains_key("prefer") || preferences == Preferences::default());
        client_addr::address([127, 0, 0, 1].into(), &headers, &Networks::parse("127.0.0.0/8").unwrap());
    }

    #[test]
    fn no_header_but_a_known_token_lets_anybody_in(headers in any_headers()) {
        let strings = [("BROKER_TRACK_TOKENS", "a=0123456789abcdef-not-guessed")];
        let strings = strings.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let config = broker_runtime::config::Config::read(&std::collections::BTreeMap::from(strings)).unwrap();
        let authenticator = Authenticator::new(&config);
        let refused = authenticator.authenticate(&headers, TokenRole::Track).unwrap_err();
        prop_assert_eq!(refused.code().entry().status, StatusCode::UNAUTHORIZED);
        prop_assert!(is_a_good_refusal(&refused, &headers), "{:?}", refused);
        prop_assert_eq!(authenticator.token_name(&headers), None);
    }

    #[test]
    fn any_path_goes_somewhere_or_nowhere(
        method in prop::sample::select(vec![Method::GET, Method::POST, Method::DELETE, Method::OPTIONS]),
        path in "(/(v1|allocate|sandboxes|requests|mark-for-deletion|healthz|[%a-z0-9/.]{0,12}|[^/]{0,8})){0,6}",
    ) {
        match routes::find(Audience::Everybody, &method, &path) {
            Ok((route, _)) => prop_assert!(route.template().starts_with('/')),
            Err(lost) => prop_assert!(lost.problem.code().entry().status.is_client_error()),
        }
    }

    #[test]
    fn any_body_is_understood_or_refused(
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            "[{}\\[\\]\":,a-z_0-9. ]{0,80}".prop_map(String::into_bytes),
            "\\{\"lab_duration_hours\": ?[-0-9.eE\"]{0,25}\\}".prop_map(String::into_bytes),
        ],
    ) {
        if let Ok(body) = AllocateBody::parse(&body) {
            let canonical = body.canonical();
            prop_assert_eq!(AllocateBody::parse(canonical.as_bytes()).unwrap().canonical(), canonical);
        }
        prop_assert!(expect_none(&body).is_err() || body.len() < 300);
    }

    #[test]
    fn any_cursor_is_refused_unless_this_list_gave_it(
        pk in "[ -~\u{e4}]{1,60}",
        sk in "[!-~]{1,60}",
        bad in prop_oneof!["[0-9a-f]{0,200}", any::<String>(), "[0-9a-f]{2,60}0a[0-9a-f]{2,40}"],
        at in any::<prop::sample::Index>(),
        with in any::<char>(),
        filters in "(status=[a-z]{1,9})?(&track=[a-z0-9%]{1,9})?",
    ) {
        let of = |list: &str, table: &str, query: &str| {
            Query::parse(Some(query)).map(|query| Cursors::of(list, table, &query))
        };
        let Ok(cursors) = of("list", "table", &filters) else { return Ok(()) };
        prop_assert!(cursors.parse(&bad).is_none(), "{}", bad);

        let hex: String = format!("{pk}\n{sk}").bytes().map(|byte| format!("{byte:02x}")).collect();
        let key = PageKey::parse(&hex).unwrap();
        let good = cursors.encode(&key);
        prop_assert_eq!(cursors.parse(&good), Some(key));
        let mut changed: Vec<char> = good.chars().collect();
        let at = at.index(changed.len());
        if std::mem::replace(&mut changed[at], with) != with {
            prop_assert!(cursors.parse(&changed.into_iter().collect::<String>()).is_none());
        }
        prop_assert!(cursors.parse(&good[..at]).is_none());
        let more = format!("{filters}&status2=x");
        for another in [of("list-2", "table", &filters), of("list", "table-2", &filters), of("list", "table", &more)] {
            prop_assert!(another.unwrap().parse(&good).is_none());
        }
    }
}
