//! Forgets history every five minutes, as upstream's API server does, together with the other servers on the same etcd.
//!
//! Who compacts is decided by the key [`KEY`]: its version counts the compactions. A server that finds it where it left it raises it
//! and compacts to the revision it saw an interval ago; one that finds it raised by another waits for the next interval. The key and its
//! meaning are upstream's (`k8s.io/apiserver/pkg/storage/etcd3/compact.go`), so that both may share an etcd.

use std::time::Duration;

use etcd_client::{Compare, CompareOp, KvClient, Txn, TxnOp, TxnOpResponse};

use super::{error, header_revision};
use crate::{Result, Revision, StoreError};

const KEY: &str = "compact_rev_key";
/// Upstream's `--etcd-compaction-interval`.
const INTERVAL: Duration = Duration::from_secs(5 * 60);

/// Compacts until it is dropped.
pub(super) async fn run(kv: KvClient) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::time::sleep(INTERVAL).await;
        match turn(kv.clone(), version, revision).await {
            Ok(next) => (version, revision) = next,
            Err(error) => tracing::warn!(%error, "etcd was not compacted"),
        }
    }
}

/// Compacts to `revision` if nobody else has done so since the key had `version`; the version and the revision for the next turn.
async fn turn(mut kv: KvClient, version: i64, revision: u64) -> Result<(i64, u64)> {
    let txn = Txn::new()
        .when([Compare::version(KEY, CompareOp::Equal, version)])
        .and_then([TxnOp::put(KEY, revision.to_string(), None)])
        .or_else([TxnOp::get(KEY, None)]);
    let answer = kv.txn(txn).await.map_err(error::backend)?;
    let now = header_revision(answer.header());
    if !answer.succeeded() {
        let found = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Get(get) => get.kvs().first().map(|kv| kv.version()),
            _ => None,
        });
        return Ok((found.unwrap_or(0), now));
    }
    if revision > 0 {
        match compact(kv, Revision(revision)).await {
            Ok(()) | Err(StoreError::Compacted { .. }) => tracing::debug!(revision, "etcd compacted"),
            Err(error) => tracing::warn!(%error, revision, "etcd was not compacted"),
        }
    }
    Ok((version + 1, now))
}

/// Forgets what was before `revision`.
pub(super) async fn compact(mut kv: KvClient, revision: Revision) -> Result<()> {
    kv.compact(revision.0 as i64, None).await.map(drop).map_err(|error| error::of_revision(revision, error))
}
