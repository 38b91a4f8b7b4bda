//! GET and LIST: pointer copies out of the cache.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use knarr_api::StatusError;
use knarr_api::status::Reason;

use super::continuation::Continuation;
use super::options::{ListOptions, VersionMatch};
use super::{Registry, Served};
use crate::cache::rendered::Rendered;
use crate::cache::{Entry, Selection, Snapshot, Whole};

/// Bytes of one run of a list's body.
/// Bytes that go out in one piece.
pub(super) const RUN: usize = 256 * 1024;

/// A page of objects as of one revision.
pub struct Page {
    pub entries: Vec<Arc<Entry>>,
    /// 0: of what is never stored.
    pub revision: u64,
    /// Empty on the last page.
    pub continue_token: String,
    /// How many follow, where it is known.
    pub remaining: Option<usize>,
    /// The page is everything there is, so that others may be shown the same.
    pub whole: Option<Whole>,
}

impl Page {
    pub fn last(entries: Vec<Arc<Entry>>, revision: u64) -> Self {
        Page { entries, revision, continue_token: String::new(), remaining: None, whole: None }
    }
}

/// Why a list cannot go on.
pub enum ListError {
    Status(StatusError),
    /// The token's revision is gone; the inconsistent one goes on with what stands now.
    ContinueExpired {
        inconsistent: String,
    },
}

impl From<StatusError> for ListError {
    fn from(error: StatusError) -> Self {
        ListError::Status(error)
    }
}

impl Registry {
    /// The object, or upstream's 404; `at_least` is the `resourceVersion` of the request.
    pub async fn get(
        &self,
        served: &Served,
        namespace: &str,
        name: &str,
        at_least: Option<u64>,
    ) -> Result<Arc<Entry>, StatusError> {
        match at_least {
            None => self.wait_until_fresh().await?,
            Some(revision) => self.wait_for(revision).await?,
        };
        let key = served.key(namespace, name);
        let found = served.cache.snapshot().get(&key).cloned();
        if found.is_none() {
            self.check_absent(served, &key)?;
        }
        found.ok_or_else(|| StatusError::not_found(&served.group_resource, name))
    }

    /// A page of a list.
    pub async fn list(&self, served: &Served, namespace: &str, options: &ListOptions) -> Result<Page, ListError> {
        let (snapshot, revision, after) = self.list_start(served, namespace, options).await?;
        let selection = Selection {
            namespace: if served.namespaced() { namespace.to_string() } else { String::new() },
            labels: options.labels.clone(),
            fields: options.fields.clone(),
        };
        self.check_complete(served, &selection.namespace)?;
        Ok(page(&snapshot, revision, after.as_deref(), &selection, options))
    }

    /// The snapshot a list reads, the revision it is shown with, and the key it follows.
    async fn list_start(
        &self,
        served: &Served,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<(Arc<Snapshot>, u64, Option<String>), ListError> {
        if !options.continue_token.is_empty() {
            return self.list_continue(served, namespace, options).await;
        }
        let exact = match (options.version_match, options.resource_version) {
            (Some(VersionMatch::Exact), Some(revision)) => Some(revision),
            (None, Some(revision)) if revision > 0 && options.limit > 0 => Some(revision),
            _ => None,
        };
        if let Some(revision) = exact {
            self.wait_for(revision).await?;
            let expired =
                |_| StatusError::new(Reason::Expired, "The resourceVersion for the provided list is too old.");
            return Ok((served.cache.snapshot_at(revision).map_err(expired)?, revision, None));
        }
        let applied = match options.resource_version {
            None => self.wait_until_fresh().await?,
            Some(revision) => self.wait_for(revision).await?,
        };
        let snapshot = served.cache.snapshot();
        let revision = snapshot.revision.max(applied);
        Ok((arc_swap::Guard::into_inner(snapshot), revision, None))
    }

    async fn list_continue(
        &self,
        served: &Served,
        namespace: &str,
        options: &ListOptions,
    ) -> Result<(Arc<Snapshot>, u64, Option<String>), ListError> {
        if options.resource_version.is_some_and(|r| r > 0) {
            let why = "specifying resource version is not allowed when using continue";
            return Err(StatusError::bad_request(why).into());
        }
        let token = Continuation::decode(&options.continue_token)?;
        // Tokens name keys as they are below what is listed.
        let after = match served.namespaced() && !namespace.is_empty() {
            true => format!("{namespace}/{}", token.after),
            false => token.after.clone(),
        };
        let Some(revision) = token.revision else {
            let applied = self.wait_until_fresh().await?;
            let snapshot = served.cache.snapshot();
            let revision = snapshot.revision.max(applied);
            return Ok((arc_swap::Guard::into_inner(snapshot), revision, Some(after)));
        };
        self.wait_for(revision).await?;
        match served.cache.snapshot_at(revision) {
            Ok(snapshot) => Ok((snapshot, revision, Some(after))),
            Err(_) => {
                let inconsistent = Continuation { revision: None, after: token.after }.encode();
                Err(ListError::ContinueExpired { inconsistent })
            }
        }
    }
}

fn page(
    snapshot: &Arc<Snapshot>,
    revision: u64,
    after: Option<&str>,
    selection: &Selection,
    options: &ListOptions,
) -> Page {
    // A selector that names one object need not look at the others.
    if let Some(name) = options.fields.exact("metadata.name") {
        let key =
            if selection.namespace.is_empty() { name.to_string() } else { format!("{}/{name}", selection.namespace) };
        if let Some(entry) = snapshot.get(&key)
            && after.is_none()
        {
            let entries = if selection.matches(entry) { vec![entry.clone()] } else { Vec::new() };
            return Page::last(entries, revision);
        }
    }
    let everything = options.selects_everything();
    // Who takes any version is given all of it, as upstream does.
    let limit = if options.resource_version == Some(0) { 0 } else { options.limit };
    if limit == 0 {
        let whole = Whole { snapshot: snapshot.clone(), namespace: selection.namespace.clone() };
        let whole = (everything && after.is_none()).then_some(whole);
        let entries = snapshot.select(selection, after).cloned().collect();
        return Page { whole, ..Page::last(entries, revision) };
    }
    let mut candidates = snapshot.candidates(selection, after);
    let entries = candidates.by_ref().filter(|entry| everything || selection.matches(entry)).take(limit);
    let mut page = Page::last(entries.cloned().collect(), revision);
    // Whether what follows is selected, the next page will tell.
    if page.entries.len() == limit
        && candidates.next().is_some()
        && let Some(last) = page.entries.last()
    {
        let after = if selection.namespace.is_empty() { &*last.key } else { last.name() };
        page.continue_token = Continuation { revision: Some(revision), after: after.into() }.encode();
        page.remaining = everything.then(|| candidates.count() + 1);
    }
    page
}

/// How the items of a list are written.
#[derive(Clone, Copy)]
pub enum ItemForm {
    /// With `kind` and `apiVersion`.
    Typed,
    /// Without, as upstream writes the items of its own kinds.
    Untyped,
}

/// A list, in runs of bytes that go out as they are.
pub fn list_json(page: &Page, kind: &str, api_version: &str, form: ItemForm, rendered: &Rendered) -> Vec<Bytes> {
    let mut head = BytesMut::new();
    head.put_slice(format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":").as_bytes());
    match form {
        ItemForm::Typed => put_full_list_metadata(page, &mut head),
        ItemForm::Untyped => put_list_metadata(page, &mut head),
    }
    head.put_slice(b",\"items\":[");
    let mut runs = vec![head.freeze()];
    match &page.whole {
        Some(whole) => runs.extend_from_slice(&rendered.items(whole, form.name(), || items(&page.entries, form))),
        None => runs.extend(items(&page.entries, form)),
    }
    runs.push(Bytes::from_static(b"]}\n"));
    runs
}

/// The items with commas between them.
fn items(entries: &[Arc<Entry>], form: ItemForm) -> Vec<Bytes> {
    let mut runs = Vec::new();
    let mut rest: usize = entries.iter().map(|entry| entry.json().len() + 2).sum();
    let mut out = BytesMut::with_capacity(rest.min(RUN));
    for (i, entry) in entries.iter().enumerate() {
        let json = form.of(entry);
        let more = json.len() + 2;
        if out.len() + more > out.capacity() && !out.is_empty() {
            runs.push(std::mem::replace(&mut out, BytesMut::with_capacity(rest.min(RUN).max(more))).freeze());
        }
        rest -= entry.json().len() + 2;
        if i > 0 {
            out.put_u8(b',');
        }
        form.put(json, &mut out);
    }
    runs.push(out.freeze());
    runs
}

impl ItemForm {
    fn name(self) -> &'static str {
        match self {
            ItemForm::Typed => "typed",
            ItemForm::Untyped => "untyped",
        }
    }

    fn of(self, entry: &Entry) -> &[u8] {
        match self {
            ItemForm::Typed => entry.json(),
            ItemForm::Untyped => entry.untyped_json(),
        }
    }

    fn put(self, json: &[u8], out: &mut BytesMut) {
        if let ItemForm::Untyped = self {
            out.put_u8(b'{');
        }
        out.put_slice(json);
    }
}

/// That of custom resources, whose lists always say whether they go on.
fn put_full_list_metadata(page: &Page, out: &mut BytesMut) {
    out.put_slice(
        format!("{{\"continue\":\"{}\",\"resourceVersion\":\"{}\"", page.continue_token, page.revision).as_bytes(),
    );
    if let Some(remaining) = page.remaining {
        out.put_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.put_u8(b'}');
}

pub fn put_list_metadata(page: &Page, out: &mut BytesMut) {
    if page.revision == 0 {
        return out.put_slice(b"{}");
    }
    out.put_slice(format!("{{\"resourceVersion\":\"{}\"", page.revision).as_bytes());
    if !page.continue_token.is_empty() {
        out.put_slice(format!(",\"continue\":\"{}\"", page.continue_token).as_bytes());
    }
    if let Some(remaining) = page.remaining {
        out.put_slice(format!(",\"remainingItemCount\":{remaining}").as_bytes());
    }
    out.put_u8(b'}');
}
