//! Validation shared by kinds.

pub mod metadata;
