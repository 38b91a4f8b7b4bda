use std::sync::Arc;

use parking_lot::Mutex;

/// What lasts as long as a request does: in the extensions of every request that is meant to last. It ends when the answer's body has,
/// and with the session behind it, if the connection has become one.
#[derive(Clone, Default)]
pub struct Lasting(Arc<Mutex<Vec<Box<dyn Send>>>>);

impl Lasting {
    /// `guard` is dropped at the request's end.
    pub fn hold(&self, guard: impl Send + 'static) {
        self.0.lock().push(Box::new(guard));
    }
}
