//! APIServices, read once per change.

use std::collections::HashMap;
use std::sync::Arc;

use knarr_api::{GroupVersion, Object};
use serde_json::Value;

use crate::cache::{Entry, Snapshot};
use crate::outbound::{ServiceReference, TlsOptions, authorities, service_reference};

/// The server of a remote APIService.
#[derive(Clone, PartialEq, Eq)]
pub struct Remote {
    pub service: ServiceReference,
    pub tls: TlsOptions,
}

/// One APIService.
pub struct ApiService {
    pub name: String,
    pub version: GroupVersion,
    pub group_priority: i64,
    pub version_priority: i64,
    /// `None`: served here.
    pub remote: Option<Remote>,
    /// Its condition `Available` is true.
    pub available: bool,
}

impl ApiService {
    fn of(entry: &Entry) -> ApiService {
        let object = entry.object();
        let spec = &object["spec"];
        let text = |field: &str| spec[field].as_str().unwrap_or_default().to_string();
        let remote = spec.get("service").filter(|s| s.is_object()).map(|service| Remote {
            service: service_reference(service),
            tls: TlsOptions {
                authorities: authorities(&spec["caBundle"]).unwrap_or_default(),
                insecure: spec["insecureSkipTLSVerify"] == true,
                ..TlsOptions::default()
            },
        });
        ApiService {
            name: entry.name().to_string(),
            version: GroupVersion::new(text("group"), text("version")),
            group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or_default(),
            version_priority: spec["versionPriority"].as_i64().unwrap_or_default(),
            remote,
            available: condition(&object).is_some_and(|c| c["status"] == "True"),
        }
    }
}

/// The condition `Available`.
pub(super) fn condition(object: &Object) -> Option<&Value> {
    object["status"]["conditions"].as_array()?.iter().find(|c| c["type"] == "Available")
}

/// All APIServices.
#[derive(Default)]
pub struct ApiServices {
    by_name: HashMap<Arc<str>, (Arc<Entry>, Arc<ApiService>)>,
    pub by_version: HashMap<GroupVersion, Arc<ApiService>>,
    /// Those that a service serves.
    pub remote: HashMap<GroupVersion, Arc<ApiService>>,
}

pub(super) fn compile(snapshot: &Snapshot, before: Option<&ApiServices>) -> ApiServices {
    let mut all = ApiServices::default();
    for (name, entry) in &snapshot.entries {
        let known = before.and_then(|b| b.by_name.get(name)).filter(|(of, _)| Arc::ptr_eq(of, entry));
        let service = known.map(|(_, s)| s.clone()).unwrap_or_else(|| Arc::new(ApiService::of(entry)));
        if service.remote.is_some() {
            all.remote.insert(service.version.clone(), service.clone());
        }
        all.by_version.insert(service.version.clone(), service.clone());
        all.by_name.insert(name.clone(), (entry.clone(), service));
    }
    all
}
