//! The promises, one function each.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt, future};
use knarr_store::{Event, Expect, KeyValue, LeaseId, Revision, Store, StoreError, WatchStream};

/// Long enough for any machine; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn text(value: &str) -> Bytes {
    Bytes::copy_from_slice(value.as_bytes())
}

async fn put(store: &dyn Store, key: &str, value: &str) -> Revision {
    store.put(key, text(value), Expect::Any, None).await.expect("a put without demands succeeds")
}

async fn keys(store: &dyn Store, prefix: &str, at: Option<Revision>) -> Vec<String> {
    let range = store.range(prefix, None, 0, at).await.expect("a range");
    range.items.iter().map(|item| item.key.to_string()).collect()
}

fn current(event: &Event) -> &KeyValue {
    match event {
        Event::Put { current, .. } | Event::Delete { current, .. } => current,
    }
}

/// The next `count` events, and no more than were asked for in one piece.
async fn events(watch: &mut WatchStream, count: usize) -> Vec<Event> {
    let mut events = Vec::new();
    let collect = async {
        while events.len() < count {
            events.extend(watch.next().await.expect("the watch goes on").expect("a batch").events);
        }
    };
    tokio::time::timeout(PATIENCE, collect).await.expect("the events come");
    assert_eq!(events.len(), count);
    events
}

pub async fn a_new_key_gets_the_next_revision(store: &dyn Store) {
    let before = store.revision().await.unwrap();
    assert_ne!(before, Revision(0), "0 means any revision to the API");
    let first = put(store, "a", "1").await;
    let second = put(store, "a", "2").await;
    assert!(before < first && first < second);
    let found = store.get("a").await.unwrap().unwrap();
    let expected = KeyValue { key: "a".into(), value: text("2"), create_revision: first, mod_revision: second };
    assert_eq!(found, expected);
    assert_eq!(store.revision().await.unwrap(), second);
    assert_eq!(store.get("b").await.unwrap(), None);
}

pub async fn a_write_must_meet_its_expectation(store: &dyn Store) {
    let first = store.put("a", text("1"), Expect::Absent, None).await.unwrap();
    let conflict = store.put("a", text("2"), Expect::Absent, None).await.unwrap_err();
    let StoreError::Conflict { key, current: Some(current) } = conflict else { panic!("{conflict:?}") };
    assert_eq!((&*key, current.mod_revision, current.value), ("a", first, text("1")));

    let second = store.put("a", text("2"), Expect::Revision(first), None).await.unwrap();
    let stale = store.put("a", text("3"), Expect::Revision(first), None).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { current: Some(current), .. } if current.mod_revision == second));
    let missing = store.put("b", text("3"), Expect::Revision(first), None).await.unwrap_err();
    assert!(matches!(missing, StoreError::Conflict { current: None, .. }));
    assert_eq!(store.revision().await.unwrap(), second, "a refused write takes no revision");
}

pub async fn deleting_gives_back_what_was_there(store: &dyn Store) {
    let missing = store.delete("a", Expect::Any).await.unwrap_err();
    assert!(matches!(missing, StoreError::Conflict { current: None, .. }));
    let first = put(store, "a", "1").await;
    let stale = store.delete("a", Expect::Revision(Revision(first.0 + 1))).await.unwrap_err();
    assert!(matches!(stale, StoreError::Conflict { current: Some(_), .. }));
    let (revision, previous) = store.delete("a", Expect::Revision(first)).await.unwrap();
    assert!(revision > first);
    assert_eq!((previous.mod_revision, previous.value), (first, text("1")));
    assert_eq!(store.get("a").await.unwrap(), None);
    let again = store.put("a", text("2"), Expect::Absent, None).await.unwrap();
    assert_eq!(store.get("a").await.unwrap().unwrap().create_revision, again, "a key made again is a new one");
}

pub async fn one_of_many_racing_writers_wins(store: &dyn Store) {
    let first = put(store, "a", "0").await;
    let writes = (0..32).map(|n| store.put("a", Bytes::from(format!("{n}")), Expect::Revision(first), None));
    let results = future::join_all(writes).await;
    let won: Vec<_> = results.iter().filter_map(|result| result.as_ref().ok()).collect();
    assert_eq!(won.len(), 1);
    assert_eq!(store.get("a").await.unwrap().unwrap().mod_revision, *won[0]);
}

pub async fn ranges_are_ordered_and_paged(store: &dyn Store) {
    for key in ["p/c", "p/a", "q/a", "p/b", "o/z"] {
        put(store, key, key).await;
    }
    assert_eq!(keys(store, "p/", None).await, ["p/a", "p/b", "p/c"]);
    assert_eq!(keys(store, "", None).await.len(), 5);
    let page = store.range("p/", None, 2, None).await.unwrap();
    assert_eq!((page.items.len(), page.more), (2, true));
    assert_eq!(page.items[1].value, text("p/b"));
    let last = store.range("p/", Some("p/b"), 2, Some(page.revision)).await.unwrap();
    assert_eq!((&*last.items[0].key, last.items.len(), last.more), ("p/c", 1, false));
    let exact = store.range("p/", None, 3, None).await.unwrap();
    assert!(!exact.more);
}

pub async fn a_prefix_is_not_a_pattern(store: &dyn Store) {
    for key in ["a/b", "a/b/c", "a/bc", "a0"] {
        put(store, key, key).await;
    }
    assert_eq!(keys(store, "a/b/", None).await, ["a/b/c"]);
    assert_eq!(keys(store, "a/", None).await, ["a/b", "a/b/c", "a/bc"]);
    assert_eq!(store.get("a/").await.unwrap(), None);
}

pub async fn a_range_reads_the_past(store: &dyn Store) {
    let first = put(store, "k/a", "1").await;
    let second = put(store, "k/b", "1").await;
    put(store, "k/a", "2").await;
    store.delete("k/b", Expect::Any).await.unwrap();
    assert_eq!(keys(store, "k/", Some(first)).await, ["k/a"]);
    let past = store.range("k/", None, 0, Some(second)).await.unwrap();
    let values: Vec<_> = past.items.iter().map(|item| item.value.clone()).collect();
    assert_eq!((values, past.revision), (vec![text("1"), text("1")], second));
    assert_eq!(keys(store, "k/", None).await, ["k/a"]);
}

pub async fn a_watch_delivers_every_change_in_order_exactly_once(store: &dyn Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("w/", start).await.unwrap();
    let writers = (0..16).map(|writer| async move {
        for n in 0..40 {
            put(store, &format!("w/{writer}"), &n.to_string()).await;
        }
    });
    let (_, seen) = tokio::join!(future::join_all(writers), events(&mut watch, 16 * 40));
    let revisions: Vec<_> = seen.iter().map(|event| current(event).mod_revision).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b));
    let mut next = BTreeMap::<Arc<str>, usize>::new();
    for event in &seen {
        let Event::Put { current, previous } = event else { panic!("{event:?}") };
        let n = next.entry(current.key.clone()).or_default();
        assert_eq!(current.value, Bytes::from(n.to_string()));
        assert_eq!(
            previous.as_ref().map(|previous| previous.value.clone()),
            n.checked_sub(1).map(|n| n.to_string().into())
        );
        *n += 1;
    }
}

pub async fn a_watch_begins_in_the_past_and_goes_on_live(store: &dyn Store) {
    let first = put(store, "a", "1").await;
    let second = put(store, "a", "2").await;
    let (third, _) = store.delete("a", Expect::Any).await.unwrap();
    let mut watch = store.watch("a", first).await.unwrap();
    let past = events(&mut watch, 2).await;
    assert_eq!(past.iter().map(|event| current(event).mod_revision).collect::<Vec<_>>(), [second, third]);
    let Event::Delete { current, previous } = &past[1] else { panic!("{past:?}") };
    assert_eq!((current.create_revision, &current.value), (Revision(0), &Bytes::new()));
    assert_eq!((previous.mod_revision, &previous.value), (second, &text("2")));
    let fourth = put(store, "a", "3").await;
    let live = events(&mut watch, 1).await;
    assert!(matches!(&live[0], Event::Put { current, previous: None } if current.mod_revision == fourth));
}

pub async fn a_watch_sees_its_prefix_only_and_gets_marks(store: &dyn Store) {
    let start = store.revision().await.unwrap();
    let mut watch = store.watch("mine/", start).await.unwrap();
    let other = put(store, "other/a", "1").await;
    let mark = async {
        loop {
            store.request_progress().await.unwrap();
            let batch = watch.next().await.unwrap().unwrap();
            assert!(batch.events.is_empty());
            if batch.revision >= other {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, mark).await.expect("a mark comes");
    put(store, "mine/a", "1").await;
    assert_eq!(&*current(&events(&mut watch, 1).await[0]).key, "mine/a");
}

pub async fn compaction_forgets_the_past_and_keeps_the_present(store: &dyn Store) {
    let first = put(store, "k/a", "1").await;
    put(store, "k/b", "1").await;
    store.delete("k/b", Expect::Any).await.unwrap();
    let kept = put(store, "k/a", "2").await;
    let newest = put(store, "k/c", "1").await;
    store.compact(kept).await.unwrap();
    let gone = store.range("k/", None, 0, Some(first)).await.unwrap_err();
    assert!(matches!(gone, StoreError::Compacted { .. }), "{gone:?}");
    assert_eq!(keys(store, "k/", Some(kept)).await, ["k/a"]);
    assert_eq!(keys(store, "k/", None).await, ["k/a", "k/c"]);
    let late = match store.watch("k/", first).await {
        Ok(mut watch) => watch.next().await.expect("an answer").map(drop),
        Err(error) => Err(error),
    };
    assert!(matches!(late, Err(StoreError::Compacted { .. })), "{late:?}");
    let mut watch = store.watch("k/", kept).await.unwrap();
    assert_eq!(current(&events(&mut watch, 1).await[0]).mod_revision, newest);
}

pub async fn a_lease_takes_its_keys_with_it(store: &dyn Store) {
    let lease = store.grant_lease(1).await.unwrap();
    let start = store.put("l/a", text("1"), Expect::Any, Some(lease)).await.unwrap();
    put(store, "l/b", "1").await;
    let mut watch = store.watch("l/a", start).await.unwrap();
    let seen = events(&mut watch, 1).await;
    assert!(matches!(&seen[0], Event::Delete { previous, .. } if previous.mod_revision == start));
    assert_eq!(keys(store, "l/", None).await, ["l/b"]);
}

pub async fn a_key_leaves_its_lease_when_written_without(store: &dyn Store) {
    let lease = store.grant_lease(1).await.unwrap();
    store.put("l/a", text("1"), Expect::Any, Some(lease)).await.unwrap();
    let start = store.put("l/b", text("1"), Expect::Any, Some(lease)).await.unwrap();
    put(store, "l/a", "2").await;
    let mut watch = store.watch("l/b", start).await.unwrap();
    events(&mut watch, 1).await;
    assert_eq!(keys(store, "l/", None).await, ["l/a"]);
}

pub async fn an_unknown_lease_is_refused(store: &dyn Store) {
    let unknown = LeaseId(77_777);
    let refused = store.put("a", text("1"), Expect::Any, Some(unknown)).await.unwrap_err();
    assert!(matches!(refused, StoreError::LeaseNotFound(lease) if lease == unknown), "{refused:?}");
}

pub async fn the_future_cannot_be_read(store: &dyn Store) {
    let now = put(store, "a", "1").await;
    let refused = store.range("a", None, 0, Some(Revision(now.0 + 100))).await.unwrap_err();
    assert!(matches!(refused, StoreError::Future { .. }), "{refused:?}");
}

pub async fn large_values_and_odd_bytes_come_back(store: &dyn Store) {
    let large: Bytes = (0..1_000_000u32).map(|n| n as u8).collect();
    store.put("large", large.clone(), Expect::Any, None).await.unwrap();
    store.put("empty", Bytes::new(), Expect::Any, None).await.unwrap();
    assert_eq!(store.get("large").await.unwrap().unwrap().value, large);
    assert_eq!(store.get("empty").await.unwrap().unwrap().value, Bytes::new());
}
