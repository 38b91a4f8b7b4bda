//! Kinds that several components read and write, and trees of such objects.
//!
//! A generic function is compiled with the first crate that uses it for a type, and with each of its siblings again. What the components
//! share is therefore named here, below all of them.

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::{apps::v1::ReplicaSet, policy::v1::PodDisruptionBudget};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Result, Value};

use crate::{Informer, Informers};

/// `object` as a tree, by way of its text.
pub fn to_tree<T: Serialize>(object: &T) -> Result<Value> {
    serde_json::from_slice(&serde_json::to_vec(object)?)
}

/// The object that `tree` is, by way of its text. Fails where it is none of this kind.
pub fn of_tree<T: DeserializeOwned>(tree: &Value) -> Result<T> {
    serde_json::from_str(&tree.to_string())
}

macro_rules! compile_here {
    ($($kind:ty),+ $(,)?) => {
        /// Not to be called: naming the functions has them compiled here.
        #[doc(hidden)]
        pub fn compiled_here() -> Vec<*const ()> {
            vec![
                $(
                    Informers::all::<$kind> as fn(&Informers) -> Informer<$kind> as *const (),
                    serde_json::to_vec::<$kind> as fn(&$kind) -> Result<Vec<u8>> as *const (),
                )+
            ]
        }
    };
}

compile_here!(
    ConfigMap,
    EndpointSlice,
    Lease,
    Namespace,
    Node,
    Pod,
    PodDisruptionBudget,
    ReplicaSet,
    Secret,
    Service,
    ServiceAccount,
);
