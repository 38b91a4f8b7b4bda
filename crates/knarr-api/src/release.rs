//! The Kubernetes release whose behaviour this is.

pub const MAJOR: &str = "1";
pub const MINOR: &str = "36";
/// The whole version, without the `v` that some put before it.
pub const VERSION: &str = "1.36.2";
