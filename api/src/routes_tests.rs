//! Tests of finding routes.

use broker_domain::Timestamp;
use broker_runtime::entropy::Entropy;
use http::{Method, header};
use proptest::prelude::*;

use crate::response::codes::Code;
use crate::routes::{Audience, Effect, Route, UNMATCHED, find};

fn code(method: &Method, path: &str) -> Code {
    find(Audience::Everybody, method, path).unwrap_err().problem.code()
}

fn found(method: &Method, path: &str) -> (Route, String) {
    let (route, id) = find(Audience::Everybody, method, path).unwrap();
    (route, id.into_owned())
}

#[test]
fn every_route_is_found_at_its_place_and_no_two_share_one() {
    for route in Route::ALL {
        let path = route.template().replace('{', "an-").replace('}', "");
        let (here, id) = found(&route.method(), &path);
        assert_eq!(here, route);
        assert_eq!(id.starts_with("an-"), route.template().contains('{'), "{path}: {id}");
    }
}

#[test]
fn what_is_no_get_changes_something() {
    for route in Route::ALL {
        let expected = if route.method() == Method::GET { Effect::Reads } else { Effect::Changes };
        assert_eq!(route.effect(), expected, "{route:?}");
    }
}

#[test]
fn head_is_get_without_the_body() {
    assert_eq!(found(&Method::HEAD, "/v1/sandboxes/a"), (Route::Sandbox, "a".to_owned()));
    assert_eq!(found(&Method::HEAD, "/v1/requests/a"), (Route::Request, "a".to_owned()));
}

#[test]
fn another_method_is_405_and_another_path_404() {
    assert_eq!(code(&Method::GET, "/v1/allocate"), Code::MethodNotAllowed);
    assert_eq!(code(&Method::HEAD, "/v1/allocate"), Code::MethodNotAllowed);
    assert_eq!(code(&Method::DELETE, "/v1/sandboxes/a"), Code::MethodNotAllowed);
    assert_eq!(code(&Method::PUT, "/v1/requests/a"), Code::MethodNotAllowed);
    for path in [
        "",
        "/",
        "*",
        "/v1",
        "v1/allocate",
        "/v1/allocate/",
        "//v1/allocate",
        "/V1/allocate",
        "/v1/a/b/c/d/e/f",
        "/v2/allocate",
    ] {
        assert_eq!(code(&Method::POST, path), Code::NotFound, "{path}");
    }
}

#[test]
fn a_405_names_every_method_that_is_allowed() {
    let allowed = |path: &str| {
        let id = Entropy::seeded(1).request_id(Timestamp::from_secs(1));
        let response = find(Audience::Everybody, &Method::PUT, path)
            .unwrap_err()
            .problem
            .into_response(id)
            .into_http(id);
        response.headers()[header::ALLOW].to_str().unwrap().to_owned()
    };
    assert_eq!(allowed("/v1/requests/a"), "GET, HEAD, DELETE");
    assert_eq!(allowed("/v1/sandboxes/a"), "GET, HEAD");
    assert_eq!(allowed("/v1/allocate"), "POST");
}

#[test]
fn a_listener_knows_no_path_of_the_other_ones() {
    let status = |audience, method: &Method, path| {
        find(audience, method, path).err().map_or(200, |lost| lost.problem.status().as_u16())
    };
    let (theirs, others) = ((&Method::GET, "/v1/allocate"), (&Method::GET, "/v1/admin/sync"));
    for (audience, expected) in [
        (Audience::Everybody, [405, 405]),
        (Audience::Platforms, [405, 404]),
        (Audience::Operators, [404, 405]),
    ] {
        let told = [theirs, others].map(|(method, path)| status(audience, method, path));
        assert_eq!(told, expected, "{audience:?}");
        assert_eq!(status(audience, &Method::GET, "/healthz"), 200);
    }
}

#[test]
fn a_405_is_counted_under_the_route_that_it_missed() {
    assert_eq!(find(Audience::Everybody, &Method::GET, "/v1/allocate").unwrap_err().template, "/v1/allocate");
    assert_eq!(
        find(Audience::Everybody, &Method::PUT, "/v1/sandboxes/a").unwrap_err().template,
        "/v1/sandboxes/{id}"
    );
    assert_eq!(find(Audience::Everybody, &Method::GET, "/v1/nothing").unwrap_err().template, UNMATCHED);
}

#[test]
fn an_encoded_slash_does_not_make_a_segment() {
    let path = "/v1/sandboxes/a%2Fmark-for-deletion";
    assert_eq!(found(&Method::GET, path), (Route::Sandbox, "a/mark-for-deletion".to_owned()));
    assert_eq!(found(&Method::GET, "/v1/sandboxes/a%3Ab%40c"), (Route::Sandbox, "a:b@c".to_owned()));
    assert_eq!(code(&Method::GET, "/v1/sandboxes/%ff"), Code::ValidationError);
}

proptest! {
    #[test]
    fn any_path_is_survived(path in any::<String>()) {
        let _ = find(Audience::Everybody, &Method::GET, &path);
    }
}
