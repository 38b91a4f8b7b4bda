//! Lists: of JSON, read as the schema says, or built by an expression.

use std::sync::Arc;

use serde_json::Value as Json;

use super::Value;
use crate::error::EvalError;
use crate::schema::Declaration;

/// How a list of JSON compares and adds (`x-kubernetes-list-type`).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ListKind<'a> {
    Atomic,
    /// Order does not matter, nor may an element occur twice.
    Set,
    /// Elements are known by these keys.
    Map(&'a [String]),
}

#[derive(Clone)]
pub enum List<'a> {
    Json { items: &'a [Json], element: Option<&'a Declaration>, kind: ListKind<'a> },
    Owned(Arc<Vec<Value<'a>>>),
}

impl<'a> List<'a> {
    pub fn len(&self) -> usize {
        match self {
            List::Json { items, .. } => items.len(),
            List::Owned(items) => items.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `None` past the end; an error where the JSON is not what its schema says.
    pub fn get(&self, index: usize) -> Option<Result<Value<'a>, EvalError>> {
        match self {
            List::Json { items, element, .. } => items.get(index).map(|item| Value::read(item, *element)),
            List::Owned(items) => items.get(index).cloned().map(Ok),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = Result<Value<'a>, EvalError>> + '_ {
        (0..self.len()).map(|i| self.get(i).expect("within the length"))
    }

    pub fn to_vec(&self) -> Result<Vec<Value<'a>>, EvalError> {
        match self {
            List::Owned(items) => Ok(items.to_vec()),
            list => list.iter().collect(),
        }
    }

    pub(super) fn kind(&self) -> ListKind<'a> {
        match self {
            List::Json { kind, .. } => *kind,
            List::Owned(_) => ListKind::Atomic,
        }
    }

    /// `a + b`: sets keep what is new, keyed lists replace what has the same key.
    pub fn concat(&self, other: &List<'a>) -> Result<List<'a>, EvalError> {
        let mut out = self.to_vec()?;
        match self.kind() {
            ListKind::Atomic => out.extend(other.to_vec()?),
            ListKind::Set => {
                for item in other.iter() {
                    let item = item?;
                    if !out.iter().any(|o| super::equal(o, &item)) {
                        out.push(item);
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in other.iter() {
                    let item = item?;
                    match out.iter_mut().find(|o| same_keys(o, &item, keys)) {
                        Some(place) => *place = item,
                        None => out.push(item),
                    }
                }
            }
        }
        Ok(List::Owned(Arc::new(out)))
    }
}

/// Whether two elements of a keyed list have the same keys.
pub(super) fn same_keys(a: &Value<'_>, b: &Value<'_>, keys: &[String]) -> bool {
    let (Value::Map(a), Value::Map(b)) = (a, b) else { return false };
    keys.iter().all(|key| match (a.field(key), b.field(key)) {
        (Some(Ok(a)), Some(Ok(b))) => super::equal(&a, &b),
        (None, None) => true,
        _ => false,
    })
}
