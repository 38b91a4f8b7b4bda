//! Tables of small objects and what is wrong with them, beyond what the recorded answers ask. `tests/cases/*.yaml`: a list of
//! cases with an `object`, for an update also what it `was`, for another door the `subresource`, and the `errors` in order
//! (field path and cause; none where the object is right).

use knarr_api::decode::{Encoding, FieldValidation, decode_object};
use knarr_api::resource::{GroupVersion, GroupVersionKind, built_in};
use knarr_api::strategy::{Context, strategy};
use knarr_api::{Object, default};
use serde_json::Value;

fn read(object: &Value) -> (GroupVersionKind, Object) {
    let word = |field: &str| object[field].as_str().unwrap_or_default();
    let version = GroupVersion::parse(word("apiVersion")).expect("a version");
    let kind = GroupVersionKind::new(version.group, version.version, word("kind").to_string());
    let text = object.to_string();
    let decoded = decode_object(text.as_bytes(), Encoding::Json, &kind, FieldValidation::Strict);
    let mut object = decoded.unwrap_or_else(|error| panic!("{error}: {text}")).object;
    default::apply_defaults(&kind, &mut object);
    (kind, object)
}

fn errors(case: &Value) -> Vec<String> {
    let (kind, mut object) = read(&case["object"]);
    let row = built_in().resources.iter().find(|r| r.gvk() == kind).expect("a served kind");
    let plan = strategy(&row.group_resource(), &kind);
    let context = Context::default();
    plan.default(&mut object);
    let found = match (&case["was"], case["subresource"].as_str()) {
        (Value::Null, _) => {
            plan.prepare_create(&context, &mut object);
            plan.validate_create(&context, &object)
        }
        (was, None) => {
            let (_, old) = read(was);
            plan.prepare_update(&context, &mut object, &old);
            plan.validate_update(&context, &object, &old)
        }
        (was, Some(name)) => {
            let (_, old) = read(was);
            plan.prepare_subresource_update(&context, name, &mut object, &old);
            plan.validate_subresource_update(&context, name, &object, &old)
        }
    };
    found.iter().map(|e| format!("{} {}", e.path, e.kind.cause().trim_start_matches("FieldValue"))).collect()
}

#[test]
fn objects_are_refused_for_what_is_wrong_with_them() {
    let directory = "tests/cases";
    let mut wrong = Vec::new();
    let mut asked = 0;
    for file in std::fs::read_dir(directory).expect("the cases").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a table of cases");
        let cases: Vec<Value> = serde_saphyr::from_str(&text).expect("a list of cases");
        for case in &cases {
            asked += 1;
            let wanted: Vec<&str> = case["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let found = errors(case);
            if found != wanted {
                wrong.push(format!("{}\n  want {wanted:?}\n  got  {found:?}", case["name"]));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {asked} cases:\n{}", wrong.len(), wrong.join("\n"));
}
