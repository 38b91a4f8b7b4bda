use serde_json::json;

use super::*;

fn said(level: Level, spec: Value) -> String {
    let pod = PodSpec { spec: &spec, metadata: &Value::Null };
    violations(level, &pod).iter().map(Violation::to_string).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_plain_pod_is_baseline_but_not_restricted() {
    let plain = json!({"containers": [{"name": "c"}]});
    assert_eq!(said(Level::Baseline, plain.clone()), "");
    assert_eq!(
        said(Level::Restricted, plain),
        "allowPrivilegeEscalation != false (container \"c\" must set securityContext.allowPrivilegeEscalation=false), \
         unrestricted capabilities (container \"c\" must set securityContext.capabilities.drop=[\"ALL\"]), \
         runAsNonRoot != true (pod or container \"c\" must set securityContext.runAsNonRoot=true), \
         seccompProfile (pod or container \"c\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\")"
    );
}

#[test]
fn a_hardened_pod_is_restricted() {
    let hardened = json!({"securityContext": {"runAsNonRoot": true, "seccompProfile": {"type": "RuntimeDefault"}},
        "volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}}}]});
    assert_eq!(said(Level::Restricted, hardened), "");
}

#[test]
fn baseline_names_every_way_out() {
    for (spec, want) in [
        (json!({"hostNetwork": true, "hostPID": true}), "host namespaces (hostNetwork=true, hostPID=true)"),
        (json!({"volumes": [{"name": "h", "hostPath": {"path": "/"}}]}), "hostPath volumes (volume \"h\")"),
        (
            json!({"containers": [{"name": "a", "securityContext": {"privileged": true}}, {"name": "b", "securityContext": {"privileged": true}}]}),
            "privileged (containers \"a\", \"b\" must not set securityContext.privileged=true)",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"hostPort": 80}]}]}),
            "hostPort (container \"a\" uses hostPort 80)",
        ),
        (
            json!({"containers": [{"name": "a", "securityContext": {"capabilities": {"add": ["NET_ADMIN", "CHOWN"]}}}]}),
            "non-default capabilities (container \"a\" must not include \"NET_ADMIN\" in securityContext.capabilities.add)",
        ),
        (
            json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}),
            "seccompProfile (pod must not set securityContext.seccompProfile.type to \"Unconfined\")",
        ),
        (json!({"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}), "forbidden sysctls (kernel.msgmax)"),
        (
            json!({"securityContext": {"seLinuxOptions": {"type": "spc_t", "user": "u"}}}),
            "seLinuxOptions (pod set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set)",
        ),
    ] {
        assert_eq!(said(Level::Baseline, spec), want);
    }
}
