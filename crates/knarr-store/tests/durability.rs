//! What the embedded store promises of its disk: an acknowledged write survives the death of the process at any line.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::StreamExt;
use knarr_store::{Embedded, Event, Expect, Revision, Store, StoreError, embedded::Limits};

/// Set in the child that the crash test kills: where its store is.
const CHILD: &str = "KNARR_STORE_CRASH_CHILD";

/// Writes for ever, and says on standard output what was acknowledged: key, number, revision.
async fn write_storm(directory: &Path) {
    let limits = Limits { history_versions: 2_000, ..Limits::default() };
    let store = Arc::new(Embedded::open_with(directory, limits).expect("the store opens"));
    let writers = (0..16).map(|writer| {
        let store = store.clone();
        tokio::spawn(async move {
            let key = format!("storm/{writer}");
            let found = store.get(&key).await.unwrap();
            let mut number = found.map_or(0, |found| number_in(&found.value));
            loop {
                number += 1;
                let value = format!("{number:01024}");
                let revision = store.put(&key, value.into(), Expect::Any, None).await.unwrap();
                println!("{key} {number} {}", revision.0);
            }
        })
    });
    futures::future::join_all(writers).await;
}

fn number_in(value: &Bytes) -> u64 {
    std::str::from_utf8(value).unwrap().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_acknowledged_write_survives_a_kill() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return write_storm(Path::new(&directory)).await;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut acknowledged = BTreeMap::<String, (u64, u64)>::new();
    for round in 1..=4u64 {
        // Enough lines that the log goes round its segments.
        acknowledged.extend(storm_until(directory.path(), 9_000 * round as usize));
        let store = Embedded::open(directory.path()).unwrap();
        let newest = acknowledged.values().map(|(_, revision)| *revision).max().unwrap();
        assert!(store.revision().await.unwrap() >= Revision(newest));
        for (key, (number, revision)) in &acknowledged {
            let found = store.get(key).await.unwrap().expect("an acknowledged key is there");
            assert!(number_in(&found.value) >= *number, "round {round}: {key} was at {number}");
            assert!(found.mod_revision >= Revision(*revision));
        }
        watch_agrees_with_range(&store).await;
    }
}

/// Lets the child write, kills it in the middle, and returns the last acknowledged write of every key.
fn storm_until(directory: &Path, lines: usize) -> BTreeMap<String, (u64, u64)> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "every_acknowledged_write_survives_a_kill", "--nocapture"])
        .env(CHILD, directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut acknowledged = BTreeMap::new();
    for (count, line) in output.lines().enumerate() {
        let line = line.unwrap();
        if count == lines {
            child.kill().unwrap();
        }
        let mut words = line.split(' ');
        let (Some(key), Some(Ok(number)), Some(Ok(revision))) =
            (words.next(), words.next().map(str::parse), words.next().map(str::parse))
        else {
            continue;
        };
        if key.starts_with("storm/") {
            acknowledged.insert(key.to_owned(), (number, revision));
        }
    }
    child.wait().unwrap();
    acknowledged
}

/// What history says leads to what a range shows.
async fn watch_agrees_with_range(store: &Embedded) {
    let head = store.revision().await.unwrap();
    let oldest = match store.watch("", Revision(0)).await {
        Err(StoreError::Compacted { oldest, .. }) => oldest,
        _ => Revision(0),
    };
    let past = store.range("", None, 0, Some(oldest.max(Revision(1)))).await.unwrap();
    let mut state: BTreeMap<_, _> = past.items.into_iter().map(|item| (item.key.clone(), item)).collect();
    let mut watch = store.watch("", oldest).await.unwrap();
    let mut reached = oldest;
    while reached < head {
        let batch = watch.next().await.unwrap().unwrap();
        for event in batch.events {
            match event {
                Event::Put { current, previous } => {
                    assert_eq!(state.insert(current.key.clone(), current), previous);
                }
                Event::Delete { current, previous } => assert_eq!(state.remove(&current.key), Some(previous)),
            }
        }
        reached = batch.revision;
    }
    let now = store.range("", None, 0, None).await.unwrap();
    assert_eq!(state.into_values().collect::<Vec<_>>(), now.items);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _store = Embedded::open(directory.path()).unwrap();
    let refused = Embedded::open(directory.path()).err().expect("the store is in use");
    assert!(matches!(refused, StoreError::InUse(_)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn revisions_history_and_compaction_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let put = async |store: &Embedded, value: &'static str| {
        store.put("a", Bytes::from_static(value.as_bytes()), Expect::Any, None).await.unwrap()
    };
    let store = Embedded::open(directory.path()).unwrap();
    put(&store, "1").await;
    let second = put(&store, "2").await;
    let third = put(&store, "3").await;
    store.compact(second).await.unwrap();
    drop(store);

    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.revision().await.unwrap(), third);
    let mut watch = store.watch("a", second).await.unwrap();
    let batch = watch.next().await.unwrap().unwrap();
    let [Event::Put { current, previous: Some(previous) }] = &batch.events[..] else { panic!("{batch:?}") };
    assert_eq!((current.mod_revision, previous.mod_revision), (third, second));
    let gone = store.watch("a", Revision(second.0 - 1)).await.err();
    assert!(matches!(gone, Some(StoreError::Compacted { .. })));
    drop(watch);

    let (fourth, _) = store.delete("a", Expect::Any).await.unwrap();
    store.compact(fourth).await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    assert_eq!(store.revision().await.unwrap(), fourth, "though nothing of it is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_expires_though_the_store_was_closed() {
    let directory = tempfile::tempdir().unwrap();
    let store = Embedded::open(directory.path()).unwrap();
    let lease = store.grant_lease(1).await.unwrap();
    let put = store.put("a", Bytes::from_static(b"1"), Expect::Any, Some(lease)).await.unwrap();
    drop(store);
    let store = Embedded::open(directory.path()).unwrap();
    let mut watch = store.watch("a", put).await.unwrap();
    let batch = tokio::time::timeout(Duration::from_secs(60), watch.next()).await.unwrap().unwrap().unwrap();
    assert!(matches!(&batch.events[..], [Event::Delete { .. }]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_that_the_window_left_behind_misses_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { recent_events: 8, ..Limits::default() };
    let store = Embedded::open_with(directory.path(), limits).unwrap();
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("a/", start).await.unwrap();
    for number in 0..1500 {
        let key = if number % 3 == 0 { "a/x" } else { "b/x" };
        store.put(key, format!("{number}").into(), Expect::Any, None).await.unwrap();
    }
    let mut numbers = Vec::new();
    while numbers.len() < 500 {
        let batch = watch.next().await.unwrap().unwrap();
        numbers.extend(batch.events.iter().map(|event| match event {
            Event::Put { current, .. } => number_in(&current.value),
            Event::Delete { .. } => panic!("nothing was deleted"),
        }));
    }
    assert_eq!(numbers, (0..1500).step_by(3).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn history_is_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let limits = Limits { history_versions: 100, ..Limits::default() };
    let store = Embedded::open_with(directory.path(), limits).unwrap();
    let first = store.put("a", Bytes::new(), Expect::Any, None).await.unwrap();
    for _ in 0..300 {
        store.put("a", Bytes::new(), Expect::Any, None).await.unwrap();
    }
    let gone = store.watch("a", first).await.err();
    assert!(matches!(gone, Some(StoreError::Compacted { .. })), "{gone:?}");
}
