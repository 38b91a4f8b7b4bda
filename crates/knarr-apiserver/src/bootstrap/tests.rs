use serde_json::json;

use super::*;
use crate::testing::Memory;

fn cluster() -> Cluster {
    Cluster {
        advertise_address: "192.0.2.1".parse().unwrap(),
        advertise_port: 6443,
        service_address: "10.96.0.1".parse().unwrap(),
        service_cidr: "10.96.0.0/16".into(),
        client_ca: "CA".into(),
        request_header_ca: String::new(),
        request_header_allowed_names: Vec::new(),
        cluster_info_kubeconfig: String::new(),
    }
}

#[test]
fn every_default_object_has_a_resource() {
    assert_eq!(default_objects().count(), 158);
}

#[tokio::test]
async fn a_second_start_changes_nothing() {
    let objects: Arc<dyn Objects> = Memory::new();
    run(&objects, &cluster()).await.unwrap();
    let roles = GroupResource::new("rbac.authorization.k8s.io", "clusterroles");
    let version = async || {
        let list = objects.list(&roles, "").await.unwrap();
        list.iter().map(|o| o.resource_version().to_string()).collect::<Vec<_>>()
    };
    let first = version().await;
    run(&objects, &cluster()).await.unwrap();
    assert_eq!(first, version().await);
}

#[tokio::test]
async fn a_default_role_is_mended_and_additions_stay() {
    let memory = Memory::new();
    let objects: Arc<dyn Objects> = memory.clone();
    run(&objects, &cluster()).await.unwrap();
    let roles = GroupResource::new("rbac.authorization.k8s.io", "clusterroles");
    let mine = json!({"apiGroups": ["mine"], "resources": ["*"], "verbs": ["get"]});
    let mut damage = |object: &mut Object| {
        object["rules"] = json!([mine]);
        Ok(())
    };
    let before = objects.get(&roles, "", "system:basic-user").await.unwrap().unwrap();
    objects.modify(&roles, "", "system:basic-user", &mut damage).await.unwrap();
    run(&objects, &cluster()).await.unwrap();
    let after = objects.get(&roles, "", "system:basic-user").await.unwrap().unwrap();
    let rules = after["rules"].as_array().unwrap();
    assert!(rules.contains(&mine));
    assert!(before["rules"].as_array().unwrap().iter().all(|r| rules.contains(r)));
}

#[tokio::test]
async fn the_kubernetes_service_follows_the_server() {
    let objects: Arc<dyn Objects> = Memory::new();
    run(&objects, &cluster()).await.unwrap();
    run(&objects, &Cluster { advertise_address: "192.0.2.9".parse().unwrap(), ..cluster() }).await.unwrap();
    let slices = GroupResource::new("discovery.k8s.io", "endpointslices");
    let slice = objects.get(&slices, "default", "kubernetes").await.unwrap().unwrap();
    assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.9"]));
}
