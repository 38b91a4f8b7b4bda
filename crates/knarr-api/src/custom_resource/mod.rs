//! Custom resources: kinds whose schema a user wrote.
//!
//! [`structural`] is such a schema, compiled once; everything that is done to an object by it stands beside it: decoding
//! ([`decode`]), pruning ([`prune`]), defaulting ([`default`]), the metadata of embedded objects ([`embedded`]), validation
//! ([`validate`], [`lists`]), and the types that server-side apply merges by ([`types`]). [`definition`] reads what a
//! `CustomResourceDefinition` says, [`strategy`] is what the registry knows of a kind.

pub mod decode;
pub mod default;
pub mod definition;
pub mod embedded;
pub mod format;
pub mod lists;
mod number;
pub mod prune;
pub mod strategy;
pub mod structural;
pub mod types;
pub mod validate;

#[cfg(test)]
mod tests;

pub use definition::{Definition, Version};
pub(crate) use number::normalize as normalize_numbers;
pub use strategy::CustomStrategy;
pub use structural::Structural;
