//! What field ownership costs on the write path, and apply and patches beside it.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use knarr_api::apply::{Scope, apply, reset_fields, update_managed_fields};
use knarr_api::patch::strategic;
use knarr_api::resource::GroupVersionKind;
use knarr_api::schema::schema;
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

fn scope(api_version: &'static str, kind: &'static str) -> Scope<'static> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let ty = schema().by_gvk(&GroupVersionKind::new(group, version, kind)).expect("a kind");
    Scope { schema: schema(), ty, api_version, kind, subresource: "", reset: reset_fields(kind, false, "") }
}

fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c", "namespace": "n"},
        "data": {"payload": "x".repeat(1024)}})
}

fn pod() -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"app": "x"}}, "spec": {
        "containers": [{"name": "c", "image": "i", "imagePullPolicy": "Always", "ports": [{"containerPort": 80, "protocol": "TCP"}],
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "resources": {"requests": {"cpu": "100m", "memory": "1Mi"}},
            "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
            "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}], "dnsPolicy": "ClusterFirst", "restartPolicy": "Always",
        "schedulerName": "default-scheduler", "securityContext": {}, "terminationGracePeriodSeconds": 30}})
}

fn ownership(c: &mut Criterion) {
    for (name, scope, object) in
        [("ConfigMap", scope("v1", "ConfigMap"), config_map()), ("Pod", scope("v1", "Pod"), pod())]
    {
        c.bench_function(&format!("create {name}"), |b| {
            b.iter_batched_ref(
                || object.clone(),
                |object| update_managed_fields(&scope, None, black_box(object), "bench", NOW),
                criterion::BatchSize::SmallInput,
            );
        });
        let mut live = object.clone();
        update_managed_fields(&scope, None, &mut live, "bench", NOW);
        let mut changed = live.clone();
        changed["metadata"]["labels"]["app"] = "y".into();
        c.bench_function(&format!("update {name}"), |b| {
            b.iter_batched_ref(
                || changed.clone(),
                |object| update_managed_fields(&scope, Some(&live), black_box(object), "bench", NOW),
                criterion::BatchSize::SmallInput,
            );
        });
        let applied = apply(&scope, None, &object, "bench", false, NOW).expect("creates");
        c.bench_function(&format!("apply {name}"), |b| {
            b.iter(|| apply(&scope, Some(black_box(&applied)), &object, "bench", false, NOW));
        });
    }
}

fn patches(c: &mut Criterion) {
    let scope = scope("v1", "Pod");
    let patch = br#"{"status":{"phase":"Running","conditions":[{"type":"Ready","status":"True"}]}}"#;
    c.bench_function("strategic patch of a Pod", |b| {
        b.iter_batched(
            pod,
            |pod| strategic::apply(scope.schema, scope.ty, pod, black_box(patch)),
            criterion::BatchSize::SmallInput,
        );
    });
}

criterion_group!(benches, ownership, patches);
criterion_main!(benches);
