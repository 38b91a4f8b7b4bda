//! Lists and watches of the past: pages, exact versions, what is too old, and what each kind is selected by.

mod support;

use serde_json::{Value, json};
use support::{Answer, Server};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

async fn make(server: &Server, name: &str) -> u64 {
    let made = server.post(CONFIG_MAPS, &json!({"metadata": {"name": name, "labels": {"odd": "no"}}})).await;
    version(&made.ok())
}

fn version(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a version")
}

fn names(list: &Value) -> Vec<&str> {
    list["items"].as_array().expect("items").iter().filter_map(|item| item["metadata"]["name"].as_str()).collect()
}

fn token(list: &Value) -> &str {
    list["metadata"]["continue"].as_str().expect("a continue token")
}

/// Rewrites an object until the server remembers nothing of before.
async fn forget_the_past(server: &Server) {
    server.post(CONFIG_MAPS, &json!({"metadata": {"name": "zz-large"}})).await.ok();
    for i in 0..80 {
        let patch = json!({"data": {"k": format!("{i}{}", "x".repeat(500_000))}});
        server.merge(&format!("{CONFIG_MAPS}/zz-large"), &patch).await.ok();
    }
}

#[tokio::test]
async fn pages_show_one_moment_whatever_happens_between() {
    let server = Server::start().await;
    for n in 0..30 {
        make(&server, &format!("m{n:02}")).await;
    }
    let whole = server.get(CONFIG_MAPS).await.ok();
    let first = server.get(&format!("{CONFIG_MAPS}?limit=7")).await.ok();
    let (mut seen, mut next) =
        (names(&first).iter().map(|n| n.to_string()).collect::<Vec<_>>(), token(&first).to_string());
    // Far more changes than lie between two kept states: made, changed, deleted, before and behind the page's end.
    for round in 0..60 {
        for n in 0..30 {
            let path = format!("{CONFIG_MAPS}/m{n:02}");
            match round % 3 {
                0 => drop(server.delete(&path).await.ok()),
                1 => drop(make(&server, &format!("m{n:02}")).await),
                _ => drop(server.merge(&path, &json!({"data": {"round": round.to_string()}})).await.ok()),
            }
        }
    }
    loop {
        let page = server.get(&format!("{CONFIG_MAPS}?limit=7&continue={next}")).await.ok();
        assert_eq!(version(&page), version(&first), "every page is of the same version");
        assert_eq!(page["items"][0]["data"], Value::Null, "no later change shows");
        seen.extend(names(&page).iter().map(|n| n.to_string()));
        match page["metadata"]["continue"].as_str() {
            Some(more) => next = more.to_string(),
            None => break,
        }
    }
    assert_eq!(seen, names(&whole));
}

#[tokio::test]
async fn a_token_that_is_too_old_comes_with_one_that_goes_on() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        make(&server, name).await;
    }
    let first = server.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    forget_the_past(&server).await;
    server.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    let expired = server.get(&format!("{CONFIG_MAPS}?limit=1&continue={}", token(&first))).await;
    let status = expired.json();
    assert_eq!((expired.code, status["reason"].as_str()), (410, Some("Expired")));
    let message = status["message"].as_str().expect("a message");
    assert!(
        message.starts_with("The provided continue parameter is too old to display a consistent list result."),
        "{message}"
    );
    let on = server.get(&format!("{CONFIG_MAPS}?limit=5&continue={}", token(&status))).await.ok();
    assert_eq!(names(&on), ["c", "zz-large"], "what stands now, after the last that was shown");
    assert!(version(&on) > version(&first));
}

/// A query (`A` and `B` stand for the versions after the first and the second create, `F` for one that is far ahead), the code, and the
/// names or the reason.
const VERSIONS: &[(&str, u16, &str)] = &[
    ("", 200, "a b c"),
    ("resourceVersion=0", 200, "a b c"),
    ("resourceVersion=A", 200, "a b c"),
    ("resourceVersion=A&resourceVersionMatch=NotOlderThan", 200, "a b c"),
    ("resourceVersion=A&resourceVersionMatch=Exact", 200, "a"),
    ("resourceVersion=B&resourceVersionMatch=Exact", 200, "a b"),
    ("resourceVersion=B&resourceVersionMatch=Exact&limit=1", 200, "a"),
    ("resourceVersion=B&limit=5", 200, "a b"),
    ("resourceVersion=0&limit=5", 200, "a b c"),
    ("resourceVersion=B&resourceVersionMatch=NotOlderThan&limit=5", 200, "a b c"),
    ("resourceVersion=0&resourceVersionMatch=Exact", 422, "Invalid"),
    ("resourceVersionMatch=Exact", 422, "Invalid"),
    ("resourceVersion=A&resourceVersionMatch=Nonsense", 422, "Invalid"),
    ("sendInitialEvents=true", 422, "Invalid"),
    ("resourceVersion=F", 504, "Timeout"),
    ("resourceVersion=F&resourceVersionMatch=Exact", 504, "Timeout"),
];

#[tokio::test]
async fn versions_mean_what_upstream_says() {
    let server = Server::start().await;
    let (a, b) = (make(&server, "a").await, make(&server, "b").await);
    make(&server, "c").await;
    for (query, code, expected) in VERSIONS {
        let query = query
            .replace("=A", &format!("={a}"))
            .replace("=B", &format!("={b}"))
            .replace("=F", &format!("={}", a + 9999));
        let answer: Answer = server.get(&format!("{CONFIG_MAPS}?{query}")).await;
        let body = answer.json();
        let got = if answer.code == 200 {
            names(&body).join(" ")
        } else {
            body["reason"].as_str().unwrap_or_default().into()
        };
        assert_eq!((answer.code, got.as_str()), (*code, *expected), "{query} {body}");
    }
    forget_the_past(&server).await;
    let old = server.get(&format!("{CONFIG_MAPS}?resourceVersion={a}&resourceVersionMatch=Exact")).await;
    assert_eq!((old.code, old.json()["reason"].as_str()), (410, Some("Expired")));
}

/// Watches of which the first events and then the end of the beginning are seen.
#[tokio::test]
async fn watch_lists_begin_with_what_stands() {
    let server = Server::start().await;
    for n in 0..3 {
        make(&server, &format!("m{n}")).await;
    }
    let list = "watch=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    for (query, begins) in [
        (list.to_string(), 3),
        (format!("{list}&resourceVersion=0"), 3),
        (format!("{list}&labelSelector=odd%3Dyes"), 0),
        (format!("{list}&fieldSelector=metadata.name%3Dm1"), 1),
    ] {
        let mut watch = server.watch(&format!("{CONFIG_MAPS}?{query}")).await;
        for _ in 0..begins {
            assert!(watch.line().await.starts_with("ADDED m"), "{query}");
        }
        let mark = watch.next().await.expect("a bookmark");
        assert_eq!(mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true", "{query} {mark}");
        assert!(version(&mark["object"]) >= 3);
    }
    // Without initial events a watch from "now" begins with what comes.
    let silent = "watch=1&sendInitialEvents=false&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?{silent}")).await;
    make(&server, "m9").await;
    assert_eq!(watch.line().await, "ADDED m9");
}

#[tokio::test]
async fn a_large_beginning_comes_whole_and_in_order() {
    let server = Server::start().await;
    for n in 0..40 {
        let object = json!({"metadata": {"name": format!("m{n:02}")}, "data": {"k": "x".repeat(50_000)}});
        server.post(CONFIG_MAPS, &object).await.ok();
    }
    let mut watch = server.watch(&format!("{CONFIG_MAPS}?watch=1")).await;
    // Changes that come while the beginning is read are told after it.
    server.merge(&format!("{CONFIG_MAPS}/m39"), &json!({"data": {"l": "1"}})).await.ok();
    for n in 0..40 {
        assert_eq!(watch.line().await, format!("ADDED m{n:02}"));
    }
    assert_eq!(watch.line().await, "MODIFIED m39");
}

#[tokio::test]
async fn lists_by_node_show_that_nodes_pods() {
    let server = Server::start().await;
    for (name, node) in [("p1", "a"), ("p2", "b"), ("p3", "a"), ("p4", "")] {
        let mut pod = json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        server.post(PODS, &pod).await.ok();
    }
    let list = async |query: &str| {
        let list = server.get(&format!("{PODS}?fieldSelector={query}")).await.ok();
        names(&list).join(" ")
    };
    assert_eq!(list("spec.nodeName%3Da").await, "p1 p3");
    assert_eq!(list("spec.nodeName%3Db").await, "p2");
    assert_eq!(list("spec.nodeName%3D").await, "p4");
    assert_eq!(list("spec.nodeName!%3Da").await, "p2 p4");
    assert_eq!(list("spec.nodeName%3Da,metadata.name%3Dp3").await, "p3");
    let page = server.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Da&limit=1")).await.ok();
    assert_eq!((names(&page), page["metadata"].get("remainingItemCount")), (vec!["p1"], None));
    server.delete(&format!("{PODS}/p3?gracePeriodSeconds=0")).await.ok();
    let next =
        server.get(&format!("{PODS}?fieldSelector=spec.nodeName%3Da&limit=1&continue={}", token(&page))).await.ok();
    assert_eq!(names(&next), ["p3"], "as of the first page");
    assert_eq!(list("spec.nodeName%3Da").await, "p1");
}
