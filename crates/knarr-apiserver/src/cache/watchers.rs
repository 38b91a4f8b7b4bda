//! Who is watching, grouped by what they select and indexed, so that an event costs what it delivers.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use foldhash::fast::RandomState;
use knarr_api::selector::{FieldSelector, LabelSelector};

use super::mailbox::Sender;
use super::{Change, Entry};

/// What a watcher wants to see.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub struct Selection {
    /// Empty: every namespace.
    pub namespace: String,
    pub labels: LabelSelector,
    pub fields: FieldSelector,
}

impl Selection {
    pub fn matches(&self, entry: &Entry) -> bool {
        (self.namespace.is_empty() || self.namespace == entry.namespace()) && entry.matches(&self.labels, &self.fields)
    }
}

impl Selection {
    /// Whether no index narrows it.
    pub fn is_broad(&self) -> bool {
        !matches!(index_key(self), IndexKey::Field(..))
    }
}

/// What happened, as a selection sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventType {
    Added,
    Modified,
    Deleted,
}

impl EventType {
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Added => "ADDED",
            EventType::Modified => "MODIFIED",
            EventType::Deleted => "DELETED",
        }
    }
}

/// Writes one event for the wire. Two watchers with equal `id`s get the same bytes.
pub trait Render: Send + Sync {
    fn id(&self) -> &str;
    /// Appends the event of `entry` (at `revision`: a deletion's is newer than the entry's).
    fn event(&self, kind: EventType, entry: &Entry, revision: u64, out: &mut BytesMut);
}

/// Plain JSON: the stored bytes in their frame.
pub struct Json;

impl Render for Json {
    fn id(&self) -> &str {
        "json"
    }

    fn event(&self, kind: EventType, entry: &Entry, revision: u64, out: &mut BytesMut) {
        out.put_slice(b"{\"type\":\"");
        out.put_slice(kind.as_str().as_bytes());
        out.put_slice(b"\",\"object\":");
        if revision == entry.revision {
            out.put_slice(entry.json());
        } else {
            out.put_slice(&entry.at_revision(revision));
        }
        out.put_slice(b"}\n");
    }
}

/// Watchers that get the same bytes: each event is selected and rendered once for all of them.
struct Group {
    selection: Arc<Selection>,
    render: Arc<dyn Render>,
    members: Vec<Sender>,
    /// What this batch has for them so far.
    pending: BytesMut,
    pending_events: u64,
}

/// Where to look for the groups that an event may concern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum IndexKey {
    Everything,
    Namespace(Box<str>),
    Field(Box<str>, Box<str>),
}

type GroupKey = (Arc<Selection>, Box<str>);
type GroupId = u64;

/// The watchers of one resource.
#[derive(Default)]
pub struct Watchers {
    groups: HashMap<GroupId, Group, RandomState>,
    ids: HashMap<GroupKey, GroupId, RandomState>,
    index: HashMap<IndexKey, Vec<GroupId>, RandomState>,
    next_id: GroupId,
    touched: Vec<GroupId>,
    /// Events sent since the start.
    pub delivered: u64,
}

impl Watchers {
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub fn len(&self) -> usize {
        self.groups.values().map(|g| g.members.len()).sum()
    }

    pub fn add(&mut self, selection: Arc<Selection>, render: Arc<dyn Render>, member: Sender) {
        let key: GroupKey = (selection.clone(), render.id().into());
        let id = *self.ids.entry(key).or_insert_with(|| {
            let id = self.next_id;
            self.next_id += 1;
            self.index.entry(index_key(&selection)).or_default().push(id);
            self.groups.insert(
                id,
                Group { selection, render, members: Vec::new(), pending: BytesMut::new(), pending_events: 0 },
            );
            id
        });
        if let Some(group) = self.groups.get_mut(&id) {
            // A watcher that left is noticed only when an event finds its mailbox closed; a quiet group must not grow.
            if group.members.len() == group.members.capacity() {
                group.members.retain(|m| !m.is_closed());
            }
            group.members.push(member);
        }
    }

    /// Renders a change into the groups that it concerns.
    pub fn dispatch(&mut self, change: &Change) {
        let mut candidates: smallvec::SmallVec<[IndexKey; 8]> = smallvec::smallvec![IndexKey::Everything];
        for entry in [&change.before, &change.after].into_iter().flatten() {
            add_index_keys(entry, &mut candidates);
        }
        for key in candidates {
            for id in self.index.get(&key).map(Vec::as_slice).unwrap_or_default() {
                let Some(group) = self.groups.get_mut(id) else { continue };
                if group.pending.is_empty() {
                    self.touched.push(*id);
                }
                group.render_change(change);
            }
        }
    }

    /// Sends what [`Watchers::dispatch`] rendered, one run of bytes to each watcher, and forgets those who left.
    pub fn flush(&mut self) {
        for id in std::mem::take(&mut self.touched) {
            let Some(group) = self.groups.get_mut(&id) else { continue };
            if group.pending.is_empty() {
                continue;
            }
            let chunk: Bytes = group.pending.split().freeze();
            group.members.retain(|member| member.send(chunk.clone()));
            self.delivered += std::mem::take(&mut group.pending_events) * group.members.len() as u64;
            if group.members.is_empty() {
                self.remove(id);
            }
        }
    }

    /// Forgets every watcher that left; called now and then, since a quiet group sees no event.
    pub fn sweep(&mut self) {
        let mut empty = Vec::new();
        for (id, group) in &mut self.groups {
            group.members.retain(|m| !m.is_closed());
            if group.members.is_empty() {
                empty.push(*id);
            }
        }
        empty.into_iter().for_each(|id| self.remove(id));
    }

    /// Ends every watch.
    pub fn close(&mut self) {
        self.groups.values().flat_map(|g| &g.members).for_each(Sender::close);
        *self = Watchers { next_id: self.next_id, delivered: self.delivered, ..Watchers::default() };
    }

    fn remove(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        let key = index_key(&group.selection);
        if let Some(ids) = self.index.get_mut(&key) {
            ids.retain(|i| *i != id);
            if ids.is_empty() {
                self.index.remove(&key);
            }
        }
        self.ids.remove(&(group.selection, group.render.id().into()));
    }
}

impl Group {
    fn render_change(&mut self, change: &Change) {
        if let Some((kind, entry)) = change.seen_by(&self.selection) {
            self.render.event(kind, entry, change.revision, &mut self.pending);
            self.pending_events += 1;
        }
    }
}

/// The narrowest place for a selection: a field it demands, else its namespace.
fn index_key(selection: &Selection) -> IndexKey {
    for field in INDEXED_FIELDS {
        if let Some(value) = selection.fields.exact(field).filter(|v| !v.is_empty()) {
            return IndexKey::Field(field.into(), value.into());
        }
    }
    if selection.namespace.is_empty() {
        IndexKey::Everything
    } else {
        IndexKey::Namespace(selection.namespace.as_str().into())
    }
}

/// Fields that watchers are indexed by, the most telling first.
const INDEXED_FIELDS: [&str; 3] = ["metadata.name", "spec.nodeName", "metadata.namespace"];

fn add_index_keys(entry: &Entry, keys: &mut smallvec::SmallVec<[IndexKey; 8]>) {
    let mut add = |key: IndexKey| {
        if !keys.contains(&key) {
            keys.push(key);
        }
    };
    if !entry.namespace().is_empty() {
        add(IndexKey::Namespace(entry.namespace().into()));
    }
    for field in INDEXED_FIELDS {
        if let Some(value) = entry.field(field).filter(|v| !v.is_empty()) {
            add(IndexKey::Field(field.into(), value.into()));
        }
    }
}
