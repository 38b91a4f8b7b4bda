//! Prefers nodes that have the pod's images already, large ones more, rare ones less (lest all pods gather on one node).

use super::MOST;
use crate::{cluster::Cluster, node::NodeInfo, pod::PodInfo};

const MEBIBYTE: i64 = 1 << 20;
const LEAST_SIZE: i64 = 23 * MEBIBYTE;
const MOST_SIZE_PER_IMAGE: i64 = 1000 * MEBIBYTE;

pub fn score(pod: &PodInfo, node: &NodeInfo, cluster: &Cluster) -> i64 {
    if node.images.is_empty() {
        return 0;
    }
    let nodes = cluster.order().len().max(1) as i64;
    let sizes = pod.images.iter().filter_map(|image| {
        let image = normalized(image);
        let size = node.images.get(image.as_str())?;
        Some((*size as i128 * cluster.image_nodes(&image) as i128 / i128::from(nodes)) as i64)
    });
    let most = MOST_SIZE_PER_IMAGE * pod.images.len().max(1) as i64;
    let size = sizes.sum::<i64>().clamp(LEAST_SIZE, most);
    MOST * (size - LEAST_SIZE) / (most - LEAST_SIZE)
}

/// A name without tag or digest is that of `latest`.
fn normalized(image: &str) -> String {
    let last = image.rfind('/').map_or(image, |slash| &image[slash..]);
    if last.contains(':') || last.contains('@') { image.to_owned() } else { format!("{image}:latest") }
}
