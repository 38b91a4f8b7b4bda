//! The name a pod has for itself.

use crate::pod::DesiredPod;

/// The longest host name the kernel takes.
const LONGEST: usize = 64;
/// The longest DNS label, to which a pod's name is cut.
const LONGEST_LABEL: usize = 63;

/// A pod's host name and the domain it is in; the domain is empty for a pod without a subdomain.
pub fn hostname_and_domain(pod: &DesiredPod, cluster_domain: &str) -> (String, String) {
    let spec = pod.spec();
    if let Some(name) = spec.hostname_override.clone().filter(|name| !name.is_empty()) {
        return (name, String::new());
    }
    let hostname = match spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name.to_owned(),
        None => cut(&pod.name).to_owned(),
    };
    let subdomain = spec.subdomain.as_deref().filter(|subdomain| !subdomain.is_empty());
    let domain = subdomain.map(|subdomain| format!("{subdomain}.{}.svc.{cluster_domain}", pod.namespace));
    (hostname, domain.unwrap_or_default())
}

/// The name for the kernel: the host name, or the whole name where the pod asks for that.
pub fn kernel_hostname(pod: &DesiredPod, cluster_domain: &str) -> Result<String, String> {
    let (hostname, domain) = hostname_and_domain(pod, cluster_domain);
    if pod.spec().set_hostname_as_fqdn != Some(true) || domain.is_empty() {
        return Ok(hostname);
    }
    let whole = format!("{hostname}.{domain}");
    if whole.len() > LONGEST {
        return Err(format!(
            "failed to construct FQDN from pod hostname and cluster domain, FQDN {whole} is too long ({LONGEST} characters is the max, {} characters requested)",
            whole.len()
        ));
    }
    Ok(whole)
}

fn cut(name: &str) -> &str {
    let end = name.len().min(LONGEST_LABEL);
    name.get(..end).unwrap_or(name).trim_end_matches(['-', '.'])
}
