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
        !matches!(place(self), Place::Field(..))
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

/// The one place where a group is found: by a field that its selection demands, else by its namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Everything,
    Namespace(Box<str>),
    Field(Box<str>, Box<str>),
}

type GroupIds = Vec<GroupId>;
type ByValue = HashMap<Box<str>, GroupIds, RandomState>;

/// Where to look for the groups that an event may concern. Looking allocates nothing, and costs no more than there are fields by which
/// somebody selects.
#[derive(Default)]
struct Index {
    everything: GroupIds,
    by_namespace: ByValue,
    by_field: Vec<(Box<str>, ByValue)>,
}

type GroupKey = (Arc<Selection>, Box<str>);
type GroupId = u64;

/// The watchers of one resource.
#[derive(Default)]
pub struct Watchers {
    groups: HashMap<GroupId, Group, RandomState>,
    ids: HashMap<GroupKey, GroupId, RandomState>,
    index: Index,
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
            self.index.ids(&place(&selection)).push(id);
            let group = Group { selection, render, members: Vec::new(), pending: BytesMut::new(), pending_events: 0 };
            self.groups.insert(id, group);
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
        let Watchers { groups, index, touched, .. } = self;
        index.visit(change, |ids| {
            for id in ids {
                let Some(group) = groups.get_mut(id) else { continue };
                if group.pending.is_empty() {
                    touched.push(*id);
                }
                group.render_change(change);
            }
        });
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

    /// Forgets every watcher that left or stands still; called now and then, since a quiet group sees no event.
    pub fn sweep(&mut self) {
        let mut empty = Vec::new();
        for (id, group) in &mut self.groups {
            group.members.retain(|m| !m.is_closed() && !m.is_stalled());
            if group.members.is_empty() {
                empty.push(*id);
            }
        }
        empty.into_iter().for_each(|id| self.remove(id));
    }

    /// Ends every watch.
    pub fn close(&mut self) {
        self.flush();
        self.groups.values().flat_map(|g| &g.members).for_each(Sender::close);
        *self = Watchers { next_id: self.next_id, delivered: self.delivered, ..Watchers::default() };
    }

    fn remove(&mut self, id: GroupId) {
        let Some(group) = self.groups.remove(&id) else { return };
        self.index.remove(&place(&group.selection), id);
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

/// The narrowest place for a selection.
fn place(selection: &Selection) -> Place {
    let demanded = |field: &str| selection.fields.exact(field).filter(|value| !value.is_empty());
    let telling = TELLING_FIELDS.into_iter().find(|field| demanded(field).is_some());
    let any =
        || selection.fields.terms().iter().map(|term| term.field.as_str()).find(|field| demanded(field).is_some());
    match telling.or_else(any) {
        Some(field) => Place::Field(field.into(), demanded(field).unwrap_or_default().into()),
        None if selection.namespace.is_empty() => Place::Everything,
        None => Place::Namespace(selection.namespace.as_str().into()),
    }
}

/// Where a selection demands several fields, the one that tells most.
const TELLING_FIELDS: [&str; 2] = ["metadata.name", "spec.nodeName"];

impl Index {
    fn ids(&mut self, place: &Place) -> &mut GroupIds {
        match place {
            Place::Everything => &mut self.everything,
            Place::Namespace(namespace) => self.by_namespace.entry(namespace.clone()).or_default(),
            Place::Field(field, value) => {
                let at = self.by_field.iter().position(|(known, _)| known == field).unwrap_or_else(|| {
                    self.by_field.push((field.clone(), ByValue::default()));
                    self.by_field.len() - 1
                });
                self.by_field[at].1.entry(value.clone()).or_default()
            }
        }
    }

    fn remove(&mut self, place: &Place, id: GroupId) {
        self.ids(place).retain(|known| *known != id);
        match place {
            Place::Everything => {}
            Place::Namespace(namespace) => forget_if_empty(&mut self.by_namespace, namespace),
            Place::Field(field, value) => {
                for (known, values) in &mut self.by_field {
                    if known == field {
                        forget_if_empty(values, value);
                    }
                }
                self.by_field.retain(|(_, values)| !values.is_empty());
            }
        }
    }

    /// Shows every place that the change may concern, each once.
    fn visit(&self, change: &Change, mut show: impl FnMut(&GroupIds)) {
        show(&self.everything);
        let (before, after) = (change.before.as_deref(), change.after.as_deref());
        let mut look = |values: &ByValue, before: Option<&str>, after: Option<&str>| {
            let after = after.filter(|after| before != Some(after));
            for value in [before, after].into_iter().flatten() {
                if let Some(ids) = values.get(value) {
                    show(ids);
                }
            }
        };
        if !self.by_namespace.is_empty() {
            look(&self.by_namespace, before.map(Entry::namespace), after.map(Entry::namespace));
        }
        for (field, values) in &self.by_field {
            look(values, before.and_then(|e| e.field(field)), after.and_then(|e| e.field(field)));
        }
    }
}

fn forget_if_empty(values: &mut ByValue, value: &str) {
    if values.get(value).is_some_and(Vec::is_empty) {
        values.remove(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Reader;
    use crate::cache::mailbox::mailbox;

    fn entry(key: &str, node: &str) -> Arc<Entry> {
        let fields = vec![("spec.nodeName".into(), node.to_string()), ("status.phase".into(), "Running".to_string())];
        let reader = Reader { shape: None, fields_of: Some(Arc::new(move |_| fields.clone())) };
        let stored = br#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#;
        Arc::new(Entry::parse(key.into(), stored, 1, &reader).expect("parses"))
    }

    fn selection(namespace: &str, fields: &str) -> Arc<Selection> {
        let fields = FieldSelector::parse(fields).expect("a selector");
        Arc::new(Selection { namespace: namespace.into(), labels: LabelSelector::everything(), fields })
    }

    /// A selection and which of the three changes it sees: a pod of node a, the same moved to node b, its deletion.
    const SELECTIONS: &[(&str, &str, [&str; 3])] = &[
        ("", "", ["ADDED", "MODIFIED", "DELETED"]),
        ("ns", "", ["ADDED", "MODIFIED", "DELETED"]),
        ("other", "", ["", "", ""]),
        ("", "spec.nodeName=a", ["ADDED", "DELETED", ""]),
        ("", "spec.nodeName=b", ["", "ADDED", "DELETED"]),
        ("ns", "metadata.name=p,spec.nodeName=b", ["", "ADDED", "DELETED"]),
        ("", "metadata.name=q", ["", "", ""]),
        ("", "status.phase=Running", ["ADDED", "MODIFIED", "DELETED"]),
        ("", "status.phase=Failed", ["", "", ""]),
        ("", "spec.nodeName!=a", ["", "ADDED", "DELETED"]),
    ];

    #[test]
    fn each_selection_sees_its_events_once() {
        let steps = [(None, Some("a")), (Some("a"), Some("b")), (Some("b"), None)];
        for (namespace, fields, expected) in SELECTIONS {
            let mut watchers = Watchers::default();
            let (sender, mut receiver) = mailbox();
            watchers.add(selection(namespace, fields), Arc::new(Json), sender);
            for ((before, after), expected) in steps.iter().zip(expected) {
                let of = |node: &Option<&str>| node.map(|node| entry("ns/p", node));
                watchers.dispatch(&Change { revision: 1, before: of(before), after: of(after) });
                watchers.flush();
                let run = receiver.poll_next(&mut std::task::Context::from_waker(std::task::Waker::noop()));
                let text = match run {
                    std::task::Poll::Ready(run) => String::from_utf8(run.expect("open").into()).expect("text"),
                    std::task::Poll::Pending => String::new(),
                };
                assert_eq!(text.lines().count(), usize::from(!expected.is_empty()), "{namespace} {fields}: {text}");
                assert!(text.contains(expected), "{namespace} {fields}: {text}");
            }
        }
    }

    #[test]
    fn nothing_is_left_of_watchers_that_went() {
        let mut watchers = Watchers::default();
        for (namespace, fields, _) in SELECTIONS {
            let (sender, receiver) = mailbox();
            watchers.add(selection(namespace, fields), Arc::new(Json), sender);
            drop(receiver);
        }
        watchers.sweep();
        assert!(watchers.is_empty() && watchers.index.everything.is_empty());
        assert!(watchers.index.by_namespace.is_empty() && watchers.index.by_field.is_empty());
    }
}
