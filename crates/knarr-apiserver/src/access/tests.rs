use serde_json::{Value, json};

use super::*;
use crate::authentication::User;
use crate::subresources::Call;
use crate::testing::Memory;
use knarr_api::GroupResource;

fn roots(directory: &std::path::Path) -> Arc<RootCertStore> {
    let authority = knarr_pki::CertificateAuthority::load_or_create(directory, "ca", "test").unwrap();
    Arc::new(knarr_pki::root_store(authority.certificate_pem()).unwrap())
}

async fn started() -> (Arc<Access>, Arc<Memory>) {
    let directory = std::env::temp_dir().join(format!("knarr-access-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir_all(&directory).unwrap();
    let objects = Memory::new();
    let config = AccessConfig {
        issuer: "https://kubernetes.default.svc".into(),
        base_url: "https://192.0.2.1:6443".into(),
        audiences: Vec::new(),
        token_keys: vec![TokenKey::load_or_create(&directory.join("sa.key")).unwrap()],
        client_roots: roots(&directory),
        front_proxy: None,
        anonymous: true,
        tokens: TokenSources::default(),
        authorization: AuthorizationConfiguration::of_modes(&["Node".into(), "RBAC".into()], None).unwrap(),
        admission: admission::Selection::default(),
        service_cidr: "10.96.0.0/16".parse().unwrap(),
        node_ports: PortRange::default(),
        cluster: bootstrap::Cluster {
            advertise_address: "192.0.2.1".parse().unwrap(),
            advertise_port: 6443,
            service_address: "10.96.0.1".parse().unwrap(),
            service_cidr: "10.96.0.0/16".into(),
            client_ca: String::new(),
            request_header_ca: String::new(),
            request_header_allowed_names: Vec::new(),
            cluster_info_kubeconfig: String::new(),
        },
    };
    let access = Arc::new(Access::new(config, objects.clone()).unwrap());
    std::fs::remove_dir_all(&directory).unwrap();
    access.prepare().await.unwrap();
    tokio::spawn(access.clone().run());
    access.synced().await;
    (access, objects)
}

async fn review(access: &Access, group: &'static str, resource: &'static str, user: User, object: Value) -> Value {
    let gvr = knarr_api::GroupVersionResource::new(group, "v1", resource);
    let call = Call {
        resource: knarr_api::resource::built_in().by_gvr(&gvr).unwrap().clone(),
        namespace: String::new(),
        name: String::new(),
        user: Arc::new(user),
        object,
        dry_run: false,
    };
    let handler = access.handlers.find(group, resource, "").unwrap();
    Value::clone(&handler.handle(call).await.unwrap().object)
}

async fn can(access: &Access, user: &User, verb: &str, resource: &str, namespace: &str) -> bool {
    let a = authorization::Attributes {
        user,
        verb,
        is_resource: true,
        resource,
        namespace,
        ..authorization::Attributes::default()
    };
    access.authorization.allows(&a).await
}

#[tokio::test]
async fn the_default_roles_hold() {
    let (access, _) = started().await;
    let everyone = "system:authenticated";
    let scheduler = User::new("system:kube-scheduler", &[everyone]);
    let stranger = User::new("x", &[everyone]);
    assert!(can(&access, &scheduler, "list", "pods", "").await);
    assert!(!can(&access, &scheduler, "delete", "nodes", "").await);
    assert!(!can(&access, &stranger, "list", "pods", "a").await);
    let healthy = authorization::Attributes { user: &stranger, verb: "get", path: "/version", ..Default::default() };
    assert!(access.authorization.allows(&healthy).await);
}

#[tokio::test]
async fn rules_reviews_list_what_everyone_may() {
    let (access, _) = started().await;
    let user = User::new("x", &["system:authenticated"]);
    let object = json!({"spec": {"namespace": "default"}});
    let answer = review(&access, "authorization.k8s.io", "selfsubjectrulesreviews", user, object).await;
    let rules = answer["status"]["resourceRules"].as_array().unwrap();
    assert!(rules.iter().any(|r| r["resources"] == json!(["selfsubjectaccessreviews", "selfsubjectrulesreviews"])));
    assert_eq!(answer["status"]["incomplete"], false);
}

#[tokio::test]
async fn an_access_review_answers_for_another() {
    let (access, objects) = started().await;
    objects.put(
        "rbac.authorization.k8s.io",
        "clusterrolebindings",
        json!({"metadata": {"name": "b"}, "subjects": [{"kind": "User", "name": "jane"}],
            "roleRef": {"kind": "ClusterRole", "name": "view"}}),
    );
    let spec = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "list", "resource": "pods"}}});
    let ask = async || {
        let admin = User::new("admin", &["system:masters"]);
        review(&access, "authorization.k8s.io", "subjectaccessreviews", admin, spec.clone()).await
    };
    // The index follows the store a moment later.
    let allowed = async {
        loop {
            let answer = ask().await;
            if answer["status"]["allowed"] == true {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    let answer = tokio::time::timeout(std::time::Duration::from_secs(5), allowed).await.unwrap();
    let reason = r#"RBAC: allowed by ClusterRoleBinding "b" of ClusterRole "view" to User "jane""#;
    assert_eq!(answer["status"]["reason"], reason);
}

fn create(resource: &str, user: User, object: Value) -> admission::Request {
    let all = &knarr_api::resource::built_in().resources;
    admission::Request {
        operation: admission::Operation::Create,
        resource: all.iter().find(|r| r.resource == resource && r.version == "v1").unwrap().clone(),
        subresource: String::new(),
        namespace: object["metadata"]["namespace"].as_str().unwrap_or_default().into(),
        name: object["metadata"]["name"].as_str().unwrap_or_default().into(),
        user: Arc::new(user),
        object: Some(object),
        says_empty: false,
        old_object: None,
        options: json!({}),
        dry_run: false,
        warnings: Vec::new(),
        audit_annotations: Vec::new(),
        reinvocation: Default::default(),
    }
}

#[tokio::test]
async fn a_pod_comes_out_complete() {
    let (access, objects) = started().await;
    objects.put("", "serviceaccounts", json!({"metadata": {"name": "default", "namespace": "default"}}));
    let pod = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": {"containers": [{"name": "c"}]}});
    let mut request = create("pods", User::new("x", &[]), pod);
    access.admission.admit(&mut request).await.unwrap();
    let spec = &request.object.unwrap()["spec"];
    assert_eq!((&spec["serviceAccountName"], &spec["priority"]), (&json!("default"), &json!(0)));
    assert_eq!(spec["tolerations"].as_array().unwrap().len(), 2);
    let volume = spec["volumes"][0]["name"].as_str().unwrap();
    assert!(volume.starts_with("kube-api-access-") && volume.len() == "kube-api-access-".len() + 5);
    assert_eq!(spec["containers"][0]["volumeMounts"][0]["name"], volume);
}

#[tokio::test]
async fn nothing_is_made_in_a_namespace_that_goes_away() {
    let (access, objects) = started().await;
    objects.put("", "namespaces", json!({"metadata": {"name": "a"}, "status": {"phase": "Terminating"}}));
    let admit = async |namespace: &str| {
        let map = json!({"metadata": {"name": "m", "namespace": namespace}});
        access.admission.admit(&mut create("configmaps", User::new("x", &[]), map)).await.unwrap_err()
    };
    assert_eq!(
        admit("a").await.message,
        r#"configmaps "m" is forbidden: unable to create new content in namespace a because it is being terminated"#
    );
    assert_eq!(admit("none").await.message, r#"namespaces "none" not found"#);
}

#[tokio::test]
async fn nobody_grants_more_than_they_hold() {
    let (access, objects) = started().await;
    let binding = json!({"metadata": {"name": "b", "namespace": "default"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}});
    let error =
        access.admission.admit(&mut create("rolebindings", User::new("x", &["g"]), binding.clone())).await.unwrap_err();
    let start = "rolebindings.rbac.authorization.k8s.io \"b\" is forbidden: user \"x\" (groups=[\"g\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"bindings\"], Verbs:[\"get\" \"list\" \"watch\"]}";
    assert!(error.message.starts_with(start), "{}", error.message);
    access.admission.admit(&mut create("rolebindings", User::new("x", &["system:masters"]), binding)).await.unwrap();
    let roles = GroupResource::new("rbac.authorization.k8s.io", "clusterroles");
    assert!(objects.get(&roles, "", "view").await.unwrap().is_some());
}
