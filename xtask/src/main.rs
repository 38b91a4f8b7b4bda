//! `cargo xtask generate [DIR]`: rebuilds the tables that `knarr-api` embeds from the facts of a Kubernetes release.
//!
//! DIR holds `schema.json`, `discovery.json`, `tables.json`, `bootstrap.json` and `openapi/swagger.json`. The output is
//! committed; the product never reads DIR. What is generated from Go's sources has its scripts in `xtask/scripts`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("generate") => generate(Path::new(args.get(1).map_or("../shared/k8s", String::as_str))),
        _ => bail!("usage: cargo xtask generate [DIR]"),
    }
}

fn generate(facts: &Path) -> Result<()> {
    let out = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/knarr-api/generated");
    fs::create_dir_all(&out)?;
    let mut schema = read(facts, "schema.json")?;
    add_metadata_kinds(&mut schema);
    fs::write(out.join("schema.json"), rows_per_line(&schema)?)?;
    for name in ["tables.json", "bootstrap.json"] {
        fs::write(out.join(name), rows_per_line(&read(facts, name)?)?)?;
    }
    let swagger = read(facts, "openapi/swagger.json")?;
    let resources = resources(&read(facts, "discovery.json")?, &swagger);
    fs::write(out.join("resources.json"), rows_per_line(&Value::Array(resources))?)?;
    fs::write(out.join("descriptions.z"), pack(&descriptions(&swagger)?)?)?;
    Ok(())
}

/// The texts of `swagger`: a line for each type, with its name, a tab, and a JSON object of its texts by field. The type's own has the empty name.
fn descriptions(swagger: &Value) -> Result<String> {
    let text = |described: &Value| described["description"].as_str().map(str::to_owned);
    let object = |value: &Value| value.as_object().cloned().unwrap_or_default();
    let mut lines = String::new();
    for (name, definition) in object(&swagger["definitions"]) {
        let fields = object(&definition["properties"]).into_iter();
        let texts: BTreeMap<String, String> = std::iter::once((String::new(), definition))
            .chain(fields)
            .filter_map(|(n, d)| Some((n, text(&d)?)))
            .collect();
        lines += &format!("{name}\t{}\n", serde_json::to_string(&texts)?);
    }
    Ok(lines)
}

fn pack(text: &str) -> Result<Vec<u8>> {
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::best());
    packed.write_all(text.as_bytes())?;
    Ok(packed.finish()?)
}

/// The kinds that an `Accept` header may ask for in any kind's stead. No OpenAPI document names them, and so no schema made of one.
fn add_metadata_kinds(schema: &mut Value) {
    let name = |kind: &str| format!("io.k8s.apimachinery.pkg.apis.meta.v1.{kind}");
    let field = |number: u32, list: &str, kind: &str| {
        let message = format!("k8s.io.apimachinery.pkg.apis.meta.v1.{kind}");
        json!({ "pb": number, "pbt": message, "t": format!("{list}{}", name(kind)) })
    };
    let text = json!({ "t": "string" });
    schema["types"][name("PartialObjectMetadata")] =
        json!({ "fields": { "apiVersion": text, "kind": text, "metadata": field(1, "", "ObjectMeta") } });
    schema["types"][name("PartialObjectMetadataList")] = json!({ "fields": {
        "apiVersion": text, "kind": text,
        "metadata": field(1, "", "ListMeta"), "items": field(2, "[]", "PartialObjectMetadata"),
    } });
}

fn read(facts: &Path, name: &str) -> Result<Value> {
    let path = facts.join(name);
    let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    Ok(serde_json::from_slice(&text)?)
}

/// Compact, but with a line for each element, so that a diff shows which rows changed.
fn rows_per_line(value: &Value) -> Result<String> {
    let mut text = String::new();
    match value {
        Value::Array(items) => {
            let rows: Vec<String> = items.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
            text.push_str(&format!("[\n{}\n]\n", rows.join(",\n")));
        }
        Value::Object(map) if map.contains_key("types") => {
            text.push_str(&format!("{{\"types\":{}}}\n", rows_per_line(&map["types"])?.trim_end()));
        }
        Value::Object(map) => {
            let rows: Vec<String> = map
                .iter()
                .map(|(k, v)| Ok(format!("{}:{}", json!(k), serde_json::to_string(v)?)))
                .collect::<Result<_>>()?;
            text.push_str(&format!("{{\n{}\n}}\n", rows.join(",\n")));
        }
        other => text.push_str(&other.to_string()),
    }
    Ok(text)
}

/// Aggregated discovery, flattened to one row a resource. Subresources that discovery's collapsed form omits but the
/// OpenAPI document serves (a `scale` whose kind is of another group) are taken from there.
fn resources(discovery: &Value, swagger: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for root in ["/api", "/apis"] {
        for group in array(&discovery[root]["items"]) {
            let group_name = group["metadata"]["name"].as_str().unwrap_or_default();
            for version in array(&group["versions"]) {
                let version_name = version["version"].as_str().unwrap_or_default();
                for resource in array(&version["resources"]) {
                    rows.push(row(group_name, version_name, resource, swagger));
                }
            }
        }
    }
    rows
}

fn array(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn row(group: &str, version: &str, resource: &Value, swagger: &Value) -> Value {
    let mut subresources: Vec<Value> = array(&resource["subresources"])
        .map(|s| json!({"name": s["subresource"], "kind": kind(group, version, &s["responseKind"]), "verbs": s["verbs"]}))
        .collect();
    add_missing(group, version, resource, swagger, &mut subresources);
    subresources.sort_by_key(|s| s["name"].as_str().unwrap_or_default().to_string());
    json!({
        "group": group, "version": version, "resource": resource["resource"], "singular": resource["singularResource"],
        "kind": kind(group, version, &resource["responseKind"]), "scope": resource["scope"], "verbs": resource["verbs"],
        "shortNames": resource.get("shortNames").cloned().unwrap_or(json!([])),
        "categories": resource.get("categories").cloned().unwrap_or(json!([])),
        "subresources": subresources,
    })
}

/// Discovery leaves group and version out where they are the resource's own.
fn kind(group: &str, version: &str, kind: &Value) -> Value {
    let version_said = kind["version"].as_str().unwrap_or_default();
    if version_said.is_empty() {
        json!({"group": group, "version": version, "kind": kind["kind"]})
    } else {
        kind.clone()
    }
}

fn add_missing(group: &str, version: &str, resource: &Value, swagger: &Value, known: &mut Vec<Value>) {
    let plural = resource["resource"].as_str().unwrap_or_default();
    let base = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    let scoped = if resource["scope"] == "Namespaced" { "/namespaces/{namespace}" } else { "" };
    let prefix = format!("{base}{scoped}/{plural}/{{name}}/");
    let names: BTreeSet<&str> = swagger["paths"]
        .as_object()
        .into_iter()
        .flat_map(|paths| paths.keys())
        .filter_map(|path| path.strip_prefix(&prefix))
        .filter(|rest| !rest.contains('/'))
        .collect();
    for name in names {
        if known.iter().any(|s| s["name"] == name) {
            continue;
        }
        let path = &swagger["paths"][format!("{prefix}{name}")];
        let verbs: Vec<&str> = [("get", "get"), ("patch", "patch"), ("put", "update"), ("post", "create")]
            .iter()
            .filter(|(m, _)| path.get(m).is_some())
            .map(|(_, v)| *v)
            .collect();
        let gvk =
            ["get", "put", "post"].iter().map(|m| &path[*m]["x-kubernetes-group-version-kind"]).find(|v| !v.is_null());
        known.push(json!({"name": name, "kind": kind(group, version, gvk.unwrap_or(&Value::Null)), "verbs": verbs}));
    }
}
