//! The Kubernetes API as data: what every kind looks like and what may be done to an object, with no I/O and no async.
//!
//! The way through it:
//!
//! * [`schema`] is the table of all types (fields, defaults, list keys, patch strategies, protobuf numbers), embedded from
//!   `generated/schema.json`, which `cargo xtask generate` writes.
//! * [`resource`] is the table of all resources: which group, version, kind, scope, verbs and subresources are served.
//! * [`strategy`] holds what a kind does beyond the table: defaulting, validation, what an update may change, warnings.
//! * [`status`] and [`field`] are the two ways to say no: a Kubernetes `Status`, and an error at a field path.
//!
//! Invariants: nothing here blocks, sleeps, reads a clock it was not handed, or touches a file. An object is a
//! [`serde_json::Value`] whose root is a map; custom resources take the same path as built-in kinds with another schema.

pub mod apply;
pub mod convert;
pub mod custom_resource;
pub mod decode;
pub mod default;
pub mod field;
pub mod go_duration;
pub mod internal;
pub mod names;
pub mod object;
pub mod openapi;
pub mod patch;
pub mod protobuf;
pub mod quantity;
pub mod quota;
pub mod release;
pub mod resource;
pub mod schema;
pub mod selector;
pub mod status;
pub mod strategies;
pub mod strategy;
pub mod sysctl;
pub mod table;
pub mod tree;
pub mod validation;
pub mod warnings;
pub mod yaml;

pub use field::{FieldError, Path};
pub use object::Object;
pub use resource::{GroupResource, GroupVersion, GroupVersionKind, GroupVersionResource, Resource, Scope};
pub use status::StatusError;
