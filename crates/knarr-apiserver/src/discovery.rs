//! Which groups, versions and resources there are: plain and aggregated.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH, VARY};
use http::{HeaderMap, Response, StatusCode};
use knarr_api::GroupVersion;
use knarr_api::resource::Subresource;
use serde::Serialize;
use serde_json::{Value, json};

use crate::aggregation::Aggregator;
use crate::aggregation::order::{self, Group, Version};
use crate::http::Body;
use crate::http::negotiate;
use crate::http::respond;
use crate::registry::{Served, Table};

/// What discovery shows: what is served here, and what aggregated servers have.
pub struct Catalog<'a> {
    pub table: &'a Table,
    pub aggregator: &'a Aggregator,
    groups: Vec<Group>,
}

impl<'a> Catalog<'a> {
    pub fn new(table: &'a Table, aggregator: &'a Aggregator) -> Self {
        Catalog { table, aggregator, groups: order::groups(table, &aggregator.services()) }
    }

    /// Groups in discovery's order, each with its versions, the preferred first.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }
}

/// Upstream's order of versions: `v2`, `v1`, `v1beta2`, `v1beta1`, `v1alpha1`, then all else.
pub fn version_order(version: &str) -> (u8, u64, u64) {
    let parse = || {
        let rest = version.strip_prefix('v')?;
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let major = rest[..digits].parse().ok()?;
        let (stage, minor) = match &rest[digits..] {
            "" => (3, 0),
            tail => match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
                (Some(minor), _) => (2, minor.parse().ok()?),
                (_, Some(minor)) => (1, minor.parse().ok()?),
                _ => return None,
            },
        };
        Some((stage, major, minor))
    };
    parse().unwrap_or_default()
}

/// `GET /api`
pub fn core_versions(catalog: &Catalog<'_>, headers: &HeaderMap, server_address: &str) -> Response<Body> {
    if let Some(aggregated) = aggregated(catalog, headers, true) {
        return aggregated;
    }
    respond::document(
        negotiate::accept(headers, false),
        &json!({
            "kind": "APIVersions", "versions": ["v1"],
            "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": server_address}],
        }),
    )
}

/// `GET /apis`
pub fn group_list(catalog: &Catalog<'_>, headers: &HeaderMap) -> Response<Body> {
    if let Some(aggregated) = aggregated(catalog, headers, false) {
        return aggregated;
    }
    let groups: Vec<Value> = catalog.groups().iter().filter(|g| !g.name.is_empty()).map(group_value).collect();
    let wanted = negotiate::accept_unrouted(headers);
    respond::document(wanted, &json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
}

/// `GET /apis/GROUP`
pub fn group(catalog: &Catalog<'_>, headers: &HeaderMap, name: &str) -> Option<Response<Body>> {
    let mut value = group_value(catalog.groups().iter().find(|g| g.name == name && !g.name.is_empty())?);
    value["kind"] = "APIGroup".into();
    value["apiVersion"] = "v1".into();
    Some(respond::document(negotiate::accept_unrouted(headers), &value))
}

fn group_value(group: &Group) -> Value {
    let one = |version: &Version| json!({"groupVersion": format!("{}/{}", group.name, version.name), "version": version.name});
    json!({
        "name": group.name,
        "versions": group.versions.iter().map(one).collect::<Vec<_>>(),
        "preferredVersion": group.versions.first().map(one),
    })
}

/// `GET /api/v1`, `GET /apis/GROUP/VERSION`
pub fn resource_list(table: &Table, headers: &HeaderMap, group: &str, version: &str) -> Option<Response<Body>> {
    let of_version = |s: &&Arc<Served>| s.resource.group == group && s.resource.version == version;
    let mut rows: Vec<&Arc<Served>> = table.rows.iter().filter(of_version).collect();
    if rows.is_empty() {
        return None;
    }
    rows.sort_by(|a, b| a.resource.resource.cmp(&b.resource.resource));
    let resources = rows.iter().flat_map(|served| api_resources(served)).collect();
    let group_version = GroupVersion::new(group.to_string(), version.to_string()).to_string();
    let custom = rows.iter().any(|served| served.custom.is_some());
    let wanted = if custom { negotiate::accept_unrouted(headers) } else { negotiate::accept(headers, false) };
    // The oldest list does not say of what version itself is.
    let api_version = if group.is_empty() { "" } else { "v1" };
    let list = ApiResourceList { kind: "APIResourceList", api_version, group_version, resources };
    Some(respond::document(wanted, &list))
}

/// `metav1.APIResourceList`, its fields in upstream's order: scripts search the text.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResourceList<'a> {
    kind: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    api_version: &'a str,
    group_version: String,
    resources: Vec<ApiResource<'a>>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct ApiResource<'a> {
    name: Cow<'a, str>,
    singular_name: &'a str,
    namespaced: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    kind: &'a str,
    verbs: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    short_names: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    categories: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_version_hash: Option<String>,
}

/// A resource and its subresources.
fn api_resources(served: &Served) -> Vec<ApiResource<'_>> {
    let row = &served.resource;
    let stored = row.has_verb("list") && row.has_verb("create");
    let main = ApiResource {
        name: row.resource.as_str().into(),
        singular_name: &row.singular,
        namespaced: row.namespaced(),
        kind: &row.kind.kind,
        verbs: served.shown_verbs(),
        short_names: &row.short_names,
        categories: &row.categories,
        storage_version_hash: stored.then(|| storage_version_hash(served)),
        ..ApiResource::default()
    };
    std::iter::once(main).chain(row.subresources.iter().map(|sub| api_subresource(served, sub))).collect()
}

fn api_subresource<'a>(served: &'a Served, sub: &'a Subresource) -> ApiResource<'a> {
    let row = &served.resource;
    let elsewhere = !sub.kind.version.is_empty() && (&sub.kind.group, &sub.kind.version) != (&row.group, &row.version);
    ApiResource {
        name: format!("{}/{}", row.resource, sub.name).into(),
        namespaced: row.namespaced(),
        group: elsewhere.then_some(sub.kind.group.as_str()).filter(|group| !group.is_empty()),
        version: elsewhere.then_some(sub.kind.version.as_str()),
        kind: &sub.kind.kind,
        verbs: sub.verbs.iter().map(|verb| verb.as_ref()).collect(),
        ..ApiResource::default()
    }
}

/// As upstream: base64 of the first bytes of a digest of the kind that is stored.
fn storage_version_hash(served: &Served) -> String {
    use base64::Engine;
    use sha2::Digest;
    let kind = &served.stored_kind;
    let digest = sha2::Sha256::digest(format!("{}/{}/{}", kind.group, kind.version, kind.kind));
    base64::engine::general_purpose::STANDARD.encode(&digest[..8])
}

/// The aggregated form, where the client asks for it and it comes first.
fn aggregated(catalog: &Catalog<'_>, headers: &HeaderMap, core: bool) -> Option<Response<Body>> {
    let clauses = negotiate::clauses(headers);
    let version = clauses.iter().find_map(|clause| {
        let json = matches!(clause.media_type, "application/json" | "*/*");
        match (json, clause.parameter("as"), clause.parameter("g")) {
            (true, Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io")) => match clause.parameter("v") {
                Some(version @ ("v2" | "v2beta1")) => Some(Some(version)),
                _ => None,
            },
            (true, None, _) => Some(None),
            _ => None,
        }
    })??;
    let shown = catalog.groups().iter().filter(|g| g.name.is_empty() == core);
    let items: Vec<Value> = shown.map(|group| group_discovery(catalog, group)).collect();
    let list = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {}, "items": items,
    });
    Some(with_etag(headers, &list, version))
}

fn with_etag(headers: &HeaderMap, list: &Value, version: &str) -> Response<Body> {
    let text = list.to_string();
    let hash = std::hash::BuildHasher::hash_one(&foldhash::quality::FixedState::default(), &text);
    let etag = format!("\"{hash:016X}\"");
    let unchanged = headers.get(IF_NONE_MATCH).is_some_and(|v| v.as_bytes() == etag.as_bytes());
    let content_type = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    let content_type = HeaderValue::from_str(&content_type).unwrap_or(respond::JSON);
    let mut response = if unchanged {
        respond::with_type(StatusCode::NOT_MODIFIED, content_type, Body::empty())
    } else {
        respond::with_type(StatusCode::OK, content_type, Body::from(text))
    };
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("public"));
    response
}

fn group_discovery(catalog: &Catalog<'_>, group: &Group) -> Value {
    let version = |version: &Version| match version.remote {
        true => remote_discovery(catalog, &group.name, &version.name),
        false => own_discovery(catalog, &group.name, &version.name),
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({"name": group.name}) };
    json!({"metadata": metadata, "versions": versions})
}

fn own_discovery(catalog: &Catalog<'_>, group: &str, version: &str) -> Value {
    let rows = catalog.table.rows.iter().filter(|s| s.resource.group == group && s.resource.version == version);
    let by_name: BTreeMap<&str, Value> =
        rows.map(|served| (served.resource.resource.as_str(), resource_discovery(served))).collect();
    let resources: Vec<Value> = by_name.into_values().collect();
    match resources.is_empty() {
        true => json!({"version": version, "freshness": "Current"}),
        false => json!({"version": version, "resources": resources, "freshness": "Current"}),
    }
}

/// What the aggregated server said; an empty, stale version until it has said something.
fn remote_discovery(catalog: &Catalog<'_>, group: &str, version: &str) -> Value {
    let known = catalog.aggregator.document(&GroupVersion::new(group.to_string(), version.to_string()));
    let Some(known) = known else { return json!({"version": version, "freshness": "Stale"}) };
    let freshness = if known.fresh { "Current" } else { "Stale" };
    json!({"version": version, "resources": known.resources, "freshness": freshness})
}

fn resource_discovery(served: &Served) -> Value {
    let row = &served.resource;
    let scope = if row.namespaced() { "Namespaced" } else { "Cluster" };
    let mut value = json!({
        "resource": row.resource, "responseKind": kind_value(&served.resource.kind, served), "scope": scope,
        "singularResource": row.singular, "verbs": served.shown_verbs(),
    });
    if !row.short_names.is_empty() {
        value["shortNames"] = json!(row.short_names);
    }
    if !row.categories.is_empty() {
        value["categories"] = json!(row.categories);
    }
    if !row.subresources.is_empty() {
        let one = |sub: &Subresource| json!({"subresource": sub.name, "responseKind": kind_value(&sub.kind, served), "verbs": sub.verbs});
        value["subresources"] = row.subresources.iter().map(one).collect();
    }
    value
}

/// Group and version stand only where they are not the resource's own; of custom resources, always.
fn kind_value(kind: &knarr_api::resource::KindRef, served: &Served) -> Value {
    let row = &served.resource;
    if served.custom.is_some() && kind.version.is_empty() {
        return json!({"group": row.group, "version": row.version, "kind": kind.kind});
    }
    let own = served.custom.is_none()
        && (kind.group.as_str(), kind.version.as_str()) == (row.group.as_str(), row.version.as_str());
    let (group, version) = if own { ("", "") } else { (kind.group.as_str(), kind.version.as_str()) };
    json!({"group": group, "version": version, "kind": kind.kind})
}
