//! Every verb again, over an etcd: `support` chooses the store by this crate's name.

#[path = "verbs.rs"]
mod verbs;
