//! What only a store that others share must promise.

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use knarr_store::{Etcd, Event, Expect, Revision, Store, StoreError};

use crate::backends::{EtcdServer, endpoints};

const PATIENCE: Duration = Duration::from_secs(60);

async fn put(store: &Etcd, key: &str, value: &'static str) -> Revision {
    store.put(key, Bytes::from_static(value.as_bytes()), Expect::Any, None).await.expect("a put")
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_see_each_other() {
    let Some(server) = EtcdServer::start() else { return };
    let one = Etcd::connect(&endpoints(&server)).await.expect("etcd answers");
    let other = Etcd::connect(&endpoints(&server)).await.expect("etcd answers");
    let mut watch = other.watch("a/", other.revision().await.expect("a revision")).await.expect("a watch");
    let written = put(&one, "a/x", "1").await;
    assert!(other.revision().await.expect("a revision") >= written, "a read after the write sees it");
    let found = other.get("a/x").await.expect("an answer").expect("the key");
    assert_eq!(found.mod_revision, written);
    let stale = other.put("a/x", Bytes::new(), Expect::Absent, None).await;
    assert!(matches!(stale, Err(StoreError::Conflict { .. })), "{stale:?}");
    let batch =
        tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time").expect("goes on").expect("a batch");
    assert_eq!(batch.events.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_etcds_crash() {
    let Some(mut server) = EtcdServer::start() else { return };
    let store = Etcd::connect(&endpoints(&server)).await.expect("etcd answers");
    let start = store.revision().await.expect("a revision");
    let mut watch = store.watch("a/", start).await.expect("a watch");
    let before = put(&store, "a/x", "1").await;
    let next = async |watch: &mut knarr_store::WatchStream| {
        let batch = tokio::time::timeout(PATIENCE, watch.next()).await.expect("in time");
        batch.expect("goes on").expect("a batch").events
    };
    assert_eq!(next(&mut watch).await.len(), 1);
    server.kill_and_start_again();
    let after = loop {
        // While etcd is away a write fails: it is not lost in silence.
        match store.put("a/y", Bytes::from_static(b"2"), Expect::Absent, None).await {
            Ok(revision) => break revision,
            Err(StoreError::Conflict { current: Some(current), .. }) => break current.mod_revision,
            Err(error) => {
                assert!(matches!(error, StoreError::Backend(_)), "{error:?}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    assert!(after > before);
    let resumed = next(&mut watch).await;
    assert!(matches!(&resumed[..], [Event::Put { current, .. }] if current.mod_revision == after), "{resumed:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_ranges_come_in_pages_of_one_revision() {
    let Some(server) = EtcdServer::start() else { return };
    let store = Etcd::connect(&endpoints(&server)).await.expect("etcd answers");
    let value = Bytes::from(vec![b'x'; 20_000]);
    let writes = (0..700).map(|n| {
        let (store, value) = (&store, value.clone());
        async move { store.put(&format!("big/{n:04}"), value, Expect::Absent, None).await.expect("a put") }
    });
    futures::stream::iter(writes).buffer_unordered(32).collect::<Vec<_>>().await;
    let all = store.range("big/", None, 0, None).await.expect("a range");
    assert_eq!((all.items.len(), all.more), (700, false));
    assert!(all.items.is_sorted_by(|a, b| a.key < b.key));
    let some = store.range("big/", Some("big/0009"), 600, None).await.expect("a range");
    assert_eq!((some.items.len(), some.more, &*some.items[0].key), (600, true, "big/0010"));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_there_is_said_in_a_line() {
    let endpoints = knarr_store::etcd::Endpoints { urls: vec!["http://127.0.0.1:1".into()], ..Default::default() };
    let error = Etcd::connect(&endpoints).await.map(drop).expect_err("nobody listens there");
    assert!(error.to_string().contains("http://127.0.0.1:1 cannot be reached"), "{error}");
}
