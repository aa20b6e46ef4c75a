//! JSON of any kind, for tests of what reads it from clients.

use proptest::prelude::*;
use serde_json::Value;

/// Any value, of any depth that matters.
pub fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((".{0,6}", inner), 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// An object with fields that mean something, of whatever value.
pub fn any_object(names: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let field = (prop::sample::select(names), any_json());
    prop::collection::vec(field, 0..6).prop_map(|fields| {
        let fields = fields.into_iter();
        Value::Object(
            fields
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        )
    })
}
