//! The border to a container runtime: the Container Runtime Interface, version 1.
//!
//! * [`v1`]: the messages, as the protocol names them.
//! * [`RuntimeService`] and [`ImageService`]: what a runtime does, as object-safe traits, so that a runtime in this process and one
//!   behind a socket look alike.
//! * [`RemoteRuntime`]: both services over a unix socket.
//!
//! Invariants: a call ends within its time limit or when its future is dropped; an error says which call failed and what the
//! runtime answered, and [`Error::is_not_found`] and [`Error::is_unimplemented`] are the only codes a caller needs to tell apart.

mod error;
mod remote;
mod service;

pub use error::{Error, Result};
pub use k8s_cri::v1;
pub use remote::RemoteRuntime;
pub use service::{EventStream, ImageService, Runtime, RuntimeService};
pub use tonic::Code;
