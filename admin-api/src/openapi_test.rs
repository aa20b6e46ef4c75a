//! Holds the OpenAPI document against the routes and against itself.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::routes::{OPENAPI, RESOURCES};

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Calls `visit` for every value below one, itself included.
fn walk(value: &Value, visit: &mut dyn FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Object(fields) => fields.values().for_each(|item| walk(item, visit)),
        _ => {}
    }
}

#[test]
fn the_document_and_the_routes_are_the_same() {
    let served: BTreeSet<String> = RESOURCES
        .iter()
        .flat_map(|resource| {
            let path = resource.path;
            let line = move |method: &str| format!("{} {path}", method.to_lowercase());
            resource.methods.iter().map(move |(m, _)| line(m.as_str()))
        })
        .collect();
    let document = document();
    let described: BTreeSet<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            let methods = methods.as_object().unwrap();
            methods.keys().map(move |method| format!("{method} {path}"))
        })
        .collect();
    assert_eq!(served, described);
}

#[test]
fn every_reference_in_the_document_leads_somewhere() {
    let document = document();
    let mut count = 0;
    walk(&document, &mut |value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
            count += 1;
        }
    });
    assert!(count > 30);
}

#[test]
fn path_parameters_are_described_where_the_path_has_them() {
    let document = document();
    for resource in RESOURCES {
        let wanted: BTreeSet<&str> = resource
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
            .collect();
        for (method, _) in resource.methods {
            let method = method.as_str().to_lowercase();
            let operation = &document["paths"][resource.path][&method];
            let empty = Vec::new();
            let parameters = operation["parameters"].as_array().unwrap_or(&empty);
            let got: BTreeSet<&str> = parameters
                .iter()
                .map(|p| document.pointer(&p["$ref"].as_str().unwrap()[1..]).unwrap())
                .filter(|p| p["in"] == "path")
                .map(|p| p["name"].as_str().unwrap())
                .collect();
            assert_eq!(got, wanted, "{method} {}", resource.path);
        }
    }
}

#[test]
fn the_manual_lists_every_route() {
    const MANUAL: &str = include_str!("../../docs/admin-api.md");
    for resource in RESOURCES {
        for (method, _) in resource.methods {
            let row = format!("| `{method} {}` |", resource.path);
            assert!(MANUAL.contains(&row), "{row}");
        }
    }
}
