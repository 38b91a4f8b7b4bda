//! The API server: the request chain, the registry over cache and store, discovery, custom resources, subresources.
//!
//! Contracts between its halves: [`authentication`], [`authorization`], [`admission`]; everything else is behind
//! the one generic registry.

pub mod access;
pub mod admission;
pub mod aggregation;
pub mod allocation;
pub mod audit;
pub mod authentication;
pub mod authorization;
pub mod bootstrap;
pub mod cache;
pub mod chain;
pub mod component_statuses;
pub mod custom_resources;
mod deprecation;
pub mod discovery;
pub mod flow_control;
pub mod health;
pub mod http;
pub mod jose;
pub mod metrics;
pub mod objects;
pub mod openapi;
pub mod outbound;
pub mod pages;
pub mod proxy;
pub mod registry;
pub mod resources;
pub mod server;
pub mod subresources;
pub mod tokens;
mod zpages;

#[cfg(test)]
pub(crate) mod testing;

pub use registry::Registry;
pub use server::{ApiServer, ApiService, Config, Limits, ServerTls};
