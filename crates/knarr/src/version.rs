//! Which Knarr, and which Kubernetes it is.

/// `0.1.0 (Kubernetes v1.36.2)`: this program, and the release whose behaviour it has.
pub const FULL: &str = concat!(env!("CARGO_PKG_VERSION"), " (Kubernetes v1.36.2)");
