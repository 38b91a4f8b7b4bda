//! What a pod is told about names: its own host name, its resolver configuration and its hosts file.

pub mod dns;
pub mod hostname;
pub mod hosts;
