//! Replays small right and wrong requests with a real API server's answers through decode, default, prepare and validate,
//! and compares code, reason, causes and the defaulted object. Skips where the answers are not at hand.
//!
//! `ANSWERS_SHOW=Kind` lists the mismatches of a kind (`all` for every kind).

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use knarr_api::decode::{Encoding, FieldValidation, decode_object};
use knarr_api::object::ObjectExt;
use knarr_api::resource::{Resource, built_in};
use knarr_api::status::{Reason, StatusError};
use knarr_api::strategy::{Context, Strategy, strategy};
use knarr_api::validation::metadata;
use knarr_api::{GroupVersionResource, Object, default};
use serde_json::{Value, json};

/// The share of agreement, in thousandths, under which this test fails. Raise it, never lower it.
const FLOOR: usize = 990;

/// The uid of every object made here; the recorded answers say `UUID`.
const UID: &str = "00000000-0000-4000-8000-000000000000";

/// Answers that need what this crate does not have: another object, an allocator, an admission plug-in.
const OUT_OF_SCOPE: &[(&str, &str)] = &[
    ("403 Forbidden", "not asked: admission plug-ins (priority, service account, runtime class)"),
    ("token volumes, default tolerations, protection finalizers, not-ready taint", "normalised: admission plug-ins"),
    ("clusterIP(s), ipFamilies, node ports, health check port", "normalised: the allocators"),
    ("status of access reviews", "normalised: the authorizer"),
    ("expressions", "asked, and wrong: CEL is not compiled here"),
];

#[derive(Debug, PartialEq)]
struct Answer {
    code: u64,
    reason: String,
    causes: Vec<(String, String)>,
    object: Option<Value>,
}

fn facts() -> Option<Vec<Value>> {
    let dir = std::env::var_os("KNARR_FACTS").map_or_else(|| PathBuf::from("../../../shared/k8s"), PathBuf::from);
    let text = std::fs::read(dir.join("answers.json")).ok()?;
    serde_json::from_slice(&text).ok()
}

struct Request {
    resource: &'static Resource,
    name: Option<String>,
}

/// `/apis/apps/v1/namespaces/t/deployments/a?…`
fn parse_path(path: &str) -> Request {
    let path = path.split('?').next().unwrap_or_default();
    let mut parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let group = if parts.remove(0) == "api" { "" } else { parts.remove(0) };
    let version = parts.remove(0);
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let gvr = GroupVersionResource::new(group.to_string(), version.to_string(), parts[0].to_string());
    let resource = built_in().by_gvr(&gvr).unwrap_or_else(|| panic!("{path}"));
    Request { resource, name: parts.get(1).map(|n| (*n).to_string()) }
}

fn context() -> Context {
    let groups = vec!["system:masters".to_string(), "system:authenticated".to_string()];
    Context { username: "admin".into(), groups, now: 1_800_000_000, ..Context::default() }
}

fn plan(request: &Request) -> &'static dyn Strategy {
    strategy(&request.resource.group_resource(), &request.resource.gvk())
}

fn create(request: &Request, body: &Value) -> Result<Object, StatusError> {
    let gvk = request.resource.gvk();
    let bytes = serde_json::to_vec(body).expect("a value");
    let mut object = decode_object(&bytes, Encoding::Json, &gvk, FieldValidation::Strict)?.object;
    let row = plan(request);
    default::apply_defaults(&gvk, &mut object);
    if request.resource.namespaced() {
        object.set_meta_str("namespace", "t");
    }
    normalise_metadata(&mut object);
    row.prepare_create(&context(), &mut object);
    admit_create(request, &mut object);
    // Reviews are questions: they are not stored and need no name.
    let mut errors = match request.resource.has_verb("get") {
        true => metadata::validate_create(&object, request.resource.namespaced(), row),
        false => Vec::new(),
    };
    errors.extend(row.validate_create(&context(), &object));
    if !errors.is_empty() {
        return Err(StatusError::invalid(&gvk, object.name(), errors));
    }
    row.canonicalize(&mut object);
    Ok(object)
}

fn update(request: &Request, body: &Value, old: &Object) -> Result<Object, StatusError> {
    let gvk = request.resource.gvk();
    let bytes = serde_json::to_vec(body).expect("a value");
    let mut object = decode_object(&bytes, Encoding::Json, &gvk, FieldValidation::Strict)?.object;
    let row = plan(request);
    default::apply_defaults(&gvk, &mut object);
    check_name(request, &object)?;
    if request.resource.namespaced() {
        object.set_meta_str("namespace", "t");
    }
    if object.resource_version().is_empty() && !row.allow_unconditional_update() {
        let path = knarr_api::Path::ROOT;
        let metadata = path.child("metadata");
        let path = metadata.child("resourceVersion");
        let error = knarr_api::FieldError::invalid(&path, &json!(0), "must be specified for an update");
        return Err(StatusError::invalid(&gvk, object.name(), vec![error]));
    }
    metadata::prepare_update(&mut object, old);
    row.prepare_update(&context(), &mut object, old);
    if gvk.kind == "Pod" {
        add_default_tolerations(&mut object);
    }
    let mut errors = metadata::validate_update(&object, old, request.resource.namespaced(), "", row);
    errors.extend(row.validate_update(&context(), &object, old));
    if !errors.is_empty() {
        return Err(StatusError::invalid(&gvk, object.name(), errors));
    }
    Ok(object)
}

/// The registry's check that the body is of the object in the URL.
fn check_name(request: &Request, object: &Object) -> Result<(), StatusError> {
    let wanted = request.name.as_deref().unwrap_or_default();
    match object.name() {
        name if name == wanted => Ok(()),
        "" => Err(StatusError::bad_request("name must be provided")),
        _ => Err(StatusError::bad_request("the name of the object does not match the name on the URL")),
    }
}

/// What the registry sets on every new object.
fn normalise_metadata(object: &mut Object) {
    let metadata = object.metadata_mut();
    metadata.insert("uid".into(), UID.into());
    metadata.insert("creationTimestamp".into(), "2026-01-01T00:00:00Z".into());
}

/// The admission plug-ins that leave something in the object.
fn admit_create(request: &Request, object: &mut Object) {
    if request.resource.resource != "pods" {
        return;
    }
    let spec = &mut object["spec"];
    if !spec.is_object() {
        return;
    }
    if spec.get("serviceAccountName").is_none() {
        spec["serviceAccountName"] = "default".into();
    }
    spec["serviceAccount"] = spec["serviceAccountName"].clone();
    if spec.get("priority").is_none() {
        spec["priority"] = 0.into();
    }
    if spec.get("preemptionPolicy").is_none() {
        spec["preemptionPolicy"] = "PreemptLowerPriority".into();
    }
}

fn answer_of(result: Result<Object, StatusError>, creating: bool) -> Answer {
    match result {
        Ok(object) if creating => {
            Answer { code: 201, reason: String::new(), causes: Vec::new(), object: Some(comparable(object)) }
        }
        Ok(_) => Answer { code: 200, reason: String::new(), causes: Vec::new(), object: None },
        Err(error) => {
            let causes = error.details.iter().flat_map(|d| &d.causes);
            let mut causes: Vec<_> = causes.map(|c| (c.field.clone(), c.reason.clone())).collect();
            causes.sort();
            causes.dedup();
            Answer { code: error.code.into(), reason: error.reason.as_str().into(), causes, object: None }
        }
    }
}

fn expected(answer: &Value) -> Answer {
    let causes = answer["causes"].as_array().into_iter().flatten();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let mut causes: Vec<_> = causes.map(|c| (text(&c[0]), text(&c[1]))).collect();
    causes.sort();
    causes.dedup();
    Answer {
        code: answer["code"].as_u64().unwrap_or_default(),
        reason: text(&answer["reason"]),
        causes,
        object: answer.get("object").cloned().map(comparable),
    }
}

/// Takes out what varies or what another part of the server adds.
fn comparable(object: Value) -> Value {
    let mut object: Value = serde_json::from_str(&object.to_string().replace(UID, "UUID")).expect("was JSON");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["uid", "creationTimestamp", "resourceVersion", "managedFields", "generation", "namespace"] {
            metadata.remove(field);
        }
        retain(metadata, "finalizers", |f| !f.as_str().is_some_and(|f| f.ends_with("-protection")));
    }
    match object["kind"].as_str() {
        // What a review answers is the authorizer's.
        Some(kind) if kind.ends_with("Review") => object["status"] = Value::Null,
        Some("Pod") => strip_admission(&mut object),
        Some("Service") => strip_allocation(&mut object),
        Some("Node") => {
            if let Some(spec) = object["spec"].as_object_mut() {
                retain(spec, "taints", |t| t["key"] != "node.kubernetes.io/not-ready");
            }
        }
        _ => {}
    }
    object
}

/// The service account's token volume and the default tolerations are admission's.
fn strip_admission(pod: &mut Value) {
    let token = |v: &Value| v["name"].as_str().is_some_and(|n| n.starts_with("kube-api-access-"));
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    retain(spec, "volumes", |v| !token(v));
    retain(spec, "tolerations", |t| {
        !t["key"].as_str().is_some_and(|k| k.starts_with("node.kubernetes.io/") && t["tolerationSeconds"] == 300)
    });
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(container) = container.as_object_mut() {
                retain(container, "volumeMounts", |m| !token(m));
            }
        }
    }
}

fn retain(map: &mut serde_json::Map<String, Value>, field: &str, keep: impl Fn(&Value) -> bool) {
    if let Some(list) = map.get_mut(field).and_then(Value::as_array_mut) {
        list.retain(|v| keep(v));
        if list.is_empty() {
            map.remove(field);
        }
    }
}

/// Cluster addresses and node ports are the allocators'.
fn strip_allocation(service: &mut Value) {
    let Some(spec) = service["spec"].as_object_mut() else { return };
    for field in ["clusterIP", "clusterIPs", "healthCheckNodePort", "ipFamilies", "ipFamilyPolicy"] {
        spec.remove(field);
    }
    for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(port) = port.as_object_mut() {
            port.remove("nodePort");
        }
    }
}

/// `apps/v1.Deployment.20` of `PUT:apps/v1.Deployment.20:spec.replicas:zero`.
fn base_of(case: &str) -> &str {
    case.trim_start_matches("PUT:").split(':').next().unwrap_or_default()
}

/// The minimal objects, as created: from a case without a mutation, else what most mutated bodies agree on.
fn minimal_objects(cases: &[Value]) -> HashMap<String, Object> {
    let mut bodies: HashMap<String, Value> = HashMap::new();
    for case in cases {
        let name = case["case"].as_str().unwrap_or_default();
        if !name.trim_start_matches("PUT:").contains(':') {
            bodies.entry(base_of(name).to_string()).or_insert_with(|| case["body"].clone());
        }
    }
    for case in cases {
        let base = base_of(case["case"].as_str().unwrap_or_default()).to_string();
        if !bodies.contains_key(&base) {
            let all = cases.iter().filter(|c| base_of(c["case"].as_str().unwrap_or_default()) == base);
            let agreed = majority(&all.map(|c| &c["body"]).collect::<Vec<_>>());
            bodies.insert(base.clone(), agreed);
        }
    }
    let mut stored = HashMap::new();
    for case in cases.iter().filter(|c| c["method"] == "PUT") {
        let base = base_of(case["case"].as_str().unwrap_or_default());
        if stored.contains_key(base) {
            continue;
        }
        let request = parse_path(case["path"].as_str().unwrap_or_default());
        match create(&request, &bodies[base]) {
            Ok(object) => stored.insert(base.to_string(), as_stored(object)),
            Err(error) => {
                println!("minimal object {base} refused: {error}");
                None
            }
        };
    }
    stored
}

fn majority(bodies: &[&Value]) -> Value {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for body in bodies {
        *counts.entry(body.to_string()).or_default() += 1;
    }
    let field_names = |v: &&Value| v.as_object().map(|o| o.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let half = bodies.len() / 2;
    if bodies.iter().filter(|b| b.is_object()).count() > half {
        let mut out = serde_json::Map::new();
        let names: std::collections::BTreeSet<String> = bodies.iter().flat_map(field_names).collect();
        for name in names {
            let values: Vec<&Value> = bodies.iter().filter_map(|b| b.get(&name)).collect();
            if values.len() > half {
                out.insert(name, majority(&values));
            }
        }
        return Value::Object(out);
    }
    if bodies.iter().filter(|b| b.is_array()).count() > half {
        let lists: Vec<&Vec<Value>> = bodies.iter().filter_map(|b| b.as_array()).collect();
        let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
        lists.iter().for_each(|l| *lengths.entry(l.len()).or_default() += 1);
        let length = lengths.iter().max_by_key(|(_, n)| **n).map_or(0, |(l, _)| *l);
        let at = |i: usize| majority(&lists.iter().filter_map(|l| l.get(i)).collect::<Vec<_>>());
        return Value::Array((0..length).map(at).collect());
    }
    let best = counts.iter().max_by_key(|(_, n)| **n).map(|(t, _)| t.clone()).unwrap_or_default();
    serde_json::from_str(&best).unwrap_or_default()
}

/// What the allocators and admission leave in a stored object, as far as an update can tell.
fn as_stored(mut object: Object) -> Object {
    let given = object["spec"].get("clusterIP").is_some();
    if object["kind"] == "Service" && object["spec"]["type"] != "ExternalName" && !given {
        object["spec"]["clusterIP"] = "10.43.0.10".into();
        object["spec"]["clusterIPs"] = json!(["10.43.0.10"]);
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
        object["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    }
    if object["kind"] == "Pod" {
        object["spec"]["volumes"] = match object["spec"]["volumes"].take() {
            Value::Array(list) => Value::Array(list),
            _ => json!([]),
        };
        let volume = json!({"name": "kube-api-access-x", "projected": {"defaultMode": 420, "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}}]}});
        object["spec"]["volumes"].as_array_mut().expect("made a list just above").push(volume);
        add_default_tolerations(&mut object);
    }
    object
}

/// An admission plug-in adds these to every pod, on update too.
fn add_default_tolerations(pod: &mut Object) {
    let Some(spec) = pod["spec"].as_object_mut() else { return };
    let list = spec.entry("tolerations").or_insert_with(|| json!([]));
    let Some(list) = list.as_array_mut() else { return };
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300});
        if !list.iter().any(|t| t["key"] == key) {
            list.push(toleration);
        }
    }
}

#[test]
fn requests_are_answered_as_a_real_server_answers_them() {
    let Some(cases) = facts() else {
        println!("skipped: no answers.json");
        return;
    };
    let stored = minimal_objects(&cases);
    let show = std::env::var("ANSWERS_SHOW").unwrap_or_default();
    let mut tally: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let (mut agreed, mut texts, mut refused, mut skipped) = (0, 0, 0, 0);
    for case in &cases {
        let name = case["case"].as_str().unwrap_or_default();
        if case["answer"]["code"] == 403 {
            skipped += 1;
            continue;
        }
        let request = parse_path(case["path"].as_str().unwrap_or_default());
        let creating = case["method"] == "POST";
        let result = if creating {
            create(&request, &case["body"])
        } else {
            match stored.get(base_of(name)) {
                Some(old) => update(&request, &case["body"], old),
                None => Err(StatusError::new(Reason::Unknown, "no stored object")),
            }
        };
        if let Err(error) = &result {
            refused += 1;
            let wanted = case["answer"]["message"].as_str().unwrap_or_default();
            let same = error.message.starts_with(wanted) || wanted.starts_with(&error.message);
            texts += usize::from(same);
            if !same && show == "texts" {
                println!("TEXT {name}\n  want {wanted}\n  got  {}", error.message);
            }
        }
        let (got, want) = (answer_of(result, creating), expected(&case["answer"]));
        let count = tally.entry(request.resource.kind.kind.clone()).or_default();
        count.1 += 1;
        if got == want {
            agreed += 1;
            count.0 += 1;
        } else if show == "all" || show == request.resource.kind.kind {
            report(name, case, &got, &want);
        }
    }
    for (kind, (good, all)) in tally.iter().filter(|(_, (good, all))| good < all) {
        println!("{:4} of {all:4} {kind}", all - good);
    }
    for (what, why) in OUT_OF_SCOPE {
        println!("{what}: {why}");
    }
    let all = cases.len() - skipped;
    println!("{agreed} of {all} agree; {texts} of {refused} refusals have upstream's text");
    assert!(agreed * 1000 >= all * FLOOR, "fewer than {FLOOR} in 1000 agree");
}

fn report(name: &str, case: &Value, got: &Answer, want: &Answer) {
    println!("{name}\n  body {}", case["body"]);
    println!("  message {}", case["answer"]["message"]);
    println!("  got  {} {} {:?}", got.code, got.reason, got.causes);
    println!("  want {} {} {:?}", want.code, want.reason, want.causes);
    if let (Some(got), Some(want)) = (&got.object, &want.object) {
        differences("", got, want);
    }
}

fn differences(path: &str, got: &Value, want: &Value) {
    match (got, want) {
        (Value::Object(a), Value::Object(b)) => {
            let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for name in names {
                let none = Value::String("(absent)".into());
                let (x, y) = (a.get(name).unwrap_or(&none), b.get(name).unwrap_or(&none));
                differences(&format!("{path}.{name}"), x, y);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).enumerate().for_each(|(i, (x, y))| differences(&format!("{path}[{i}]"), x, y));
        }
        _ if got != want => println!("  {path}: got {got} want {want}"),
        _ => {}
    }
}
