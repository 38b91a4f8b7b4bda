//! Which Knarr, and which Kubernetes it is.

/// `0.1.0 (Kubernetes v1.36.2)`: Knarr's own version, and the Kubernetes release whose behaviour this is.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");
