//! The registry as the access rooms see it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{GroupResource, Object, StatusError};

use super::apply::Apply;
use super::commit::Target;
use super::delete::DeleteOptions;
use super::render::Written;
use super::update;
use super::{Registry, Served, Writer, managed};
use crate::authentication::User;
use crate::cache::{Cache, TooOld};
use crate::objects::{Change, Modify, Objects};

/// The server's own writes.
const SELF: &str = "system:apiserver";

impl Registry {
    fn stored(&self, resource: &GroupResource) -> Result<Arc<Served>, StatusError> {
        let stored = self.table().stored_version(resource).cloned();
        stored.ok_or_else(|| StatusError::new(Reason::NotFound, "the server could not find the requested resource"))
    }

    fn own_writer() -> Writer {
        let mut writer = Writer::new(Arc::new(User::new(SELF, &["system:masters"])));
        writer.unadmitted = true;
        writer.options.field_manager = "kube-apiserver".into();
        writer
    }
}

impl Registry {
    /// As [`Objects::modify`], of a status: the server is told as the owner of what it says there.
    pub(crate) async fn modify_status(
        &self,
        resource: &GroupResource,
        name: &str,
        change: Modify<'_>,
    ) -> Result<Arc<Object>, StatusError> {
        let target = Target::new(&self.stored(resource)?, "", name);
        let (served, writer) = (target.served.clone(), Self::own_writer());
        let mut change = |object: &mut Object| {
            let old = object.clone();
            change(object)?;
            if *object != old {
                managed::record(&served, Some(&old), object, "status", &writer);
                managed::keep_time_stamps(object, &old);
            }
            Ok(())
        };
        Ok(Arc::new(self.overwrite(&target, &mut Modified(&mut change)).await?))
    }
}

/// Tells of a change through the trait's closure.
struct Modified<'a>(Modify<'a>);

impl update::Change for Modified<'_> {
    fn apply(&mut self, current: &Object) -> Result<Object, StatusError> {
        let mut object = current.clone();
        (self.0)(&mut object)?;
        Ok(object)
    }
}

#[async_trait]
impl Objects for Registry {
    fn registry(self: Arc<Self>) -> Option<Arc<Registry>> {
        Some(self)
    }

    async fn get(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
    ) -> Result<Option<Arc<Object>>, StatusError> {
        let served = self.stored(resource)?;
        self.wait_until_fresh().await?;
        let entry = served.cache.snapshot().get(&served.key(namespace, name)).cloned();
        Ok(entry.map(|e| Arc::new(e.object())))
    }

    async fn selectable_field(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        field: &str,
    ) -> Result<Option<String>, StatusError> {
        let served = self.stored(resource)?;
        self.wait_until_fresh().await?;
        let snapshot = served.cache.snapshot();
        let entry = snapshot.get(&served.key(namespace, name));
        Ok(entry.map(|entry| entry.field(field).unwrap_or_default().to_string()))
    }

    async fn list(&self, resource: &GroupResource, namespace: &str) -> Result<Vec<Arc<Object>>, StatusError> {
        let served = self.stored(resource)?;
        self.wait_until_fresh().await?;
        let snapshot = served.cache.snapshot();
        Ok(snapshot.range(namespace, None).map(|e| Arc::new(e.object())).collect())
    }

    fn watch(&self, resource: &GroupResource) -> BoxStream<'static, Change> {
        let cache = self.caches.of(resource);
        let caches = self.caches.clone();
        let start = (caches, cache, None::<u64>);
        let batches = stream::unfold(start, |(caches, cache, since)| async move {
            let (changes, reached) = match since {
                None => everything(&cache),
                Some(since) => {
                    cache.changed_after(since).await;
                    changes_since(&cache, since).unwrap_or_else(|_| everything(&cache))
                }
            };
            Some((stream::iter(changes), (caches, cache, Some(reached))))
        });
        batches.flatten().boxed()
    }

    async fn create(&self, resource: &GroupResource, object: Object) -> Result<Arc<Object>, StatusError> {
        let served = self.stored(resource)?;
        let namespace = object.namespace().to_string();
        let written = Registry::create(self, &served, &namespace, object, &mut Self::own_writer()).await?;
        Ok(Arc::new(written.object()))
    }

    async fn modify(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        change: Modify<'_>,
    ) -> Result<Arc<Object>, StatusError> {
        let target = Target::new(&self.stored(resource)?, namespace, name);
        let updated = self.overwrite(&target, &mut Modified(change)).await?;
        Ok(Arc::new(updated))
    }

    async fn apply_status(&self, resource: &GroupResource, config: Object, manager: &str) -> Result<(), StatusError> {
        let mut target = Target::new(&self.stored(resource)?, config.namespace(), config.name());
        target.subresource = "status".into();
        let mut writer = Self::own_writer();
        writer.options.field_manager = manager.into();
        writer.options.force = Some(true);
        let mut change = Apply::of(&target, config, &mut writer);
        self.update(&target, &mut change, &mut writer).await.map(drop)
    }

    async fn delete(
        &self,
        resource: &GroupResource,
        namespace: &str,
        name: &str,
        options: Object,
    ) -> Result<Arc<Object>, StatusError> {
        let target = Target::new(&self.stored(resource)?, namespace, name);
        let options = DeleteOptions::of_object(options)?;
        let deleted = Registry::delete(self, &target, &options, &mut Self::own_writer()).await?;
        Ok(Arc::new(match deleted.object {
            Written::Stored(entry) => entry.object(),
            Written::Unstored(object) => object,
        }))
    }
}

fn everything(cache: &Cache) -> (Vec<Change>, u64) {
    let snapshot = cache.snapshot();
    let present = snapshot.range("", None).map(|e| Change::Set { object: Arc::new(e.object()), old: None });
    (present.chain([Change::Synced]).collect(), snapshot.revision)
}

fn changes_since(cache: &Cache, since: u64) -> Result<(Vec<Change>, u64), TooOld> {
    let changes = cache.changes_since(since)?;
    let reached = changes.last().map_or(since, |c| c.revision);
    let told = changes.iter().filter_map(|change| match (&change.before, &change.after) {
        (old, Some(new)) => {
            Some(Change::Set { object: Arc::new(new.object()), old: old.as_ref().map(|e| Arc::new(e.object())) })
        }
        (Some(old), None) => Some(Change::Gone { object: Arc::new(old.object()) }),
        (None, None) => None,
    });
    Ok((told.collect(), reached))
}
