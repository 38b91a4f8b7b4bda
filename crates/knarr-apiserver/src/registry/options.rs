//! What a request's query says: ListOptions, GetOptions, CreateOptions, UpdateOptions, PatchOptions.

use std::num::{IntErrorKind, ParseIntError};
use std::time::Duration;

use knarr_api::field::{ErrorList, FieldError};
use knarr_api::selector::{FieldSelector, LabelSelector};
use knarr_api::status::Reason;
use knarr_api::{GroupVersionKind, Path, StatusError};
use serde_json::{Value, json};

use super::continuation::Continuation;

/// A query's parameters, decoded.
pub struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: &str) -> Self {
        Query(url::form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect())
    }

    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(k, _)| k == name).map_or("", |(_, v)| v)
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// As upstream reads booleans: anything but `false` and `0` is true, also nothing at all after the name.
    pub fn flag(&self, name: &str) -> Option<bool> {
        let value = self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v)?;
        Some(!(value == "0" || value.eq_ignore_ascii_case("false")))
    }

    pub(super) fn number(&self, name: &str) -> Result<Option<i64>, StatusError> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|error: ParseIntError| {
                StatusError::bad_request(format!("strconv.ParseInt: parsing {}: {}", Value::from(text), why(&error)))
            }),
        }
    }
}

/// `resourceVersionMatch`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VersionMatch {
    NotOlderThan,
    Exact,
}

/// `metav1.ListOptions`, read and checked.
#[derive(Clone, Debug, Default)]
pub struct ListOptions {
    pub labels: LabelSelector,
    pub fields: FieldSelector,
    pub watch: bool,
    pub bookmarks: bool,
    pub send_initial_events: Option<bool>,
    /// `None`: the client said nothing.
    pub resource_version: Option<u64>,
    pub version_match: Option<VersionMatch>,
    pub timeout: Option<Duration>,
    /// 0: everything.
    pub limit: usize,
    pub continue_token: String,
}

fn invalid_options(kind: &'static str, errors: ErrorList) -> StatusError {
    StatusError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", kind), "", errors)
}

/// What Go says of a number that cannot be read.
fn why(error: &ParseIntError) -> &'static str {
    match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    }
}

/// Reads a resource version as upstream's versioner does, whose refusal is nobody's fault in particular.
pub fn resource_version(text: &str) -> Result<Option<u64>, StatusError> {
    match text {
        "" => Ok(None),
        text => parse_unsigned(text).map(Some).map_err(|why| {
            let root = Path::ROOT;
            let value = Value::from(text);
            let detail = format!("strconv.ParseUint: parsing {value}: {why}");
            let error = FieldError::invalid(&root.child("resourceVersion"), &value, detail);
            StatusError::new(Reason::Unknown, error.to_string())
        }),
    }
}

/// Digits alone: Go takes no sign here.
fn parse_unsigned(text: &str) -> Result<u64, &'static str> {
    if text.starts_with('+') {
        return Err("invalid syntax");
    }
    text.parse().map_err(|error| why(&error))
}

impl ListOptions {
    pub fn read(query: &Query, watch: bool) -> Result<Self, StatusError> {
        let (timeout, limit) = (query.number("timeoutSeconds")?, query.number("limit")?);
        let initial = Initial::read(query, watch);
        let errors = check_list(query, watch, &initial);
        if !errors.is_empty() {
            return Err(invalid_options("ListOptions", errors));
        }
        // A broken token is told before all else that may be wrong with the version.
        if !watch && !query.get("continue").is_empty() {
            Continuation::decode(query.get("continue"))?;
        }
        Ok(ListOptions {
            labels: LabelSelector::parse(query.get("labelSelector"))?,
            fields: FieldSelector::parse(query.get("fieldSelector"))?,
            watch,
            bookmarks: query.flag("allowWatchBookmarks").unwrap_or_default(),
            send_initial_events: initial.events,
            resource_version: resource_version(query.get("resourceVersion")).map_err(|error| match watch {
                true => error,
                false => StatusError::bad_request(format!("invalid resource version: {}", error.message)),
            })?,
            version_match: match initial.version_match {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
            // A negative time is over at once.
            timeout: timeout.filter(|s| *s != 0).map(|s| Duration::from_secs(s.max(0) as u64)),
            limit: limit.unwrap_or_default().max(0) as usize,
            continue_token: query.get("continue").to_string(),
        })
    }

    pub fn selects_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }
}

/// The selector of a watch that names its object in the path.
pub fn of_one(fields: FieldSelector, name: &str) -> Result<FieldSelector, StatusError> {
    match fields.exact("metadata.name") {
        _ if fields.is_everything() => Ok(FieldSelector::equals("metadata.name", name)),
        Some(selected) if selected == name => Ok(fields),
        _ => Err(StatusError::bad_request("fieldSelector metadata.name doesn't match requested name")),
    }
}

/// Whether a watch begins with what stands, and how new that must be.
struct Initial<'q> {
    events: Option<bool>,
    version_match: &'q str,
}

impl<'q> Initial<'q> {
    /// Who watches from no version in particular, and says nothing else, asks for what stands.
    fn read(query: &'q Query, watch: bool) -> Self {
        let said =
            Initial { events: query.flag("sendInitialEvents"), version_match: query.get("resourceVersionMatch") };
        let silent = said.events.is_none() && said.version_match.is_empty();
        match watch && silent && matches!(query.get("resourceVersion"), "" | "0") {
            true => Initial { events: Some(true), version_match: "NotOlderThan" },
            false => said,
        }
    }
}

/// Upstream's rules of which list options go together.
fn check_list(query: &Query, watch: bool, initial: &Initial<'_>) -> ErrorList {
    let root = Path::ROOT;
    let match_path = root.child("resourceVersionMatch");
    let (version, version_match) = (query.get("resourceVersion"), initial.version_match);
    if watch {
        return check_watch(query, version_match, initial.events.is_some());
    }
    let mut errors = ErrorList::new();
    if !version_match.is_empty() {
        errors.extend(check_version_match(query, &match_path, version, version_match));
    }
    if initial.events.is_some() {
        let path = root.child("sendInitialEvents");
        errors.push(FieldError::forbidden(&path, "sendInitialEvents is forbidden for list"));
    }
    errors
}

fn check_version_match(query: &Query, match_path: &Path<'_>, version: &str, version_match: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    if version.is_empty() {
        let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
        errors.push(FieldError::forbidden(match_path, why));
    }
    if !query.get("continue").is_empty() {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        errors.push(FieldError::forbidden(match_path, why));
    }
    match version_match {
        "Exact" if version == "0" => {
            let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(FieldError::forbidden(match_path, why));
        }
        "Exact" | "NotOlderThan" => {}
        other => errors.push(FieldError::not_supported(match_path, &json!(other), &["Exact", "NotOlderThan", ""])),
    }
    errors
}

fn check_watch(query: &Query, version_match: &str, initial: bool) -> ErrorList {
    let root = Path::ROOT;
    let path = root.child("resourceVersionMatch");
    let mut errors = ErrorList::new();
    let mut forbid = |applies: bool, why: &str| {
        if applies {
            errors.push(FieldError::forbidden(&path, why));
        }
    };
    let (given, newer) = (!version_match.is_empty(), version_match == "NotOlderThan");
    forbid(initial && !newer, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    forbid(!initial && given, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
    if given && !newer {
        errors.push(FieldError::not_supported(&path, &json!(version_match), &["NotOlderThan"]));
    }
    if given && !query.get("continue").is_empty() {
        errors.push(FieldError::forbidden(&path, "resourceVersionMatch is forbidden when continue is provided"));
    }
    errors
}

/// What to do about unknown and duplicate fields.
pub use knarr_api::decode::FieldValidation;

/// What create, update and patch may say beside the object.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    pub dry_run: bool,
    pub field_manager: String,
    pub field_validation: FieldValidation,
    /// Of an apply.
    pub force: Option<bool>,
}

impl Default for WriteOptions {
    fn default() -> Self {
        WriteOptions {
            dry_run: false,
            field_manager: String::new(),
            field_validation: FieldValidation::Warn,
            force: None,
        }
    }
}

impl WriteOptions {
    /// Reads and checks; `kind` names the options (`CreateOptions`) in errors.
    pub fn read(query: &Query, kind: &'static str) -> Result<Self, StatusError> {
        let mut errors = ErrorList::new();
        let dry_run = read_dry_run(query.all("dryRun"), &mut errors);
        let field_validation = read_field_validation(query.get("fieldValidation"), &mut errors);
        let field_manager = query.get("fieldManager").to_string();
        check_field_manager(&field_manager, &mut errors);
        if errors.is_empty() {
            Ok(WriteOptions { dry_run, field_manager, field_validation, force: query.flag("force") })
        } else {
            Err(invalid_options(kind, errors))
        }
    }

    /// The options as the object that admission sees.
    pub fn to_object(&self, kind: &'static str) -> Value {
        let mut options = json!({"kind": kind, "apiVersion": "meta.k8s.io/v1"});
        if self.dry_run {
            options["dryRun"] = json!(["All"]);
        }
        if !self.field_manager.is_empty() {
            options["fieldManager"] = self.field_manager.as_str().into();
        }
        options
    }
}

/// `dryRun` may only be `All`.
pub fn read_dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut ErrorList) -> bool {
    let root = Path::ROOT;
    let path = root.child("dryRun");
    let mut dry_run = false;
    for value in values {
        dry_run = true;
        if value != "All" {
            errors.push(FieldError::not_supported(&path, &json!([value]), &["All"]));
        }
    }
    dry_run
}

fn read_field_validation(text: &str, errors: &mut ErrorList) -> FieldValidation {
    match text {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let root = Path::ROOT;
            let path = root.child("fieldValidation");
            errors.push(FieldError::not_supported(&path, &json!(other), &["", "Ignore", "Strict", "Warn"]));
            FieldValidation::Warn
        }
    }
}

fn check_field_manager(manager: &str, errors: &mut ErrorList) {
    const MAX: usize = 128;
    let root = Path::ROOT;
    let path = root.child("fieldManager");
    if manager.len() > MAX {
        errors.push(FieldError::too_long(&path, MAX));
    }
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| c.is_control()) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid(&path, &json!(manager), why));
    }
}

/// The manager's name where the request does not say: the user agent up to its first slash.
pub fn default_field_manager(headers: &http::HeaderMap) -> String {
    let agent = headers.get(http::header::USER_AGENT).and_then(|v| v.to_str().ok()).unwrap_or_default();
    agent.split('/').next().unwrap_or_default().chars().take(128).collect()
}
