//! Ten thousand items of a list, checked, and applied twice: the time must grow as the list does, where a look at every pair would take
//! minutes.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use knarr_api::apply::{Scope, apply, reset_fields};
use knarr_api::decode::{Encoding, FieldValidation, decode_object};
use knarr_api::resource::GroupVersionKind;
use knarr_api::schema::schema;
use knarr_api::strategy::{Context, strategy};
use serde_json::{Value, json};

const ITEMS: usize = 10_000;

fn many(item: impl Fn(usize) -> Value) -> Value {
    (0..ITEMS).map(item).collect()
}

fn pod(mut spec: Value) -> Value {
    if spec["containers"].is_null() {
        spec["containers"] = json!([{"name": "c", "image": "i"}]);
    }
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": spec})
}

fn pods() -> Vec<(&'static str, Value)> {
    let container = |field: &str, list: Value| {
        let mut container = json!({"name": "c", "image": "i"});
        container[field] = list;
        pod(json!({"containers": [container]}))
    };
    vec![
        ("containers", pod(json!({"containers": many(|i| json!({"name": format!("c{i}"), "image": "i"}))}))),
        ("tolerations", pod(json!({"tolerations": many(|i| json!({"key": format!("k{i}"), "operator": "Exists"}))}))),
        ("volumes", pod(json!({"volumes": many(|i| json!({"name": format!("v{i}"), "emptyDir": {}}))}))),
        ("ports", container("ports", many(|i| json!({"containerPort": i + 1, "hostPort": i + 1})))),
        ("env", container("env", many(|i| json!({"name": format!("E{i}"), "value": "v"})))),
    ]
}

fn long_lists(c: &mut Criterion) {
    let kind = GroupVersionKind::new("", "v1", "Pod");
    let ty = schema().by_gvk(&kind).expect("a built-in kind");
    let reset = reset_fields("Pod", true, "");
    let scope = Scope { schema: schema(), ty, api_version: "v1", kind: "Pod", subresource: "", reset };
    let plan = strategy(&knarr_api::GroupResource::new("", "pods"), &kind);
    for (name, object) in pods() {
        let body = object.to_string();
        c.bench_function(&format!("check {name}"), |b| {
            b.iter(|| {
                let decoded = decode_object(black_box(body.as_bytes()), Encoding::Json, &kind, FieldValidation::Strict);
                plan.validate_create(&Context::default(), &decoded.expect("a pod").object)
            });
        });
        let first = apply(&scope, None, &object, "one", false, 0).expect("nothing stands there");
        c.bench_function(&format!("apply {name}"), |b| {
            b.iter(|| apply(&scope, Some(&first), black_box(&object), "two", true, 1).expect("forced"));
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(10); targets = long_lists }
criterion_main!(benches);
