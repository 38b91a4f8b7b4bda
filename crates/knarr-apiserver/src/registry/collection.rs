//! DELETE of a collection.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream;
use knarr_api::StatusError;

use super::commit::Target;
use super::delete::DeleteOptions;
use super::options::ListOptions;
use super::read::{ListError, Page};
use super::render::Written;
use super::{Registry, Served, Writer};

/// Deletions in flight at once.
const WORKERS: usize = 16;

impl Registry {
    /// Deletes everything that the list options select; returns what was there.
    pub async fn delete_collection(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        list: &ListOptions,
        options: &DeleteOptions,
        writer: &Writer,
    ) -> Result<Page, StatusError> {
        let page = self.list(served, namespace, list).await.map_err(|error| match error {
            ListError::Status(error) => error,
            ListError::ContinueExpired { .. } => crate::cache::TooOld { requested: 0, oldest: 0 }.into(),
        })?;
        let mut deletions = Vec::with_capacity(page.entries.len());
        for entry in &page.entries {
            let target = Target::new(served, entry.namespace(), entry.name());
            let mut writer = writer.clone();
            deletions.push(async move { self.delete(&target, options, &mut writer).await });
        }
        let results: Vec<_> = stream::iter(deletions).buffer_unordered(WORKERS).collect().await;
        let mut entries = Vec::with_capacity(results.len());
        for result in results {
            match result {
                Ok(deleted) => entries.extend(match deleted.object {
                    Written::Stored(entry) => Some(entry),
                    Written::DryRun(_) => None,
                }),
                // Somebody else was faster: it is gone, as wished.
                Err(error) if error.code == 404 => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Page { entries, whole: None, ..page })
    }
}
