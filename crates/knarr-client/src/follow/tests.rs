use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::json;
use tokio::sync::mpsc;

use super::{Change, Interruption, Source, follow};
use crate::Selection;

/// Answers requests in turn, and notes what was asked; when it has no more to say it never answers.
fn scripted(answers: &[(u16, &str)]) -> (kube::Client, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let answers: VecDeque<(u16, String)> = answers.iter().map(|(code, body)| (*code, body.to_string())).collect();
    let (answers, noted) = (Arc::new(Mutex::new(answers)), asked.clone());
    let service = tower::service_fn(move |request: Request<Body>| {
        noted.lock().push(request.uri().to_string());
        let answer = answers.lock().pop_front();
        async move {
            let Some((code, body)) = answer else { return std::future::pending().await };
            let response = Response::builder().status(code).body(http_body_util::Full::new(bytes::Bytes::from(body)));
            Ok::<_, Infallible>(response.expect("a code of HTTP"))
        }
    });
    (crate::transport::in_memory(service, ()), asked)
}

fn told(change: Change<'_>) -> String {
    let name = |object: &str| super::metadata_of(object).unwrap().name.unwrap();
    match change {
        Change::Relisting => "relisting".into(),
        Change::Listed(object) => format!("listed {}", name(object)),
        Change::Settled => "settled".into(),
        Change::Applied(object) => format!("applied {}", name(object)),
        Change::Deleted(object) => format!("deleted {}", name(object)),
        Change::Interrupted(Interruption::Api(kube::Error::Api(status))) => format!("interrupted {}", status.code),
        Change::Interrupted(other) => format!("interrupted: {other}"),
    }
}

fn page(names: &[&str], revision: &str, next: &str) -> String {
    let items: Vec<_> = names.iter().map(|name| json!({ "metadata": { "name": name } })).collect();
    json!({ "metadata": { "resourceVersion": revision, "continue": next }, "items": items }).to_string()
}

fn line(kind: &str, name: &str, revision: &str) -> String {
    format!("{}\n", json!({ "type": kind, "object": { "metadata": { "name": name, "resourceVersion": revision } } }))
}

#[tokio::test(start_paused = true)]
async fn pages_are_followed_and_a_watch_goes_on_where_it_ended_until_that_is_gone() {
    let first = line("ADDED", "c", "6") + &line("DELETED", "a", "7") + &line("BOOKMARK", "", "9");
    let cut = line("MODIFIED", "c", "10") + "{\"type\":\"MODI";
    let expired = json!({ "type": "ERROR", "object": { "kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old" } });
    let (client, asked) = scripted(&[
        (200, &page(&["a"], "5", "more")),
        (200, &page(&["b"], "5", "")),
        (200, &first),
        (200, &cut),
        (500, "down"),
        (200, &expired.to_string()),
        (200, &page(&["c"], "20", "")),
    ]);
    let (tell, mut heard) = mpsc::unbounded_channel();
    let selection = Selection { namespace: Some("ns".into()), ..Selection::labels("app=x") };
    let source = Source::of::<ConfigMap>(&(), selection);
    let task = tokio::spawn(follow(client, source, Box::new(move |change| drop(tell.send(told(change))))));
    let expected = [
        "relisting",
        "listed a",
        "listed b",
        "settled",
        "applied c",
        "deleted a",
        "applied c",
        "interrupted: not what an API server sends: EOF while parsing a string at line 1 column 13",
        "interrupted 500",
        "interrupted 410",
        "relisting",
        "listed c",
        "settled",
    ];
    for expected in expected {
        assert_eq!(heard.recv().await.unwrap(), expected);
    }
    task.abort();
    let asked = asked.lock();
    let starts = asked.iter().map(|uri| uri.rsplit_once("resourceVersion=").map(|(_, revision)| revision.to_owned()));
    let starts: Vec<_> = starts.collect();
    let some = |revision: &str| Some(revision.to_owned());
    assert_eq!(starts[..7], [None, None, some("5"), some("9"), some("10"), some("10"), None]);
    assert!(asked[1].contains("continue=more") && asked.iter().all(|uri| uri.contains("labelSelector=app%3Dx")));
    assert!(asked[0].starts_with("/api/v1/namespaces/ns/configmaps?"));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_every_watch_at_once_is_not_asked_without_a_pause() {
    let (client, _) = scripted(&[(200, &page(&[], "5", "")), (200, ""), (200, "")]);
    let (tell, mut heard) = mpsc::unbounded_channel();
    let begun = tokio::time::Instant::now();
    let source = Source::of::<ConfigMap>(&(), Selection::default()).metadata();
    let task = tokio::spawn(follow(client, source, Box::new(move |change| drop(tell.send(told(change))))));
    while heard.recv().await.unwrap() != "interrupted: the watch ended at once" {}
    assert_eq!(heard.recv().await.unwrap(), "interrupted: the watch ended at once");
    assert!(begun.elapsed() >= std::time::Duration::from_millis(50));
    task.abort();
}
