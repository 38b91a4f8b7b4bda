//! The objects of one resource as they stood at one revision.

use std::ops::Bound;
use std::sync::Arc;

use imbl::OrdMap;

use super::{Change, Entry, Selection};

/// The field by whose value entries are also found, beyond name and namespace: lists of one node's pods must not look at all pods.
const INDEXED_FIELD: &str = "spec.nodeName";

/// A value of [`INDEXED_FIELD`] and the key of an entry that has it.
type FieldKey = (Arc<str>, Arc<str>);

/// Cloning it copies a few pointers; two that follow each other share all that did not change.
#[derive(Clone, Default)]
pub struct Snapshot {
    /// It holds every change of its resource up to this revision.
    pub revision: u64,
    pub entries: OrdMap<Arc<str>, Arc<Entry>>,
    by_field: OrdMap<FieldKey, Arc<Entry>>,
}

fn field_key(entry: &Entry) -> Option<FieldKey> {
    let value = entry.field(INDEXED_FIELD).filter(|value| !value.is_empty())?;
    Some((value.into(), entry.key.clone()))
}

impl Snapshot {
    pub fn new(revision: u64, entries: impl IntoIterator<Item = Arc<Entry>>) -> Self {
        let mut snapshot = Snapshot { revision, ..Snapshot::default() };
        entries.into_iter().for_each(|entry| snapshot.insert(entry));
        snapshot
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn get(&self, key: &str) -> Option<&Arc<Entry>> {
        self.entries.get(key)
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        let indexed = field_key(&entry);
        let replaced = self.entries.insert(entry.key.clone(), entry.clone());
        let obsolete = replaced.and_then(|replaced| field_key(&replaced)).filter(|old| indexed.as_ref() != Some(old));
        if let Some(obsolete) = obsolete {
            self.by_field.remove(&obsolete);
        }
        if let Some(key) = indexed {
            self.by_field.insert(key, entry);
        }
    }

    pub(super) fn remove(&mut self, key: &str) {
        if let Some(field) = self.entries.remove(key).and_then(|entry| field_key(&entry)) {
            self.by_field.remove(&field);
        }
    }

    /// Takes a change back.
    pub(super) fn undo(&mut self, change: &Change) {
        match (&change.before, &change.after) {
            (Some(before), _) => self.insert(before.clone()),
            (None, Some(after)) => self.remove(&after.key),
            (None, None) => {}
        }
    }

    /// Makes a change.
    pub(super) fn redo(&mut self, change: &Change) {
        self.revision = change.revision;
        match (&change.before, &change.after) {
            (_, Some(after)) => self.insert(after.clone()),
            (Some(before), None) => self.remove(&before.key),
            (None, None) => {}
        }
    }

    /// The entries that a selection selects, in key order, after `after` (exclusive).
    pub fn select<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&'a str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        let everything = selection.labels.is_everything() && selection.fields.is_everything();
        let candidates = self.candidates(selection, after);
        if everything { candidates } else { Box::new(candidates.filter(|entry| selection.matches(entry))) }
    }

    /// The entries among which a selection's are, in key order, after `after` (exclusive).
    pub fn candidates<'a>(
        &'a self,
        selection: &'a Selection,
        after: Option<&'a str>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Entry>> + 'a> {
        match selection.fields.exact(INDEXED_FIELD).filter(|value| !value.is_empty()) {
            Some(value) => Box::new(self.with_field(value, after.unwrap_or_default())),
            None => Box::new(self.range(&selection.namespace, after)),
        }
    }

    fn with_field<'a>(&'a self, value: &'a str, after: &str) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let first: FieldKey = (value.into(), after.into());
        let range = self.by_field.range((Bound::Excluded(first), Bound::Unbounded));
        range.take_while(move |((field, _), _)| &**field == value).map(|(_, entry)| entry)
    }

    /// The entries of a namespace (empty: of all) in key order, after `after` (exclusive).
    pub fn range<'a>(&'a self, namespace: &str, after: Option<&str>) -> impl Iterator<Item = &'a Arc<Entry>> + use<'a> {
        let (first, end) = if namespace.is_empty() {
            (String::new(), None)
        } else {
            // '0' is the character after '/'.
            (format!("{namespace}/"), Some(format!("{namespace}0")))
        };
        let lower = match after {
            Some(after) if after >= first.as_str() => Bound::Excluded(after),
            _ => Bound::Included(first.as_str()),
        };
        let upper = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let empty = matches!((lower, upper), (Bound::Excluded(a) | Bound::Included(a), Bound::Excluded(b)) if a >= b);
        let range = (!empty).then(|| self.entries.range::<_, str>((lower, upper)));
        range.into_iter().flatten().map(|(_, entry)| entry)
    }
}
