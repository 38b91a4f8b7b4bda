//! The parameters of a binding: objects of the policy's `paramKind` that `paramRef` names or selects.

use knarr_api::selector::LabelSelector;
use knarr_api::{GroupVersionKind, Object};
use serde_json::Value;

use super::definition::text;
use crate::registry::Registry;
use crate::registry::commit::from_stored_at_once;

/// `ParamRef`
pub struct ParamRef {
    name: String,
    namespace: String,
    selector: Option<Result<LabelSelector, String>>,
    /// `parameterNotFoundAction: Deny`
    denies_missing: bool,
}

impl ParamRef {
    pub fn of(value: &Value) -> ParamRef {
        let selector = value.get("selector").filter(|s| s.is_object());
        ParamRef {
            name: text(value, "name").to_string(),
            namespace: text(value, "namespace").to_string(),
            selector: selector.map(|s| LabelSelector::of_object(Some(s)).map_err(|error| error.to_string())),
            denies_missing: text(value, "parameterNotFoundAction") == "Deny",
        }
    }
}

/// Why there are no parameters.
pub enum Missing {
    /// The policy's fault: its `paramKind` is not served.
    Policy(String),
    /// The binding's.
    Binding(String),
}

/// The parameters to evaluate with, one after the other; one `None` where the policy or binding wants none.
pub fn collect(
    registry: &Registry,
    kind: Option<&GroupVersionKind>,
    reference: Option<&ParamRef>,
    namespace: &str,
) -> Result<Vec<Option<Object>>, Missing> {
    let Some(kind) = kind else { return Ok(vec![None]) };
    let table = registry.table();
    let Some(served) = table.by_kind(kind) else {
        let shown = format!("{}, Kind={}", kind.api_version(), kind.kind);
        return Err(Missing::Policy(format!("failed to find resource referenced by paramKind: '{shown}'")));
    };
    let Some(reference) = reference else { return Ok(vec![None]) };
    let namespace = match (served.namespaced(), reference.namespace.as_str()) {
        (false, "") => "",
        (false, _) => {
            let why = "paramRef.namespace must not be provided for a cluster-scoped `paramKind`";
            return Err(Missing::Binding(why.to_string()));
        }
        (true, "") if namespace.is_empty() => {
            let why = "cannot use namespaced paramRef in policy binding that matches cluster-scoped resources";
            return Err(Missing::Binding(why.to_string()));
        }
        (true, "") => namespace,
        (true, given) => given,
    };
    let snapshot = served.cache.snapshot();
    let mut found = Vec::new();
    match &reference.selector {
        None => found.extend(snapshot.get(&served.key(namespace, &reference.name)).cloned()),
        Some(Err(error)) => return Err(Missing::Binding(error.clone())),
        Some(Ok(selector)) => {
            found.extend(snapshot.range(namespace, None).filter(|entry| selector.matches(&*entry.labels)).cloned());
        }
    }
    if found.is_empty() && reference.denies_missing {
        let why = "no params found for policy binding with `Deny` parameterNotFoundAction";
        return Err(Missing::Binding(why.to_string()));
    }
    let object = |entry: std::sync::Arc<crate::cache::Entry>| Some(from_stored_at_once(served, entry.object()));
    Ok(found.into_iter().map(object).collect())
}
