//! Tests of the OpenAPI document: its snapshot, its coverage of the routes, and its references.

use std::collections::BTreeSet;
use std::path::Path;

use http::Method;
use serde_json::Value;

use super::*;
use crate::response::codes::Code;
use crate::routes;

const METHODS: [Method; 7] =
    [Method::GET, Method::PUT, Method::POST, Method::DELETE, Method::OPTIONS, Method::PATCH, Method::TRACE];

/// The document of all routes.
fn whole() -> Value {
    document(Audience::Everybody)
}

/// Every (method, path, operation) of the document.
fn operations(document: &Value) -> Vec<(Method, String, Value)> {
    let paths = document["paths"].as_object().unwrap();
    let each = |(path, item): (&String, &Value)| {
        let (path, item) = (path.clone(), item.as_object().unwrap().clone());
        item.into_iter().map(move |(method, operation)| {
            (method.to_ascii_uppercase().parse().unwrap(), path.clone(), operation)
        })
    };
    paths.iter().flat_map(each).collect()
}

/// Every value of `key`, at any depth.
fn all<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(key));
            object.values().for_each(|inner| all(inner, key, found));
        }
        Value::Array(array) => array.iter().for_each(|inner| all(inner, key, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// `value`, or the value that it refers to.
fn resolved<'d>(document: &'d Value, value: &'d Value) -> &'d Value {
    match value["$ref"].as_str() {
        Some(reference) => document.pointer(&reference[1..]).unwrap(),
        None => value,
    }
}

#[test]
fn the_snapshot_in_the_tree_is_what_is_served() {
    let served: Value = serde_json::from_slice(&text(Audience::Everybody)).unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/openapi/openapi.json");
    let known = std::fs::read_to_string(&file).unwrap_or_default();
    let now = format!("{served:#}\n");
    if known != now {
        let fresh = file.with_extension("json.new");
        std::fs::write(&fresh, now).unwrap();
        panic!("the API changed: look at the difference, then mv {} {}", fresh.display(), file.display());
    }
}

#[test]
fn every_route_is_documented_and_nothing_else() {
    let documented: BTreeSet<_> =
        operations(&whole()).into_iter().map(|(method, path, _)| (method.to_string(), path)).collect();
    let routes: BTreeSet<_> = Route::ALL
        .into_iter()
        .map(|route| (route.method().to_string(), route.template().to_owned()))
        .collect();
    assert_eq!(documented, routes);
    assert_eq!(routes.len(), Route::ALL.len(), "no two routes at one place");

    // The same for the search that serves requests: every method that it accepts at a documented path is documented.
    for path in documented.iter().map(|(_, path)| path) {
        let taken = METHODS.iter().filter(|method| routes::find(Audience::Everybody, method, path).is_ok());
        let told = documented.iter().filter(|(_, at)| at == path).count();
        assert_eq!(taken.count(), told, "{path}");
    }
}

#[test]
fn an_operation_tells_its_path_parameters_and_has_an_id_of_its_own() {
    let document = whole();
    let mut ids = BTreeSet::new();
    for (_, path, operation) in operations(&document) {
        let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
        let in_path = parameters.iter().filter(|parameter| parameter["in"] == "path");
        let told: Vec<_> =
            in_path.map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap())).collect();
        let there: Vec<_> = path.split('/').filter(|segment| segment.starts_with('{')).collect();
        assert_eq!(told, there, "{path}");
        assert!(
            ids.insert(operation["operationId"].to_string()),
            "{} stands twice",
            operation["operationId"]
        );
    }
}

#[test]
fn a_route_takes_a_query_if_it_tells_one() {
    let document = whole();
    for route in Route::ALL {
        let method = route.method().as_str().to_ascii_lowercase();
        let parameters = &document["paths"][route.template()][method]["parameters"];
        let told = parameters.as_array().into_iter().flatten().any(|parameter| parameter["in"] == "query");
        assert_eq!(route.takes_query(), told, "{}", route.template());
    }
}

#[test]
fn every_route_but_probes_tells_that_a_process_can_be_full() {
    let document = whole();
    for route in Route::ALL {
        let method = route.method().as_str().to_ascii_lowercase();
        let told = resolved(&document, &document["paths"][route.template()][method]["responses"]["503"]);
        let tells = told.to_string().contains("OVERLOADED");
        assert_eq!(tells, !route.is_probe(), "{route:?}");
    }
}

#[test]
fn every_code_is_told_under_its_own_status() {
    let document = whole();
    let mut told = BTreeSet::new();
    for (_, path, operation) in operations(&document) {
        for (status, response) in operation["responses"].as_object().unwrap() {
            let response = resolved(&document, response);
            let schema = &response["content"]["application/problem+json"]["schema"];
            let codes = schema["allOf"][1]["properties"]["error"]["properties"]["code"]["enum"].as_array();
            for code in codes.into_iter().flatten() {
                let code = Code::ALL.into_iter().find(|known| known.entry().code == code).unwrap();
                assert_eq!(code.entry().status.as_str(), status, "{path} {code:?}");
                told.insert(code.entry().code);
            }
            let request_id = resolved(&document, &response["headers"]["X-Request-ID"]);
            assert_eq!(request_id["required"], true, "{path} {status}");
        }
    }
    // There is no operation that could document an unknown path or method.
    told.insert(Code::MethodNotAllowed.entry().code);
    assert_eq!(told, Code::ALL.iter().map(|code| code.entry().code).collect());
    assert!(ABOUT.contains("METHOD_NOT_ALLOWED"));
}

#[test]
fn every_reference_and_every_link_of_each_listeners_document_leads_somewhere() {
    for document in [Audience::Everybody, Audience::Platforms, Audience::Operators].map(document) {
        let mut references = Vec::new();
        all(&document, "$ref", &mut references);
        assert!(references.len() > 20, "{references:?}");
        for reference in references {
            let pointer = reference.as_str().unwrap().strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
        let operations = operations(&document);
        let ids: BTreeSet<_> = operations.iter().map(|(.., told)| told["operationId"].to_string()).collect();
        for (.., operation) in &operations {
            let mut linked = Vec::new();
            all(&operation["responses"], "operationId", &mut linked);
            assert!(linked.iter().all(|id| ids.contains(&id.to_string())), "{linked:?}");
        }
    }
}

#[test]
fn a_listener_tells_the_routes_that_it_answers_and_no_others() {
    let paths = |audience| -> BTreeSet<String> {
        operations(&document(audience)).into_iter().map(|(_, path, _)| path).collect()
    };
    let (platforms, operators) = (paths(Audience::Platforms), paths(Audience::Operators));
    assert!(platforms.contains("/v1/allocate") && !platforms.iter().any(|path| path.contains("admin")));
    assert!(operators.contains("/v1/admin/stats") && !operators.contains("/v1/allocate"));
    let both: Vec<_> = platforms.intersection(&operators).map(String::as_str).collect();
    assert_eq!(both, ["/healthz", "/readyz", "/v1/docs", "/v1/docs/{file}", "/v1/openapi.json"]);
    assert_eq!(&platforms | &operators, paths(Audience::Everybody));
}
