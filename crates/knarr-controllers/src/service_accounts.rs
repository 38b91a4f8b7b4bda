//! Every namespace has a service account `default`.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use knarr_client::{Action, Controller, Error, Event, Informer, Reconciler};
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "service-account-controller";
const NAME: &str = "default";

pub(crate) async fn run(context: Arc<Context>) {
    let namespaces = context.informers.all::<Namespace>();
    let accounts = context.informers.all::<ServiceAccount>();
    let loop_ = ServiceAccounts {
        namespaces: namespaces.clone(),
        accounts: accounts.clone(),
        client: context.client(CONTROLLER),
    };
    Controller::new(loop_)
        .watch(&namespaces, |event| vec![meta::name_of(&**event.object()).to_string()])
        .watch(&accounts, |event| match event {
            Event::Deleted(account) if meta::name_of(&**account) == NAME => {
                vec![meta::namespace_of(&**account).to_string()]
            }
            _ => Vec::new(),
        })
        .run(context.shutdown.clone())
        .await;
}

struct ServiceAccounts {
    namespaces: Informer<Namespace>,
    accounts: Informer<ServiceAccount>,
    client: Client,
}

#[async_trait::async_trait]
impl Reconciler for ServiceAccounts {
    type Key = String;

    fn name(&self) -> &'static str {
        CONTROLLER
    }

    async fn reconcile(&self, namespace: &String) -> Result<Action, Error> {
        let live = self.namespaces.get("", namespace).is_some_and(|found| !meta::is_deleted(&*found));
        if !live || self.accounts.get(namespace, NAME).is_some() {
            return Ok(Action::Done);
        }
        let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
        let account = ServiceAccount { metadata, ..ServiceAccount::default() };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        match api.create(&PostParams::default(), &account).await.map_err(Error::from) {
            Err(error) if !error.is_already_exists() => Err(error),
            _ => Ok(Action::Done),
        }
    }
}
