use serde_json::json;

use super::*;

#[test]
fn a_pod_is_warned_of_what_it_does_twice_and_of_what_is_gone() {
    let pod = json!({"metadata": {"name": "a.b", "annotations": {"security.alpha.kubernetes.io/sysctls": ""}}, "spec": {
        "nodeSelector": {"beta.kubernetes.io/os": "linux"},
        "volumes": [{"name": "v", "gitRepo": {"repository": "r"}}],
        "terminationGracePeriodSeconds": -1,
        "containers": [{"name": "c",
            "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A)2"}, {"name": "A", "value": "3"}],
            "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 80, "protocol": "TCP", "hostPort": 1}],
            "resources": {"limits": {"memory": "100m"}}}]}});
    let texts = super::pod(&pod, None);
    let starts = [
        "metadata.name: this is used in the Pod's hostname",
        "spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14",
        "metadata.annotations[security.alpha.kubernetes.io/sysctls]: non-functional",
        "spec.volumes[0].gitRepo: deprecated in v1.11",
        "spec.containers[0].resources.limits[memory]: fractional byte value \"100m\"",
        "spec.containers[0].env[2]: hides previous definition of \"A\"",
        "spec.containers[0].ports[1]: overlapping port definition with spec.containers[0].ports[0]",
        "spec.terminationGracePeriodSeconds: must be >= 0",
    ];
    assert_eq!(texts.len(), starts.len(), "{texts:#?}");
    texts.iter().zip(starts).for_each(|(text, start)| assert!(text.starts_with(start), "{text}"));
    assert!(super::pod(&pod, Some(&pod)).is_empty(), "an update of a pod is not looked at");
}

#[test]
fn a_template_is_looked_at_when_it_changes() {
    let with = |generation: i64| {
        json!({"metadata": {"name": "a", "generation": generation}, "spec": {"template": {"spec": {
            "topologySpreadConstraints": [{"topologyKey": "zone"}]}}}})
    };
    let why = "spec.template.spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod";
    assert_eq!(workload(&with(1), None), [why]);
    assert_eq!(workload(&with(2), Some(&with(1))), [why]);
    assert!(workload(&with(1), Some(&with(1))).is_empty());
}

#[test]
fn addresses_that_are_written_oddly_are_named_with_their_better_form() {
    let service = json!({"spec": {"type": "ClusterIP", "clusterIP": "None", "sessionAffinity": "ClientIP",
        "externalIPs": ["1.2.3.04"], "loadBalancerSourceRanges": ["10.0.0.1/8"]}});
    let texts = super::service(&service, None);
    let wanted = [
        "spec.externalIPs is ignored for headless services",
        "spec.SessionAffinity is ignored for headless services",
        "spec.externalIPs[0]: non-standard IP address \"1.2.3.04\" is invalid: use \"1.2.3.4\"",
        "spec.loadBalancerSourceRanges[0]: CIDR value \"10.0.0.1/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.0.0.1/32\"?)",
    ];
    assert_eq!(texts, wanted);
}
