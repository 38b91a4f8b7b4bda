//! `tests/cases/exchanges/*.yaml`: what is sent, step by step, and what upstream answers.

mod support;

use http::Request;
use http_body_util::{BodyExt, Full};
use serde_json::Value;
use support::Server;

/// What a step got.
struct Got {
    code: u16,
    content_type: String,
    warnings: Vec<String>,
    body: Value,
}

/// One step: `send` (`VERB path`), `type`, `accept`, `body`; then what is expected: `code` (any success where it is not said), `has` (a part
/// of the body: fields that are `null` must not be there, lists are as long), `text` (all of a body that is no JSON), `says` (a part of the
/// message), `warns`, `content`, `find` (a part that stands anywhere in the body). A step with `retry` is taken again until it is as it should
/// be: what it waits for happens by itself. `RV` in a path is the version of the answer before.
async fn take(server: &Server, step: &Value, version: &str) -> Got {
    let word = |field: &str| step[field].as_str().unwrap_or_default();
    let (method, path) = word("send").split_once(' ').unwrap_or_else(|| panic!("no request: {step}"));
    let body = match &step["body"] {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let content_type = match (method, word("type")) {
        (_, "merge") => "application/merge-patch+json",
        (_, "apply") => "application/apply-patch+yaml",
        (_, "strategic") => "application/strategic-merge-patch+json",
        (_, "json") => "application/json-patch+json",
        (_, "") => "application/json",
        (_, other) => other,
    };
    let request =
        Request::builder().method(method).uri(path.replace("RV", version)).header("content-type", content_type);
    let request = match word("accept") {
        "" => request,
        accept => request.header("accept", accept),
    };
    let response = server.send(request.body(Full::from(body)).expect("a request")).await;
    let text = |value: &http::HeaderValue| value.to_str().unwrap_or_default().to_string();
    let (code, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.expect("a body").to_bytes();
    let raw = || Value::String(String::from_utf8_lossy(&bytes).into());
    Got {
        code,
        content_type: headers.get("content-type").map(text).unwrap_or_default(),
        warnings: headers.get_all("warning").iter().map(text).collect(),
        body: serde_json::from_slice(&bytes).unwrap_or_else(|_| events(&bytes).unwrap_or_else(raw)),
    }
}

/// The events of a watch that has ended, as a list.
fn events(bytes: &[u8]) -> Option<Value> {
    if bytes.is_empty() {
        return None;
    }
    let lines = std::str::from_utf8(bytes).ok()?.lines();
    lines.map(|line| serde_json::from_str(line).ok()).collect::<Option<Vec<Value>>>().map(Value::Array)
}

/// Where the body differs from the part that it should have.
fn difference(wanted: &Value, got: &Value, path: &str) -> Option<String> {
    let differs = || Some(format!("{path}: wanted {wanted}, got {got}"));
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            wanted.iter().find_map(|(k, v)| difference(v, got.get(k).unwrap_or(&Value::Null), &format!("{path}.{k}")))
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            let mut pairs = wanted.iter().zip(got).enumerate();
            pairs.find_map(|(i, (wanted, got))| difference(wanted, got, &format!("{path}[{i}]")))
        }
        (Value::String(any), got) if any == "*" && !got.is_null() => None,
        (wanted, got) if wanted == got => None,
        _ => differs(),
    }
}

fn holds(part: &Value, got: &Value) -> bool {
    difference(part, got, "").is_none()
        || match got {
            Value::Object(fields) => fields.values().any(|value| holds(part, value)),
            Value::Array(items) => items.iter().any(|value| holds(part, value)),
            _ => false,
        }
}

fn judge(step: &Value, got: &Got) -> Result<(), String> {
    if let Some(part) = step.get("find")
        && !holds(part, &got.body)
    {
        return Err(format!("{part} is not there"));
    }
    let wanted_code = step["code"].as_u64();
    if wanted_code.map_or(got.code >= 300, |code| code != u64::from(got.code)) {
        return Err(format!("code {}", got.code));
    }
    if let Some(wanted) = step.get("has").or(step.get("text"))
        && let Some(difference) = difference(wanted, &got.body, "")
    {
        return Err(difference);
    }
    let message = got.body["message"].as_str().unwrap_or_default();
    if !message.contains(step["says"].as_str().unwrap_or_default()) {
        return Err(format!("it says {message}"));
    }
    if !got.content_type.contains(step["content"].as_str().unwrap_or_default()) {
        return Err(format!("it is {}", got.content_type));
    }
    match step.get("warns").and_then(Value::as_array) {
        Some(wanted) => {
            let same = wanted.len() == got.warnings.len();
            let all = wanted.iter().zip(&got.warnings).all(|(w, g)| g.contains(w.as_str().unwrap_or_default()));
            (same && all).then_some(()).ok_or_else(|| format!("it warns {:?}", got.warnings))
        }
        None => Ok(()),
    }
}

async fn exchange(file: &str) {
    let server = Server::start().await;
    let text = std::fs::read_to_string(format!("tests/cases/exchanges/{file}.yaml")).expect("a table of cases");
    let steps: Vec<Value> = serde_saphyr::from_str(&text).expect("a list of steps");
    let mut version = String::new();
    for step in steps {
        let mut got = take(&server, &step, &version).await;
        let begun = std::time::Instant::now();
        while step["retry"] == true && judge(&step, &got).is_err() && begun.elapsed().as_secs() < 10 {
            tokio::task::yield_now().await;
            got = take(&server, &step, &version).await;
        }
        if let Err(why) = judge(&step, &got) {
            panic!("{step}\n  {why}\n  {} {}", got.code, got.body);
        }
        if let Some(next) = got.body["metadata"]["resourceVersion"].as_str() {
            version = next.to_string();
        }
    }
}

#[tokio::test]
async fn creates() {
    exchange("creates").await;
}

#[tokio::test]
async fn updates() {
    exchange("updates").await;
}

#[tokio::test]
async fn deletes() {
    exchange("deletes").await;
}

#[tokio::test]
async fn lists_and_watches() {
    exchange("lists").await;
}

#[tokio::test]
async fn media_types_and_methods() {
    exchange("negotiation").await;
}

#[tokio::test]
async fn custom_resources() {
    exchange("custom").await;
}

#[tokio::test]
async fn what_is_said_to_be_empty() {
    exchange("empties").await;
}

#[tokio::test]
async fn writes() {
    exchange("writes").await;
}
