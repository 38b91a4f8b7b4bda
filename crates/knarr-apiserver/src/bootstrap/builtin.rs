use knarr_api::resource::built_in;
use knarr_api::{GroupResource, GroupVersion, GroupVersionKind, Object};
use serde_json::{Value, json};

use super::Cluster;

/// RBAC, flow control and priority objects as upstream has them, written by the generator of `knarr-api`.
static DEFAULTS: &str = include_str!("../../../knarr-api/generated/bootstrap.json");

/// The embedded defaults with the resources they belong to.
pub fn default_objects() -> impl Iterator<Item = (GroupResource, Object)> {
    let objects: Vec<Object> = serde_json::from_str(DEFAULTS).expect("the generator wrote it and a test reads it");
    objects.into_iter().filter_map(|object| Some((resource_of(&object)?, object)))
}

pub fn resource_of(object: &Object) -> Option<GroupResource> {
    let text = |field: &str| object.get(field).and_then(Value::as_str);
    let group_version = GroupVersion::parse(text("apiVersion")?)?;
    let kind = GroupVersionKind {
        group: group_version.group,
        version: group_version.version,
        kind: text("kind")?.to_string().into(),
    };
    built_in().by_gvk(&kind).map(|r| r.group_resource())
}

pub fn namespaces() -> Vec<(GroupResource, Object)> {
    let namespace = |name: &str| {
        let object = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
            "status": {"phase": "Active"}});
        (GroupResource::new("", "namespaces"), object)
    };
    ["default", "kube-system", "kube-public", "kube-node-lease"].map(namespace).into()
}

/// What others need to know to trust this server and to be trusted by it.
pub fn configuration(cluster: &Cluster) -> Vec<(GroupResource, Object)> {
    let mut out = vec![config_map("kube-system", "extension-apiserver-authentication", authentication(cluster))];
    if !cluster.cluster_info_kubeconfig.is_empty() {
        out.push(config_map("kube-public", "cluster-info", json!({"kubeconfig": cluster.cluster_info_kubeconfig})));
        out.extend(cluster_info_access());
    }
    out
}

fn config_map(namespace: &str, name: &str, data: Value) -> (GroupResource, Object) {
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data});
    (GroupResource::new("", "configmaps"), object)
}

fn authentication(cluster: &Cluster) -> Value {
    let mut data = json!({"client-ca-file": cluster.client_ca});
    if !cluster.request_header_ca.is_empty() {
        let names = serde_json::to_string(&cluster.request_header_allowed_names).unwrap_or_default();
        data["requestheader-client-ca-file"] = cluster.request_header_ca.clone().into();
        data["requestheader-allowed-names"] = names.into();
        data["requestheader-username-headers"] = r#"["X-Remote-User"]"#.into();
        data["requestheader-uid-headers"] = r#"["X-Remote-Uid"]"#.into();
        data["requestheader-group-headers"] = r#"["X-Remote-Group"]"#.into();
        data["requestheader-extra-headers-prefix"] = r#"["X-Remote-Extra-"]"#.into();
    }
    data
}

/// Whoever joins reads `cluster-info` before it has an identity.
fn cluster_info_access() -> Vec<(GroupResource, Object)> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let metadata = json!({"name": "knarr:cluster-info", "namespace": "kube-public"});
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": "knarr:cluster-info"},
        "subjects": [{"apiGroup": GROUP, "kind": "User", "name": "system:anonymous"}]});
    vec![(GroupResource::new(GROUP, "roles"), role), (GroupResource::new(GROUP, "rolebindings"), binding)]
}

/// What Knarr's own parts need beyond upstream's default roles: the API server at the kubelets, and the cluster DNS.
pub fn own_access() -> Vec<(GroupResource, Object)> {
    const GROUP: &str = "rbac.authorization.k8s.io";
    const VERSION: &str = "rbac.authorization.k8s.io/v1";
    let binding = |kind: &str, metadata: Value, role_kind: &str, role: &str, user: &str| {
        json!({"apiVersion": VERSION, "kind": kind, "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": role_kind, "name": role},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": user}]})
    };
    let (cluster, local) = (json!({"name": DNS}), json!({"name": DNS, "namespace": "kube-system"}));
    let reads = json!({"apiVersion": VERSION, "kind": "ClusterRole", "metadata": cluster, "rules": [
        {"apiGroups": [""], "resources": ["namespaces", "services"], "verbs": ["list", "watch"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}]});
    // Its slices have the nodes' names, and a create cannot be limited by name.
    let announces = json!({"apiVersion": VERSION, "kind": "Role", "metadata": local, "rules": [
        {"apiGroups": [""], "resources": ["services"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["services"], "resourceNames": ["kube-dns"], "verbs": ["get"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["create", "get", "patch"]}]});
    let kubelets = "knarr:kubelet-api-admin";
    vec![
        (GroupResource::new(GROUP, "clusterroles"), reads),
        (
            GroupResource::new(GROUP, "clusterrolebindings"),
            binding("ClusterRoleBinding", cluster, "ClusterRole", DNS, DNS),
        ),
        (GroupResource::new(GROUP, "roles"), announces),
        (GroupResource::new(GROUP, "rolebindings"), binding("RoleBinding", local, "Role", DNS, DNS)),
        (
            GroupResource::new(GROUP, "clusterrolebindings"),
            binding(
                "ClusterRoleBinding",
                json!({ "name": kubelets }),
                "ClusterRole",
                "system:kubelet-api-admin",
                "kube-apiserver-kubelet-client",
            ),
        ),
    ]
}

/// The user, and the roles, of the cluster DNS.
const DNS: &str = "system:knarr-dns";
