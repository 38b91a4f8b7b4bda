//! The rows of the registry's table that a definition makes.

use std::collections::HashMap;
use std::sync::Arc;

use knarr_api::custom_resource::definition::Scale;
use knarr_api::custom_resource::strategy::selectable_value;
use knarr_api::custom_resource::{CustomStrategy, Definition, Structural, Version, types};
use knarr_api::object::ObjectExt;
use knarr_api::resource::{KindRef, Scope, Subresource};
use knarr_api::table::Printer;
use knarr_api::{GroupResource, GroupVersionKind, Object, Resource};
use serde_json::Value;

use super::{Custom, Kind};
use crate::cache::{FieldsOf, Reader};
use crate::discovery::version_order;
use crate::outbound::Outbound;
use crate::registry::scale::ScalePaths;
use crate::registry::{Held, Registry, Served};

/// In discovery's order.
const VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// What a definition made.
pub struct Installed {
    pub resource: GroupResource,
    pub state: String,
    /// Of the versions that are served.
    pub rows: Vec<Arc<Served>>,
    /// The version that is stored, served or not.
    pub stored: Arc<Served>,
}

/// Changes exactly when what is served does.
pub fn state_of(object: &Object) -> String {
    let definition = Definition(object);
    format!("{}/{}/{}/{}", object.uid(), object.generation(), definition.is_terminating(), definition.accepted_names())
}

/// Compiles a definition whose names are accepted. `None` where it says too little to be served.
pub fn build(registry: &Arc<Registry>, outbound: &Outbound, object: &Object) -> Option<Installed> {
    let definition = Definition(object);
    let names = Names::read(definition)?;
    let resource = GroupResource::new(definition.group().to_string(), names.plural.clone());
    let kind = Arc::new(Kind {
        name: object.name().to_string(),
        state: state_of(object),
        schemas: definition.versions().map(|v| (v.name.to_string(), Arc::new(Structural::compile(v.schema)))).collect(),
        keeps_unknown: definition.keeps_unknown_fields(),
        terminating: definition.is_terminating(),
        converter: definition.conversion_webhook().map(|webhook| super::webhook::converter(outbound, webhook)),
    });
    let mut rows = HashMap::new();
    for version in definition.versions().filter(|v| v.served || v.storage) {
        let served = row(registry, definition, &names, &resource, &kind, &version)?;
        rows.insert(version.name.to_string(), (version.served, Arc::new(served)));
    }
    let stored = rows.get(definition.storage_version())?.1.clone();
    let mut rows: Vec<Arc<Served>> = rows.into_values().filter(|(served, _)| *served).map(|(_, row)| row).collect();
    rows.sort_by_key(|row| std::cmp::Reverse(version_order(&row.kind.version)));
    registry.cache(&resource).set_reader(reader(&kind, definition));
    Some(Installed { resource, state: kind.state.clone(), rows, stored })
}

/// How stored objects of the kind are read.
fn reader(kind: &Arc<Kind>, definition: Definition<'_>) -> Reader {
    let mut paths: Vec<String> = Vec::new();
    for path in definition.versions().flat_map(|v| v.selectable) {
        if !paths.iter().any(|known| known == path) {
            paths.push(path.to_string());
        }
    }
    let stored_version = format!("{}/{}", definition.group(), definition.storage_version());
    let kind = kind.clone();
    let fields_of = (!paths.is_empty()).then(|| {
        Arc::new(move |object: &Object| {
            paths.iter().map(|path| (path.clone().into(), selectable_value(object, path))).collect()
        }) as FieldsOf
    });
    Reader { shape: Some(Arc::new(move |object| kind.read_stored(object, &stored_version))), fields_of }
}

/// The names that a definition's resource goes by.
struct Names {
    plural: String,
    singular: String,
    kind: String,
    list_kind: String,
    short: Vec<String>,
    categories: Vec<String>,
}

impl Names {
    fn read(definition: Definition<'_>) -> Option<Names> {
        let names = definition.accepted_names();
        let text = |field: &str| names.get(field).and_then(Value::as_str).filter(|t| !t.is_empty()).map(str::to_string);
        let list = |field: &str| {
            let list = names.get(field).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(Value::as_str).map(str::to_string).collect()
        };
        Some(Names {
            plural: text("plural")?,
            singular: text("singular")?,
            kind: text("kind")?,
            list_kind: text("listKind")?,
            short: list("shortNames"),
            categories: list("categories"),
        })
    }
}

fn row(
    registry: &Arc<Registry>,
    definition: Definition<'_>,
    names: &Names,
    group_resource: &GroupResource,
    kind: &Arc<Kind>,
    version: &Version<'_>,
) -> Option<Served> {
    let of = |name: &str| GroupVersionKind::new(definition.group().to_string(), name.to_string(), names.kind.clone());
    let (gvk, stored_kind) = (of(version.name), of(definition.storage_version()));
    let schema = kind.schemas.get(version.name)?.clone();
    let selectable: Vec<String> = version.selectable.iter().map(|path| path.to_string()).collect();
    let (types, type_id) = types::types_of(&schema, kind.keeps_unknown, &gvk);
    let strategy = CustomStrategy {
        schema: schema.clone(),
        has_status: version.has_status,
        scale: version.scale.clone(),
        selectable: selectable.clone(),
        rules: super::rules::compile(version.schema),
    };
    let custom = Custom {
        kind: kind.clone(),
        schema,
        list_kind: names.list_kind.clone(),
        deprecation: deprecation(definition, &names.kind, version),
        selectable,
    };
    Some(Served {
        resource: Arc::new(resource(definition, names, version)),
        group_resource: group_resource.clone(),
        api_version: gvk.api_version(),
        kind: gvk,
        strategy: Held::Shared(Arc::new(strategy)),
        schema: Held::Shared(Arc::new(types)),
        type_id: Some(type_id),
        cache: registry.cache(group_resource),
        stored_kind,
        custom: Some(Arc::new(custom)),
        check: None,
        printer: Printer::custom(&version.columns()),
        scale: version.scale.as_ref().map(scale_paths),
    })
}

fn resource(definition: Definition<'_>, names: &Names, version: &Version<'_>) -> Resource {
    let words = |list: &[&str]| list.iter().map(|w| w.to_string()).collect::<Vec<_>>();
    let kind =
        KindRef { group: definition.group().to_string(), version: version.name.to_string(), kind: names.kind.clone() };
    let part = |name: &str, kind: KindRef| Subresource { name: name.into(), kind, verbs: words(&PART_VERBS) };
    let scale = KindRef { group: "autoscaling".into(), version: "v1".into(), kind: "Scale".into() };
    let mut subresources = Vec::new();
    subresources.extend(version.has_status.then(|| part("status", kind.clone())));
    subresources.extend(version.scale.is_some().then(|| part("scale", scale)));
    Resource {
        group: kind.group.clone(),
        version: kind.version.clone(),
        resource: names.plural.clone(),
        singular: names.singular.clone(),
        kind,
        scope: if definition.namespaced() { Scope::Namespaced } else { Scope::Cluster },
        verbs: words(&VERBS),
        short_names: names.short.clone(),
        categories: names.categories.clone(),
        subresources,
    }
}

fn scale_paths(scale: &Scale) -> ScalePaths {
    let pointer = |path: &str| path.replace('.', "/");
    ScalePaths {
        spec_replicas: pointer(&scale.spec_replicas),
        status_replicas: pointer(&scale.status_replicas),
        selector: scale.label_selector.as_deref().map(pointer),
    }
}

/// The warning of a deprecated version: the user's own words, or what to use instead.
fn deprecation(definition: Definition<'_>, kind: &str, version: &Version<'_>) -> Option<String> {
    if !version.deprecated {
        return None;
    }
    if let Some(text) = version.deprecation_warning {
        return Some(text.to_string());
    }
    let group = definition.group();
    let own = version_order(version.name);
    let better = definition.versions().filter(|v| v.served && !v.deprecated && version_order(v.name) > own);
    let instead = better.max_by_key(|v| version_order(v.name)).map(|v| format!("; use {group}/{} {kind}", v.name));
    Some(format!("{group}/{} {kind} is deprecated{}", version.name, instead.unwrap_or_default()))
}
