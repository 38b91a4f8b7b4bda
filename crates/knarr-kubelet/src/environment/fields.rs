//! The downward API: a pod's own fields and resources as text, for environments and volumes.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ResourceFieldSelector;

use crate::pod::{DesiredContainer, DesiredPod, resources};

/// What a pod may ask about itself.
pub struct FieldSource<'a> {
    pub pod: &'a DesiredPod,
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    pub node_name: &'a str,
    /// What the node offers pods, in thousandths: the limit of a container that has none.
    pub node_allocatable: &'a BTreeMap<String, i64>,
}

impl FieldSource<'_> {
    /// The text of a field. The pod's address is there only once the sandbox is.
    pub fn field(&self, path: &str) -> Result<String, String> {
        let metadata = &self.pod.object.metadata;
        let spec = self.pod.spec();
        if let Some((map, key)) = keyed(path) {
            let map = match map {
                "metadata.labels" => metadata.labels.as_ref(),
                "metadata.annotations" => metadata.annotations.as_ref(),
                _ => return Err(format!("unsupported fieldPath: {path}")),
            };
            return Ok(map.and_then(|map| map.get(key)).cloned().unwrap_or_default());
        }
        Ok(match path {
            "metadata.name" => self.pod.name.clone(),
            "metadata.namespace" => self.pod.namespace.clone(),
            "metadata.uid" => self.pod.uid.clone(),
            "metadata.labels" => as_lines(metadata.labels.as_ref()),
            "metadata.annotations" => as_lines(metadata.annotations.as_ref()),
            "spec.nodeName" => self.node_name.to_owned(),
            "spec.serviceAccountName" => spec.service_account_name.clone().unwrap_or_default(),
            "status.hostIP" => self.host_ips.first().cloned().unwrap_or_default(),
            "status.hostIPs" => self.host_ips.join(","),
            "status.podIP" => self.pod_ips.first().cloned().unwrap_or_default(),
            "status.podIPs" => self.pod_ips.join(","),
            _ => return Err(format!("unsupported fieldPath: {path}")),
        })
    }

    /// The text of a container's request or limit, in units of the selector's divisor, rounded up.
    pub fn resource(&self, selector: &ResourceFieldSelector, own: Option<&DesiredContainer>) -> Result<String, String> {
        let named = selector.container_name.as_deref().filter(|name| !name.is_empty());
        let container = match named {
            Some(name) => self.pod.container(name).ok_or_else(|| format!("container {name} not found"))?,
            None => own.ok_or_else(|| "the container's name is required".to_owned())?,
        };
        let (list, name) = selector
            .resource
            .split_once('.')
            .ok_or_else(|| format!("unsupported container resource : {}", selector.resource))?;
        let amount = match list {
            "limits" => self.limit(container, name),
            "requests" => resources::request_millis(container.spec.resources.as_ref(), name).unwrap_or(0),
            _ => return Err(format!("unsupported container resource : {}", selector.resource)),
        };
        let divisor = selector.divisor.as_ref().map_or(0, resources::millis);
        let divisor = if divisor <= 0 { 1000 } else { divisor };
        Ok(ceil_div(amount, divisor).to_string())
    }

    fn limit(&self, container: &DesiredContainer, name: &str) -> i64 {
        resources::limit_millis(container.spec.resources.as_ref(), name)
            .unwrap_or_else(|| self.node_allocatable.get(name).copied().unwrap_or(0))
    }
}

fn ceil_div(amount: i64, divisor: i64) -> i64 {
    amount / divisor + i64::from(amount % divisor > 0)
}

/// `metadata.labels['key']` in its two parts.
fn keyed(path: &str) -> Option<(&str, &str)> {
    let (map, rest) = path.split_once("['")?;
    Some((map, rest.strip_suffix("']")?))
}

/// A map as lines of `key="value"`, with the value quoted as Go quotes it.
fn as_lines(map: Option<&BTreeMap<String, String>>) -> String {
    let lines = map.into_iter().flatten().map(|(key, value)| format!("{key}={}", quoted(value)));
    lines.collect::<Vec<_>>().join("\n")
}

fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            control if (control as u32) < 0x20 || control == '\u{7f}' => {
                quoted.push_str(&format!("\\x{:02x}", control as u32))
            }
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
