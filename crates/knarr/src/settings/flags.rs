//! All flags with what holds for them, as `/flagz` shows them.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{Args, Command};
use serde_json::Value;

use super::{Said, Settings};

impl Said {
    /// Every flag, with what was said for it.
    pub(super) fn flags(&self) -> Result<BTreeMap<String, String>> {
        let command = Said::augment_args(Command::new(""));
        let names = command.get_arguments().filter_map(|argument| argument.get_long());
        let mut flags: BTreeMap<String, String> = names.map(|name| (name.to_owned(), String::new())).collect();
        for said in [serde_json::to_value(self)?, serde_json::to_value(&self.access)?] {
            let Value::Object(said) = said else { continue };
            flags.extend(
                said.into_iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name, shown(&value))),
            );
        }
        Ok(flags)
    }
}

impl Settings {
    /// Fills in what holds for flags that nobody set.
    pub(super) fn show_defaults(&mut self) {
        let limits = &self.serving.limits;
        let held = [
            ("data-dir", self.data_dir.display().to_string()),
            ("bind", self.bind.to_string()),
            ("node-ip", self.node_ip.to_string()),
            ("node-name", self.node_name.clone()),
            ("kubeconfig", self.kubeconfig.display().to_string()),
            ("cluster-cidr", self.cluster_cidr.to_string()),
            ("service-cidr", self.service_cidr.to_string()),
            ("cluster-domain", self.cluster_domain.clone()),
            ("kubelet-port", self.kubelet_port.to_string()),
            ("pod-manifest-path", self.pod_manifest_path.display().to_string()),
            ("no-node", (!self.node).to_string()),
            ("controllers", "*".into()),
            ("enable-priority-and-fairness", limits.priority_and_fairness.to_string()),
            ("max-requests-inflight", limits.max_requests.to_string()),
            ("max-mutating-requests-inflight", limits.max_mutating_requests.to_string()),
        ];
        for (name, value) in held {
            self.flags.entry(name.into()).and_modify(|shown| {
                if shown.is_empty() {
                    *shown = value;
                }
            });
        }
    }
}

/// A flag's value as upstream shows it: lists stand in brackets.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => format!("[{}]", values.iter().map(shown).collect::<Vec<_>>().join(",")),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_shown_and_the_default_of_what_was_not() {
        let mut said = Said { max_requests_inflight: Some(7), ..Said::default() };
        said.access.authorization_mode = Some(vec!["Node".into(), "RBAC".into()]);
        let flags = Settings::resolve(said, None).unwrap().flags;
        for (flag, value) in [
            ("max-requests-inflight", "7"),
            ("authorization-mode", "[Node,RBAC]"),
            ("bind", "0.0.0.0:6443"),
            ("max-mutating-requests-inflight", "200"),
            ("audit-policy-file", ""),
        ] {
            assert_eq!(flags[flag], value, "{flag}");
        }
    }
}
