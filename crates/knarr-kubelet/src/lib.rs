//! The node agent: makes a machine run the pods that the API binds to it, and tells the API how they do.
//!
//! The way through it:
//!
//! * [`Kubelet`] joins the pieces: it registers the node, follows the pods bound to it, and gives every pod a worker.
//! * [`config`]: what one kubelet is told at its start.
//! * [`pod`]: a pod as it is wanted; [`runtime`]: what the runtime has of it and is asked to make; [`worker`]: from the one to the other.
//! * [`environment`], [`volumes`], [`network`], [`cgroups`]: what a container finds around it.
//! * [`probes`], [`hooks`], [`logs`]: what is done with a container while it runs.
//! * [`eviction`]: what is done when the node runs out of something.
//! * [`static_pods`]: pods of this node's own manifests, and their mirrors in the API.
//! * [`node`]: the node's own object; [`admission`] and [`orphans`]: what it takes on and what it cleans up.
//! * [`view`]: what the kubelet's HTTPS API may see of all this.
//! * [`server`]: the kubelet's HTTPS API.
//!
//! Invariants: the runtime is the only truth of what runs, so a restarted kubelet adopts containers and never restarts them; a worker
//! decides by a pure function of what is wanted and what is observed; stopping the kubelet leaves pods running.

pub mod admission;
pub mod cgroups;
pub mod config;
pub mod context;
pub mod environment;
pub mod eviction;
pub mod hooks;
mod kubelet;
pub mod logs;
pub mod network;
pub mod node;
pub mod orphans;
pub mod pod;
pub mod probes;
pub mod runtime;
pub mod server;
pub mod static_pods;
pub mod view;
pub mod volumes;
pub mod worker;

pub use config::KubeletConfig;
pub use kubelet::Kubelet;
