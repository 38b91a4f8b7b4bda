//! One way to talk to the API, over two transports, and what control loops are made of.
//!
//! * [`transport`]: a [`kube::Client`] over memory (a tower service in this process) or HTTPS (a kubeconfig).
//! * [`informer`]: one watch and one typed cache a resource a process, shared.
//! * [`queue`]: the rate-limited work queue.
//! * [`controller`]: the harness that owns watching, mapping events to keys, the queue, workers and shutdown.
//! * [`events`]: the event recorder, with upstream's aggregation.

pub mod informer;
pub mod queue;
