//! Built-in APIs that upstream warns of: those that a default server still serves.

/// An API that is to go, or that has a better one beside it.
pub struct Deprecated {
    group: &'static str,
    version: &'static str,
    resource: &'static str,
    /// The text of the `Warning` header of every answer.
    pub warning: &'static str,
    /// The release that no longer has it; empty where none is named.
    pub removed: &'static str,
}

const ALL: &[Deprecated] = &[
    Deprecated {
        group: "",
        version: "v1",
        resource: "componentstatuses",
        warning: "v1 ComponentStatus is deprecated in v1.19+",
        removed: "",
    },
    Deprecated {
        group: "",
        version: "v1",
        resource: "endpoints",
        warning: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        removed: "",
    },
];

/// What there is to say about a resource.
pub fn of(group: &str, version: &str, resource: &str) -> Option<&'static Deprecated> {
    // Both are of the core group: others are not even compared.
    if !group.is_empty() {
        return None;
    }
    ALL.iter().find(|d| d.resource == resource && d.version == version && d.group == group)
}
