//! What `knarr up` is told: flags, `KNARR_…` variables and a YAML file, in this order of precedence, over the defaults.

mod access;
mod flags;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

mod serving;

use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

pub use access::{AccessSaid, duration, read_file};

pub use serving::Serving;

use knarr_kubelet::eviction::thresholds::{self, Threshold};

use crate::store::{self, StoreChoice};

pub const DEFAULT_DATA_DIR: &str = "/var/lib/knarr";

/// Everything that may be said about a cluster; a field that is `None` was not said here.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Said {
    /// Where everything Knarr keeps lives [default: /var/lib/knarr]
    #[arg(long, env = "KNARR_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Address and port of the API server [default: 0.0.0.0:6443]
    #[arg(long, env = "KNARR_BIND", value_name = "ADDRESS:PORT")]
    pub bind: Option<String>,
    /// The node's address [default: that of the default route, or 127.0.0.1]
    #[arg(long, env = "KNARR_NODE_IP", value_name = "ADDRESS")]
    pub node_ip: Option<Ipv4Addr>,
    /// The node's name [default: the host's name]
    #[arg(long, env = "KNARR_NODE_NAME", value_name = "NAME")]
    pub node_name: Option<String>,
    /// Where the administrator's kubeconfig is written once the API answers [default: DATA_DIR/admin.kubeconfig]
    #[arg(long, env = "KNARR_KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Addresses of pods [default: 10.244.0.0/16]
    #[arg(long, env = "KNARR_CLUSTER_CIDR", value_name = "CIDR")]
    pub cluster_cidr: Option<Ipv4Net>,
    /// Addresses of services [default: 10.96.0.0/16]
    #[arg(long, env = "KNARR_SERVICE_CIDR", value_name = "CIDR")]
    pub service_cidr: Option<Ipv4Net>,
    /// The cluster's DNS domain [default: cluster.local]
    #[arg(long, env = "KNARR_CLUSTER_DOMAIN", value_name = "DOMAIN")]
    pub cluster_domain: Option<String>,
    /// A CRI socket; without it Knarr runs a private containerd of its own
    #[arg(long, env = "KNARR_RUNTIME_ENDPOINT", value_name = "SOCKET")]
    pub runtime_endpoint: Option<String>,
    /// Port of the kubelet's own HTTPS API [default: 10250]
    #[arg(long, env = "KNARR_KUBELET_PORT", value_name = "PORT")]
    pub kubelet_port: Option<u16>,
    /// Manifests of static pods: pods that this node runs whatever the API says [default: DATA_DIR/manifests]
    #[arg(long, env = "KNARR_POD_MANIFEST_PATH", value_name = "DIR")]
    pub pod_manifest_path: Option<PathBuf>,
    /// Pods are evicted while less than this is left of the node [default: memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%]
    #[arg(long, env = "KNARR_EVICTION_HARD", value_name = "THRESHOLDS")]
    pub eviction_hard: Option<String>,
    /// Control plane alone: runs no pods, needs no root
    #[arg(long, env = "KNARR_NO_NODE", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub no_node: Option<bool>,
    /// Controllers that run, by upstream's names with commas between them: "*" for all, "-name" for all but one; the scheduler is kube-scheduler [default: *]
    #[arg(long, env = "KNARR_CONTROLLERS", value_name = "NAMES", allow_hyphen_values = true)]
    pub controllers: Option<String>,
    /// Seats requests by API priority and fairness, rather than by two plain limits [default: true]
    #[arg(long, env = "KNARR_ENABLE_PRIORITY_AND_FAIRNESS", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub enable_priority_and_fairness: Option<bool>,
    /// Requests served at once; with priority and fairness the sum of both limits is the number of seats [default: 400]
    #[arg(long, env = "KNARR_MAX_REQUESTS_INFLIGHT", value_name = "NUMBER")]
    pub max_requests_inflight: Option<u32>,
    /// Changing requests served at once [default: 200]
    #[arg(long, env = "KNARR_MAX_MUTATING_REQUESTS_INFLIGHT", value_name = "NUMBER")]
    pub max_mutating_requests_inflight: Option<u32>,
    /// How long a request may take that is not meant to last [default: 1m0s]
    #[arg(long, env = "KNARR_REQUEST_TIMEOUT", value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// How long the server goes on after it has said on /readyz that it will end [default: 0s]
    #[arg(long, env = "KNARR_SHUTDOWN_DELAY_DURATION", value_name = "DURATION")]
    pub shutdown_delay_duration: Option<String>,
    /// Answer requests that come while the last ones are being served with 429 and Retry-After [default: false]
    #[arg(long, env = "KNARR_SHUTDOWN_SEND_RETRY_AFTER", num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub shutdown_send_retry_after: Option<bool>,
    /// Regular expressions, with commas between them, of the origins whose browsers may read answers
    #[arg(long, env = "KNARR_CORS_ALLOWED_ORIGINS", value_name = "PATTERNS")]
    pub cors_allowed_origins: Option<String>,
    /// The audit policy; without it nothing is recorded
    #[arg(long, env = "KNARR_AUDIT_POLICY_FILE", value_name = "FILE")]
    pub audit_policy_file: Option<PathBuf>,
    /// Where audit events are logged; "-" is standard output
    #[arg(long, env = "KNARR_AUDIT_LOG_PATH", value_name = "FILE")]
    pub audit_log_path: Option<PathBuf>,
    /// Megabytes at which the audit log is put aside; 0: never [default: 100]
    #[arg(long, env = "KNARR_AUDIT_LOG_MAXSIZE", value_name = "MEGABYTES")]
    pub audit_log_maxsize: Option<u32>,
    /// Audit logs kept aside; 0: all [default: 100]
    #[arg(long, env = "KNARR_AUDIT_LOG_MAXBACKUP", value_name = "NUMBER")]
    pub audit_log_maxbackup: Option<u32>,
    /// Days that audit logs are kept aside; 0: for ever [default: 366]
    #[arg(long, env = "KNARR_AUDIT_LOG_MAXAGE", value_name = "DAYS")]
    pub audit_log_maxage: Option<u32>,
    /// batch, blocking or blocking-strict [default: blocking]
    #[arg(long, env = "KNARR_AUDIT_LOG_MODE", value_name = "MODE")]
    pub audit_log_mode: Option<String>,
    /// A kubeconfig that says where audit events are sent
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_CONFIG_FILE", value_name = "FILE")]
    pub audit_webhook_config_file: Option<PathBuf>,
    /// batch, blocking or blocking-strict [default: batch]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_MODE", value_name = "MODE")]
    pub audit_webhook_mode: Option<String>,
    /// How long to wait before sending events a second time [default: 10s]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_INITIAL_BACKOFF", value_name = "DURATION")]
    pub audit_webhook_initial_backoff: Option<String>,
    /// Events that may wait to be sent [default: 10000]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_BATCH_BUFFER_SIZE", value_name = "NUMBER")]
    pub audit_webhook_batch_buffer_size: Option<u32>,
    /// Events sent at once [default: 400]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_BATCH_MAX_SIZE", value_name = "NUMBER")]
    pub audit_webhook_batch_max_size: Option<u32>,
    /// How long a batch waits for more events [default: 30s]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_BATCH_MAX_WAIT", value_name = "DURATION")]
    pub audit_webhook_batch_max_wait: Option<String>,
    /// Batches a second; 0: no limit [default: 10]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_BATCH_THROTTLE_QPS", value_name = "NUMBER")]
    pub audit_webhook_batch_throttle_qps: Option<f64>,
    /// Batches at once after a quiet time [default: 15]
    #[arg(long, env = "KNARR_AUDIT_WEBHOOK_BATCH_THROTTLE_BURST", value_name = "NUMBER")]
    pub audit_webhook_batch_throttle_burst: Option<u32>,
    /// How this program logs: text or json [default: text]
    #[arg(long, env = "KNARR_LOGGING_FORMAT", value_name = "FORMAT")]
    pub logging_format: Option<LoggingFormat>,
    #[command(flatten)]
    #[serde(skip)]
    pub access: AccessSaid,
    /// Where objects are kept: "embedded" (in the data directory) or etcd://host:port,host:port [default: embedded]
    #[arg(long, env = "KNARR_STORE", value_name = "STORE")]
    pub store: Option<String>,
    /// etcd servers as URLs with commas between them; another way to say --store etcd://…
    #[arg(long, env = "KNARR_ETCD_SERVERS", value_name = "URLS")]
    pub etcd_servers: Option<String>,
    /// Certificates of the authorities that vouch for the etcd servers
    #[arg(long, env = "KNARR_ETCD_CAFILE", value_name = "FILE")]
    pub etcd_cafile: Option<PathBuf>,
    /// The certificate shown to the etcd servers
    #[arg(long, env = "KNARR_ETCD_CERTFILE", value_name = "FILE")]
    pub etcd_certfile: Option<PathBuf>,
    /// The key of that certificate
    #[arg(long, env = "KNARR_ETCD_KEYFILE", value_name = "FILE")]
    pub etcd_keyfile: Option<PathBuf>,
}

/// How this program logs.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
pub enum LoggingFormat {
    #[default]
    Text,
    Json,
}

impl Said {
    /// This, and where it is silent, `file`.
    fn or(self, file: Said) -> Said {
        Said {
            data_dir: self.data_dir.or(file.data_dir),
            bind: self.bind.or(file.bind),
            node_ip: self.node_ip.or(file.node_ip),
            node_name: self.node_name.or(file.node_name),
            kubeconfig: self.kubeconfig.or(file.kubeconfig),
            cluster_cidr: self.cluster_cidr.or(file.cluster_cidr),
            service_cidr: self.service_cidr.or(file.service_cidr),
            cluster_domain: self.cluster_domain.or(file.cluster_domain),
            runtime_endpoint: self.runtime_endpoint.or(file.runtime_endpoint),
            kubelet_port: self.kubelet_port.or(file.kubelet_port),
            pod_manifest_path: self.pod_manifest_path.or(file.pod_manifest_path),
            eviction_hard: self.eviction_hard.or(file.eviction_hard),
            no_node: self.no_node.or(file.no_node),
            controllers: self.controllers.or(file.controllers),
            enable_priority_and_fairness: self.enable_priority_and_fairness.or(file.enable_priority_and_fairness),
            max_requests_inflight: self.max_requests_inflight.or(file.max_requests_inflight),
            max_mutating_requests_inflight: self.max_mutating_requests_inflight.or(file.max_mutating_requests_inflight),
            request_timeout: self.request_timeout.or(file.request_timeout),
            shutdown_delay_duration: self.shutdown_delay_duration.or(file.shutdown_delay_duration),
            shutdown_send_retry_after: self.shutdown_send_retry_after.or(file.shutdown_send_retry_after),
            cors_allowed_origins: self.cors_allowed_origins.or(file.cors_allowed_origins),
            audit_policy_file: self.audit_policy_file.or(file.audit_policy_file),
            audit_log_path: self.audit_log_path.or(file.audit_log_path),
            audit_log_maxsize: self.audit_log_maxsize.or(file.audit_log_maxsize),
            audit_log_maxbackup: self.audit_log_maxbackup.or(file.audit_log_maxbackup),
            audit_log_maxage: self.audit_log_maxage.or(file.audit_log_maxage),
            audit_log_mode: self.audit_log_mode.or(file.audit_log_mode),
            audit_webhook_config_file: self.audit_webhook_config_file.or(file.audit_webhook_config_file),
            audit_webhook_mode: self.audit_webhook_mode.or(file.audit_webhook_mode),
            audit_webhook_initial_backoff: self.audit_webhook_initial_backoff.or(file.audit_webhook_initial_backoff),
            audit_webhook_batch_buffer_size: self
                .audit_webhook_batch_buffer_size
                .or(file.audit_webhook_batch_buffer_size),
            audit_webhook_batch_max_size: self.audit_webhook_batch_max_size.or(file.audit_webhook_batch_max_size),
            audit_webhook_batch_max_wait: self.audit_webhook_batch_max_wait.or(file.audit_webhook_batch_max_wait),
            audit_webhook_batch_throttle_qps: self
                .audit_webhook_batch_throttle_qps
                .or(file.audit_webhook_batch_throttle_qps),
            audit_webhook_batch_throttle_burst: self
                .audit_webhook_batch_throttle_burst
                .or(file.audit_webhook_batch_throttle_burst),
            logging_format: self.logging_format.or(file.logging_format),
            access: self.access.or(file.access),
            store: self.store.or(file.store),
            etcd_servers: self.etcd_servers.or(file.etcd_servers),
            etcd_cafile: self.etcd_cafile.or(file.etcd_cafile),
            etcd_certfile: self.etcd_certfile.or(file.etcd_certfile),
            etcd_keyfile: self.etcd_keyfile.or(file.etcd_keyfile),
        }
    }
}

/// What a cluster is started with: every question answered and checked.
#[derive(Clone, Debug)]
pub struct Settings {
    pub data_dir: PathBuf,
    pub bind: SocketAddr,
    pub node_ip: Ipv4Addr,
    pub node_name: String,
    pub kubeconfig: PathBuf,
    pub cluster_cidr: Ipv4Net,
    pub service_cidr: Ipv4Net,
    pub cluster_domain: String,
    /// `None`: a private containerd.
    pub runtime_endpoint: Option<PathBuf>,
    pub kubelet_port: u16,
    pub pod_manifest_path: PathBuf,
    pub eviction_hard: Vec<Threshold>,
    pub node: bool,
    pub controllers: knarr_controllers::Enabled,
    pub serving: Serving,
    pub access: AccessSaid,
    pub store: StoreChoice,
    /// Every flag with what holds for it, as `/flagz` shows them; empty where nothing was said and nothing needs to be.
    pub flags: BTreeMap<String, String>,
}

impl Settings {
    /// Flags and variables (`said`), then the file, then the defaults.
    pub fn resolve(said: Said, file: Option<&Path>) -> Result<Settings> {
        let said = match file {
            Some(path) => said.or(read(path)?),
            None => said,
        };
        let serving = Serving::resolve(&said)?;
        let flags = said.flags()?;
        let data_dir = absolute(said.data_dir.unwrap_or_else(|| DEFAULT_DATA_DIR.into()))?;
        let mut settings = Settings {
            serving,
            flags,
            bind: bind_address(said.bind.as_deref().unwrap_or("0.0.0.0:6443"))?,
            node_ip: said.node_ip.unwrap_or_else(default_route_address),
            node_name: said.node_name.map_or_else(host_name, Ok)?,
            kubeconfig: said.kubeconfig.map_or_else(|| Ok(data_dir.join("admin.kubeconfig")), absolute)?,
            cluster_cidr: said.cluster_cidr.unwrap_or(net(10, 244)),
            service_cidr: said.service_cidr.unwrap_or(net(10, 96)),
            cluster_domain: said.cluster_domain.unwrap_or_else(|| "cluster.local".into()),
            runtime_endpoint: said.runtime_endpoint.as_deref().map(socket_path),
            kubelet_port: said.kubelet_port.unwrap_or(10250),
            eviction_hard: match said.eviction_hard.as_deref() {
                Some(text) => thresholds::parse(text).map_err(|error| anyhow::anyhow!("--eviction-hard: {error}"))?,
                None => thresholds::usual(),
            },
            pod_manifest_path: said.pod_manifest_path.map_or_else(|| Ok(data_dir.join("manifests")), absolute)?,
            node: !said.no_node.unwrap_or(false),
            controllers: said.controllers.as_deref().unwrap_or("*").parse().context("--controllers")?,
            access: said.access,
            store: StoreChoice::resolve(store::Said {
                store: said.store.as_deref(),
                etcd_servers: said.etcd_servers.as_deref(),
                ca: said.etcd_cafile,
                certificate: said.etcd_certfile,
                key: said.etcd_keyfile,
            })?,
            data_dir,
        };
        settings.check()?;
        settings.show_defaults();
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        self.access.check()?;
        if self.cluster_cidr.prefix_len() > 24 {
            bail!("--cluster-cidr {} is too small: a node takes a /24 of it", self.cluster_cidr);
        }
        if self.service_cidr.prefix_len() > 28 || self.service_cidr.prefix_len() < 12 {
            bail!("--service-cidr {} must be between a /12 and a /28", self.service_cidr);
        }
        if self.cluster_cidr.contains(&self.service_cidr.network())
            || self.service_cidr.contains(&self.cluster_cidr.network())
        {
            bail!("--cluster-cidr {} and --service-cidr {} overlap", self.cluster_cidr, self.service_cidr);
        }
        if !is_dns_name(&self.node_name) {
            bail!("--node-name {:?} must be lower-case letters, digits, '-' and '.'", self.node_name);
        }
        if !is_dns_name(&self.cluster_domain) {
            bail!("--cluster-domain {:?} is not a DNS domain", self.cluster_domain);
        }
        Ok(())
    }

    /// The nth address of the service range.
    pub fn service_address(&self, n: u32) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.service_cidr.network()) + n)
    }

    /// Where clients on this machine and in pods reach the API server.
    pub fn advertised(&self) -> SocketAddr {
        let address = match self.bind.ip() {
            ip if ip.is_unspecified() => IpAddr::V4(self.node_ip),
            ip => ip,
        };
        SocketAddr::new(address, self.bind.port())
    }
}

impl Settings {
    /// Where pods reach the API server: never a loopback address, if the node has another.
    pub fn endpoint(&self) -> SocketAddr {
        let address = match self.bind.ip() {
            ip if ip.is_unspecified() || ip.is_loopback() => IpAddr::V4(self.node_ip),
            ip => ip,
        };
        SocketAddr::new(address, self.bind.port())
    }
}

fn read(path: &Path) -> Result<Said> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--config {}", path.display()))?;
    let text = text.trim();
    if text.is_empty() {
        return Ok(Said::default());
    }
    parse(text).with_context(|| format!("--config {}", path.display()))
}

fn parse(text: &str) -> Result<Said> {
    let mut keys: Map<String, Value> = knarr_api::yaml::from_str(text).map_err(|why| anyhow!(why))?;
    let access = AccessSaid::take(&mut keys)?;
    Ok(Said { access, ..serde_json::from_value(Value::Object(keys))? })
}

fn net(a: u8, b: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16)
}

fn absolute(path: PathBuf) -> Result<PathBuf> {
    std::path::absolute(&path).with_context(|| path.display().to_string())
}

/// `ADDRESS:PORT`, `:PORT`, `PORT` or `ADDRESS`.
fn bind_address(text: &str) -> Result<SocketAddr> {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let parsed = match text.strip_prefix(':').unwrap_or(text).parse::<u16>() {
        Ok(port) => Some(SocketAddr::new(any, port)),
        Err(_) => text.parse().ok().or_else(|| text.parse().ok().map(|ip| SocketAddr::new(ip, 6443))),
    };
    parsed.with_context(|| format!("--bind {text:?} is not an address and port such as 0.0.0.0:6443"))
}

fn socket_path(endpoint: &str) -> PathBuf {
    endpoint.strip_prefix("unix://").unwrap_or(endpoint).into()
}

fn is_dns_name(name: &str) -> bool {
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && l.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

fn host_name() -> Result<String> {
    let name = nix::unistd::gethostname().context("reading the host's name")?;
    Ok(name.to_string_lossy().to_lowercase())
}

/// The address this machine would use towards the outside. Connecting a UDP socket asks the routing table and sends nothing.
fn default_route_address() -> Ipv4Addr {
    let routed = || -> std::io::Result<SocketAddr> {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.connect("192.0.2.1:9")?;
        socket.local_addr()
    };
    match routed().map(|address| address.ip()) {
        Ok(IpAddr::V4(address)) if !address.is_unspecified() => address,
        _ => Ipv4Addr::LOCALHOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("knarr.yaml");
        std::fs::write(&file, "bind: 127.0.0.1:7000\ncluster-domain: example.test\nno-node: true\n").unwrap();
        let said = Said { bind: Some(":7443".into()), ..Said::default() };
        let settings = Settings::resolve(said, Some(&file)).unwrap();
        assert_eq!(settings.bind, "0.0.0.0:7443".parse().unwrap());
        assert_eq!(settings.cluster_domain, "example.test");
        assert!(!settings.node);
        assert_eq!(settings.service_address(10), Ipv4Addr::new(10, 96, 0, 10));
        assert_eq!(settings.kubeconfig, Path::new("/var/lib/knarr/admin.kubeconfig"));
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let refused = |said| Settings::resolve(said, None).unwrap_err().to_string();
        let said = Said { bind: Some("nowhere".into()), ..Said::default() };
        assert!(refused(said).contains("--bind"));
        let said = Said { node_name: Some("No Spaces".into()), ..Said::default() };
        assert!(refused(said).contains("--node-name"));
        let said = Said { cluster_cidr: Some("10.96.0.0/12".parse().unwrap()), ..Said::default() };
        assert!(refused(said).contains("overlap"));
        let said = Said { controllers: Some("*,-jobs".into()), ..Said::default() };
        assert!(refused(said).contains("--controllers"));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("knarr.yaml");
        std::fs::write(&file, "bnd: 1\n").unwrap();
        assert!(Settings::resolve(Said::default(), Some(&file)).is_err(), "an unknown key is a mistake, not a comment");
    }
}
