//! Validation: what is wrong with an object, at which field, for what reason, in upstream's words.
//!
//! [`check::Checker`] is the means; the modules are by API group, [`pod`] for what every pod template shares.

pub mod admission;
pub mod annotations;
pub mod autoscaling;
pub mod batch;
pub mod check;
pub mod config;
pub mod container;
pub mod core;
pub mod crd;
pub mod cron;
pub mod device;
pub mod endpoint_slice;
pub mod event;
pub mod flow_control;
pub mod job_status;
pub mod labels;
pub mod metadata;
pub mod networking;
pub mod node;
pub mod node_selector;
pub mod persistent;
pub mod platform;
pub mod pod;
pub mod pod_resize;
pub mod pod_update;
pub mod quota;
pub mod rbac;
pub mod resources;
pub mod security;
pub mod service;
pub mod signing_request;
pub mod status;
pub mod storage;
pub mod volume;
pub mod windows;
pub mod workload;
