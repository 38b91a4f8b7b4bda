//! LIST, then WATCH, for ever: the one loop behind informers, and behind those who follow a resource without a type for it.
//!
//! Objects pass through as the JSON they came as; whoever hears of them decodes what it needs. The loop itself knows no type, so that it is
//! compiled once and not for every kind.

use std::io;
use std::pin::pin;
use std::time::Duration;

use futures::AsyncBufReadExt;
use futures::future::BoxFuture;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ListParams, WatchParams};
use kube::core::{Request, Status};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::Instant;

use crate::Selection;

/// Objects a page of a list.
const PAGE: u32 = 500;
/// A watch that ends sooner, without having told anything, is not started again at once.
const SHORT_WATCH: Duration = Duration::from_secs(1);

/// What is followed.
#[derive(Clone, Debug)]
pub struct Source {
    /// The collection, such as `/apis/apps/v1/namespaces/a/deployments`.
    path: String,
    selection: Selection,
    metadata_only: bool,
}

impl Source {
    /// The objects of a kind that `selection` selects.
    pub fn of<K: kube::Resource>(kind: &K::DynamicType, selection: Selection) -> Source {
        Source { path: K::url_path(kind, selection.namespace.as_deref()), selection, metadata_only: false }
    }

    /// The same objects as `PartialObjectMetadata`.
    #[must_use]
    pub fn metadata(mut self) -> Source {
        self.metadata_only = true;
        self
    }

    fn list(&self, after: Option<&str>) -> Result<http::Request<Vec<u8>>, kube::Error> {
        let parameters = ListParams {
            field_selector: self.selection.field_selector.clone(),
            label_selector: self.selection.label_selector.clone(),
            limit: Some(PAGE),
            continue_token: after.map(str::to_owned),
            ..ListParams::default()
        };
        let request = Request::new(&self.path);
        let built = if self.metadata_only { request.list_metadata(&parameters) } else { request.list(&parameters) };
        built.map_err(kube::Error::BuildRequest)
    }

    fn watch(&self, revision: &str) -> Result<http::Request<Vec<u8>>, kube::Error> {
        let parameters = WatchParams {
            field_selector: self.selection.field_selector.clone(),
            label_selector: self.selection.label_selector.clone(),
            ..WatchParams::default()
        };
        let request = Request::new(&self.path);
        let built = if self.metadata_only {
            request.watch_metadata(&parameters, revision)
        } else {
            request.watch(&parameters, revision)
        };
        built.map_err(kube::Error::BuildRequest)
    }
}

/// What a follower hears. Objects are JSON texts.
pub enum Change<'a> {
    /// A list begins: what it does not name until [`Change::Settled`] is there no more.
    Relisting,
    Listed(&'a str),
    /// The list is whole.
    Settled,
    Applied(&'a str),
    /// With the object as it last was.
    Deleted(&'a str),
    /// The API could not be read; it is tried again after a back-off.
    Interrupted(&'a Interruption),
}

/// Why a list or a watch ended.
#[derive(Debug, thiserror::Error)]
pub enum Interruption {
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("not what an API server sends: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("a list without a resource version cannot be followed")]
    NoRevision,
    #[error("the watch ended at once")]
    Short,
}

impl Interruption {
    /// The revision to go on from is not kept any more.
    fn is_expired(&self) -> bool {
        matches!(self, Interruption::Api(kube::Error::Api(status)) if status.code == 410)
    }
}

type Hear = Box<dyn FnMut(Change<'_>) + Send>;

/// Tells `hear` what is in `source` and what becomes of it, until dropped.
pub fn follow(client: kube::Client, source: Source, hear: Hear) -> BoxFuture<'static, ()> {
    let follower = Follower { client, source, hear, delay: RetryDelay::default() };
    Box::pin(follower.run())
}

/// The metadata of an object, whatever its kind.
pub fn metadata_of(object: &str) -> serde_json::Result<ObjectMeta> {
    serde_json::from_str(object).map(|Partial { metadata }| metadata)
}

#[derive(Deserialize)]
struct Partial {
    #[serde(default)]
    metadata: ObjectMeta,
}

struct Follower {
    client: kube::Client,
    source: Source,
    hear: Hear,
    delay: RetryDelay,
}

impl Follower {
    async fn run(mut self) {
        let mut revision = None;
        loop {
            if let Err(interruption) = self.advance(&mut revision).await {
                if interruption.is_expired() {
                    revision = None;
                }
                (self.hear)(Change::Interrupted(&interruption));
                tokio::time::sleep(self.delay.next()).await;
            }
        }
    }

    /// Lists, where no revision is known, or else watches for as long as the server lets.
    async fn advance(&mut self, revision: &mut Option<String>) -> Result<(), Interruption> {
        match revision {
            None => *revision = Some(self.list().await?),
            Some(revision) => self.watch(revision).await?,
        }
        Ok(())
    }

    /// The revision of the list.
    async fn list(&mut self) -> Result<String, Interruption> {
        (self.hear)(Change::Relisting);
        let mut after: Option<String> = None;
        loop {
            let text = self.client.request_text(self.source.list(after.as_deref())?).await?;
            let page: Page = serde_json::from_str(&text)?;
            for item in page.items.into_iter().flatten() {
                (self.hear)(Change::Listed(item.get()));
            }
            after = page.metadata.next.filter(|token| !token.is_empty());
            if after.is_none() {
                (self.hear)(Change::Settled);
                return page.metadata.revision.filter(|at| !at.is_empty()).ok_or(Interruption::NoRevision);
            }
        }
    }

    /// Moves `revision` on to the last that it heard of.
    async fn watch(&mut self, revision: &mut String) -> Result<(), Interruption> {
        let request = self.source.watch(revision)?;
        let started = Instant::now();
        let mut lines = pin!(self.client.request_stream(request).await?);
        let (mut line, mut last) = (Vec::new(), Vec::new());
        let outcome = loop {
            line.clear();
            match lines.read_until(b'\n', &mut line).await {
                Ok(0) => break Ok(()),
                Ok(_) => {}
                Err(error) => break Err(error.into()),
            }
            if let Err(interruption) = self.tell(&line) {
                break Err(interruption);
            }
            self.delay.reset();
            std::mem::swap(&mut line, &mut last);
        };
        if let Some(seen) = revision_of(&last) {
            *revision = seen;
        } else if outcome.is_ok() && started.elapsed() < SHORT_WATCH {
            return Err(Interruption::Short);
        }
        outcome
    }

    fn tell(&mut self, line: &[u8]) -> Result<(), Interruption> {
        let event: Line = serde_json::from_slice(line)?;
        let object = event.object.get();
        match event.kind {
            Kind::Added | Kind::Modified => (self.hear)(Change::Applied(object)),
            Kind::Deleted => (self.hear)(Change::Deleted(object)),
            Kind::Bookmark => {}
            Kind::Error => {
                let status: Status = serde_json::from_str(object)?;
                return Err(kube::Error::Api(Box::new(status)).into());
            }
        }
        Ok(())
    }
}

#[derive(Deserialize)]
struct Page<'a> {
    metadata: PageMetadata,
    #[serde(borrow)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct PageMetadata {
    #[serde(rename = "resourceVersion")]
    revision: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(borrow)]
    object: &'a RawValue,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Kind {
    Added,
    Modified,
    Deleted,
    Bookmark,
    Error,
}

/// The revision that a watch has come to with this line: read only when the watch has ended, and from the last line.
fn revision_of(line: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Told {
        object: Object,
    }
    #[derive(Deserialize)]
    struct Object {
        metadata: Revision,
    }
    #[derive(Deserialize)]
    struct Revision {
        #[serde(rename = "resourceVersion")]
        revision: String,
    }
    let told: Told = serde_json::from_slice(line).ok()?;
    Some(told.object.metadata.revision)
}

/// Waits between failed tries: short at first, since at start the API server comes up beside us.
#[derive(Default)]
struct RetryDelay {
    failures: u32,
}

impl RetryDelay {
    fn next(&mut self) -> Duration {
        let delay = Duration::from_millis(50 << self.failures.min(8));
        self.failures += 1;
        delay.min(Duration::from_secs(10))
    }

    fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests;
