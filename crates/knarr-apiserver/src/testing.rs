//! A map that stands in for the registry in the tests of the access rooms.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use knarr_api::object::ObjectExt;
use knarr_api::{GroupResource, Object, StatusError};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::objects::{Change, Modify, Objects};

type Key = (GroupResource, String, String);

#[derive(Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<Key, Arc<Object>>,
    watchers: Vec<(GroupResource, mpsc::UnboundedSender<Change>)>,
    revision: u64,
}

impl State {
    fn announce(&mut self, resource: &GroupResource, change: &Change) {
        self.watchers.retain(|(r, sender)| r != resource || sender.send(change.clone()).is_ok());
    }

    fn set(&mut self, key: Key, mut object: Object) -> Arc<Object> {
        self.revision += 1;
        object.set_meta_str("resourceVersion", &self.revision.to_string());
        if object.uid().is_empty() {
            object.set_meta_str("uid", &format!("uid-{}", self.revision));
        }
        let object = Arc::new(object);
        let old = self.objects.insert(key.clone(), object.clone());
        self.announce(&key.0, &Change::Set { object: object.clone(), old });
        object
    }
}

impl Memory {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Stores an object as it is.
    pub fn put(&self, group: &'static str, resource: &'static str, object: Object) -> Arc<Object> {
        let key = (GroupResource::new(group, resource), object.namespace().to_string(), object.name().to_string());
        self.state.lock().set(key, object)
    }
}

#[async_trait]
impl Objects for Memory {
    async fn get(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, StatusError> {
        Ok(self.state.lock().objects.get(&(resource.clone(), namespace.into(), name.into())).cloned())
    }

    async fn list(&self, resource: &GroupResource, namespace: &str) -> Result<Vec<Arc<Object>>, StatusError> {
        let state = self.state.lock();
        let wanted =
            state.objects.iter().filter(|(k, _)| k.0 == *resource && (namespace.is_empty() || k.1 == namespace));
        Ok(wanted.map(|(_, o)| o.clone()).collect())
    }

    fn watch(&self, resource: &GroupResource) -> BoxStream<'static, Change> {
        let mut state = self.state.lock();
        let (sender, receiver) = mpsc::unbounded_channel();
        let present = state.objects.iter().filter(|(k, _)| k.0 == *resource);
        let mut first: Vec<Change> =
            present.map(|(_, object)| Change::Set { object: object.clone(), old: None }).collect();
        first.push(Change::Synced);
        state.watchers.push((resource.clone(), sender));
        stream::iter(first).chain(tokio_stream::wrappers::UnboundedReceiverStream::new(receiver)).boxed()
    }

    async fn create(&self, resource: &GroupResource, object: Object) -> Result<Arc<Object>, StatusError> {
        let mut state = self.state.lock();
        let key = (resource.clone(), object.namespace().to_string(), object.name().to_string());
        if state.objects.contains_key(&key) {
            return Err(StatusError::already_exists(resource, object.name()));
        }
        Ok(state.set(key, object))
    }

    async fn modify(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        change: Modify<'_>,
    ) -> Result<Arc<Object>, StatusError> {
        let mut state = self.state.lock();
        let key = (resource.clone(), namespace.to_string(), name.to_string());
        let old = state.objects.get(&key).cloned().ok_or_else(|| StatusError::not_found(resource, name))?;
        let mut object = (*old).clone();
        change(&mut object)?;
        if object == *old { Ok(old) } else { Ok(state.set(key, object)) }
    }

    /// Puts the status in the place of the other; there are no owners here.
    async fn apply_status(&self, resource: &GroupResource, config: Object, _: &str) -> Result<(), StatusError> {
        let mut put = |object: &mut Object| {
            object["status"] = config["status"].clone();
            Ok(())
        };
        self.modify(resource, config.namespace(), config.name(), &mut put).await.map(drop)
    }

    async fn delete(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        _options: Object,
    ) -> Result<Arc<Object>, StatusError> {
        let mut state = self.state.lock();
        let key = (resource.clone(), namespace.to_string(), name.to_string());
        let object = state.objects.remove(&key).ok_or_else(|| StatusError::not_found(resource, name))?;
        state.announce(resource, &Change::Gone { object: object.clone() });
        Ok(object)
    }
}
