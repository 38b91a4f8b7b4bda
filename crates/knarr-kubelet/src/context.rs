//! What all workers of a node share.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use k8s_openapi::api::core::v1::{Pod, Service};
use knarr_client::events::Recorder;
use knarr_client::informer::Informer;
use knarr_cri::Runtime;
use parking_lot::Mutex;

use crate::cgroups::Cgroups;
use crate::config::KubeletConfig;
use crate::eviction::Pressures;
use crate::runtime::images::Images;
use crate::volumes::references::References;
use crate::volumes::token::Tokens;

/// What all workers of a node share.
pub struct NodeContext {
    pub config: KubeletConfig,
    pub client: kube::Client,
    pub runtime: Arc<dyn Runtime>,
    /// `containerd`; known once the runtime answered.
    pub runtime_name: OnceLock<String>,
    pub recorder: Recorder,
    pub images: Arc<Images>,
    pub tokens: Tokens,
    pub references: References,
    pub services: Informer<Service>,
    /// What the API binds to this node, mirrors of static pods too.
    pub pods: Informer<Pod>,
    pub cgroups: Cgroups,
    pub pressures: Pressures,
    /// What each pod here was given to use, in thousandths, by uid.
    pub allocations: Mutex<HashMap<String, BTreeMap<String, i64>>>,
    /// What pods may use of this node, in thousandths.
    pub allocatable: BTreeMap<String, i64>,
}

impl NodeContext {
    pub fn runtime_name(&self) -> &str {
        self.runtime_name.get().map_or("containerd", String::as_str)
    }

    /// The node's memory in bytes.
    pub fn memory(&self) -> i64 {
        self.allocatable.get("memory").map_or(0, |millis| millis / 1000)
    }

    pub fn host_ips(&self) -> Vec<String> {
        self.config.node_ips.iter().map(ToString::to_string).collect()
    }
}
