//! A strategy as a row of data: functions for what is particular, flags for the rest.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::subresource;
use crate::decode::add_always_shown;
use crate::field::ErrorList;
use crate::names::{self, Rule};
use crate::object::Object;
use crate::resource::{GroupVersion, GroupVersionKind};
use crate::schema::{Presence, Shape, schema};
use crate::strategy::{Context, Strategy};
use crate::validation::check::{Checker, same};
use crate::validation::metadata::Again;
use crate::warnings::Warnings;

/// What is particular about a kind.
pub struct Row {
    pub group: &'static str,
    pub kind: &'static str,
    pub name: Rule,
    /// What the body says in other words than are kept; done before anybody owns what it says.
    pub normalize: fn(&mut Object),
    /// On create, after `status` is reset.
    pub prepare: fn(&Context, &mut Object),
    /// On update, after `status` is carried over.
    pub prepare_update: fn(&mut Object, &Object),
    /// Checks a new object; also a changed one, unless [`Row::validate_update`] is given.
    pub validate: fn(&mut Checker, &Object),
    pub validate_update: Option<fn(&mut Checker, &Object, &Object)>,
    /// On an update of the status, once everything else is the old object's.
    pub prepare_status: fn(&Context, &mut Object, &Object),
    pub validate_status: fn(&mut Checker, &Object, &Object),
    /// Whether `status` belongs to its own subresource.
    pub has_status: bool,
    /// Whether a creator may tell the status, too.
    pub created_with_status: bool,
    pub generation: &'static [&'static str],
    /// Fields of the metadata that the generation counts, too.
    pub generation_metadata: &'static [&'static str],
    pub selectable: &'static [&'static str],
    /// Of a kind that is stored as another: the fields it is selected by, and their names there.
    pub selectable_as: &'static [(&'static str, &'static str)],
    pub create_on_update: bool,
    pub unconditional: bool,
    /// Whether a finalizer without a domain must be one of the project's own.
    pub own_finalizers: bool,
    /// Deletion waits so many seconds.
    pub grace: fn(&Object, Option<i64>) -> Option<i64>,
    pub warnings: Warnings,
    /// What preparing a new object has to say, whatever becomes of it.
    pub early_warnings: fn(&Object) -> Vec<String>,
    /// Last touch on a valid new object.
    pub canonicalize: fn(&mut Object),
}

impl Row {
    /// A kind with nothing particular; rows say what differs.
    pub const fn new(group: &'static str, kind: &'static str) -> Row {
        Row {
            group,
            kind,
            name: names::dns_subdomain,
            normalize: |_| {},
            prepare: |_, _| {},
            prepare_update: |_, _| {},
            validate: |_, _| {},
            validate_update: None,
            prepare_status: |_, _, _| {},
            validate_status: |_, _, _| {},
            has_status: false,
            created_with_status: false,
            generation: &[],
            generation_metadata: &[],
            selectable: &[],
            selectable_as: &[],
            create_on_update: false,
            unconditional: true,
            own_finalizers: true,
            grace: |_, _| None,
            warnings: |_, _| Vec::new(),
            early_warnings: |_| Vec::new(),
            canonicalize: |_| {},
        }
    }

    /// As [`Row::new`], with a `status` subresource and a generation that counts changes of `spec`.
    pub const fn with_status(group: &'static str, kind: &'static str) -> Row {
        Row { has_status: true, generation: &["spec"], ..Row::new(group, kind) }
    }
}

/// Puts an untouched `status` in place: absent, or what Go shows of an empty one.
fn reset_status(object: &mut Object) {
    let Some(map) = object.as_object_mut() else { return };
    map.remove("status");
    let version = GroupVersion::parse(map.get("apiVersion").and_then(Value::as_str).unwrap_or_default());
    let kind = map.get("kind").and_then(Value::as_str).unwrap_or_default().to_string();
    let gvk = version.map(|v| GroupVersionKind::new(v.group, v.version, kind));
    let Some(id) = gvk.and_then(|gvk| schema().by_gvk(&gvk)) else { return };
    if let Some(field) = schema().get(id).field("status")
        && let (Presence::Always, Shape::Type(status)) = (field.go.presence, &field.shape)
    {
        let mut zero = Map::new();
        add_always_shown(schema(), schema().get(*status), &mut zero);
        map.insert("status".to_string(), Value::Object(zero));
    }
}

/// Takes a root field from the old object.
pub fn carry(object: &mut Object, old: &Object, field: &str) {
    let Some(map) = object.as_object_mut() else { return };
    match old.get(field) {
        Some(value) => map.insert(field.to_string(), value.clone()),
        None => map.remove(field),
    };
}

impl Strategy for Row {
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        if prefix { (self.name)(&names::mask_trailing_dash(name)) } else { (self.name)(name) }
    }

    fn default(&self, object: &mut Object) {
        (self.normalize)(object);
    }

    fn prepare_create(&self, ctx: &Context, object: &mut Object) {
        if self.has_status && !self.created_with_status {
            reset_status(object);
        }
        (self.prepare)(ctx, object);
    }

    fn validate_create(&self, _ctx: &Context, object: &Object) -> ErrorList {
        let mut checker = Checker::new();
        (self.validate)(&mut checker, object);
        checker.into_errors()
    }

    fn prepare_update(&self, _ctx: &Context, object: &mut Object, old: &Object) {
        if self.has_status {
            carry(object, old, "status");
        }
        (self.prepare_update)(object, old);
    }

    fn validate_update(&self, _ctx: &Context, object: &Object, old: &Object) -> ErrorList {
        let mut checker = Checker::new();
        match self.validate_update {
            Some(validate) => validate(&mut checker, object, old),
            None => (self.validate)(&mut checker, object),
        }
        checker.into_errors()
    }

    /// A status update keeps everything but the status and the metadata.
    fn prepare_subresource_update(&self, ctx: &Context, name: &str, object: &mut Object, old: &Object) {
        if name != "status" {
            return subresource::prepare(ctx, name, object, old);
        }
        let names_of = |object: &Object| object.as_object().into_iter().flatten().map(|(k, _)| k.clone()).collect();
        let (mut fields, old_fields): (Vec<String>, Vec<String>) = (names_of(object), names_of(old));
        fields.extend(old_fields);
        fields.retain(|field| !matches!(field.as_str(), "status" | "metadata" | "apiVersion" | "kind"));
        fields.iter().for_each(|field| carry(object, old, field));
        (self.prepare_status)(ctx, object, old);
    }

    fn validate_subresource_update(&self, _ctx: &Context, name: &str, object: &Object, old: &Object) -> ErrorList {
        if name != "status" {
            return subresource::validate(name, object, old);
        }
        let mut checker = Checker::new();
        (self.validate_status)(&mut checker, object, old);
        checker.into_errors()
    }

    fn warnings(&self, object: &Object, old: Option<&Object>) -> Vec<String> {
        (self.warnings)(object, old)
    }

    fn canonicalize(&self, object: &mut Object) {
        (self.canonicalize)(object);
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        self.generation
    }

    fn counts(&self, object: &Object, old: &Object) -> Option<bool> {
        let changed = || self.generation.iter().any(|field| object[*field] != old[*field]);
        let (metadata, before) = (&object["metadata"], &old["metadata"]);
        let of_metadata = || self.generation_metadata.iter().any(|field| !same(metadata, before, field));
        (!self.generation.is_empty()).then(|| changed() || of_metadata())
    }

    fn selectable_fields(&self, object: &Object) -> Vec<(Cow<'static, str>, String)> {
        self.selectable.iter().map(|name| (Cow::Borrowed(*name), selectable_value(object, name))).collect()
    }

    fn selects_by(&self, field: &str) -> bool {
        self.selectable.contains(&field) || self.stored_field(field).is_some()
    }

    fn stored_field(&self, field: &str) -> Option<&'static str> {
        self.selectable_as.iter().find(|(name, _)| *name == field).map(|(_, stored)| *stored)
    }

    fn has_selectable_fields(&self) -> bool {
        !self.selectable.is_empty() || !self.selectable_as.is_empty()
    }

    fn grace_seconds(&self, object: &Object, asked: Option<i64>) -> Option<i64> {
        (self.grace)(object, asked)
    }

    fn allow_create_on_update(&self) -> bool {
        self.create_on_update
    }

    fn checks_finalizers(&self) -> bool {
        self.own_finalizers
    }

    fn metadata_again(&self, subresource: &str) -> Again {
        Again::of(self.group, self.kind, subresource)
    }

    fn early_warnings(&self, object: &Object) -> Vec<String> {
        (self.early_warnings)(object)
    }

    fn allow_unconditional_update(&self) -> bool {
        self.unconditional
    }
}

/// Who an event comes from.
fn reporter(event: &Object) -> String {
    let named = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(str::to_owned);
    named(&event["source"]["component"]).or_else(|| named(&event["reportingComponent"])).unwrap_or_default()
}

fn selectable_value(object: &Object, path: &str) -> String {
    let path = match path {
        // Older names, and one that is known and never has a value.
        "spec.host" => "spec.nodeName",
        "status.podIPs" => return String::new(),
        "source" => return reporter(object),
        path => path,
    };
    let value = path.split('.').fold(object, |value, part| &value[part]);
    match value {
        Value::String(text) => text.clone(),
        Value::Null if matches!(path, "spec.hostNetwork" | "spec.unschedulable") => "false".to_string(),
        Value::Null if matches!(path, "status.successful" | "status.replicas") => "0".to_string(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}
