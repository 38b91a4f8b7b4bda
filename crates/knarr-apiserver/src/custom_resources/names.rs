//! Which names a definition gets, and the conditions that say so.

use std::collections::HashSet;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use knarr_api::Object;
use knarr_api::custom_resource::Definition;
use knarr_api::validation::crd;
use serde_json::{Map, Value, json};

use crate::registry::commit::now_text;

/// The names that the other definitions of a group have.
#[derive(Default)]
pub struct Taken {
    resources: HashSet<String>,
    kinds: HashSet<String>,
}

impl Taken {
    /// Adds what a definition has been given.
    pub fn add(&mut self, definition: Definition<'_>) {
        let names = definition.accepted_names();
        let text = |field: &str| names.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_string);
        self.resources.extend(text("plural"));
        self.resources.extend(text("singular"));
        self.resources.extend(strings(names, "shortNames"));
        self.kinds.extend(text("kind"));
        self.kinds.extend(text("listKind"));
    }
}

fn strings(names: &Value, field: &str) -> Vec<String> {
    let list = names.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).map(str::to_string).collect()
}

/// Gives a definition the names that are free, and states `NamesAccepted` and `Established` accordingly. A definition that has
/// been established stays so.
pub fn settle(object: &mut Object, taken: &Taken) {
    let asked = Definition(object).names().clone();
    let given = Definition(object).accepted_names().clone();
    let mut accepted = given.as_object().cloned().unwrap_or_default();
    let mut conflict = None;
    for (field, reason, used) in
        [("plural", "PluralConflict", &taken.resources), ("singular", "SingularConflict", &taken.resources)]
    {
        settle_one(&asked, &given, &mut accepted, field, used, reason, &mut conflict);
    }
    settle_short_names(&asked, &given, &mut accepted, taken, &mut conflict);
    for (field, reason) in [("kind", "KindConflict"), ("listKind", "ListKindConflict")] {
        settle_one(&asked, &given, &mut accepted, field, &taken.kinds, reason, &mut conflict);
    }
    copy(&asked, &mut accepted, "categories");
    object["status"]["acceptedNames"] = Value::Object(accepted);
    if let Some((holds, reason, message)) = crd::approval_condition(object) {
        set_condition(object, "KubernetesAPIApprovalPolicyConformant", holds, reason, &message);
    }
    let established = Definition(object).is("Established");
    let accepted = conflict.is_none();
    match conflict {
        None => set_condition(object, "NamesAccepted", true, "NoConflicts", "no conflicts found"),
        Some((reason, message)) => set_condition(object, "NamesAccepted", false, reason, &message),
    }
    match (established, accepted) {
        (true, _) => {}
        (false, true) if has_broken_bundle(object) => {
            let why = "The conversion webhook CABundle is invalid";
            set_condition(object, "Established", false, "InvalidCABundle", why);
        }
        (false, true) => {
            set_condition(object, "Established", true, "InitialNamesAccepted", "the initial names have been accepted");
        }
        (false, false) => set_condition(object, "Established", false, "NotAccepted", "not all names are accepted"),
    }
}

/// Whether the authorities that the conversion webhook is to be known by cannot be read.
fn has_broken_bundle(object: &Object) -> bool {
    let bundle = object.pointer("/spec/conversion/webhook/clientConfig/caBundle").and_then(Value::as_str);
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else { return false };
    let pem = STANDARD.decode(bundle).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    pem.and_then(|pem| knarr_pki::root_store(&pem).ok()).is_none_or(|roots| roots.is_empty())
}

type Conflict = Option<(&'static str, String)>;

fn in_use(name: &str) -> String {
    format!("{name:?} is already in use")
}

fn settle_one(
    asked: &Value,
    given: &Value,
    accepted: &mut Map<String, Value>,
    field: &str,
    used: &HashSet<String>,
    reason: &'static str,
    conflict: &mut Conflict,
) {
    let text = |names: &Value| names.get(field).and_then(Value::as_str).unwrap_or_default().to_string();
    let name = text(asked);
    if name != text(given) && used.contains(&name) {
        *conflict = Some((reason, in_use(&name)));
    } else {
        copy(asked, accepted, field);
    }
}

fn settle_short_names(
    asked: &Value,
    given: &Value,
    accepted: &mut Map<String, Value>,
    taken: &Taken,
    conflict: &mut Conflict,
) {
    let own = strings(given, "shortNames");
    let clash = |name: &String| !own.contains(name) && taken.resources.contains(name);
    let clashes: Vec<String> = strings(asked, "shortNames").into_iter().filter(clash).map(|n| in_use(&n)).collect();
    match clashes.as_slice() {
        [] => copy(asked, accepted, "shortNames"),
        [one] => *conflict = Some(("ShortNamesConflict", one.clone())),
        many => *conflict = Some(("ShortNamesConflict", format!("[{}]", many.join(", ")))),
    }
}

fn copy(from: &Value, to: &mut Map<String, Value>, field: &str) {
    match from.get(field).filter(|v| !v.is_null()) {
        Some(value) => drop(to.insert(field.into(), value.clone())),
        None => drop(to.remove(field)),
    }
}

/// States a condition; its time is that of its last change.
pub fn set_condition(object: &mut Object, kind: &str, holds: bool, reason: &str, message: &str) {
    let status = if holds { "True" } else { "False" };
    if !object["status"]["conditions"].is_array() {
        object["status"]["conditions"] = json!([]);
    }
    let Some(conditions) = object["status"]["conditions"].as_array_mut() else { return };
    let known = conditions.iter().position(|c| c["type"] == kind);
    let since = match known.map(|i| &conditions[i]) {
        Some(before) if before["status"] == status => before["lastTransitionTime"].clone(),
        _ => now_text().into(),
    };
    let condition =
        json!({"type": kind, "status": status, "lastTransitionTime": since, "reason": reason, "message": message});
    match known {
        Some(index) => conditions[index] = condition,
        None => conditions.push(condition),
    }
}
