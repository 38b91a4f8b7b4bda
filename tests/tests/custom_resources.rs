//! Custom resources from outside: kubectl, the namespace's end, owners, and a restart.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use knarr_tests::{Cluster, Options};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, PostParams};
use kube::runtime::wait::{await_condition, conditions};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const NAME: &str = "ships.sea.example.com";

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": NAME},
        "spec": {
            "group": "sea.example.com", "scope": "Namespaced",
            "names": {"plural": "ships", "singular": "ship", "kind": "Ship", "shortNames": ["sh"]},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"scale": {"specReplicasPath": ".spec.sails", "statusReplicasPath": ".status.sails"}, "status": {}},
                "additionalPrinterColumns": [{"name": "Sails", "type": "integer", "jsonPath": ".spec.sails"}],
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {
                        "sails": {"type": "integer", "minimum": 1, "description": "How many sails she carries."}}},
                    "status": {"type": "object", "properties": {"sails": {"type": "integer"}}}}}}}],
        },
    })
}

fn ship(name: &str) -> Value {
    json!({"apiVersion": "sea.example.com/v1", "kind": "Ship", "metadata": {"name": name}, "spec": {"sails": 1}})
}

fn ships_kind() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("sea.example.com", "v1", "Ship"), "ships")
}

async fn started() -> Result<(Cluster, kube::Client)> {
    let cluster = Cluster::up(&Options::default())?;
    let client = cluster.client().await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    definitions.create(&PostParams::default(), &serde_json::from_value(definition())?).await?;
    let established = await_condition(definitions, NAME, conditions::is_crd_established());
    tokio::time::timeout(LIMIT, established).await.context("established")??;
    Ok((cluster, client))
}

#[tokio::test]
async fn kubectl_works_with_a_custom_resource_as_with_any() -> Result<()> {
    let (cluster, _) = started().await?;
    let Some(kubectl) = cluster.kubectl() else { return Ok(()) };
    let file = cluster.data_dir().join("ship.yaml");
    std::fs::write(&file, ship("knarr").to_string())?;
    let file = file.display().to_string();
    ensure!(kubectl.run(&["apply", "-f", &file])?.contains("ship.sea.example.com/knarr created"));
    ensure!(kubectl.run(&["apply", "-f", &file])?.contains("unchanged"));
    ensure!(kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &file])?.contains("serverside-applied"));
    let table = kubectl.run(&["get", "sh"])?;
    ensure!(table.lines().next().is_some_and(|l| l.split_whitespace().eq(["NAME", "SAILS"])), "{table}");
    kubectl.run(&["scale", "ship/knarr", "--replicas=3"])?;
    ensure!(kubectl.run(&["get", "ship", "knarr", "-o", "jsonpath={.spec.sails}"])? == "3");
    let explained = kubectl.run(&["explain", "ships.spec.sails"])?;
    ensure!(explained.contains("How many sails she carries."), "{explained}");
    std::fs::write(&file, ship("knarr").to_string().replace("\"sails\":1", "\"sails\":0,\"oars\":9"))?;
    let refused = kubectl.run(&["apply", "-f", &file]).expect_err("neither fits").to_string();
    ensure!(refused.contains("unknown field \"spec.oars\""), "{refused}");
    std::fs::write(&file, ship("knarr").to_string().replace("\"sails\":1", "\"sails\":0"))?;
    let refused = kubectl.run(&["apply", "-f", &file]).expect_err("too few").to_string();
    let wanted = "The Ship \"knarr\" is invalid: spec.sails: Invalid value: 0: spec.sails in body should be greater than or equal to 1";
    ensure!(refused.contains(wanted), "{refused}");
    Ok(())
}

#[tokio::test]
async fn a_namespace_takes_its_custom_resources_with_it() -> Result<()> {
    let (_cluster, client) = started().await?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let bay = serde_json::from_value(json!({"metadata": {"name": "bay"}}))?;
    let bay = namespaces.create(&PostParams::default(), &bay).await?;
    let ships: Api<DynamicObject> = Api::namespaced_with(client, "bay", &ships_kind());
    ships.create(&PostParams::default(), &serde_json::from_value(ship("knarr"))?).await?;
    namespaces.delete("bay", &DeleteParams::default()).await?;
    let gone =
        await_condition(namespaces, "bay", conditions::is_deleted(bay.metadata.uid.as_deref().unwrap_or_default()));
    tokio::time::timeout(LIMIT, gone).await.context("the namespace goes")??;
    ensure!(ships.list(&kube::api::ListParams::default()).await?.items.is_empty());
    Ok(())
}

#[tokio::test]
async fn owners_may_be_custom_resources_and_may_own_them() -> Result<()> {
    let (_cluster, client) = started().await?;
    let ships: Api<DynamicObject> = Api::namespaced_with(client.clone(), "default", &ships_kind());
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let owner = |kind: &str, api_version: &str, name: &str, uid: Option<&str>| json!([{"apiVersion": api_version, "kind": kind, "name": name, "uid": uid}]);
    let knarr = ships.create(&PostParams::default(), &serde_json::from_value(ship("knarr"))?).await?;
    let mut map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cargo"}});
    map["metadata"]["ownerReferences"] = owner("Ship", "sea.example.com/v1", "knarr", knarr.metadata.uid.as_deref());
    let cargo = maps.create(&PostParams::default(), &serde_json::from_value(map)?).await?;
    let mut boat = ship("boat");
    boat["metadata"]["ownerReferences"] = owner("ConfigMap", "v1", "cargo", cargo.metadata.uid.as_deref());
    let boat = ships.create(&PostParams::default(), &serde_json::from_value(boat)?).await?;
    ships.delete("knarr", &DeleteParams::background()).await?;
    let uid = boat.metadata.uid.unwrap_or_default();
    let gone = await_condition(ships, "boat", conditions::is_deleted(&uid));
    tokio::time::timeout(LIMIT, gone).await.context("what the ship's cargo owned goes too")??;
    ensure!(maps.get_opt("cargo").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn definitions_outlive_a_crash() -> Result<()> {
    let (cluster, client) = started().await?;
    let ships: Api<DynamicObject> = Api::namespaced_with(client, "default", &ships_kind());
    ships.create(&PostParams::default(), &serde_json::from_value(ship("knarr"))?).await?;
    cluster.kill()?;
    cluster.start()?;
    let ships: Api<DynamicObject> = Api::namespaced_with(cluster.client().await?, "default", &ships_kind());
    ensure!(ships.get("knarr").await?.data["spec"]["sails"] == 1);
    Ok(())
}
