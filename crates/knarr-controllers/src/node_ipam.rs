//! Every node gets a pod network of its own out of the cluster's.

use std::collections::BTreeSet;
use std::sync::Arc;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use knarr_client::events::reference_to;
use knarr_client::{Action, Controller, Error, Event, EventType, Informer, Reconciler, Recorder};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::context::Context;
use crate::meta;

const CONTROLLER: &str = "node-controller";

pub(crate) async fn run(context: Arc<Context>) {
    let Some(cluster) = context.config.cluster_cidr else { return };
    let nodes = context.informers.all::<Node>();
    let client = context.client(CONTROLLER);
    let recorder = context.recorder(&client, "cidrAllocator");
    let loop_ = Ipam {
        nodes: nodes.clone(),
        client,
        recorder,
        cluster,
        prefix: context.config.node_cidr_prefix.max(cluster.prefix_len()).min(cluster.max_prefix_len()),
        given: Mutex::new(BTreeSet::new()),
    };
    let waiting = nodes.clone();
    // One worker: two nodes must never be given the same network.
    Controller::new(loop_)
        .watch(&nodes, move |event| match event {
            // What a node leaves, one that waits may have.
            Event::Deleted(_) => {
                let lacking = waiting.list().into_iter().filter(|node| cidr_of(node).is_none());
                lacking.map(|node| meta::name_of(&*node).to_string()).collect()
            }
            _ => vec![meta::name_of(&**event.object()).to_string()],
        })
        .workers(1)
        .run(context.shutdown.clone())
        .await;
}

struct Ipam {
    nodes: Informer<Node>,
    client: Client,
    recorder: Recorder,
    cluster: IpNet,
    prefix: u8,
    /// Given out by this process and perhaps not yet in the cache, with the node's UID.
    given: Mutex<BTreeSet<(IpNet, String)>>,
}

#[async_trait::async_trait]
impl Reconciler for Ipam {
    type Key = String;

    fn name(&self) -> &'static str {
        "node-ipam-controller"
    }

    async fn reconcile(&self, name: &String) -> Result<Action, Error> {
        let Some(node) = self.nodes.get("", name).filter(|node| cidr_of(node).is_none()) else {
            return Ok(Action::Done);
        };
        let Some(network) = self.free_network(meta::uid_of(&*node)) else {
            let message = format!("Node {name} status is now: CIDRNotAvailable");
            self.recorder.event(&reference_to(&*node), EventType::Normal, "CIDRNotAvailable", message);
            return Err(Error::other("no pod network is left in the cluster's"));
        };
        let patch =
            serde_json::json!({ "spec": { "podCIDR": network.to_string(), "podCIDRs": [network.to_string()] } });
        let api: Api<Node> = Api::all(self.client.clone());
        api.patch(name, &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(Action::Done)
    }
}

impl Ipam {
    /// The first network that no node has; the same again for a node that was promised one.
    fn free_network(&self, uid: &str) -> Option<IpNet> {
        let nodes = self.nodes.list();
        let mut taken: BTreeSet<IpNet> = nodes.iter().filter_map(|node| cidr_of(node)).collect();
        let mut given = self.given.lock();
        given.retain(|(_, holder)| nodes.iter().any(|node| meta::uid_of(&**node) == holder && cidr_of(node).is_none()));
        if let Some((promised, _)) = given.iter().find(|(_, holder)| holder == uid) {
            return Some(*promised);
        }
        taken.extend(given.iter().map(|(network, _)| *network));
        let network = self.cluster.subnets(self.prefix).ok()?.find(|network| !taken.contains(network))?;
        given.insert((network, uid.to_string()));
        Some(network)
    }
}

fn cidr_of(node: &Node) -> Option<IpNet> {
    node.spec.as_ref()?.pod_cidr.as_deref()?.parse().ok()
}
