//! `/statusz` and `/flagz`: what this server is and how it was started, for people; and as objects for those who ask for that.

use std::collections::{BTreeMap, BTreeSet};

use http::header::{ACCEPT, WARNING};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use jiff::Timestamp;
use knarr_api::StatusError;
use knarr_api::release::{self, VERSION};
use knarr_api::status::Reason;
use serde_json::{Value, json};

use crate::http::negotiate::{self, Clause, Encoding};
use crate::http::{Body, respond};

const COMPONENT: &str = "apiserver";
const GROUP: &str = "config.k8s.io";
const ACCEPTED: &str = "application/json, application/yaml, text/plain";
/// Paths below these are no pages for finding out what is wrong.
const ORDINARY: [&str; 5] = ["/apis", "/api", "/openid", "/openapi", "/.well-known"];

/// `/statusz` of a server that started then and has these paths.
pub fn status(headers: &HeaderMap, started: Timestamp, paths: &[String]) -> Response<Body> {
    let up = u64::try_from(Timestamp::now().duration_since(started).as_secs()).unwrap_or(0);
    let pages = pages(paths);
    let emulated = format!("{}.{}", release::MAJOR, release::MINOR);
    answer(headers, "statusz", "Statusz", |form| match form {
        Form::Text => json!(format!(
            "\nStarted: {}\nUp: {} hr {:02} min {:02} sec\nGo version: \nBinary version: {VERSION}\nEmulation version: {emulated}\nPaths: {}\n",
            started.strftime("%a %b %e %H:%M:%S UTC %Y"),
            up / 3600,
            up / 60 % 60,
            up % 60,
            pages.iter().copied().collect::<Vec<_>>().join(" "),
        )),
        Form::Object => json!({
            "startTime": Timestamp::from_second(started.as_second()).unwrap_or(started).to_string(),
            "uptimeSeconds": up, "goVersion": "", "binaryVersion": VERSION,
            "emulationVersion": emulated, "paths": pages,
        }),
    })
}

/// `/flagz` of a server that was started with these.
pub fn flags(headers: &HeaderMap, flags: &BTreeMap<String, String>) -> Response<Body> {
    answer(headers, "flagz", "Flagz", |form| match form {
        Form::Text => flags.iter().map(|(name, value)| format!("{name}: {value}\n")).collect::<String>().into(),
        Form::Object => json!({ "flags": flags }),
    })
}

/// The first words of the paths.
fn pages(paths: &[String]) -> BTreeSet<&str> {
    let first = paths.iter().filter_map(|path| Some(&path[..1 + path.get(1..)?.split('/').next()?.len()]));
    first.filter(|page| page.len() > 1 && !ORDINARY.contains(page)).collect()
}

enum Form {
    Text,
    Object,
}

fn answer(headers: &HeaderMap, page: &str, kind: &str, say: impl Fn(Form) -> Value) -> Response<Body> {
    let wanted = match Wanted::read(headers, kind) {
        Ok(wanted) => wanted,
        Err(error) => return respond::from_error(&error),
    };
    let Wanted::Object { encoding, version } = wanted else {
        let said = say(Form::Text);
        return respond::text(
            StatusCode::OK,
            format!(
                "\n{COMPONENT} {page}\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n{}",
                said.as_str().unwrap_or_default()
            ),
        );
    };
    let mut object =
        json!({ "kind": kind, "apiVersion": format!("{GROUP}/{version}"), "metadata": { "name": COMPONENT } });
    if let (Value::Object(object), Value::Object(said)) = (&mut object, say(Form::Object)) {
        object.extend(said);
    }
    let mut response =
        respond::encode(StatusCode::OK, encoding, &object).unwrap_or_else(|error| respond::from_error(&error));
    if version == "v1alpha1" {
        let text = format!("299 - \"This version of the {page} endpoint is deprecated. Please use a newer version.\"");
        response.headers_mut().extend(HeaderValue::try_from(text).ok().map(|text| (WARNING, text)));
    }
    response
}

/// What a client would have: text unless it names an object that there is.
enum Wanted {
    Text,
    Object { encoding: Encoding, version: &'static str },
}

impl Wanted {
    fn read(headers: &HeaderMap, kind: &str) -> Result<Wanted, StatusError> {
        let says_nothing = |accept: &HeaderValue| accept.as_bytes().trim_ascii().is_empty();
        if headers.get(ACCEPT).is_none_or(says_nothing) {
            return Ok(Wanted::Text);
        }
        let clauses = negotiate::clauses(headers);
        let found = clauses.iter().find_map(|clause| Wanted::of(clause, kind));
        found.ok_or_else(|| {
            let why = format!("only the following media types are accepted: {ACCEPTED}");
            StatusError::new(Reason::NotAcceptable, why)
        })
    }

    fn of(clause: &Clause<'_>, kind: &str) -> Option<Wanted> {
        let object = [clause.parameter("as"), clause.parameter("g"), clause.parameter("v")];
        if object == [None; 3] {
            return matches!(clause.media_type, "text/plain" | "text/*" | "*/*").then_some(Wanted::Text);
        }
        let encoding = match clause.media_type {
            "application/json" | "application/*" | "*/*" => Encoding::Json,
            "application/yaml" => Encoding::Yaml,
            _ => return None,
        };
        let version = ["v1beta1", "v1alpha1"].into_iter().find(|version| object[2] == Some(*version))?;
        (object[0] == Some(kind) && object[1] == Some(GROUP)).then_some(Wanted::Object { encoding, version })
    }
}
