use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{Event, Informers, Selection};
use crate::fake::FakeApi;

fn map(name: &str) -> ConfigMap {
    let labels = [("app".to_string(), name.to_string())].into();
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.into()), labels: Some(labels), ..Default::default() },
        ..Default::default()
    }
}

fn app(object: &ConfigMap) -> Vec<String> {
    object.metadata.labels.iter().flatten().map(|(_, app)| app.clone()).collect()
}

#[tokio::test]
async fn a_cache_follows_the_api_and_its_events_tell_every_change() {
    let shutdown = CancellationToken::new();
    let fake = FakeApi::new();
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "ns");
    api.create(&PostParams::default(), &map("a")).await.unwrap();
    let informers = Informers::new(fake.client(), shutdown.clone());
    let informer = informers.all::<ConfigMap>();
    informer.add_index("app", app);
    informer.synced().await;
    assert_eq!(informer.indexed("app", "a").len(), 1);
    let mut events = informer.subscribe();
    assert!(matches!(events.recv().await, Some(Event::Added(object)) if object.metadata.name.as_deref() == Some("a")));

    let patch = Patch::Merge(json!({ "metadata": { "labels": { "app": "z" } } }));
    api.patch("a", &PatchParams::default(), &patch).await.unwrap();
    assert!(
        matches!(events.recv().await, Some(Event::Updated { old, new }) if app(&old) == ["a"] && app(&new) == ["z"])
    );
    assert!(informer.indexed("app", "a").is_empty());
    assert_eq!(informer.indexed("app", "z").len(), 1);

    api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Deleted(_))));
    assert!(informer.get("ns", "a").is_none() && informer.indexed("app", "z").is_empty());
    shutdown.cancel();
    assert!(events.recv().await.is_none());
    informers.stopped().await;
}

#[tokio::test]
async fn a_slow_subscriber_gets_the_last_state_and_passed_lives_but_not_each_step() {
    let shutdown = CancellationToken::new();
    let fake = FakeApi::new();
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "ns");
    let informers = Informers::new(fake.client(), shutdown.clone());
    let informer = informers.selected::<ConfigMap>(Selection::namespace("ns"));
    informer.synced().await;
    let mut slow = informer.subscribe();
    let mut witness = informer.subscribe();
    api.create(&PostParams::default(), &map("kept")).await.unwrap();
    for n in 0..50 {
        let patch = Patch::Merge(json!({ "data": { "n": n.to_string() } }));
        api.patch("kept", &PatchParams::default(), &patch).await.unwrap();
    }
    api.create(&PostParams::default(), &map("passed")).await.unwrap();
    api.delete("passed", &DeleteParams::default()).await.unwrap();
    while !matches!(witness.recv().await, Some(Event::Deleted(_))) {}
    let mut seen = Vec::new();
    while let Some(event) = slow.try_recv() {
        seen.push(event);
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    let kept = seen.iter().find(|event| event.object().metadata.name.as_deref() == Some("kept")).unwrap();
    assert!(matches!(kept, Event::Added(object) if object.data.as_ref().unwrap()["n"] == "49"));
    shutdown.cancel();
}

#[tokio::test]
async fn equal_selections_share_one_watch() {
    let shutdown = CancellationToken::new();
    let informers = Informers::new(FakeApi::new().client(), shutdown.clone());
    let (first, second) = (informers.all::<ConfigMap>(), informers.all::<ConfigMap>());
    assert!(std::sync::Arc::ptr_eq(&first.cache, &second.cache));
    let other = informers.selected::<ConfigMap>(Selection::namespace("ns"));
    assert!(!std::sync::Arc::ptr_eq(&first.cache, &other.cache));
    shutdown.cancel();
}

#[tokio::test]
async fn an_object_that_is_none_of_the_kind_is_passed_over_alone() {
    let shutdown = CancellationToken::new();
    let fake = FakeApi::new();
    let api: Api<ConfigMap> = Api::namespaced(fake.client(), "ns");
    api.create(&PostParams::default(), &map("kept")).await.unwrap();
    let informers = Informers::new(fake.client(), shutdown.clone());
    let informer = informers.all::<ConfigMap>();
    informer.synced().await;
    let mut events = informer.subscribe();
    assert!(matches!(events.recv().await, Some(Event::Added(_))));
    let spoil = Patch::Merge(json!({ "data": { "n": 1 } }));
    let raw = kube::core::Request::new("/api/v1/namespaces/ns/configmaps");
    let request = raw.patch("kept", &PatchParams::default(), &spoil).unwrap();
    fake.client().request_text(request).await.unwrap();
    assert!(matches!(events.recv().await, Some(Event::Deleted(object)) if object.data.is_none()));
    api.create(&PostParams::default(), &map("other")).await.unwrap();
    assert!(
        matches!(events.recv().await, Some(Event::Added(object)) if object.metadata.name.as_deref() == Some("other"))
    );
    shutdown.cancel();
}
