//! A pod's `/etc/hosts`.

use std::path::{Path, PathBuf};

use crate::pod::DesiredPod;

use super::hostname;

/// Where the managed file of a pod lies.
pub fn path_in(pod_dir: &Path) -> PathBuf {
    pod_dir.join("etc-hosts")
}

/// The text of a pod's hosts file.
pub fn text_for(pod: &DesiredPod, pod_ips: &[String], cluster_domain: &str, node_hosts: &str) -> String {
    let mut text = if pod.host_network() {
        format!("# Kubernetes-managed hosts file (host network).\n{node_hosts}")
    } else {
        own_entries(pod, pod_ips, cluster_domain)
    };
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        text.push_str(&format!("{}\t{}\n", alias.ip, alias.hostnames.as_deref().unwrap_or_default().join("\t")));
    }
    text
}

fn own_entries(pod: &DesiredPod, pod_ips: &[String], cluster_domain: &str) -> String {
    let mut text =
        "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n"
            .to_owned();
    let (hostname, domain) = hostname::hostname_and_domain(pod, cluster_domain);
    for ip in pod_ips {
        match domain.as_str() {
            "" => text.push_str(&format!("{ip}\t{hostname}\n")),
            domain => text.push_str(&format!("{ip}\t{hostname}.{domain}\t{hostname}\n")),
        }
    }
    text
}
