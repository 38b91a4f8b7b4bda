use serde_json::Value;

use crate::admission::refusal::{items, text};

/// A pod as the checks look at it.
pub struct PodSpec<'a> {
    pub spec: &'a Value,
    pub metadata: &'a Value,
}

impl<'a> PodSpec<'a> {
    /// Init containers, containers and ephemeral containers.
    pub fn containers(&self) -> impl Iterator<Item = &'a Value> {
        let spec = self.spec;
        ["/initContainers", "/containers", "/ephemeralContainers"].into_iter().flat_map(move |list| items(spec, list))
    }

    /// The quoted names of the containers of which this holds.
    pub fn named(&self, holds: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| holds(c)).map(|c| text(c, "/name")).collect()
    }

    pub fn is_windows(&self) -> bool {
        text(self.spec, "/os/name") == "windows"
    }

    /// A field of the pod's own security context.
    pub fn security(&self, field: &str) -> &'a Value {
        self.spec.pointer(&format!("/securityContext/{field}")).unwrap_or(&Value::Null)
    }
}

/// A field of a container's security context.
pub fn security<'a>(container: &'a Value, field: &str) -> &'a Value {
    container.pointer(&format!("/securityContext/{field}")).unwrap_or(&Value::Null)
}

/// `"a", "b"`
pub fn quoted(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|n| format!("{:?}", n.as_ref())).collect::<Vec<_>>().join(", ")
}

pub fn plural<'a>(one: &'a str, many: &'a str, count: usize) -> &'a str {
    if count == 1 { one } else { many }
}

/// `container "a"` or `containers "a", "b"`; `None` if there are none.
pub fn containers(names: &[&str]) -> Option<String> {
    (!names.is_empty()).then(|| format!("{} {}", plural("container", "containers", names.len()), quoted(names)))
}

/// The distinct words, sorted.
pub fn distinct(words: impl Iterator<Item = String>) -> Vec<String> {
    words.collect::<std::collections::BTreeSet<_>>().into_iter().collect()
}
