//! Filling in what the user left out.
//!
//! Defaults belong to types, so a pod template's are filled in wherever one stands. The schema carries plain default
//! values; [`table`] adds the functions of types whose defaults depend on other fields. A type with neither, and nothing
//! below it with either, is never walked.

mod image;
mod table;

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::decode::add_always_shown;
use crate::object::Object;
use crate::resource::GroupVersionKind;
use crate::schema::{Schema, Shape, Special, Type, TypeId, schema};

/// Fills in a value of one type; runs before the values it holds are defaulted.
pub type DefaultFn = fn(&mut Map<String, Value>);

/// What is to be done for each type of a schema.
pub struct Defaults {
    plans: Vec<Plan>,
}

#[derive(Default, Clone)]
struct Plan {
    function: Option<DefaultFn>,
    /// Fields with a default value of their own.
    values: Vec<usize>,
    /// Fields that hold types with something to do.
    descend: Vec<usize>,
}

impl Plan {
    fn is_empty(&self) -> bool {
        self.function.is_none() && self.values.is_empty() && self.descend.is_empty()
    }
}

static BUILT_IN: LazyLock<Defaults> = LazyLock::new(|| Defaults::compile(schema(), table::function));

/// Applies every default of a built-in `kind` to `object`. Idempotent.
pub fn apply_defaults(kind: &GroupVersionKind, object: &mut Object) {
    if let Some(id) = schema().by_gvk(kind) {
        BUILT_IN.apply(schema(), id, object);
    }
}

impl Defaults {
    /// Prepares the defaults of `schema`; `function` gives the function of a type, if it has one.
    pub fn compile(schema: &Schema, function: impl Fn(&str) -> Option<DefaultFn>) -> Self {
        let own = |ty: &Type| Plan {
            function: function(&ty.name),
            values: (0..ty.fields.len()).filter(|i| ty.fields[*i].default.is_some()).collect(),
            descend: Vec::new(),
        };
        let mut plans: Vec<Plan> = schema.types().map(|(_, ty)| own(ty)).collect();
        // Types may hold themselves, so this goes round until nothing changes.
        loop {
            let mut changed = false;
            for (id, ty) in schema.types() {
                let busy = |i: &usize| held(&ty.fields[*i].shape).is_some_and(|h| !plans[h.0 as usize].is_empty());
                let descend: Vec<usize> = (0..ty.fields.len()).filter(busy).collect();
                let plan = &mut plans[id.0 as usize];
                changed |= plan.descend.len() != descend.len();
                plan.descend = descend;
            }
            if !changed {
                return Defaults { plans };
            }
        }
    }

    /// Applies the defaults of type `id`. Idempotent.
    pub fn apply(&self, schema: &Schema, id: TypeId, value: &mut Value) {
        let (Some(plan), Some(map)) = (self.plans.get(id.0 as usize), value.as_object_mut()) else { return };
        let ty = schema.get(id);
        if let Some(function) = plan.function {
            function(map);
            add_always_shown(schema, ty, map);
        }
        for index in &plan.values {
            let field = &ty.fields[*index];
            let missing = map.get(&field.name).is_none_or(is_unset);
            if let (true, Some(default)) = (missing, &field.default) {
                let empty_struct = default.as_object().is_some_and(Map::is_empty);
                if !empty_struct {
                    map.insert(field.name.clone(), default.clone());
                }
            }
        }
        for index in &plan.descend {
            let field = &ty.fields[*index];
            if let Some(value) = map.get_mut(&field.name) {
                self.walk(schema, &field.shape, value);
            }
        }
    }

    fn walk(&self, schema: &Schema, shape: &Shape, value: &mut Value) {
        match shape {
            Shape::Type(id) if schema.get(*id).special == Special::None => self.apply(schema, *id, value),
            Shape::List(item) => {
                value.as_array_mut().into_iter().flatten().for_each(|v| self.walk(schema, item, v));
            }
            Shape::Map(item) => {
                value.as_object_mut().into_iter().flatten().for_each(|(_, v)| self.walk(schema, item, v));
            }
            _ => {}
        }
    }
}

/// The type that a shape holds, itself or in lists and maps.
fn held(shape: &Shape) -> Option<TypeId> {
    match shape {
        Shape::Type(id) => Some(*id),
        Shape::List(item) | Shape::Map(item) => held(item),
        _ => None,
    }
}

/// Null and the empty string count as left out.
fn is_unset(value: &Value) -> bool {
    value.is_null() || value.as_str() == Some("")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_template_is_defaulted_wherever_it_stands() {
        let mut cron = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"containers": [
            {"name": "c", "image": "nginx", "livenessProbe": {"httpGet": {"port": 80}}, "ports": [{"containerPort": 1}]}
        ]}}}}}});
        let kind = GroupVersionKind::new("batch", "v1", "CronJob");
        apply_defaults(&kind, &mut cron);
        let template = &cron["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(template["dnsPolicy"], "ClusterFirst");
        let container = &template["containers"][0];
        assert_eq!(container["imagePullPolicy"], "Always");
        assert_eq!(container["ports"][0]["protocol"], "TCP");
        assert_eq!(container["livenessProbe"]["httpGet"]["scheme"], "HTTP");
        let again = cron.clone();
        apply_defaults(&kind, &mut cron);
        assert_eq!(cron, again);
    }
}
