//! The bytes of the last whole list of a resource, for those who ask for the same again before anything changes: every client that
//! starts over does.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::Snapshot;

/// A list with more bytes is not kept.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// What a whole list shows, whoever asks.
#[derive(Clone)]
pub struct Whole {
    pub snapshot: Arc<Snapshot>,
    /// Empty: every namespace.
    pub namespace: String,
}

struct Kept {
    whole: Whole,
    /// How the items were written.
    form: &'static str,
    items: Arc<[Bytes]>,
    used: bool,
}

/// At most one list's items.
#[derive(Default)]
pub struct Rendered(Mutex<Option<Kept>>);

impl Rendered {
    /// The items, out of memory or by `render`.
    pub fn items(&self, whole: &Whole, form: &'static str, render: impl FnOnce() -> Vec<Bytes>) -> Arc<[Bytes]> {
        if let Some(kept) = &mut *self.0.lock()
            && Arc::ptr_eq(&kept.whole.snapshot, &whole.snapshot)
            && kept.whole.namespace == whole.namespace
            && kept.form == form
        {
            kept.used = true;
            return kept.items.clone();
        }
        let items: Arc<[Bytes]> = render().into();
        if items.iter().map(Bytes::len).sum::<usize>() <= MOST_BYTES {
            *self.0.lock() = Some(Kept { whole: whole.clone(), form, items: items.clone(), used: true });
        }
        items
    }

    /// Something has changed: nobody will be shown this list again.
    pub fn forget(&self) {
        *self.0.lock() = None;
    }

    /// Forgets what nobody has asked for since the last sweep.
    pub fn sweep(&self) {
        let mut kept = self.0.lock();
        if kept.as_mut().is_some_and(|kept| !std::mem::take(&mut kept.used)) {
            *kept = None;
        }
    }
}
