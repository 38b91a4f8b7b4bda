//! The store of many servers: an etcd cluster (v3 API, 3.4 or newer).
//!
//! Every operation is one etcd request: a write is a transaction that compares the key's mod revision, a read is linearizable.
//! [`Store::watch`] (`watch`) follows etcd's own watch and resumes it by revision where the connection breaks. `compactor` forgets
//! history as upstream's API server does, and agrees with other servers on who does it.
//!
//! Invariants:
//!
//! * A watch follows the whole keyspace and shows its prefix only. Every revision of etcd but the first has a change, so that a watch learns of every
//!   revision without asking for progress: what etcd before 3.4.25 and 3.5.8 answers to that may be ahead of the events.
//! * A write is sent once. Where its answer is lost, the caller is told that it may have happened. Reads are tried again.

mod compactor;
mod error;
mod range;
mod turn;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd_client::{
    Certificate, Client, Compare, CompareOp, ConnectOptions, DeleteOptions, GetOptions, Identity, KvClient, PutOptions,
    TlsOptions, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use self::turn::Turns;
use crate::{Expect, KeyValue, LeaseId, Range, Result, Revision, Store, StoreError, WatchStream};

/// How long a start waits for etcd.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// As upstream: a request that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// How often etcd is asked whether it is there, and how long it may take to say so.
const HEALTH_INTERVAL: Duration = Duration::from_secs(5);
const HEALTH_TIMEOUT: Duration = Duration::from_secs(2);
/// A read that failed for want of a connection is tried so often.
const READ_ATTEMPTS: u32 = 5;
const RETRY_DELAY: Duration = Duration::from_millis(100);
/// A key that nobody writes: asking for it tells etcd's revision.
const NO_KEY: &str = "knarr/none";

/// Where an etcd cluster is and how to be let in.
#[derive(Clone, Debug, Default)]
pub struct Endpoints {
    /// `http://host:port` or `https://host:port`.
    pub urls: Vec<String>,
    /// PEM of the authorities that vouch for the servers of `https` URLs.
    pub ca: Option<Vec<u8>>,
    /// PEM of the client's certificate and key.
    pub identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Endpoints {
    fn options(&self) -> ConnectOptions {
        let options = ConnectOptions::new()
            .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
            .with_keep_alive_while_idle(true)
            .with_connect_timeout(HEALTH_TIMEOUT)
            .with_require_leader(true);
        if self.ca.is_none() && self.identity.is_none() {
            return options;
        }
        let mut tls = TlsOptions::new();
        if let Some(ca) = &self.ca {
            tls = tls.ca_certificate(Certificate::from_pem(ca));
        }
        if let Some((certificate, key)) = &self.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        options.with_tls(tls)
    }
}

/// An etcd cluster as a store. Dropping it ends its background work; its watches end by themselves.
pub struct Etcd {
    client: Client,
    revisions: Turns,
    /// Counts the marks that were asked for.
    marks: tokio::sync::watch::Sender<u64>,
    health: Arc<Mutex<Result<()>>>,
    background: Vec<JoinHandle<()>>,
}

impl Etcd {
    /// Connects, and fails if no endpoint answers within a while.
    pub fn connect(endpoints: &Endpoints) -> BoxFuture<'_, Result<Etcd>> {
        Box::pin(Etcd::connected(endpoints))
    }

    async fn connected(endpoints: &Endpoints) -> Result<Etcd> {
        let client = Client::connect(&endpoints.urls, Some(endpoints.options())).await.map_err(error::backend)?;
        let mut etcd = Etcd {
            client,
            revisions: Turns::default(),
            marks: tokio::sync::watch::Sender::new(0),
            health: Arc::new(Mutex::new(Ok(()))),
            background: Vec::new(),
        };
        match tokio::time::timeout(CONNECT_TIMEOUT, etcd.revision()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(unreachable(&endpoints.urls, &error.to_string())),
            Err(_) => return Err(unreachable(&endpoints.urls, "no answer")),
        }
        etcd.background.push(tokio::spawn(compactor::run(etcd.client.kv_client())));
        etcd.background.push(tokio::spawn(look_after(etcd.client.clone(), etcd.health.clone())));
        Ok(etcd)
    }

    fn kv(&self) -> KvClient {
        self.client.kv_client().max_decoding_message_size(usize::MAX).max_encoding_message_size(usize::MAX)
    }

    async fn transact(&self, key: &str, expect: Expect, then: TxnOp) -> Result<TxnResponse> {
        let mut txn = Txn::new();
        if let Some(revision) = expected_revision(expect) {
            txn = txn.when([Compare::mod_revision(key, CompareOp::Equal, revision)]);
        }
        let txn = txn.and_then([then]).or_else([TxnOp::get(key, None)]);
        let mut kv = self.kv();
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, kv.txn(txn)).await;
        answer.map_err(|_| error::timed_out())?.map_err(|error| error::of_key(key, error))
    }

    /// The oldest revision that etcd still has, where `requested` is gone.
    async fn compacted(&self, requested: Revision) -> StoreError {
        let mut watch = match watch::open(self.client.watch_client(), "", requested, self.marks.subscribe()) {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        match tokio::time::timeout(REQUEST_TIMEOUT, futures::StreamExt::next(&mut watch)).await {
            Ok(Some(Err(error))) => error,
            _ => StoreError::Compacted { requested, oldest: requested },
        }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.background.iter().for_each(JoinHandle::abort);
    }
}

fn unreachable(urls: &[String], why: &str) -> StoreError {
    StoreError::Backend(format!("etcd at {} cannot be reached: {why}", urls.join(", ")))
}

/// What the key's mod revision must be; etcd says 0 of a key that is not there.
fn expected_revision(expect: Expect) -> Option<i64> {
    match expect {
        Expect::Any => None,
        Expect::Absent => Some(0),
        // 0 is no revision that a key can have: the write must fail.
        Expect::Revision(Revision(0)) => Some(-1),
        Expect::Revision(revision) => Some(revision.0 as i64),
    }
}

/// Keeps `health` true to whether etcd answers.
async fn look_after(client: Client, health: Arc<Mutex<Result<()>>>) {
    let mut ticks = tokio::time::interval(HEALTH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answer = tokio::time::timeout(HEALTH_TIMEOUT, newest_revision(client.kv_client())).await;
        *health.lock() = answer.unwrap_or_else(|_| Err(error::timed_out())).map(drop);
    }
}

async fn newest_revision(mut kv: KvClient) -> Result<Revision> {
    let answer = kv.get(NO_KEY, Some(GetOptions::new().with_count_only())).await.map_err(error::backend)?;
    Ok(Revision(header_revision(answer.header())))
}

fn header_revision(header: Option<&etcd_client::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.revision().max(0) as u64)
}

/// Ours of etcd's. `None`: the key is not text, so that it is nobody's here.
fn key_value(kv: &etcd_client::KeyValue) -> Option<KeyValue> {
    Some(KeyValue {
        key: kv.key_str().ok()?.into(),
        value: Bytes::copy_from_slice(kv.value()),
        create_revision: Revision(kv.create_revision().max(0) as u64),
        mod_revision: Revision(kv.mod_revision().max(0) as u64),
    })
}

/// A read, tried again while etcd cannot be reached.
async fn retried<T, F: Future<Output = Result<T, etcd_client::Error>>>(
    mut read: impl FnMut() -> F,
) -> Result<T, etcd_client::Error> {
    let mut attempt = 1;
    loop {
        let answer = match tokio::time::timeout(REQUEST_TIMEOUT, read()).await {
            Ok(answer) => answer,
            Err(_) => return Err(etcd_client::Error::EndpointError("etcd does not answer in time".into())),
        };
        match answer {
            Err(failed) if attempt < READ_ATTEMPTS && error::is_unavailable(&failed) => {
                tokio::time::sleep(RETRY_DELAY * attempt).await;
                attempt += 1;
            }
            answer => return answer,
        }
    }
}

/// The failed comparison's answer: what is there instead.
fn conflict(key: &str, answer: &TxnResponse) -> StoreError {
    let current = answer.op_responses().into_iter().find_map(|response| match response {
        TxnOpResponse::Get(get) => get.kvs().first().and_then(key_value),
        _ => None,
    });
    StoreError::Conflict { key: key.into(), current: current.map(Box::new) }
}

#[async_trait::async_trait]
impl Store for Etcd {
    async fn get(&self, key: &str) -> Result<Option<KeyValue>> {
        let answer = retried(|| {
            let mut kv = self.kv();
            async move { kv.get(key, None).await }
        });
        let answer = answer.await.map_err(|error| error::of_key(key, error))?;
        Ok(answer.kvs().first().and_then(key_value))
    }

    async fn range(&self, prefix: &str, after: Option<&str>, limit: usize, at: Option<Revision>) -> Result<Range> {
        match range::read(self.kv(), prefix, after, limit, at).await {
            Err(StoreError::Compacted { requested, .. }) => Err(self.compacted(requested).await),
            Err(StoreError::Future { requested, .. }) => {
                Err(StoreError::Future { requested, current: self.revision().await? })
            }
            answer => answer,
        }
    }

    async fn put(&self, key: &str, value: Bytes, expect: Expect, lease: Option<LeaseId>) -> Result<Revision> {
        let options = lease.map(|lease| PutOptions::new().with_lease(lease.0));
        let answer = match self.transact(key, expect, TxnOp::put(key, value, options)).await {
            Err(StoreError::LeaseNotFound(_)) => return Err(StoreError::LeaseNotFound(lease.unwrap_or(LeaseId(0)))),
            answer => answer?,
        };
        if !answer.succeeded() {
            return Err(conflict(key, &answer));
        }
        Ok(Revision(header_revision(answer.header())))
    }

    async fn delete(&self, key: &str, expect: Expect) -> Result<(Revision, KeyValue)> {
        let options = DeleteOptions::new().with_prev_key();
        let answer = self.transact(key, expect, TxnOp::delete(key, Some(options))).await?;
        let deleted = answer.op_responses().into_iter().find_map(|response| match response {
            TxnOpResponse::Delete(delete) => delete.prev_kvs().first().and_then(key_value),
            _ => None,
        });
        match deleted {
            Some(previous) if answer.succeeded() => Ok((Revision(header_revision(answer.header())), previous)),
            _ => Err(conflict(key, &answer)),
        }
    }

    async fn watch(&self, prefix: &str, after: Revision) -> Result<WatchStream> {
        watch::open(self.client.watch_client(), prefix, after, self.marks.subscribe())
    }

    async fn request_progress(&self) -> Result<()> {
        self.marks.send_modify(|marks| *marks += 1);
        Ok(())
    }

    async fn revision(&self) -> Result<Revision> {
        let ask = || {
            retried(|| {
                let mut kv = self.kv();
                async move { kv.get(NO_KEY, Some(GetOptions::new().with_count_only())).await }
            })
        };
        self.revisions
            .ask(|| async {
                ask().await.map(|answer| Revision(header_revision(answer.header()))).map_err(error::backend)
            })
            .await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        match compactor::compact(self.kv(), revision).await {
            Err(StoreError::Compacted { requested, .. }) => Err(self.compacted(requested).await),
            answer => answer,
        }
    }

    async fn grant_lease(&self, ttl_seconds: u32) -> Result<LeaseId> {
        let mut leases = self.client.lease_client();
        let granted = leases.grant(ttl_seconds.into(), None).await.map_err(error::backend)?;
        Ok(LeaseId(granted.id()))
    }

    fn check(&self) -> Result<()> {
        self.health.lock().clone()
    }
}
