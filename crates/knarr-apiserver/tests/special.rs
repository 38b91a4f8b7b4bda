//! Requests that are more than a read or a write of an object: admission around them, and what a Service is given.

#[path = "support/access.rs"]
mod access;
mod support;

use access::{Guarded, admin, default_modes};
use base64::Engine;
use knarr_apiserver::access::TokenSources;
use knarr_store::Store;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::Arc;
use support::remote::Remote;

async fn server() -> Guarded {
    let server = Guarded::start(TokenSources::default(), default_modes()).await;
    ok(&server, "POST", "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "default"}})).await;
    server
}

async fn ok(server: &Guarded, method: &str, target: &str, body: Value) -> Value {
    let (code, _, answer) = server.call(admin(), method, target, &body).await;
    assert!(code < 300, "{method} {target}: {code} {answer}");
    answer
}

const PODS: &str = "/api/v1/namespaces/default/pods";

async fn pod(server: &Guarded, name: &str) {
    let spec = json!({"automountServiceAccountToken": false, "containers": [{"name": "c", "image": "i"}]});
    ok(server, "POST", PODS, json!({"metadata": {"name": name}, "spec": spec})).await;
}

fn patch(steps: Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(steps.to_string());
    json!({"allowed": true, "patchType": "JSONPatch", "patch": patch})
}

/// Changes every kind of request in a way that can be seen in its answer or in what it does.
fn change(_: &str, request: &Value) -> Value {
    let add = |path: &str, value: Value| patch(json!([{"op": "add", "path": path, "value": value}]));
    match request["kind"]["kind"].as_str().unwrap_or_default() {
        "SubjectAccessReview" => add("/spec/groups", json!(["system:masters"])),
        "Binding" => add("/metadata/annotations", json!({"seen": "yes"})),
        "TokenRequest" => add("/spec/expirationSeconds", json!(1200)),
        "Eviction" => add("/deleteOptions", json!({"dryRun": ["All"]})),
        "Namespace" => add("/metadata/annotations", json!({"seen": "yes"})),
        _ => json!({"allowed": true}),
    }
}

async fn hooked(server: &Guarded, kind: &str, remote: &Remote, resources: &[&str]) {
    let at = format!("/apis/admissionregistration.k8s.io/v1/{}webhookconfigurations", kind.to_lowercase());
    let hook = json!({"name": "hook.example.com", "clientConfig": remote.at("/"), "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources}]});
    ok(server, "POST", &at, json!({"metadata": {"name": "hooks"}, "webhooks": [hook]})).await;
}

#[tokio::test]
async fn what_admission_makes_of_a_request_is_what_is_done() {
    let server = server().await;
    let remote = Remote::webhook(change).await;
    let endpoints =
        ["subjectaccessreviews", "pods/binding", "pods/eviction", "serviceaccounts/token", "namespaces/finalize"];
    hooked(&server, "Mutating", &remote, &endpoints).await;
    pod(&server, "p").await;

    let attributes = json!({"verb": "get", "resource": "secrets", "namespace": "default"});
    let review = json!({"spec": {"user": "nobody", "resourceAttributes": attributes}});
    let review = ok(&server, "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review).await;
    assert_eq!(review["status"]["allowed"], true, "{review}");

    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    ok(&server, "POST", &format!("{PODS}/p/binding"), binding).await;
    let bound = ok(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["metadata"]["annotations"]["seen"]), (&json!("n"), &json!("yes")));

    for version in ["policy/v1", "policy/v1beta1"] {
        let eviction = json!({"apiVersion": version, "kind": "Eviction", "metadata": {"name": "p"}});
        ok(&server, "POST", &format!("{PODS}/p/eviction"), eviction).await;
    }
    let kept = ok(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(kept["metadata"]["deletionTimestamp"], Value::Null, "the hook made it a dry run");

    let at = "/api/v1/namespaces/default/serviceaccounts/default/token";
    let token = ok(&server, "POST", at, json!({"spec": {"audiences": ["a"]}})).await;
    assert_eq!(token["spec"]["expirationSeconds"], 1200);

    let namespace = ok(&server, "POST", "/api/v1/namespaces", json!({"metadata": {"name": "x"}})).await;
    let finalized = ok(&server, "PUT", "/api/v1/namespaces/x/finalize", namespace).await;
    assert_eq!(finalized["metadata"]["annotations"]["seen"], "yes");
}

#[tokio::test]
async fn what_admission_refuses_is_not_done() {
    let server = server().await;
    pod(&server, "p").await;
    let remote = Remote::webhook(|_, _| json!({"allowed": false, "status": {"message": "no"}})).await;
    hooked(&server, "Validating", &remote, &["*/*"]).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    for (target, body) in [
        (format!("{PODS}/p/binding"), binding.clone()),
        ("/api/v1/namespaces/default/bindings".into(), binding),
        (format!("{PODS}/p/eviction"), eviction),
        ("/apis/authentication.k8s.io/v1/tokenreviews".into(), json!({"spec": {"token": "t"}})),
        ("/apis/authentication.k8s.io/v1/selfsubjectreviews".into(), json!({})),
        ("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews".into(), json!({"spec": {"namespace": "a"}})),
        ("/api/v1/namespaces/default/serviceaccounts/default/token".into(), json!({})),
    ] {
        let (code, _, answer) = server.call(admin(), "POST", &target, &body).await;
        let message = answer["message"].as_str().unwrap_or_default().to_string();
        assert_eq!((code, message.ends_with("denied the request: no")), (400, true), "{target}: {answer}");
    }
    let pod = ok(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    assert_eq!(pod["spec"]["nodeName"], Value::Null);
}

#[tokio::test]
async fn an_evicted_pod_says_why_it_goes() {
    let server = server().await;
    pod(&server, "p").await;
    let mut pod = ok(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    pod["metadata"]["finalizers"] = json!(["example.com/held"]);
    ok(&server, "PUT", &format!("{PODS}/p"), pod).await;
    let other = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "q"}});
    assert_eq!(server.call(admin(), "POST", &format!("{PODS}/p/eviction"), &other).await.0, 400);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    ok(&server, "POST", &format!("{PODS}/p/eviction"), eviction).await;
    let gone = ok(&server, "GET", &format!("{PODS}/p"), Value::Null).await;
    let conditions = gone["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let target = conditions.iter().find(|c| c["type"] == "DisruptionTarget").cloned().unwrap_or_default();
    assert_eq!((&target["status"], &target["reason"]), (&json!("True"), &json!("EvictionByEvictionAPI")), "{gone}");
    assert!(gone["metadata"]["deletionTimestamp"].is_string());
}

const SERVICES: &str = "/api/v1/namespaces/default/services";

/// A spec, what it is changed by (a merge patch), and the fields that must be gone then.
fn changes_of_type() -> Vec<(Value, Value, &'static [&'static str])> {
    let port = json!([{"port": 80, "protocol": "TCP"}]);
    let local =
        json!({"type": "LoadBalancer", "ports": port, "externalTrafficPolicy": "Local", "loadBalancerClass": "a/b"});
    vec![
        (
            json!({"type": "NodePort", "ports": port}),
            json!({"type": "ClusterIP"}),
            &["/ports/0/nodePort", "/externalTrafficPolicy"],
        ),
        (
            local.clone(),
            json!({"type": "NodePort"}),
            &["/healthCheckNodePort", "/allocateLoadBalancerNodePorts", "/loadBalancerClass"],
        ),
        (local.clone(), json!({"externalTrafficPolicy": "Cluster"}), &["/healthCheckNodePort"]),
        (
            local,
            json!({"type": "ExternalName", "externalName": "a.b"}),
            &[
                "/clusterIP",
                "/clusterIPs",
                "/ipFamilies",
                "/ipFamilyPolicy",
                "/ports/0/nodePort",
                "/healthCheckNodePort",
            ],
        ),
        (json!({"type": "ExternalName", "externalName": "a.b", "ports": port}), json!({"type": "ClusterIP"}), &[]),
    ]
}

#[tokio::test]
async fn a_service_of_another_type_loses_what_that_has_not() {
    let server = server().await;
    for (i, (spec, change, gone)) in changes_of_type().into_iter().enumerate() {
        let at = format!("{SERVICES}/s{i}");
        let service = json!({"metadata": {"name": format!("s{i}")}, "spec": spec});
        let mut service = ok(&server, "POST", SERVICES, service).await;
        for pointer in gone {
            assert!(service["spec"].pointer(pointer).is_some(), "{spec}: {pointer}");
        }
        let fields = service["spec"].as_object_mut().expect("a spec");
        fields.extend(change.as_object().cloned().unwrap_or_default());
        let changed = ok(&server, "PUT", &at, service).await;
        for pointer in gone {
            assert_eq!(changed["spec"].pointer(pointer), None, "{spec} {change}");
        }
    }
    // What was given up is another's to take.
    let ports = json!([{"port": 80, "protocol": "TCP", "nodePort": 30099}]);
    let mut first = json!({"metadata": {"name": "first"}, "spec": {"type": "NodePort", "ports": ports}});
    first = ok(&server, "POST", SERVICES, first).await;
    first["spec"]["type"] = "ClusterIP".into();
    ok(&server, "PUT", &format!("{SERVICES}/first"), first.clone()).await;
    let second = json!({"metadata": {"name": "second"}, "spec": {"type": "NodePort", "ports": first["spec"]["ports"]}});
    ok(&server, "POST", SERVICES, second).await;
    // A number that the change itself asks for is refused, not dropped.
    let mut third = json!({"metadata": {"name": "third"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    third = ok(&server, "POST", SERVICES, third).await;
    third["spec"]["type"] = "ClusterIP".into();
    third["spec"]["ports"][0]["nodePort"] = 30098.into();
    let (code, _, refusal) = server.call(admin(), "PUT", &format!("{SERVICES}/third"), &third).await;
    assert_eq!((code, &refusal["details"]["causes"][0]["field"]), (422, &json!("spec.ports[0].nodePort")), "{refusal}");
}

const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";

/// The names of the IPAddresses, with the services that they are of.
async fn addresses(server: &Guarded) -> BTreeSet<(String, String)> {
    let list = ok(server, "GET", ADDRESSES, Value::Null).await;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| (text(&item["metadata"]["name"]), text(&item["spec"]["parentRef"]["name"]))).collect()
}

#[tokio::test]
async fn an_address_is_an_object_for_as_long_as_its_service_has_it() {
    let server = server().await;
    let cluster = ("10.96.0.1".to_string(), "kubernetes".to_string());
    assert_eq!(addresses(&server).await, BTreeSet::from([cluster.clone()]));
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let dry = format!("{SERVICES}?dryRun=All");
    ok(&server, "POST", &dry, service.clone()).await;
    assert_eq!(addresses(&server).await.len(), 1, "a dry run takes nothing");
    let mut made = ok(&server, "POST", SERVICES, service).await;
    let address = made["spec"]["clusterIP"].as_str().unwrap_or_default().to_string();
    assert_eq!(addresses(&server).await, BTreeSet::from([cluster.clone(), (address.clone(), "s".into())]));
    let object = ok(&server, "GET", &format!("{ADDRESSES}/{address}"), Value::Null).await;
    let labels = json!({"ipaddress.kubernetes.io/ip-family": "IPv4", "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"});
    assert_eq!(object["metadata"]["labels"], labels);

    let other = json!({"metadata": {"name": "t"}, "spec": {"clusterIP": address, "ports": [{"port": 80}]}});
    let (code, _, refusal) = server.call(admin(), "POST", SERVICES, &other).await;
    let message = refusal["message"].as_str().unwrap_or_default().to_string();
    assert_eq!((code, message.ends_with("provided IP is already allocated")), (422, true), "{refusal}");
    made["spec"] = json!({"type": "ExternalName", "externalName": "a.b"});
    ok(&server, "PUT", &format!("{SERVICES}/s"), made).await;
    assert_eq!(addresses(&server).await, BTreeSet::from([cluster.clone()]));
    ok(&server, "POST", SERVICES, other).await;
    ok(&server, "DELETE", &format!("{SERVICES}/t"), Value::Null).await;
    assert_eq!(addresses(&server).await, BTreeSet::from([cluster]));
}

#[tokio::test]
async fn a_ready_service_cidr_has_more_addresses() {
    let server = server().await;
    const CIDRS: &str = "/apis/networking.k8s.io/v1/servicecidrs";
    let own = ok(&server, "GET", &format!("{CIDRS}/kubernetes"), Value::Null).await;
    assert_eq!(
        (&own["spec"]["cidrs"], &own["status"]["conditions"][0]["status"]),
        (&json!(["10.96.0.0/16"]), &json!("True"))
    );
    let service = json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "192.0.2.66", "ports": [{"port": 80}]}});
    let outside = "failed to allocate IP 192.0.2.66: the provided network does not match the current range";
    let refused = async |message: &str| {
        let (code, _, refusal) = server.call(admin(), "POST", SERVICES, &service).await;
        assert_eq!((code, refusal["message"].as_str().is_some_and(|m| m.ends_with(message))), (422, true), "{refusal}");
    };
    refused(outside).await;
    let mut more = json!({"metadata": {"name": "more"}, "spec": {"cidrs": ["192.0.2.64/28"]}});
    more = ok(&server, "POST", CIDRS, more).await;
    refused(outside).await;
    let time = "2026-01-01T00:00:00Z";
    more["status"] = json!({"conditions": [
        {"type": "Ready", "status": "True", "reason": "Tested", "message": "", "lastTransitionTime": time}]});
    ok(&server, "PUT", &format!("{CIDRS}/more/status"), more).await;
    ok(&server, "POST", SERVICES, service.clone()).await;
}

/// The addresses of the endpoints of the `kubernetes` service.
async fn servers(server: &Guarded) -> Value {
    let target = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/kubernetes";
    let slice = ok(server, "GET", target, Value::Null).await;
    let endpoints = slice["endpoints"].as_array().cloned().unwrap_or_default();
    endpoints.iter().map(|endpoint| endpoint["addresses"][0].clone()).collect()
}

#[tokio::test]
async fn servers_that_share_a_store_give_every_number_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let store: Arc<dyn Store> = Arc::new(knarr_store::Embedded::open(directory.path()).expect("an empty store"));
    let (one, two) = (Guarded::sharing(store.clone(), "192.0.2.1").await, Guarded::sharing(store, "192.0.2.2").await);
    let service =
        |name: String| json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    let made = (0..20).map(|i| {
        let server = if i % 2 == 0 { &one } else { &two };
        ok(server, "POST", SERVICES, service(format!("s{i}")))
    });
    let made = futures::future::join_all(made).await;
    let distinct = |pointer: &str| -> usize {
        made.iter()
            .filter_map(|service| service["spec"].pointer(pointer))
            .map(Value::to_string)
            .collect::<BTreeSet<_>>()
            .len()
    };
    assert_eq!((distinct("/clusterIP"), distinct("/ports/0/nodePort")), (20, 20));
    // What one server gives back, the other may give out.
    let taken = json!({"metadata": {"name": "again"}, "spec": {"type": "NodePort", "clusterIP": made[0]["spec"]["clusterIP"],
        "ports": [{"port": 80, "nodePort": made[0]["spec"]["ports"][0]["nodePort"]}]}});
    assert_eq!(two.call(admin(), "POST", SERVICES, &taken).await.0, 422);
    ok(&one, "DELETE", &format!("{SERVICES}/s0"), Value::Null).await;
    ok(&two, "POST", SERVICES, taken).await;

    assert_eq!(servers(&one).await, json!(["192.0.2.1", "192.0.2.2"]));
    one.access.leave().await;
    assert_eq!(servers(&two).await, json!(["192.0.2.2"]));
}
