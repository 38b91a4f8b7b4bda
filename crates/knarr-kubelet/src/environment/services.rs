//! The addresses of services as environment variables, as container links had them.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;

/// The variables of the services a pod of `namespace` sees: the API's own always, those of its namespace where links are enabled.
pub fn links<'a>(
    services: impl Iterator<Item = &'a Service>,
    namespace: &str,
    enabled: bool,
) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for service in services {
        let of = |field: &Option<String>| field.clone().unwrap_or_default();
        let (own_namespace, name) = (of(&service.metadata.namespace), of(&service.metadata.name));
        let is_api = own_namespace == "default" && name == "kubernetes";
        if is_api || (enabled && own_namespace == namespace) {
            add(&mut variables, service, &name);
        }
    }
    variables
}

fn add(variables: &mut BTreeMap<String, String>, service: &Service, name: &str) {
    let Some(spec) = &service.spec else { return };
    let address = spec.cluster_ip.as_deref().unwrap_or_default();
    let ports = spec.ports.as_deref().unwrap_or_default();
    if address.is_empty() || address == "None" || ports.is_empty() {
        return;
    }
    let prefix = variable_name(name);
    let host = bracketed(address);
    variables.insert(format!("{prefix}_SERVICE_HOST"), address.to_owned());
    variables.insert(format!("{prefix}_SERVICE_PORT"), ports[0].port.to_string());
    for (index, port) in ports.iter().enumerate() {
        if let Some(port_name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            variables.insert(format!("{prefix}_SERVICE_PORT_{}", variable_name(port_name)), port.port.to_string());
        }
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{host}:{}", protocol.to_lowercase(), port.port);
        if index == 0 {
            variables.insert(format!("{prefix}_PORT"), url.clone());
        }
        let link = format!("{prefix}_PORT_{}_{}", port.port, protocol.to_uppercase());
        variables.insert(format!("{link}_PROTO"), protocol.to_lowercase());
        variables.insert(format!("{link}_PORT"), port.port.to_string());
        variables.insert(format!("{link}_ADDR"), address.to_owned());
        variables.insert(link, url);
    }
}

fn variable_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_sees_the_api_and_its_own_namespace() {
        let service = |namespace: &str, name: &str, address: &str| -> Service {
            serde_json::from_value(serde_json::json!({
                "metadata": {"namespace": namespace, "name": name},
                "spec": {"clusterIP": address, "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
            }))
            .expect("a service")
        };
        let services = [
            service("default", "kubernetes", "10.96.0.1"),
            service("a", "my-web", "10.96.0.7"),
            service("a", "none", "None"),
            service("b", "x", "10.96.0.8"),
        ];
        let variables = links(services.iter(), "a", true);
        assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "10.96.0.1");
        assert_eq!(variables["MY_WEB_SERVICE_PORT_HTTP"], "80");
        assert_eq!(variables["MY_WEB_PORT"], "tcp://10.96.0.7:80");
        assert_eq!(variables["MY_WEB_PORT_80_TCP_ADDR"], "10.96.0.7");
        assert!(!variables.contains_key("X_SERVICE_HOST") && !variables.contains_key("NONE_SERVICE_HOST"));
        assert!(!links(services.iter(), "a", false).contains_key("MY_WEB_PORT"));
    }
}
