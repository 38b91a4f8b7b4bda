//! What aggregated servers say of themselves: their discovery and OpenAPI documents.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use knarr_api::GroupVersion;
use serde_json::{Map, Value, json};

use super::Aggregator;
use super::availability::headers;
use crate::outbound::{Client, Limits};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(5), size: 8 << 20 };
const OPENAPI_LIMITS: Limits = Limits { timeout: Duration::from_secs(30), size: 32 << 20 };
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,\
application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// One group and version of an aggregated server.
#[derive(Clone, Default)]
pub struct Document {
    /// `APIResourceDiscovery`, as aggregated discovery shows them.
    pub resources: Vec<Value>,
    /// From the last fetch, not from one before.
    pub fresh: bool,
    /// Where the server has the version's OpenAPI v3 document, hash and all.
    pub openapi_v3: Option<String>,
    /// The server's OpenAPI v2 document.
    pub openapi_v2: Option<Arc<Value>>,
    openapi_v2_etag: String,
}

impl Document {
    /// The same, fetched in vain this time.
    pub(super) fn stale(&self) -> Document {
        Document { fresh: false, ..self.clone() }
    }
}

pub(super) fn remember(aggregator: &Aggregator, version: &GroupVersion, document: Document) {
    let document = Arc::new(document);
    aggregator.documents.rcu(|documents| {
        let mut documents: HashMap<_, _> = HashMap::clone(documents);
        documents.insert(version.clone(), document.clone());
        documents
    });
}

pub(super) fn forget(aggregator: &Aggregator, version: &GroupVersion) {
    aggregator.documents.rcu(|documents| {
        let mut documents: HashMap<_, _> = HashMap::clone(documents);
        documents.remove(version);
        documents
    });
}

/// Asks the server; `None` where it has no discovery of this version.
pub(super) async fn fetch(client: &Client, version: &GroupVersion, before: Option<&Document>) -> Option<Document> {
    let resources = match aggregated(client, version).await {
        Some(resources) => resources,
        None => legacy(client, version).await?,
    };
    let mut document = Document { resources, fresh: true, ..before.cloned().unwrap_or_default() };
    document.openapi_v3 = openapi_v3(client, version).await;
    openapi_v2(client, &mut document).await;
    Some(document)
}

async fn get_json(client: &Client, path: &str) -> Option<Value> {
    let answer = client.get_with(path, headers("application/json"), LIMITS).await.ok()?;
    (answer.status() == StatusCode::OK).then(|| serde_json::from_slice(answer.body()).ok())?
}

async fn aggregated(client: &Client, version: &GroupVersion) -> Option<Vec<Value>> {
    let answer = client.get_with("/apis", headers(AGGREGATED), LIMITS).await.ok()?;
    let content_type = answer.headers().get(CONTENT_TYPE)?.to_str().ok()?;
    if answer.status() != StatusCode::OK || !content_type.contains("as=APIGroupDiscoveryList") {
        return None;
    }
    let list: Value = serde_json::from_slice(answer.body()).ok()?;
    let group = list["items"].as_array()?.iter().find(|g| g["metadata"]["name"] == *version.group);
    let versions = group.and_then(|g| g["versions"].as_array()).into_iter().flatten();
    let own = versions.into_iter().find(|v| v["version"] == *version.version);
    // A server without this version has nothing to show of it.
    Some(own.and_then(|v| v["resources"].as_array()).cloned().unwrap_or_default())
}

async fn legacy(client: &Client, version: &GroupVersion) -> Option<Vec<Value>> {
    let list = get_json(client, &format!("/apis/{version}")).await?;
    Some(of_resource_list(list["resources"].as_array()?))
}

/// The resources of an `APIResourceList` in the form of aggregated discovery.
fn of_resource_list(list: &[Value]) -> Vec<Value> {
    let mut resources: Vec<Value> = Vec::new();
    for resource in list {
        let kind = json!({
            "group": resource["group"].as_str().unwrap_or_default(),
            "version": resource["version"].as_str().unwrap_or_default(), "kind": resource["kind"],
        });
        let name = resource["name"].as_str().unwrap_or_default();
        if let Some((parent, subresource)) = name.split_once('/') {
            let own = json!({"subresource": subresource, "responseKind": kind, "verbs": resource["verbs"]});
            if let Some(parent) = resources.iter_mut().find(|r| r["resource"] == parent) {
                match parent["subresources"].as_array_mut() {
                    Some(subresources) => subresources.push(own),
                    None => parent["subresources"] = json!([own]),
                }
            }
            continue;
        }
        let scope = if resource["namespaced"] == true { "Namespaced" } else { "Cluster" };
        let mut own = json!({
            "resource": name, "responseKind": kind, "scope": scope,
            "singularResource": resource["singularName"].as_str().unwrap_or_default(), "verbs": resource["verbs"],
        });
        for field in ["shortNames", "categories"] {
            if resource[field].is_array() {
                own[field] = resource[field].clone();
            }
        }
        resources.push(own);
    }
    resources
}

async fn openapi_v3(client: &Client, version: &GroupVersion) -> Option<String> {
    let index = get_json(client, "/openapi/v3").await?;
    let paths: &Map<String, Value> = index["paths"].as_object()?;
    Some(paths.get(&format!("apis/{version}"))?["serverRelativeURL"].as_str()?.to_string())
}

async fn openapi_v2(client: &Client, document: &mut Document) {
    let mut headers = headers("application/json");
    if let Ok(etag) = document.openapi_v2_etag.parse() {
        headers.insert(IF_NONE_MATCH, etag);
    }
    let Ok(answer) = client.get_with("/openapi/v2", headers, OPENAPI_LIMITS).await else { return };
    if answer.status() == StatusCode::OK {
        let etag = answer.headers().get(ETAG).and_then(|v| v.to_str().ok());
        document.openapi_v2_etag = etag.unwrap_or_default().to_string();
        document.openapi_v2 = serde_json::from_slice(answer.body()).ok().map(Arc::new);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_discovery_is_shown_in_the_new_form() {
        let list = json!([
            {"name": "flunders", "singularName": "flunder", "namespaced": true, "kind": "Flunder", "verbs": ["get"], "shortNames": ["fl"]},
            {"name": "flunders/status", "namespaced": true, "kind": "Flunder", "verbs": ["get", "update"]},
        ]);
        let kind = json!({"group": "", "version": "", "kind": "Flunder"});
        assert_eq!(
            of_resource_list(list.as_array().unwrap()),
            vec![json!({
                "resource": "flunders", "singularResource": "flunder", "scope": "Namespaced", "responseKind": kind,
                "verbs": ["get"], "shortNames": ["fl"],
                "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get", "update"]}],
            })]
        );
    }
}
