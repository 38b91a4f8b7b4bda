//! Requests that end at a node, a pod or a service: logs, exec, attach, port-forward and proxy.
//!
//! The way of such a request: admission (as CONNECT), then [`target`] finds out where it goes (`location` of upstream), then
//! [`forward`] sends it there, or [`stream`] joins the client's upgraded connection with one of the kubelet's.
//!
//! Invariants: credentials of the client never leave the API server; a kubelet is talked to with the API server's own certificate.

mod dial;
mod forward;
pub(crate) mod headers;
mod links;
mod log_options;
mod options;
mod path;
mod stream;
mod target;

use std::future::Future;
use std::sync::Arc;

use http::Response;
use http::request::Parts;
use knarr_api::{GroupResource, Object, Resource, StatusError};
use tokio_util::task::TaskTracker;

use crate::admission;
use crate::authentication::User;
use crate::chain::Lasting;
use crate::http::Body;
use crate::objects::Objects;
use dial::Dialer;
use target::Locator;

/// An authenticated and authorized request for one of these subresources.
pub struct Connect {
    pub resource: Arc<Resource>,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    pub user: Arc<User>,
    /// With the extensions of the connection it came by: an upgrade needs them.
    pub parts: Parts,
    pub body: Body,
}

/// Serves those requests.
pub struct Connector {
    locator: Locator,
    dialer: Dialer,
    admission: admission::Chain,
    sessions: TaskTracker,
}

impl Connector {
    /// `kubelet_tls` trusts the kubelets' serving certificates and presents the API server's client certificate.
    pub fn new(objects: Arc<dyn Objects>, admission: admission::Chain, kubelet_tls: rustls::ClientConfig) -> Self {
        Connector {
            locator: Locator { objects },
            dialer: Dialer::new(kubelet_tls),
            admission,
            sessions: TaskTracker::new(),
        }
    }

    /// Runs a session, with which its request ends.
    fn spawn(&self, session: impl Future<Output = ()> + Send + 'static, lasting: Option<Lasting>) {
        self.sessions.spawn(async move {
            session.await;
            drop(lasting);
        });
    }

    /// Whether requests for this subresource are served here.
    pub fn serves(group: &str, resource: &str, subresource: &str) -> bool {
        group.is_empty()
            && match resource {
                "pods" => matches!(subresource, "log" | "exec" | "attach" | "portforward" | "proxy"),
                "services" | "nodes" => subresource == "proxy",
                _ => false,
            }
    }

    pub async fn serve(&self, request: Connect) -> Result<Response<Body>, StatusError> {
        let mut query = request.parts.uri.query().unwrap_or_default().to_owned();
        let mut rest = path::after_proxy(request.parts.uri.path()).to_owned();
        let mut admission = admission_request(&request, &query, &rest);
        let Connect { resource, subresource, namespace, name, parts, body, .. } = request;
        if subresource != "log" {
            let asked = admission.object.clone();
            self.admission.admit(&mut admission).await?;
            match admission.object.filter(|options| Some(options) != asked.as_ref()) {
                Some(options) if subresource == "proxy" => {
                    rest = options["path"].as_str().unwrap_or_default().to_owned();
                }
                Some(options) => query = options::to_query(&options, &query),
                None => {}
            }
        }
        match (&*resource.resource, subresource.as_str()) {
            ("pods", "log") => {
                let location = self.locator.log(&namespace, &name, &query).await?;
                let logs = forward::logs(&self.dialer, location, &name).await?;
                stream::logs(self, parts, logs)
            }
            ("pods", "exec" | "attach") => {
                let command = self.locator.command(&namespace, &name, &subresource, &query).await?;
                stream::command(self, parts, command).await
            }
            ("pods", "portforward") => {
                let location = self.locator.port_forward(&namespace, &name, &query).await?;
                stream::port_forward(self, parts, location).await
            }
            (resource, _) => {
                if let Some(redirect) = path::redirect_to_root(&parts) {
                    return Ok(redirect);
                }
                let location = self.locator.proxy(resource, &namespace, &name, &rest, &query).await?;
                forward::any(self, parts, body, location).await
            }
        }
    }
}

fn admission_request(request: &Connect, query: &str, rest: &str) -> admission::Request {
    let kind = match (&*request.resource.resource, request.subresource.as_str()) {
        ("pods", "exec") => "PodExecOptions",
        ("pods", "attach") => "PodAttachOptions",
        ("pods", "portforward") => "PodPortForwardOptions",
        ("pods", _) => "PodProxyOptions",
        ("services", _) => "ServiceProxyOptions",
        _ => "NodeProxyOptions",
    };
    let mut object = options::from_query(kind, query);
    if request.subresource == "proxy" {
        object["path"] = rest.into();
    }
    admission::Request {
        operation: admission::Operation::Connect,
        resource: request.resource.clone(),
        subresource: request.subresource.clone(),
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        user: request.user.clone(),
        object: Some(object),
        says_empty: false,
        old_object: None,
        options: Object::Null,
        dry_run: false,
        warnings: Vec::new(),
        audit_annotations: Vec::new(),
        reinvocation: Default::default(),
    }
}

/// The parameters of a query, decoded, in order.
fn parameters(query: &str) -> Vec<(String, String)> {
    url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

/// How the API reads a boolean parameter: present and not a no.
fn is_true(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "false")
}

fn core(resource: &'static str) -> GroupResource {
    GroupResource::new("", resource)
}

#[cfg(test)]
mod tests;
