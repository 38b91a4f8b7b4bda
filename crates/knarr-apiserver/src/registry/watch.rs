//! WATCH: what stood or happened since, then everything as it happens.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, TryStreamExt};
use http::StatusCode;
use knarr_api::StatusError;
use tokio::time::{Instant, Sleep};

use super::options::ListOptions;
use super::read::RUN;
use super::render::{self, Presenter};
use super::{Registry, Served};
use crate::cache::mailbox::Receiver;
use crate::cache::watchers::Render;
use crate::cache::{Caches, Change, CountedWatch, EventType, Selection, Snapshot, Started};
use crate::http::Body;
use crate::http::body::BoxError;
use crate::http::respond::{self, Answer};

const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);
/// Upstream's `--min-request-timeout`: watches without a timeout of their own last this long, up to twice.
const MIN_TIMEOUT: Duration = Duration::from_secs(1800);

impl Registry {
    /// Starts a watch. Once the options are valid, every failure is an ERROR event, as upstream.
    pub async fn watch(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        options: &ListOptions,
        presenter: Presenter,
    ) -> Answer {
        if served.asks_webhook() {
            return self.watch_converted(served, namespace, options, presenter).await;
        }
        let render = presenter.events();
        let started = self.start_watch(served, namespace, options, &presenter, render).await;
        let body = match started {
            Ok(events) => body_of(events, &presenter),
            Err(error) => Body::from(render::frame(presenter.wanted.encoding, "ERROR", &error.to_value())),
        };
        Ok(respond::with_type(StatusCode::OK, presenter.content_type(true), body))
    }

    pub(super) async fn start_watch(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        options: &ListOptions,
        presenter: &Presenter,
        render: Arc<dyn Render>,
    ) -> Result<WatchStream, StatusError> {
        let selection = Arc::new(Selection {
            namespace: if served.namespaced() { namespace.to_string() } else { String::new() },
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        });
        let applied = match options.resource_version {
            None => self.wait_until_fresh().await?,
            Some(revision) => self.wait_for(revision).await?,
        };
        let asked = options.resource_version.filter(|r| *r > 0);
        let everything_first = options.send_initial_events.unwrap_or(asked.is_none());
        let since = if everything_first { None } else { Some(asked.unwrap_or(applied)) };
        let started = served.cache.watch(selection.clone(), render.clone(), since)?;
        let bookmark = (options.send_initial_events == Some(true) && options.bookmarks)
            .then(|| presenter.bookmark(started.snapshot.revision.max(applied), true));
        let counted = served.cache.count_watch(&selection);
        let Started { snapshot, missed, receiver } = started;
        let told = if everything_first { Told::Objects(snapshot, None) } else { Told::Changes(missed.into_iter()) };
        let beginning = Beginning { selection, render, told, bookmark };
        let mut stream = WatchStream::new(beginning, receiver, self.caches.clone(), presenter.clone(), options);
        stream.counted = counted;
        Ok(stream)
    }
}

/// Events as they go out.
pub(super) fn body_of(
    events: impl Stream<Item = Result<Bytes, BoxError>> + Send + 'static,
    presenter: &Presenter,
) -> Body {
    match presenter.columns_of_events() {
        None => Body::stream(events),
        Some(mut columns) => Body::stream(events.map_ok(move |run| columns.put_into(run))),
    }
}

/// What a watcher is told before anything new happens; written as it is read, so that a slow reader costs no memory.
struct Beginning {
    selection: Arc<Selection>,
    render: Arc<dyn Render>,
    told: Told,
    /// Follows at the end.
    bookmark: Option<Bytes>,
}

enum Told {
    /// What stands, after this key.
    Objects(Arc<Snapshot>, Option<Arc<str>>),
    /// What has happened.
    Changes(std::vec::IntoIter<Arc<Change>>),
}

impl Beginning {
    /// The next run of events; `None` at the end.
    fn next(&mut self) -> Option<Bytes> {
        let mut out = BytesMut::new();
        match &mut self.told {
            Told::Objects(snapshot, after) => {
                let mut last = None;
                for entry in snapshot.select(&self.selection, after.as_deref()) {
                    self.render.event(EventType::Added, entry, entry.revision, &mut out);
                    last = Some(entry.key.clone());
                    if out.len() > RUN {
                        break;
                    }
                }
                *after = last.or(after.take());
            }
            Told::Changes(changes) => {
                for change in changes {
                    if let Some((kind, entry)) = change.seen_by(&self.selection) {
                        self.render.event(kind, entry, change.revision, &mut out);
                    }
                    if out.len() > RUN {
                        break;
                    }
                }
            }
        }
        if out.is_empty() { self.bookmark.take() } else { Some(out.freeze()) }
    }
}

/// The body of a watch's answer.
pub(super) struct WatchStream {
    /// Dropped once told.
    beginning: Option<Beginning>,
    receiver: Receiver,
    caches: Arc<Caches>,
    presenter: Presenter,
    bookmarks: bool,
    ends: Instant,
    /// Fires at the next bookmark, or at the end.
    timer: Pin<Box<Sleep>>,
    ended: bool,
    /// Tells priority and fairness what a write sets off.
    counted: Option<CountedWatch>,
}

impl WatchStream {
    fn new(
        beginning: Beginning,
        receiver: Receiver,
        caches: Arc<Caches>,
        presenter: Presenter,
        options: &ListOptions,
    ) -> Self {
        let timeout = options.timeout.unwrap_or_else(spread_timeout);
        let ends = Instant::now() + timeout;
        let mut stream = WatchStream {
            beginning: Some(beginning),
            receiver,
            caches,
            presenter,
            bookmarks: options.bookmarks,
            ends,
            timer: Box::pin(tokio::time::sleep_until(ends)),
            ended: false,
            counted: None,
        };
        stream.set_timer();
        stream
    }

    fn set_timer(&mut self) {
        let bookmark = Instant::now() + BOOKMARK_INTERVAL;
        let next = if self.bookmarks { self.ends.min(bookmark) } else { self.ends };
        self.timer.as_mut().reset(next);
    }

    /// The timer fired: the end, a bookmark, or both.
    fn on_timer(&mut self, told: u64) -> Option<Bytes> {
        self.ended = Instant::now() >= self.ends;
        self.set_timer();
        self.bookmarks.then(|| self.presenter.bookmark(told, false))
    }
}

/// Between one and two times [`MIN_TIMEOUT`], so that watches begun together do not end together.
fn spread_timeout() -> Duration {
    let spread = uuid::Uuid::new_v4().as_u128() as u64 % MIN_TIMEOUT.as_secs();
    MIN_TIMEOUT + Duration::from_secs(spread)
}

impl Stream for WatchStream {
    type Item = Result<Bytes, BoxError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(beginning) = &mut self.beginning {
                match beginning.next() {
                    Some(run) => return Poll::Ready(Some(Ok(run))),
                    None => self.beginning = None,
                }
            }
            if self.ended {
                return Poll::Ready(None);
            }
            // Read before the mailbox: a bookmark must not be ahead of what was delivered.
            let told = self.caches.told();
            match self.receiver.poll_next(cx) {
                Poll::Ready(Some(run)) => return Poll::Ready(Some(Ok(run))),
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {}
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(bookmark) = self.on_timer(told) {
                return Poll::Ready(Some(Ok(bookmark)));
            }
        }
    }
}
