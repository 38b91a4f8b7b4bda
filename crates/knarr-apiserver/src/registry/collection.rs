//! DELETE of a collection.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use knarr_api::StatusError;
use knarr_api::selector::FieldSelector;

use super::commit::{self, Target};
use super::delete::DeleteOptions;
use super::options::ListOptions;
use super::read::{ListError, Page};
use super::watch_converted::selects;
use super::{Registry, Served, Writer};

/// Deletions in flight at once.
const WORKERS: usize = 16;

impl Registry {
    /// Deletes everything that the list options select; returns what was there, as it was.
    pub async fn delete_collection(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
        writer: &Writer,
    ) -> Result<Page, StatusError> {
        let page = self.selected(served, namespace, list).await?;
        let mut deletions = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let target = Target::new(served, entry.namespace(), entry.name());
            let mut writer = writer.clone();
            deletions.push(async move { self.delete(&target, options, &mut writer).await });
        }
        let results: Vec<_> = stream::iter(deletions).buffer_unordered(WORKERS).collect().await;
        // Somebody else may have been faster: what is gone is gone as wished.
        match results.into_iter().filter_map(Result::err).find(|error| error.code != 404) {
            Some(error) => Err(error),
            None => Ok(page),
        }
    }

    /// What the options select; of a kind that a webhook converts, by the fields in the served version.
    async fn selected(&self, served: &Arc<Served>, namespace: &str, list: &ListOptions) -> Result<Page, StatusError> {
        let mut options = list.clone();
        let mut fields = FieldSelector::everything();
        if served.asks_webhook() {
            fields = std::mem::take(&mut options.fields);
        }
        let mut page = self.list(served, namespace, &options).await.map_err(|error| match error {
            ListError::Status(error) => error,
            ListError::ContinueExpired { .. } => crate::cache::TooOld { requested: 0, oldest: 0 }.into(),
        })?;
        if !fields.is_everything() {
            let objects = page.entries.iter().map(|entry| entry.object()).collect();
            let objects = commit::all_from_stored(served, objects).await?;
            let mut objects = objects.iter();
            page.entries.retain(|_| objects.next().is_some_and(|object| selects(&fields, object)));
        }
        Ok(page)
    }
}
