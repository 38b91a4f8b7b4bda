//! What must hold whatever the input.

use knarr_cel::schema::{escape, unescape};
use knarr_cel::{Budget, Environment, Type, Value, Variables, compare, equal};
use proptest::prelude::*;
use serde_json::{Value as Json, json};

fn any_json() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        (-1e9..1e9f64).prop_map(Json::from),
        "[a-c]{0,3}".prop_map(Json::from),
    ];
    leaf.prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Json::from),
            prop::collection::btree_map("[a-c]{1,2}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

fn evaluate(expression: &str, json: &Json) -> Result<Json, String> {
    let program = Environment::new().declare("x", Type::Dyn).compile(expression).map_err(|e| e.to_string())?;
    let variables = Variables::new().bind("x", Value::from_json(json));
    let value = program.evaluate(&variables, &mut Budget::default()).map_err(|e| e.to_string())?;
    value.to_json().map_err(|e| e.to_string())
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,60}") {
        knarr_cel::fuzz(&text, &json!({"a": [1, "b"]}));
    }

    #[test]
    fn no_likely_text_panics(parts in prop::collection::vec(
        prop::sample::select(vec!["self", ".", "a", "[", "]", "(", ")", "{", "}", "1", "'x'", "+", "-", "?", ":", "&&", "||", "!", ",",
            "in", "has", "all", "map", "size", "==", "<", " ", "optMap", "%", "r'\\d'", ".matches(", "format("]), 0..25)) {
        knarr_cel::fuzz(&parts.concat(), &json!({"a": [1, "b"]}));
    }

    #[test]
    fn equality_is_reflexive_and_symmetric(a in any_json(), b in any_json()) {
        let (left, right) = (Value::from_json(&a), Value::from_json(&b));
        prop_assert!(equal(&left, &left));
        prop_assert_eq!(equal(&left, &right), equal(&right, &left));
        prop_assert_eq!(compare(&left, &right), compare(&right, &left).map(std::cmp::Ordering::reverse));
    }

    #[test]
    fn json_survives_the_round_trip(a in any_json()) {
        prop_assert_eq!(evaluate("x", &a), Ok(a.clone()));
        prop_assert_eq!(evaluate("[x].map(y, y)[0]", &a), Ok(a));
    }

    #[test]
    fn names_survive_escaping(name in "[a-z_./-]{1,12}") {
        if let Some(escaped) = escape(&name) {
            prop_assert_eq!(unescape(&escaped), Some(name));
        }
    }

    #[test]
    fn and_and_or_are_each_others_mirror(a in any::<bool>(), b in any::<bool>()) {
        let both = evaluate("x[0] && x[1]", &json!([a, b]));
        prop_assert_eq!(both.clone(), evaluate("x[1] && x[0]", &json!([a, b])));
        prop_assert_eq!(both, evaluate("!(!x[0] || !x[1])", &json!([a, b])));
    }
}

#[test]
fn depth_is_bounded() {
    for text in [
        format!("{}1{}", "(".repeat(5000), ")".repeat(5000)),
        format!("{}1", "-".repeat(5000)),
        format!("1{}", "+1".repeat(5000)),
        format!("x{}", ".a".repeat(5000)),
        format!("{}x{}", "[".repeat(5000), "]".repeat(5000)),
        format!("{}1", "true ? 1 : ".repeat(5000)),
        format!("x{}", ".optMap(y, y)".repeat(200)),
        "true".to_string() + &" && true".repeat(5000),
    ] {
        knarr_cel::fuzz(&text, &Json::Null);
    }
}
