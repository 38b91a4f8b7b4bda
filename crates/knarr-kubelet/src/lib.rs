//! The node agent: makes a machine run the pods that the API binds to it, and tells the API how they do.
//!
//! The way through it:
//!
//! * [`Kubelet`] joins the pieces: it registers the node, follows the pods bound to it, and gives every pod a worker.
//! * [`config`]: what one kubelet is told at its start.
//! * [`view`]: what the kubelet's HTTPS API may see of all this.
//! * [`server`]: the kubelet's HTTPS API.
//!
//! Invariants: the runtime is the only truth of what runs, so a restarted kubelet adopts containers and never restarts them; a worker
//! decides by a pure function of what is wanted and what is observed; stopping the kubelet leaves pods running.

pub mod config;
pub mod server;
pub mod view;

pub use config::KubeletConfig;
