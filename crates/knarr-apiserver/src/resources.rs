//! Requests for resources: from HTTP to the registry and back.

use std::sync::Arc;

use http::request::Parts;
use http::{HeaderMap, Method, Response, StatusCode};
use http_body::Body as _;
use knarr_api::status::Reason;
use knarr_api::{FieldError, GroupVersionKind, Object, Path, StatusError};

use crate::audit;
use crate::authentication::User;
use crate::chain::request_info::RequestInfo;
use crate::component_statuses::ComponentStatuses;
use crate::deprecation::{self, Deprecated};
use crate::http::body::Body;
use crate::http::negotiate::Encoding;
use crate::http::respond::{self, Answer};
use crate::http::{large, negotiate};
use crate::proxy::{Connect, Connector};
use crate::registry::apply::Apply;
use crate::registry::commit::{self, Target};
use crate::registry::delete::{self, DeleteOptions};
use crate::registry::options::{self, ListOptions, Query, WriteOptions};
use crate::registry::patch::{Patch, PatchType};
use crate::registry::read::ListError;
use crate::registry::render::{Presenter, Written};
use crate::registry::update::{Change, Replace};
use crate::registry::{Registry, Served, Writer, scale_requests};
use crate::subresources::{self, Handlers};

/// Serves every resource of the registry's table.
pub struct Resources {
    pub registry: Arc<Registry>,
    pub handlers: Handlers,
    /// Requests that end at nodes, pods and services; `None` on a server that has no way to them.
    pub connector: Option<Connector>,
    pub components: ComponentStatuses,
}

/// One request, taken apart.
pub struct Request {
    pub info: Arc<RequestInfo>,
    pub user: Arc<User>,
    pub served: Arc<Served>,
    pub parts: Parts,
    pub query: Query,
    pub body: Body,
}

impl Request {
    pub fn headers(&self) -> &HeaderMap {
        &self.parts.headers
    }

    pub fn target(&self) -> Target {
        let mut target = Target::new(&self.served, &self.info.namespace, &self.info.name);
        target.subresource = self.info.subresource.clone();
        target
    }

    /// The options of a write; the field manager defaults to the client's name.
    pub fn writer(&self, options_kind: &'static str) -> Result<Writer, StatusError> {
        let mut writer = Writer::new(self.user.clone());
        writer.options = WriteOptions::read(&self.query, options_kind)?;
        if writer.options.field_manager.is_empty() {
            writer.options.field_manager = options::default_field_manager(self.headers());
        }
        Ok(writer)
    }

    /// What of a collection is asked for, by the fields of the kind that is stored. Fails where this kind cannot be selected by a field.
    fn list_options(&self, watch: bool) -> Result<ListOptions, StatusError> {
        let (mut options, strategy) = (ListOptions::read(&self.query, watch)?, &self.served.strategy);
        let known = |field: &str| match field {
            "metadata.name" => true,
            "metadata.namespace" => !knows_no_namespace(&self.served),
            _ => strategy.selects_by(field),
        };
        if let Some(field) = options.fields.find_unknown(known) {
            return Err(StatusError::bad_request(self.unknown_field(field)));
        }
        options.fields = options.fields.renamed(|field| strategy.stored_field(field));
        Ok(options)
    }

    /// What upstream says of a field that this kind cannot be selected by.
    fn unknown_field(&self, field: &str) -> String {
        let kind = &self.served.kind;
        match (&*kind.group, &*kind.kind) {
            ("batch", "Job") => format!("field label {field:?} not supported for Job"),
            ("resource.k8s.io", "ResourceSlice") => {
                format!("field label not supported for {}, Kind=ResourceSlice: {field}", self.served.api_version)
            }
            _ if self.served.strategy.has_selectable_fields() => format!("field label not supported: {field}"),
            _ => format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                serde_json::Value::from(field)
            ),
        }
    }

    /// Collections can be had as streams, too.
    fn with_streams(&self, mut error: StatusError) -> StatusError {
        if matches!(self.info.verb.as_str(), "list" | "watch") && error.message.starts_with(negotiate::NONE_OF) {
            error.message += ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";
        }
        error
    }

    pub fn presenter(&self) -> Result<Presenter, StatusError> {
        let wanted = match &self.served.custom {
            Some(_) => negotiate::accept_without_protobuf(self.headers())?,
            None => negotiate::accept(self.headers(), true).map_err(|error| self.with_streams(error))?,
        };
        if self.info.verb == "watch" && wanted.encoding == Encoding::Yaml {
            return Err(StatusError::new(Reason::NotAcceptable, NO_YAML_STREAMS));
        }
        Ok(Presenter::new(&self.served, wanted))
    }
}

/// Upstream's 406 of a watch in YAML; of custom resources as well, which are not in protobuf either.
const NO_YAML_STREAMS: &str = "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch";

impl Resources {
    /// The answer, whatever happens.
    pub async fn serve(&self, info: Arc<RequestInfo>, parts: Parts, body: Body) -> Response<Body> {
        let Some(served) = self.registry.served(&info.group, &info.version, &info.resource) else {
            return respond::no_route(&info.path);
        };
        if let Some(refusal) = refuse_route(&info, &served, &parts.method) {
            return refusal;
        }
        let user = parts.extensions.get::<Arc<User>>().cloned().unwrap_or_default();
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let custom = served.custom.clone();
        let request = Request { info, user, served, parts, query, body };
        let info = request.info.clone();
        let writes = matches!(info.verb.as_str(), "create" | "update" | "patch");
        let answer = match writes && large::is_large(&request.body.size_hint()) {
            true => large::in_place(self.dispatch(request)).await,
            false => self.dispatch(request).await,
        };
        let mut response = answer.unwrap_or_else(|error| respond::from_error(&error));
        if let Some(deprecated) = deprecation::of(&info.group, &info.version, &info.resource) {
            self.warn(&info, deprecated, &mut response);
        }
        if let Some(deprecation) = custom.as_ref().and_then(|custom| custom.deprecation.as_ref()) {
            respond::warn_first(&mut response, deprecation);
        }
        response
    }

    fn warn(&self, info: &RequestInfo, deprecated: &Deprecated, response: &mut Response<Body>) {
        respond::warn_first(response, deprecated.warning);
        self.registry.count_deprecated(info, deprecated.removed);
        audit::annotate("k8s.io/deprecated", "true");
    }

    /// All but the most frequent and smallest future have a box of their own: every request carries the room of the largest.
    async fn dispatch(&self, request: Request) -> Answer {
        let info = request.info.clone();
        if Connector::serves(&info.group, &info.resource, &info.subresource) {
            return Box::pin(self.connect(request)).await;
        }
        let special = self.handlers.find(&info.group, &info.resource, &info.subresource);
        if let Some(handler) = special {
            return Box::pin(self.special(request, handler.clone())).await;
        }
        if ComponentStatuses::serves(&info.group, &info.resource) {
            return Box::pin(self.component_statuses(request)).await;
        }
        match (info.subresource.as_str(), info.verb.as_str()) {
            ("", "list") => Box::pin(self.list(request)).await,
            ("" | "status" | "ephemeralcontainers" | "resize" | "approval", "get") => self.get(request).await,
            ("", "watch") => Box::pin(self.watch(request)).await,
            ("", "create") => Box::pin(self.create(request)).await,
            ("" | "status" | "ephemeralcontainers" | "resize" | "approval" | "finalize", "update") => {
                Box::pin(self.update(request)).await
            }
            ("" | "status" | "ephemeralcontainers" | "resize" | "approval", "patch") => {
                Box::pin(self.patch(request)).await
            }
            ("", "delete") => Box::pin(self.delete(request)).await,
            ("", "deletecollection") => Box::pin(self.delete_collection(request)).await,
            ("scale", _) => Box::pin(scale_requests::serve(&self.registry, request)).await,
            _ => Ok(respond::no_route(&info.path)),
        }
    }

    async fn get(&self, request: Request) -> Answer {
        if request.query.flag("export") == Some(true) {
            let why = "the export parameter, deprecated since v1.14, is no longer supported";
            return Err(StatusError::bad_request(why));
        }
        let presenter = request.presenter()?.include(request.query.get("includeObject"))?;
        let at_least = options::resource_version(request.query.get("resourceVersion"))?;
        let info = &request.info;
        let entry = self.registry.get(&request.served, &info.namespace, &info.name, at_least).await?;
        presenter.single(StatusCode::OK, &Written::Stored(entry)).await
    }

    async fn list(&self, request: Request) -> Answer {
        let mut options = request.list_options(false)?;
        let mut presenter = request.presenter()?.include(request.query.get("includeObject"))?;
        if request.served.asks_webhook() {
            presenter = presenter.select_converted(std::mem::take(&mut options.fields));
        }
        match self.registry.list(&request.served, &request.info.namespace, &options).await {
            Ok(page) => presenter.list(&page).await,
            Err(ListError::Status(error)) => Err(error),
            Err(ListError::ContinueExpired { inconsistent }) => Ok(continue_expired(&inconsistent)),
        }
    }

    async fn component_statuses(&self, request: Request) -> Answer {
        let presenter = request.presenter()?.include(request.query.get("includeObject"))?;
        if request.info.verb == "get" {
            return self.components.get(&request.target(), &presenter).await;
        }
        self.components.list(&request.list_options(false)?, &presenter).await
    }

    async fn watch(&self, request: Request) -> Answer {
        let mut options = request.list_options(true)?;
        let info = &request.info;
        // `/watch/…/name` is the old way to watch one object.
        if !info.name.is_empty() {
            options.fields = options::of_one(std::mem::take(&mut options.fields), &info.name)?;
        }
        let presenter = request.presenter()?.include(request.query.get("includeObject"))?;
        self.registry.watch(&request.served, &info.namespace, &options, presenter).await
    }

    async fn create(&self, request: Request) -> Answer {
        let presenter = request.presenter()?;
        let mut writer = request.writer("CreateOptions")?;
        let encoding = negotiate::body_encoding(request.headers())?;
        let (served, namespace) = (request.served, request.info.namespace.clone());
        let body = request.body.collect_limited().await?;
        let decoded = served.decode_as_said(&body, encoding, writer.options.field_validation)?;
        writer.warnings = decoded.warnings;
        writer.says_empty = decoded.says_empty;
        let written = self.registry.create(&served, &namespace, decoded.object, &mut writer).await;
        let answer = match written {
            Ok(written) => presenter.single(StatusCode::CREATED, &written).await,
            Err(error) => Err(error),
        };
        warned(answer, &writer.warnings)
    }

    async fn update(&self, request: Request) -> Answer {
        let presenter = request.presenter()?;
        let mut writer = request.writer("UpdateOptions")?;
        let encoding = negotiate::body_encoding(request.headers())?;
        let target = request.target();
        let body = request.body.collect_limited().await?;
        let decoded = target.served.decode_as_said(&body, encoding, writer.options.field_validation)?;
        writer.warnings = decoded.warnings;
        let may_create = target.subresource.is_empty() && target.served.strategy.allow_create_on_update();
        let mut object = decoded.object;
        commit::ensure_namespace(&target, &mut object)?;
        commit::require_name(&target, &object)?;
        let mut change = Replace { object, says_empty: decoded.says_empty, may_create };
        self.change(&target, &mut change, writer, &presenter).await
    }

    async fn patch(&self, request: Request) -> Answer {
        let presenter = request.presenter()?;
        let mut writer = request.writer("PatchOptions")?;
        let kind = PatchType::parse(negotiate::content_type(request.headers()), &request.served)?;
        check_patch_options(kind, &request.query)?;
        let target = request.target();
        let body = request.body.collect_limited().await?;
        let validation = writer.options.field_validation;
        if kind == PatchType::Apply {
            let mut change = Apply::new(&target, &body, &mut writer)?;
            return self.change(&target, &mut change, writer, &presenter).await;
        }
        let mut change = Patch::new(kind, &target, body, validation);
        self.change(&target, &mut change, writer, &presenter).await
    }

    async fn change(
        &self,
        target: &Target,
        change: &mut dyn Change,
        mut writer: Writer,
        presenter: &Presenter,
    ) -> Answer {
        let answer = match self.registry.update(target, change, &mut writer).await {
            Ok(updated) => {
                let status = if updated.created { StatusCode::CREATED } else { StatusCode::OK };
                presenter.single(status, &updated.written).await
            }
            Err(error) => Err(error),
        };
        warned(answer, &writer.warnings)
    }

    async fn delete(&self, request: Request) -> Answer {
        let presenter = request.presenter()?;
        let mut writer = Writer::new(request.user.clone());
        let target = request.target();
        let body = request.body.collect_limited().await?;
        let options = DeleteOptions::read(&request.parts.headers, &body, &request.query)?;
        writer.warnings.extend(delete::warning(&target.served, &options).map(String::from));
        let answer = match self.registry.delete(&target, &options, &mut writer).await {
            Ok(deleted) => delete::answer(&target, &options, &deleted, &presenter).await,
            Err(error) => Err(error),
        };
        warned(answer, &writer.warnings)
    }

    async fn delete_collection(&self, request: Request) -> Answer {
        let presenter = request.presenter()?;
        let list = request.list_options(false)?;
        let writer = Writer::new(request.user.clone());
        let (served, namespace) = (request.served, request.info.namespace.clone());
        let body = request.body.collect_limited().await?;
        let options = DeleteOptions::read(&request.parts.headers, &body, &request.query)?;
        let warnings: Vec<String> = delete::warning(&served, &options).map(String::from).into_iter().collect();
        let answer = match self.registry.delete_collection(&served, &namespace, &list, &options, &writer).await {
            Ok(page) => presenter.list(&page).await,
            Err(error) => Err(error),
        };
        warned(answer, &warnings)
    }

    /// An endpoint at a node, a pod or a service.
    async fn connect(&self, request: Request) -> Answer {
        let connector = self.connector.as_ref().ok_or_else(|| {
            StatusError::new(knarr_api::status::Reason::ServiceUnavailable, "this server has no way to the nodes")
        })?;
        let Request { info, user, served, parts, body, .. } = request;
        let connect = Connect {
            resource: served.resource.clone(),
            subresource: info.subresource.clone(),
            namespace: info.namespace.clone(),
            name: info.name.clone(),
            user,
            parts,
            body,
        };
        connector.serve(connect).await
    }

    /// An endpoint with a handler of its own.
    async fn special(&self, request: Request, handler: Arc<dyn subresources::Handler>) -> Answer {
        let wanted = negotiate::accept(request.headers(), false)?;
        let answer = crate::registry::special::serve(&self.registry, &*handler, request).await?;
        let status = StatusCode::from_u16(answer.code).unwrap_or(StatusCode::OK);
        let mut response = crate::registry::render::encode(status, wanted.encoding, &answer.object)?;
        respond::add_warnings(&mut response, &answer.warnings);
        Ok(response)
    }
}

/// Kinds without namespaces which say so; others without accept the field all the same.
fn knows_no_namespace(served: &Served) -> bool {
    matches!(
        (&*served.kind.group, &*served.kind.kind),
        ("", "Namespace" | "Node")
            | ("certificates.k8s.io", "CertificateSigningRequest")
            | ("resource.k8s.io", "ResourceSlice")
    )
}

/// An answer with warnings: who is refused is warned all the same.
fn warned(answer: Answer, warnings: &[String]) -> Answer {
    if warnings.is_empty() {
        return answer;
    }
    let mut response = answer.unwrap_or_else(|error| respond::from_error(&error));
    respond::add_warnings(&mut response, warnings);
    Ok(response)
}

/// What upstream's router would not let through: unknown subresources, names where there are none, wrong scopes, verbs
/// that the resource does not have.
fn refuse_route(info: &RequestInfo, served: &Served, method: &Method) -> Option<Response<Body>> {
    // Read leniently, as upstream does for authorization, but routed literally.
    let root = if info.group.is_empty() { "/api/" } else { "/apis/" };
    if !info.path.starts_with(root) {
        return Some(respond::no_route(&info.path));
    }
    let resource = &served.resource;
    let is_namespace = served.group_resource.group.is_empty() && served.group_resource.resource == "namespaces";
    let wrong_scope = !resource.namespaced() && !info.namespace.is_empty() && !is_namespace;
    let all_namespaces = resource.namespaced() && info.namespace.is_empty();
    let needs_namespace = served.custom.is_some() || !info.name.is_empty();
    if wrong_scope || (all_namespaces && needs_namespace && !matches!(info.verb.as_str(), "list" | "watch")) {
        return Some(respond::no_route(&info.path));
    }
    if !info.subresource.is_empty() && resource.subresource(&info.subresource).is_none() {
        return Some(respond::no_route(&info.path));
    }
    // What is answered and not stored has no paths of its own.
    let has_items = resource.verbs.iter().any(|verb| matches!(verb.as_str(), "get" | "update" | "patch" | "delete"));
    if info.subresource.is_empty() && !info.name.is_empty() && !has_items {
        return Some(respond::no_route(&info.path));
    }
    let verbs: &[String] = match resource.subresource(&info.subresource) {
        Some(subresource) => &subresource.verbs,
        None => &resource.verbs,
    };
    let has = |verb: &str| verbs.iter().any(|v| v == verb);
    let allowed = match info.verb.as_str() {
        // OPTIONS: it has no verb, and only proxies pass it on.
        "" => info.subresource == "proxy" && Connector::serves(&info.group, &info.resource, "proxy"),
        // Upstream's own resources are read with GET alone.
        "get" | "list" | "watch" if *method != Method::GET && served.custom.is_none() && !is_proxied(info) => false,
        "create" if info.subresource.is_empty() => info.name.is_empty() && !all_namespaces && has("create"),
        "update" | "patch" | "delete" if info.name.is_empty() => false,
        "deletecollection" => has("deletecollection") && !all_namespaces,
        verb => has(verb),
    };
    (!allowed).then(|| respond::no_method(&info.path, &allow(verbs, info)))
}

fn is_proxied(info: &RequestInfo) -> bool {
    Connector::serves(&info.group, &info.resource, &info.subresource)
}

fn allow(verbs: &[String], info: &RequestInfo) -> String {
    let methods: &[(&str, &str)] = match (info.name.is_empty(), info.subresource.is_empty()) {
        (true, _) => &[("deletecollection", "DELETE"), ("list", "GET"), ("create", "POST")],
        (false, true) => &[("delete", "DELETE"), ("get", "GET"), ("patch", "PATCH"), ("update", "PUT")],
        (false, false) => &[("get", "GET"), ("patch", "PATCH"), ("create", "POST"), ("update", "PUT")],
    };
    let has = |verb: &str| verbs.iter().any(|v| v == verb);
    methods.iter().filter(|(verb, _)| has(verb)).map(|(_, method)| *method).collect::<Vec<_>>().join(", ")
}

/// `force` is only for applies, and an apply needs a manager.
pub(crate) fn check_patch_options(kind: PatchType, query: &Query) -> Result<(), StatusError> {
    let root = Path::ROOT;
    let error = match kind {
        PatchType::Apply if query.get("fieldManager").is_empty() => {
            FieldError::required(&root.child("fieldManager"), "is required for apply patch")
        }
        PatchType::Json | PatchType::Merge | PatchType::Strategic if query.flag("force").is_some() => {
            FieldError::forbidden(&root.child("force"), "may not be specified for non-apply patch")
        }
        _ => return Ok(()),
    };
    Err(StatusError::invalid(&GroupVersionKind::new("meta.k8s.io", "v1", "PatchOptions"), "", vec![error]))
}

fn continue_expired(inconsistent: &str) -> Response<Body> {
    const WHY: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the \
continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the \
provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk \
was returned and now may show up in the list.";
    let error = StatusError::new(knarr_api::status::Reason::Expired, WHY);
    let mut status: Object = error.to_value();
    status["metadata"]["continue"] = inconsistent.into();
    respond::status(StatusCode::GONE, status)
}
