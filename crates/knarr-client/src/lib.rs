//! One way to talk to the API, over two transports, and what control loops are made of.
//!
//! * [`transport`]: a [`kube::Client`] over memory (a tower service in this process) or HTTPS (a kubeconfig).
//! * [`fit`]: whether a pod may be on a node.
//! * [`follow`]: LIST and WATCH for ever, of any resource, as JSON.
//! * [`informer`]: one watch and one typed cache a resource a process, shared.
//! * [`kinds`]: what the components would each compile again, compiled once.
//! * [`queue`]: the rate-limited work queue.
//! * [`controller`]: the harness that owns watching, mapping events to keys, the queue, workers and shutdown.
//! * [`expectations`]: what a loop has asked for and not seen yet, so that it does not act twice on a stale cache.
//! * [`events`]: the event recorder, with upstream's aggregation.
//! * [`leader`]: leader election on a `Lease`.
//!
//! Invariants: a cache is changed before its subscribers hear of the change; a subscriber may miss steps but never the state they led
//! to; everything spawned ends on shutdown; nothing here blocks a caller on the network except where the signature says `async`.

pub mod controller;
pub mod error;
pub mod events;
pub mod expectations;
#[cfg(test)]
mod fake;
pub mod fit;
pub mod follow;
pub mod informer;
pub mod kinds;
pub mod leader;
pub mod pod_condition;
pub mod queue;
pub mod transport;

pub use controller::{Action, Controller, Reconciler};
pub use error::Error;
pub use events::{EventType, Recorder};
pub use informer::{Event, Informer, Informers, ObjectKey, Selection, Subscription, Watched};
pub use queue::WorkQueue;
