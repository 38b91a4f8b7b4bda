//! Rules of structural schemas: what is refused when they are written, and what they refuse afterwards.

use knarr_api::Path;
use knarr_cel::Budget;
use knarr_cel::rules::Rules;
use serde_json::{Value, json};

fn object(properties: Value, rules: Value) -> Value {
    json!({"type": "object", "properties": properties, "x-kubernetes-validations": rules})
}

fn compiled(schema: &Value) -> Rules {
    let (rules, errors) = Rules::compile(schema, &Path::ROOT.child("schema"));
    assert!(errors.is_empty(), "{errors:?}");
    rules
}

fn errors(schema: &Value, new: Value, old: Option<Value>) -> Vec<String> {
    let (mut budget, mut warnings) = (Budget::default(), Vec::new());
    let found = compiled(schema).validate(&new, old.as_ref(), &Path::ROOT, &mut budget, &mut warnings);
    found.iter().map(ToString::to_string).collect()
}

fn refused(schema: &Value) -> Vec<String> {
    let (_, errors) = Rules::compile(schema, &Path::ROOT.child("schema"));
    errors.iter().map(ToString::to_string).collect()
}

#[test]
fn a_broken_rule_says_what_its_author_wants() {
    let numbers = || json!({"min": {"type": "integer"}, "max": {"type": "integer"}});
    let new = json!({"min": 3, "max": 2});
    for (rule, wanted) in [
        (json!({"rule": "self.min <= self.max"}), "<nil>: Invalid value: failed rule: self.min <= self.max"),
        (json!({"rule": "self.min <= self.max", "message": " no "}), "<nil>: Invalid value: no"),
        (
            json!({"rule": "self.min <= self.max", "messageExpression": "'%d > %d'.format([self.min, self.max])"}),
            "<nil>: Invalid value: 3 > 2",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "messageExpression": "' '"}),
            "<nil>: Invalid value: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "fieldPath": ".min", "reason": "FieldValueForbidden"}),
            "min: Forbidden: m",
        ),
        (
            json!({"rule": "self.min <= self.max", "message": "m", "reason": "FieldValueRequired"}),
            "<nil>: Required value: m",
        ),
    ] {
        assert_eq!(errors(&object(numbers(), json!([rule])), new.clone(), None), [wanted]);
    }
    let fine = object(numbers(), json!([{"rule": "self.min <= self.max"}]));
    assert_eq!(errors(&fine, json!({"min": 1, "max": 2}), None), Vec::<String>::new());
}

#[test]
fn rules_stand_anywhere_in_a_schema() {
    let positive = json!([{"rule": "self > 0", "message": "must be positive"}]);
    let number = json!({"type": "integer", "x-kubernetes-validations": positive});
    let schema = object(
        json!({
            "list": {"type": "array", "maxItems": 10, "items": number},
            "map": {"type": "object", "maxProperties": 10, "additionalProperties": number},
        }),
        json!([{"rule": "self.list.all(x, x < 10)"}]),
    );
    let found = errors(&schema, json!({"list": [1, -1], "map": {"a": 0}}), None);
    let wanted = ["list[1]: Invalid value: -1: must be positive", "map[a]: Invalid value: 0: must be positive"];
    assert_eq!(found, wanted);
}

#[test]
fn transition_rules_need_what_was_there() {
    let fixed = json!({"type": "string", "maxLength": 10, "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "fixed"}]});
    let schema = object(json!({"a": fixed}), json!([]));
    assert_eq!(errors(&schema, json!({"a": "x"}), None), Vec::<String>::new());
    assert_eq!(errors(&schema, json!({"a": "x"}), Some(json!({"a": "x"}))), Vec::<String>::new());
    assert_eq!(errors(&schema, json!({"a": "x"}), Some(json!({"a": "y"}))), ["a: Invalid value: \"x\": fixed"]);
    assert_eq!(errors(&schema, json!({"a": "x"}), Some(json!({}))), Vec::<String>::new());

    let rule =
        json!([{"rule": "oldSelf.hasValue() || self.a == 'first'", "optionalOldSelf": true, "message": "not first"}]);
    let schema = object(json!({"a": {"type": "string", "maxLength": 10}}), rule);
    assert_eq!(errors(&schema, json!({"a": "x"}), None), ["<nil>: Invalid value: not first"]);
    assert_eq!(errors(&schema, json!({"a": "x"}), Some(json!({"a": "y"}))), Vec::<String>::new());
}

#[test]
fn items_of_keyed_lists_are_matched_by_their_keys() {
    let item = json!({
        "type": "object", "required": ["name"],
        "properties": {"name": {"type": "string", "maxLength": 10}, "size": {"type": "integer"}},
        "x-kubernetes-validations": [{"rule": "self.size >= oldSelf.size", "message": "shrinks"}],
    });
    let schema = object(
        json!({"items": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item}}),
        json!([]),
    );
    let list = |a: i64, b: i64| json!({"items": [{"name": "a", "size": a}, {"name": "b", "size": b}]});
    let swapped = json!({"items": [{"name": "b", "size": 1}, {"name": "a", "size": 5}]});
    assert_eq!(errors(&schema, swapped, Some(list(1, 2))), ["items[0]: Invalid value: shrinks"]);

    let atomic = object(json!({"items": {"type": "array", "maxItems": 10, "items": item}}), json!([]));
    let found = refused(&atomic);
    let wanted = "oldSelf cannot be used on the uncorrelatable portion of the schema within schema.properties[items]";
    assert!(found[0].contains(wanted), "{found:?}");
}

#[test]
fn what_an_unchanged_part_breaks_already_only_warns() {
    let schema = object(
        json!({"a": {"type": "integer", "x-kubernetes-validations": [{"rule": "self > 0", "message": "low"}]}, "b": {"type": "integer"}}),
        json!([]),
    );
    let rules = compiled(&schema);
    let (mut budget, mut warnings) = (Budget::default(), Vec::new());
    let old = json!({"a": -1, "b": 1});
    let new = json!({"a": -1, "b": 2});
    assert!(rules.validate(&new, Some(&old), &Path::ROOT, &mut budget, &mut warnings).is_empty());
    assert_eq!(warnings, ["a: Invalid value: -1: low"]);
}

#[test]
fn names_formats_and_unions_are_read_as_declared() {
    let schema = object(
        json!({
            "namespace": {"type": "string", "maxLength": 10},
            "a-b": {"type": "integer"},
            "port": {"x-kubernetes-int-or-string": true},
            "when": {"type": "string", "format": "date-time"},
            "wait": {"type": "string", "format": "duration"},
            "ratio": {"type": "number"},
            "set": {"type": "array", "maxItems": 10, "x-kubernetes-list-type": "set", "items": {"type": "string", "maxLength": 10}},
        }),
        json!([
            {"rule": "self.__namespace__ == 'x'", "message": "1"},
            {"rule": "self.a__dash__b == 1", "message": "2"},
            {"rule": "type(self.port) == int ? self.port < 10 : self.port == 'http'", "message": "3"},
            {"rule": "self.when > timestamp('2020-01-01T00:00:00Z')", "message": "4"},
            {"rule": "self.wait == duration('90s')", "message": "5"},
            {"rule": "self.ratio == 2.0", "message": "6"},
            {"rule": "self.set == ['b', 'a']", "message": "7"},
            {"rule": "self.kind == 'K' && self.metadata.name == 'n'", "message": "8"},
        ]),
    );
    let new = json!({
        "kind": "K", "metadata": {"name": "n"}, "namespace": "x", "a-b": 1, "port": "http", "when": "2024-01-01T00:00:00Z",
        "wait": "1m30s", "ratio": 2, "set": ["a", "b"],
    });
    assert_eq!(errors(&schema, new, None), Vec::<String>::new());
}

#[test]
fn wrong_rules_are_refused_where_they_stand() {
    let schema = |rule: Value| object(json!({"a": {"type": "string"}}), json!([rule]));
    for (rule, wanted) in [
        (json!({"rule": " "}), "schema.x-kubernetes-validations[0].rule: Required value: rule is not specified"),
        (json!({"rule": "self.b"}), "compilation failed: ERROR: <input>:1:5: undefined field 'b'\n | self.b\n | ....^"),
        (json!({"rule": "self.a"}), "cel expression must evaluate to a bool"),
        (
            json!({"rule": "true", "fieldPath": ".b"}),
            "schema.x-kubernetes-validations[0].fieldPath: Invalid value: \".b\": must be a valid path",
        ),
        (json!({"rule": "true", "reason": "No"}), "reason: Unsupported value: \"No\": supported values:"),
        (json!({"rule": "true\n"}), ""),
        (json!({"rule": "true &&\n true"}), "message must be specified if rule contains line breaks"),
        (json!({"rule": "true", "message": " "}), "must be non-empty if specified"),
        (json!({"rule": "true", "messageExpression": "1"}), "messageExpression must evaluate to a string"),
        (
            json!({"rule": "true", "optionalOldSelf": true}),
            "optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule",
        ),
    ] {
        let found = refused(&schema(rule.clone()));
        assert_eq!(found.is_empty(), wanted.is_empty(), "{rule}: {found:?}");
        assert!(found.iter().all(|f| f.contains(wanted)), "{rule}: {found:?}");
    }
}

#[test]
fn costs_are_estimated_from_bounds() {
    let nested = |bounds: Value| {
        let mut list = json!({"type": "array", "items": {"type": "string"}});
        list.as_object_mut().unwrap().extend(bounds.as_object().unwrap().clone());
        object(json!({"list": list}), json!([{"rule": "self.list.all(x, self.list.all(y, x != y || true))"}]))
    };
    let found = refused(&nested(json!({})));
    let limit = "estimated rule cost exceeds budget by factor of more than 100x (try simplifying the rule, or adding maxItems, maxProperties, and maxLength where arrays, maps, and strings are declared)";
    assert!(
        found[0].starts_with("schema.x-kubernetes-validations[0].rule: Forbidden: ") && found[0].ends_with(limit),
        "{found:?}"
    );
    let small = json!({"maxItems": 10, "items": {"type": "string", "maxLength": 10}});
    assert_eq!(refused(&nested(small)), Vec::<String>::new());
}

#[test]
fn a_spent_budget_ends_the_checks() {
    let schema = object(json!({"a": {"type": "integer"}}), json!([{"rule": "self.a < 0"}, {"rule": "self.a < 1"}]));
    let (mut budget, mut warnings) = (Budget::new(5), Vec::new());
    let found = compiled(&schema).validate(&json!({"a": 3}), None, &Path::ROOT, &mut budget, &mut warnings);
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found[0], "<nil>: Invalid value: failed rule: self.a < 0");
    assert!(
        found[1]
            .ends_with("validation failed due to running out of cost budget, no further validation rules will be run")
    );
}
