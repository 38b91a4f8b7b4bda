//! Connections that the kernel remembers. UDP has no end: a client that keeps sending would be kept with an endpoint that is gone, or
//! with none.

use std::collections::HashMap;
use std::net::Ipv4Addr;

use super::model::{Endpoint, Frontend, Protocol};
use crate::command;

/// A flow to be forgotten, as arguments of `conntrack -D`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Flow(Vec<String>);

/// Makes the kernel forget UDP flows that the change of rules made wrong.
pub(super) async fn forget_stale(before: &[Frontend], after: &[Frontend]) {
    for Flow(arguments) in stale(before, after) {
        let mut all = vec!["-D", "-p", "udp"];
        all.extend(arguments.iter().map(String::as_str));
        // "0 flow entries have been deleted" is an error to the program, and none to us; without the program flows time out.
        if let Err(error) = command::run("conntrack", &all, "").await {
            tracing::trace!(%error, ?arguments, "no flows forgotten");
        }
    }
}

pub(super) fn stale(before: &[Frontend], after: &[Frontend]) -> Vec<Flow> {
    let now: HashMap<&str, &Frontend> = after.iter().map(|frontend| (frontend.name.as_str(), frontend)).collect();
    let mut flows = Vec::new();
    for old in before.iter().filter(|frontend| frontend.protocol == Protocol::Udp) {
        let new = now.get(old.name.as_str());
        let kept = |endpoint: &&Endpoint| {
            new.is_some_and(|new| {
                new.endpoints.internal.contains(endpoint) || new.endpoints.external.contains(endpoint)
            })
        };
        let had = old.endpoints.internal.iter().chain(&old.endpoints.external);
        let mut gone: Vec<Ipv4Addr> = had.filter(|endpoint| !kept(endpoint)).map(|endpoint| endpoint.address).collect();
        gone.sort();
        gone.dedup();
        for endpoint in gone {
            let destinations = old.cluster_ips.iter().chain(&old.external_ips);
            flows.extend(
                destinations
                    .map(|address| flow(&[("--orig-dst", address.to_string()), ("--dst-nat", endpoint.to_string())])),
            );
            flows.extend(
                old.node_port
                    .map(|port| flow(&[("--orig-port-dst", port.to_string()), ("--dst-nat", endpoint.to_string())])),
            );
        }
        // Flows from the time without endpoints went nowhere, and would go on doing so.
        if let Some(new) = new.filter(|new| old.endpoints.internal.is_empty() && !new.endpoints.internal.is_empty()) {
            flows.extend(new.cluster_ips.iter().map(|address| {
                flow(&[("--orig-dst", address.to_string()), ("--orig-port-dst", new.port.to_string())])
            }));
            flows.extend(new.node_port.map(|port| flow(&[("--orig-port-dst", port.to_string())])));
        }
    }
    flows
}

fn flow(arguments: &[(&str, String)]) -> Flow {
    Flow(arguments.iter().flat_map(|(name, value)| [(*name).to_owned(), value.clone()]).collect())
}
