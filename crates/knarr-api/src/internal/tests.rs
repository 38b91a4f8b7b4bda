use serde_json::json;

use super::{difference, show};

#[test]
fn structs_are_shown_whole_in_the_order_of_memory() {
    let port = json!({"port": 80, "protocol": "TCP"});
    let shown = r#"{"Name":"","Protocol":"TCP","AppProtocol":null,"Port":80,"TargetPort":0,"NodePort":0}"#;
    assert_eq!(show("core.ServicePort", &port), shown);
    let selector = json!({"matchLabels": {"b": "<", "a": "c"}});
    assert_eq!(show("*meta.LabelSelector", &selector), r#"{"matchLabels":{"a":"c","b":"\u003c"}}"#);
    assert_eq!(show("*meta.LabelSelector", &json!(null)), "null");
}

#[test]
fn names_that_differ_in_memory_are_found() {
    let shown = show("core.PodSpec", &json!({"hostPID": true, "containers": []}));
    assert!(shown.contains(r#""Containers":[],"#), "{shown}");
    assert!(shown.contains(r#""SecurityContext":{"HostNetwork":false,"HostPID":true,"#), "{shown}");
    let template = show("core.PodTemplateSpec", &json!({"metadata": {"labels": {"a": "b"}}}));
    assert!(template.starts_with(r#"{"labels":{"a":"b"},"Spec":{"Volumes":null,"#), "{template}");
}

#[test]
fn differences_are_unified() {
    let claim = |size: &str| json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}});
    let wanted = concat!(
        "@@ -6,7 +6,7 @@\n  \"Resources\": {\n   \"Limits\": null,\n   \"Requests\": {\n",
        "-   \"storage\": \"1Gi\"\n+   \"storage\": \"0\"\n   }\n  },\n  \"VolumeName\": \"\",\n"
    );
    assert_eq!(difference("core.PersistentVolumeClaimSpec", &claim("1Gi"), &claim("0")), wanted);
    assert_eq!(difference("core.PersistentVolumeClaimSpec", &claim("1"), &claim("1")), "");
}

#[test]
fn what_would_take_long_to_compare_is_not_compared() {
    let spec = |image: &str| json!({"containers": vec![json!({"name": "c", "image": image}); 200]});
    assert_eq!(difference("core.PodSpec", &spec("a"), &spec("b")), "");
}
