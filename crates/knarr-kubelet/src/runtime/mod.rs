//! The runtime as the kubelet uses it: what it has of a pod, and what it is asked to make.

pub mod container_config;
pub mod events;
pub mod images;
pub mod labels;
pub mod observed;
pub mod pull_secrets;
pub mod sandbox_config;
pub mod security;
pub mod termination;
