//! What upstream's signers take for a request of their own.

use std::collections::BTreeSet;

use knarr_pki::SigningRequest;

pub(super) const CLIENT: &str = "kubernetes.io/kube-apiserver-client";
pub(super) const KUBELET_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";
pub(super) const KUBELET_SERVING: &str = "kubernetes.io/kubelet-serving";
pub(super) const LEGACY_UNKNOWN: &str = "kubernetes.io/legacy-unknown";

/// Whether the cluster's authority signs for this signer; and if so, why it does not sign this request.
pub(super) fn check(signer: &str, request: &SigningRequest, usages: &[String]) -> Option<Result<(), String>> {
    match signer {
        CLIENT => Some(client(usages)),
        KUBELET_CLIENT => Some(kubelet_client(request, usages)),
        KUBELET_SERVING => Some(kubelet_serving(request, usages)),
        // Of this old signer nothing is demanded, as upstream.
        LEGACY_UNKNOWN => Some(Ok(())),
        _ => None,
    }
}

fn client(usages: &[String]) -> Result<(), String> {
    let optional = ["digital signature", "key encipherment"];
    let other = usages.iter().find(|u| *u != "client auth" && !optional.contains(&u.as_str()));
    match other {
        Some(usage) => Err(format!("invalid usage for client certificate: {usage}")),
        None if !usages.iter().any(|u| u == "client auth") => {
            Err("missing required usage for client certificate: client auth".into())
        }
        None => Ok(()),
    }
}

/// What a kubelet's client certificate must be.
pub(super) fn kubelet_client(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    let faults = [
        (request.organizations != ["system:nodes"], "subject organization is not system:nodes"),
        (!request.dns_names.is_empty(), "DNS subjectAltNames are not allowed"),
        (!request.emails.is_empty(), "Email subjectAltNames are not allowed"),
        (!request.addresses.is_empty(), "IP subjectAltNames are not allowed"),
        (!request.uris.is_empty(), "URI subjectAltNames are not allowed"),
        (!request.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:"),
    ];
    first(&faults)?;
    usages_are(usages, "client auth")
}

fn kubelet_serving(request: &SigningRequest, usages: &[String]) -> Result<(), String> {
    let unnamed = request.dns_names.is_empty() && request.addresses.is_empty();
    let faults = [
        (request.organizations != ["system:nodes"], "subject organization is not system:nodes"),
        (unnamed, "DNS or IP subjectAltName is required"),
        (!request.emails.is_empty(), "Email subjectAltNames are not allowed"),
        (!request.uris.is_empty(), "URI subjectAltNames are not allowed"),
    ];
    first(&faults)?;
    usages_are(usages, "server auth")?;
    first(&[(!request.common_name.starts_with("system:node:"), "subject common name does not begin with system:node:")])
}

fn first(faults: &[(bool, &str)]) -> Result<(), String> {
    faults.iter().find(|(bad, _)| *bad).map_or(Ok(()), |(_, why)| Err(why.to_string()))
}

/// Keys that are not RSA need no key encipherment.
fn usages_are(usages: &[String], purpose: &str) -> Result<(), String> {
    let asked: BTreeSet<&str> = usages.iter().map(String::as_str).collect();
    let all = BTreeSet::from([purpose, "digital signature", "key encipherment"]);
    let without_rsa = BTreeSet::from([purpose, "digital signature"]);
    if asked == all || asked == without_rsa {
        return Ok(());
    }
    let all: Vec<&str> = all.into_iter().collect();
    Err(format!("usages did not match [{}]", all.join(" ")))
}
