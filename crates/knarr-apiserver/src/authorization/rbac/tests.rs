use serde_json::json;

use super::*;
use crate::testing::Memory;

fn user(name: &str, groups: &[&str]) -> User {
    User::new(name, groups)
}

async fn started(objects: Arc<Memory>) -> Arc<Rbac> {
    let rbac = Rbac::new();
    tokio::spawn(rbac.clone().run(objects));
    rbac.synced().await;
    rbac
}

fn view_pods() -> serde_json::Value {
    json!({"metadata": {"name": "view-pods"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]})
}

fn binding(namespace: Option<&str>, subject: serde_json::Value) -> serde_json::Value {
    json!({"metadata": {"name": "b", "namespace": namespace.unwrap_or_default()}, "subjects": [subject],
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": "view-pods"}})
}

async fn allowed(rbac: &Rbac, user: &User, verb: &str, namespace: &str) -> Decision {
    let attributes = Attributes {
        user,
        verb,
        is_resource: true,
        resource: "pods",
        namespace,
        version: "v1",
        ..Attributes::default()
    };
    rbac.authorize(&attributes).await
}

#[tokio::test]
async fn a_role_binding_gives_a_cluster_role_in_its_namespace_only() {
    let objects = Memory::new();
    objects.put(GROUP, "clusterroles", view_pods());
    objects.put(GROUP, "rolebindings", binding(Some("team"), json!({"kind": "ServiceAccount", "name": "robot"})));
    let rbac = started(objects).await;
    let robot = user("system:serviceaccount:team:robot", &[]);
    assert_eq!(
        allowed(&rbac, &robot, "list", "team").await,
        Decision::Allow {
            reason:
                r#"RBAC: allowed by RoleBinding "b/team" of ClusterRole "view-pods" to ServiceAccount "robot/team""#
                    .into()
        }
    );
    for (verb, namespace) in [("list", "other"), ("list", ""), ("delete", "team")] {
        assert_eq!(allowed(&rbac, &robot, verb, namespace).await, Decision::NoOpinion { reason: String::new() });
    }
}

#[tokio::test]
async fn a_dangling_binding_is_named_in_the_refusal() {
    let objects = Memory::new();
    objects.put(GROUP, "clusterrolebindings", binding(None, json!({"kind": "Group", "name": "devs"})));
    let rbac = started(objects).await;
    let reason = r#"RBAC: clusterrole.rbac.authorization.k8s.io "view-pods" not found"#.to_string();
    assert_eq!(allowed(&rbac, &user("x", &["devs"]), "get", "a").await, Decision::NoOpinion { reason });
}

#[test]
fn what_is_missing_is_said_compactly() {
    let rule = |verbs: &[&str], resources: &[&str]| {
        Rule::from_value(&json!({"apiGroups": [""], "resources": resources, "verbs": verbs}))
    };
    let held = [rule(&["get"], &["pods", "*/status"])];
    assert!(covers(&held, &[rule(&["get"], &["pods", "nodes/status"])]).is_empty());
    let missing = covers(&held, &[rule(&["get", "list", "watch"], &["pods"])]);
    let shown: Vec<String> = missing.iter().map(compact_string).collect();
    assert_eq!(shown, [r#"{APIGroups:[""], Resources:["pods"], Verbs:["list" "watch"]}"#]);
}
