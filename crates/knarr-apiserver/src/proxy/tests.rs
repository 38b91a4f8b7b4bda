use super::*;

#[test]
fn the_rest_of_a_proxy_path_is_left_as_it_is() {
    assert_eq!(path::after_proxy("/api/v1/nodes/n/proxy/metrics/"), "/metrics/");
    assert_eq!(path::after_proxy("/api/v1/namespaces/ns/pods/proxy/proxy/a%2Fb//c"), "/a%2Fb//c");
    assert_eq!(path::after_proxy("/api/v1/namespaces/ns/services/s/proxy"), "");
    assert_eq!(path::after_proxy("/api/v1/nodes/n/proxy/"), "/");
}

#[test]
fn admission_sees_the_options() {
    let object = options::from_query("PodExecOptions", "command=a&command=b+c&stdin=true&tty=false&container=c");
    assert_eq!(object["command"], serde_json::json!(["a", "b c"]));
    assert_eq!((&object["stdin"], &object["tty"]), (&true.into(), &false.into()));
}

#[test]
fn log_options_are_checked_as_upstream_checks_them() {
    let good =
        log_options::read("container=c&follow=true&tailLines=5&sinceSeconds=3").unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((good.container.as_str(), good.kubelet_query.as_str()), ("c", "follow=true&sinceSeconds=3&tailLines=5"));
    let code = |query: &str| log_options::read(query).map(|_| 200).unwrap_or_else(|error| error.code);
    assert_eq!(code("tailLines=-1"), 422);
    assert_eq!(code("limitBytes=0"), 422);
    assert_eq!(code("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"), 422);
    assert_eq!(code("tailLines=x"), 400);
    assert_eq!(code("stream=Other"), 422);
}
