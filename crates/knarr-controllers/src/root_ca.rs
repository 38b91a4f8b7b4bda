//! Every namespace has a ConfigMap `kube-root-ca.crt` with the certificates that its pods trust the API server by.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use knarr_client::{Action, Controller, Error, Informer, Reconciler, Selection};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "root-ca-cert-publisher";
const NAME: &str = "kube-root-ca.crt";
const KEY: &str = "ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";

pub(crate) async fn run(context: Arc<Context>) {
    if context.config.root_ca.is_empty() {
        return;
    }
    let namespaces = context.informers.all::<Namespace>();
    // Only these: the cluster's other ConfigMaps are nothing to us, and may be many.
    let maps = context.informers.selected::<ConfigMap>(Selection::fields("metadata.name=kube-root-ca.crt"));
    let loop_ = RootCa {
        namespaces: namespaces.clone(),
        maps: maps.clone(),
        client: context.client(CONTROLLER),
        bundle: context.config.root_ca.clone(),
    };
    Controller::new(loop_)
        .watch(&namespaces, |event| vec![meta::name_of(&**event.object()).to_string()])
        .watch(&maps, |event| vec![meta::namespace_of(&**event.object()).to_string()])
        .run(context.shutdown.clone())
        .await;
}

struct RootCa {
    namespaces: Informer<Namespace>,
    maps: Informer<ConfigMap>,
    client: Client,
    bundle: String,
}

#[async_trait::async_trait]
impl Reconciler for RootCa {
    type Key = String;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, namespace: &String) -> Result<Action, Error> {
        if self.namespaces.get("", namespace).is_none_or(|found| meta::is_deleted(&*found)) {
            return Ok(Action::Done);
        }
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
        let data = BTreeMap::from([(KEY.to_string(), self.bundle.clone())]);
        let result = match self.maps.get(namespace, NAME) {
            Some(known) if known.data.as_ref() == Some(&data) => return Ok(Action::Done),
            Some(known) => {
                let updated = ConfigMap { data: Some(data), ..(*known).clone() };
                api.replace(NAME, &PostParams::default(), &updated).await
            }
            None => {
                let annotations = BTreeMap::from([(DESCRIPTION.to_string(), DESCRIPTION_TEXT.to_string())]);
                let metadata =
                    ObjectMeta { name: Some(NAME.into()), annotations: Some(annotations), ..ObjectMeta::default() };
                let map = ConfigMap { metadata, data: Some(data), ..ConfigMap::default() };
                api.create(&PostParams::default(), &map).await
            }
        };
        match result.map_err(Error::from) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}
