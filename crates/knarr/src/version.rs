//! Which Knarr, and which Kubernetes it is.

/// The Kubernetes release whose behaviour this is.
pub const KUBERNETES: &str = "v1.36.2";

/// `0.1.0 (Kubernetes v1.36.2)`
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");
