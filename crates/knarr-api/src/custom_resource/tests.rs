use serde_json::{Value, json};

use super::{Structural, default, format, prune, validate};

fn errors(schema: Value, value: Value) -> Vec<String> {
    validate::validate(&value, None, &Structural::compile(&schema)).iter().map(ToString::to_string).collect()
}

#[test]
fn junctors_say_what_upstream_says() {
    let any_of = json!({"type": "object", "properties": {"a": {"type": "string", "anyOf": [{"minLength": 3}, {"enum": ["x"]}]}}});
    assert!(errors(any_of.clone(), json!({"a": "x"})).is_empty());
    let failed = errors(any_of, json!({"a": "y"}));
    assert_eq!(failed[0], "<nil>: Invalid value: \"\": \"a\" must validate at least one schema (anyOf)");
    let one_of = json!({"type": "object", "oneOf": [{"required": ["a"]}, {"required": ["b"]}]});
    assert!(errors(one_of.clone(), json!({"a": 1})).is_empty());
    assert_eq!(
        errors(one_of.clone(), json!({"a": 1, "b": 1})),
        ["<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found 2 valid alternatives"]
    );
    assert_eq!(
        errors(one_of, json!({})),
        [
            "<nil>: Invalid value: \"\": \"\" must validate one and only one schema (oneOf). Found none valid",
            "a: Required value"
        ]
    );
    let not = json!({"type": "object", "properties": {"a": {"type": "string", "not": {"enum": ["x"]}}}});
    assert_eq!(
        errors(not, json!({"a": "x"})),
        ["<nil>: Invalid value: \"\": \"a\" must not validate the schema (not)"]
    );
}

#[test]
fn numbers_are_checked_as_go_checks_them() {
    let schema = json!({"type": "object", "properties": {
        "i": {"type": "integer", "format": "int32", "multipleOf": 2}, "n": {"type": "number", "minimum": 0.5, "exclusiveMinimum": true}}});
    assert!(errors(schema.clone(), json!({"i": 4, "n": 1})).is_empty());
    assert_eq!(errors(schema.clone(), json!({"i": 3})), ["i: Invalid value: 3: i in body should be a multiple of 2"]);
    assert_eq!(
        errors(schema.clone(), json!({"n": 0.5})),
        ["n: Invalid value: 0.5: n in body should be greater than 0.5"]
    );
    assert!(errors(schema, json!({"i": 5_000_000_000i64}))[0].contains("with format int32 in i"));
}

#[test]
fn nulls_are_dropped_defaulted_or_kept() {
    let schema = Structural::compile(&json!({"type": "object", "properties": {
        "plain": {"type": "string"}, "nullable": {"type": "string", "nullable": true}, "filled": {"type": "string", "default": "x"}}}));
    let mut value = json!({"plain": null, "nullable": null, "filled": null});
    prune::prune_nulls(&mut value, Some(&schema));
    default::apply(&mut value, &schema);
    assert_eq!(value, json!({"nullable": null, "filled": "x"}));
}

/// A format, texts that have it, and texts that do not.
const FORMATS: &[(&str, &[&str], &[&str])] = &[
    (
        "date-time",
        &["2014-12-15T19:30:20Z", "2014-12-15t19:30:20.123+01:00"],
        &["2014-12-15", "2014-12-15T25:30:20Z", "x"],
    ),
    ("date", &["2014-12-15"], &["2014-13-15", "15.12.2014"]),
    ("duration", &["1h2m", "0", "3 days", "22ns"], &["x", "", "5"]),
    ("ipv4", &["1.2.3.4", "01.2.3.4"], &["1.2.3", "1.2.3.400", "::1"]),
    ("ipv6", &["::1"], &["1.2.3.4"]),
    ("cidr", &["10.0.0.0/8", "fd00::/8"], &["10.0.0.0", "10.0.0.0/33"]),
    ("mac", &["00:11:22:33:44:55"], &["00:11:22:33:44"]),
    ("uuid", &["123e4567-e89b-12d3-a456-426614174000"], &["123"]),
    ("uri", &["https://a/b", "/a"], &["a b", "", "x"]),
    ("email", &["a@b.c"], &["a", "a@"]),
    ("hostname", &["a.b-c"], &["-a", "a_b", ""]),
    ("byte", &["YQ=="], &["Y", ""]),
    ("hexcolor", &["#fff"], &["#ff"]),
    ("ssn", &["123-45-6789"], &["1"]),
    ("isbn", &["0321751043", "978-0321751041"], &["1"]),
    ("k8s-short-name", &["a-b"], &["A", "a.b"]),
    ("k8s-long-name", &["a.b"], &["a..b"]),
    ("rgbcolor", &["rgb(1,2,3)"], &["rgb(1,2)"]),
];

#[test]
fn formats_fit_what_they_should() {
    for (name, good, bad) in FORMATS {
        assert!(format::is_known("string", name), "{name}");
        good.iter().for_each(|text| assert!(format::matches(name, text), "{name}: {text:?}"));
        bad.iter().for_each(|text| assert!(!format::matches(name, text), "{name}: {text:?}"));
    }
    assert!(!format::is_known("string", "zzz") && !format::is_known("object", "date"));
}
