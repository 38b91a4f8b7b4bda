//! What the tests of this crate stand on: a small API in memory and a private containerd.

pub mod api;
pub mod containerd;
