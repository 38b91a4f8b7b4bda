use serde_json::json;

use super::*;
use crate::testing::Memory;

#[tokio::test]
async fn a_node_reads_what_its_pods_refer_to_and_nothing_else() {
    let objects = Memory::new();
    objects.put(
        "",
        "pods",
        json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"}, "spec": {"nodeName": "n1",
            "serviceAccountName": "default", "containers": [{"envFrom": [{"configMapRef": {"name": "env"}}]}],
            "volumes": [{"name": "v", "secret": {"secretName": "s"}}, {"name": "d", "persistentVolumeClaim": {"claimName": "c"}}]}}),
    );
    objects.put(
        "",
        "persistentvolumes",
        json!({"metadata": {"name": "pv"}, "spec": {"claimRef": {"namespace": "a", "name": "c"},
            "csi": {"nodeStageSecretRef": {"namespace": "sys", "name": "stage"}}}}),
    );
    let authorizer = NodeAuthorizer::new(Vec::new());
    tokio::spawn(authorizer.clone().run(objects.clone()));
    authorizer.synced().await;
    let can = async |node: &str, resource: &str, namespace: &str, name: &str| {
        let user = User::new(&format!("system:node:{node}"), &[NODES_GROUP]);
        let a = Attributes {
            user: &user,
            verb: "get",
            is_resource: true,
            resource,
            namespace,
            name,
            ..Attributes::default()
        };
        authorizer.authorize(&a).await == allow()
    };
    for (node, resource, namespace, name, want) in [
        ("n1", "secrets", "a", "s", true),
        ("n1", "secrets", "sys", "stage", true),
        ("n1", "configmaps", "a", "env", true),
        ("n1", "persistentvolumeclaims", "a", "c", true),
        ("n1", "persistentvolumes", "", "pv", true),
        ("n1", "pods", "a", "p", true),
        ("n2", "pods", "a", "p", false),
        ("n2", "secrets", "a", "s", false),
        ("n2", "secrets", "sys", "stage", false),
        ("n1", "secrets", "a", "other", false),
        ("n1", "nodes", "", "n1", true),
        ("n1", "nodes", "", "n2", false),
    ] {
        assert_eq!(can(node, resource, namespace, name).await, want, "{node} {resource} {namespace}/{name}");
    }
}

#[test]
fn selectors_must_pin_the_node() {
    assert!(selects("spec.nodeName=n1,status.phase!=Failed", "spec.nodeName", "n1"));
    assert!(!selects("spec.nodeName!=n1", "spec.nodeName", "n1"));
    assert!(!selects("", "spec.nodeName", "n1"));
}
