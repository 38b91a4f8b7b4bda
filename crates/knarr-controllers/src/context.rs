//! What every controller is started with.

use knarr_client::{Informers, Recorder};
use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::Config;

pub(crate) struct Context {
    pub informers: Informers,
    pub config: Config,
    pub shutdown: CancellationToken,
    client_factory: Box<dyn Fn(&str) -> Client + Send + Sync>,
}

impl Context {
    pub fn new(
        informers: Informers,
        client_factory: Box<dyn Fn(&str) -> Client + Send + Sync>,
        config: Config,
        shutdown: CancellationToken,
    ) -> Self {
        Context { informers, config, shutdown, client_factory }
    }

    /// A client that acts as the service account of that controller.
    pub fn client(&self, controller: &str) -> Client {
        (self.client_factory)(&format!("system:serviceaccount:kube-system:{controller}"))
    }

    /// A recorder that speaks for `component`, over that controller's client.
    pub fn recorder(&self, client: &Client, component: &str) -> Recorder {
        Recorder::new(client.clone(), component, "")
    }
}
