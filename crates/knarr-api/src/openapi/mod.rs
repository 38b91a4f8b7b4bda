//! The OpenAPI documents, rendered from the schema and resource tables.
//!
//! Rendering takes some milliseconds and some megabytes; nothing of it stays resident. The server keeps the finished bytes
//! for as long as it likes; [`hash`] names a document's content without rendering it.

pub mod custom;
mod definitions;
mod descriptions;
mod operations;
mod paths;
pub mod protobuf;

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha512};

use definitions::Definitions;
pub use definitions::closure;
use descriptions::Descriptions;
use operations::meta;
use paths::Paths;

use crate::resource::{GroupVersion, Resource, built_in};
use crate::schema::{Schema, TypeId, schema};

/// Which OpenAPI is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    fn reference(self, definition: &str) -> Value {
        match self {
            Dialect::V2 => json!({"$ref": format!("#/definitions/{definition}")}),
            Dialect::V3 => json!({"$ref": format!("#/components/schemas/{definition}")}),
        }
    }
}

/// Documents beside those of the group versions: the index paths that `/openapi/v3` lists.
const OTHER_PATHS: [&str; 3] = ["api", "apis", "version"];

/// The paths under `/openapi/v3/` of all built-in documents: `api/v1`, `apis/apps/v1`, `apis/apps`, `api`, `version`...
pub fn v3_paths() -> Vec<String> {
    let mut out: BTreeSet<String> = OTHER_PATHS.iter().map(|p| p.to_string()).collect();
    for gv in &built_in().group_versions {
        out.insert(paths::base(gv).trim_start_matches('/').to_string());
        if !gv.group.is_empty() {
            out.insert(format!("apis/{}", gv.group));
        }
    }
    out.into_iter().collect()
}

/// Names the content of a built-in document: the tables and this program make it.
pub fn hash(path: &str) -> String {
    let mut digest = Sha512::new();
    digest.update(env!("CARGO_PKG_VERSION"));
    digest.update(include_str!("../../generated/schema.json"));
    digest.update(include_str!("../../generated/resources.json"));
    digest.update(path);
    digest.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The body of `/openapi/v3`.
pub fn v3_index() -> Value {
    let entry = |path: String| {
        let url = format!("/openapi/v3/{path}?hash={}", hash(&path));
        (path, json!({"serverRelativeURL": url}))
    };
    json!({"paths": Map::from_iter(v3_paths().into_iter().map(entry))})
}

/// The OpenAPI v3 document at `path` (as [`v3_paths`] lists them). `None` where there is no such document.
pub fn v3(path: &str) -> Option<Value> {
    let mut parts = path.split('/');
    match (parts.next()?, parts.next(), parts.next(), parts.next()) {
        ("api", None, ..) => Some(index_document(|paths| paths.group(""))),
        ("apis", None, ..) => Some(index_document(all_groups)),
        ("version", None, ..) => Some(index_document(version)),
        ("apis", Some(group), None, _) if built_in().group_versions.iter().any(|gv| gv.group == group) => {
            Some(index_document(|paths| paths.group(group)))
        }
        ("api", Some(version), None, _) => group_version_document(&GroupVersion::new("", version.to_string())),
        ("apis", Some(group), Some(version), None) => {
            group_version_document(&GroupVersion::new(group.to_string(), version.to_string()))
        }
        _ => None,
    }
}

fn all_groups(paths: &mut Paths<'_>) {
    let answer = meta("APIGroupList");
    paths.index("/apis/", "getAPIVersions".into(), "apis".into(), "get available API versions", &answer);
}

fn version(paths: &mut Paths<'_>) {
    let text = "get the version information for this server";
    paths.index("/version/", "getCodeVersion".into(), "version".into(), text, "io.k8s.apimachinery.pkg.version.Info");
}

fn index_document(fill: impl FnOnce(&mut Paths<'_>)) -> Value {
    let mut paths = Paths { schema: schema(), dialect: Dialect::V3, out: Map::new() };
    fill(&mut paths);
    v3_document(schema(), paths.out, Vec::new())
}

fn group_version_document(gv: &GroupVersion) -> Option<Value> {
    let resources: Vec<&Resource> =
        built_in().resources.iter().map(AsRef::as_ref).filter(|r| r.group_version() == *gv).collect();
    (!resources.is_empty()).then(|| v3_of_resources(schema(), gv, &resources))
}

/// The document of a group version made of these resources; for custom resources with their own schema too.
pub fn v3_of_resources(schema: &Schema, gv: &GroupVersion, resources: &[&Resource]) -> Value {
    let mut paths = Paths { schema, dialect: Dialect::V3, out: Map::new() };
    paths.group_version(gv);
    resources.iter().for_each(|resource| paths.resource(resource));
    // Kinds of a group version that no path names (DeleteOptions has one in each) come with the closure of what is named.
    let own = schema.types().filter(|(_, ty)| ty.gvks.iter().any(|gvk| gvk.group_version() == *gv)).map(|(id, _)| id);
    v3_document(schema, paths.out, own.collect())
}

/// Definitions that the operations name.
fn referenced(schema: &Schema, paths: &Map<String, Value>) -> BTreeSet<u32> {
    let mut out = BTreeSet::new();
    let mut open: Vec<&Value> = paths.values().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(map) => open.extend(map.values()),
            Value::Array(list) => open.extend(list),
            Value::String(text) => {
                let name = text.rsplit_once("/schemas/").or(text.rsplit_once("/definitions/")).map(|(_, name)| name);
                out.extend(name.and_then(|name| schema.by_name(name)).map(|id| id.0));
            }
            _ => {}
        }
    }
    out
}

fn v3_document(schema: &Schema, paths: Map<String, Value>, own: Vec<TypeId>) -> Value {
    let roots = referenced(schema, &paths).into_iter().map(TypeId).chain(own);
    let types = closure(schema, roots);
    let descriptions = Descriptions::of(schema, &types);
    let definitions = Definitions { schema, dialect: Dialect::V3, descriptions: &descriptions };
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {
            "schemas": definitions.render(types),
            "securitySchemes": {"BearerToken": {"type": "apiKey", "description": "Bearer Token authentication",
                "name": "authorization", "in": "header"}},
        },
    })
}

/// The OpenAPI v2 document of all that is built in.
pub fn v2() -> Value {
    let schema = schema();
    let mut paths = Paths { schema, dialect: Dialect::V2, out: Map::new() };
    all_groups(&mut paths);
    version(&mut paths);
    for gv in &built_in().group_versions {
        paths.group(&gv.group);
        paths.group_version(gv);
    }
    built_in().resources.iter().for_each(|resource| paths.resource(resource));
    let types: Vec<TypeId> = schema.types().filter(|(_, ty)| ty.is_published()).map(|(id, _)| id).collect();
    let descriptions = Descriptions::of(schema, &types);
    json!({
        "swagger": "2.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths.out,
        "definitions": Definitions { schema, dialect: Dialect::V2, descriptions: &descriptions }.render(types),
        "security": [{"BearerToken": []}],
        "securityDefinitions": {"BearerToken": {"description": "Bearer Token authentication", "in": "header",
            "name": "authorization", "type": "apiKey"}},
    })
}
