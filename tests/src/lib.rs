//! What the end-to-end tests stand on: a real `knarr` process with its own data directory and ports, driven from outside
//! through kubectl and kube-rs, and gone without a trace when the test ends.

mod cluster;
mod etcd;
mod kubectl;
mod network;
mod raw;
pub mod registry;
mod transcript;
mod wait;

pub use cluster::{Cluster, Options, binary, free_port};
pub use etcd::EtcdServer;
pub use kubectl::{Kubectl, kubectl_path};
pub use network::own_network;
pub use raw::Raw;
pub use transcript::Transcript;
pub use wait::eventually;

/// Whether this process may run containers.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
