//! Webhook configurations and admission policies. Whether their CEL compiles is not checked here.

use serde_json::Value;

use super::check::{Checker, has, int, list, repeated_items, repeated_text, text};
use super::labels;
use crate::names;
use crate::resource::GroupVersion;

fn holds(items: &[Value], wanted: &str) -> bool {
    items.iter().any(|item| item == wanted)
}

/// `resources` of a rule: `pods`, `pods/status`, `*`, `*/*`.
fn resources(c: &mut Checker, rule: &Value) {
    let items = list(rule, "resources");
    if items.is_empty() {
        c.required("resources", "");
    }
    for (i, item) in items.iter().enumerate() {
        if item == "" {
            c.required(&format!("resources[{i}]"), "");
        }
    }
    if items.len() > 1 && holds(items, "*/*") {
        c.invalid("resources", &rule["resources"], "if '*/*' is present, must not specify other resources");
    }
    let plain = |r: &Value| r.as_str().is_some_and(|t| t != "*" && !t.is_empty() && !t.contains('/'));
    if holds(items, "*") && items.iter().any(plain) {
        let why = "if '*' is present, must not specify other resources without subresources";
        c.invalid("resources", &rule["resources"], why);
    }
}

const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];

fn rule(c: &mut Checker, rule: &Value) {
    let operations = list(rule, "operations");
    if operations.is_empty() {
        c.required("operations", "");
    }
    if operations.len() > 1 && holds(operations, "*") {
        c.invalid("operations", &rule["operations"], "if '*' is present, must not specify other operations");
    }
    for (i, operation) in operations.iter().enumerate() {
        if !operation.as_str().is_some_and(|o| OPERATIONS.contains(&o)) {
            c.not_supported(&format!("operations[{i}]"), operation, OPERATIONS);
        }
    }
    for (field, what) in [("apiGroups", "API groups"), ("apiVersions", "API versions")] {
        let items = list(rule, field);
        if items.is_empty() {
            c.required(field, "");
        }
        if items.len() > 1 && holds(items, "*") {
            c.invalid(field, &rule[field], format!("if '*' is present, must not specify other {what}"));
        }
    }
    for (i, version) in list(rule, "apiVersions").iter().enumerate() {
        if version == "" {
            c.required(&format!("apiVersions[{i}]"), "");
        }
    }
    resources(c, rule);
    c.optional_choice(rule, "scope", &["*", "Cluster", "Namespaced"]);
    let names_given = list(rule, "resourceNames");
    let repeated_name = repeated_items(names_given);
    for (i, name) in names_given.iter().enumerate() {
        let field = format!("resourceNames[{i}]");
        c.rule(&field, name.as_str().unwrap_or_default(), names::path_segment);
        if repeated_name[i] {
            c.duplicate(&field, name);
        }
    }
}

/// A client's address: a URL or a service.
pub fn client_config(c: &mut Checker, config: &Value) {
    match (has(config, "url"), has(config, "service")) {
        (true, false) => webhook_url(c, text(config, "url")),
        (false, true) => c.at(config, "service", webhook_service),
        _ => c.required("", "exactly one of url or service is required"),
    }
}

fn webhook_url(c: &mut Checker, url: &str) {
    const FORM: &str = "; desired format: https://host[/path]";
    let Some((scheme, rest)) = url.split_once("://") else {
        c.invalid_text("url", "", format!("'https' is the only allowed URL scheme{FORM}"));
        c.invalid_text("url", "", format!("host must be specified{FORM}"));
        return;
    };
    if scheme != "https" {
        c.invalid_text("url", scheme, format!("'https' is the only allowed URL scheme{FORM}"));
    }
    let (host, tail) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if host.is_empty() {
        c.invalid_text("url", host, format!("host must be specified{FORM}"));
    }
    if host.contains('@') {
        c.invalid_text("url", host, "user information is not permitted in the URL");
    }
    if tail.contains('#') {
        c.invalid_text("url", tail, "fragments are not permitted in the URL");
    }
    if tail.contains('?') {
        c.invalid_text("url", tail, "query parameters are not permitted in the URL");
    }
}

/// The service that a webhook is reached by.
pub fn webhook_service(c: &mut Checker, service: &Value) {
    // Upstream confuses the two: each is reported at the other's field.
    if text(service, "namespace").is_empty() {
        c.required("name", "");
    }
    if text(service, "name").is_empty() {
        c.required("namespace", "");
    }
    if int(service, "port").is_some_and(|p| !(1..=65535).contains(&p)) {
        c.invalid("port", &service["port"], "port is not valid: must be between 1 and 65535, inclusive");
    }
    service_path(c, text(service, "path"));
}

/// A URL path, or nothing: every segment is a DNS name, and one slash may end it.
fn service_path(c: &mut Checker, path: &str) {
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return c.invalid_text("path", path, "segment[0] may not be empty");
    }
    if !path.starts_with('/') {
        c.invalid_text("path", path, "must start with a '/'");
    }
    // Upstream drops the first character, whatever it is.
    let mut rest = path.chars();
    rest.next();
    let rest = rest.as_str();
    for (i, segment) in rest.strip_suffix('/').unwrap_or(rest).split('/').enumerate() {
        if segment.is_empty() {
            c.invalid_text("path", path, format!("segment[{i}] may not be empty"));
            continue;
        }
        for failure in names::dns_subdomain(segment) {
            c.invalid_text("path", path, format!("segment[{i}]: {failure}"));
        }
    }
}

fn fully_qualified(c: &mut Checker, name: &str) {
    let messages = names::dns_subdomain(name);
    if name.is_empty() {
        c.required("name", "");
    } else if !messages.is_empty() {
        c.invalid_text("name", name, messages.join(","));
    } else if name.split('.').count() < 3 {
        c.invalid_text("name", name, "should be a domain with at least three segments separated by dots");
    }
}

fn review_versions(c: &mut Checker, hook: &Value) {
    let versions = list(hook, "admissionReviewVersions");
    if versions.is_empty() {
        c.required("admissionReviewVersions", "must specify one of v1, v1beta1");
        return;
    }
    let repeated_version = repeated_items(versions);
    for (i, version) in versions.iter().enumerate() {
        let field = format!("admissionReviewVersions[{i}]");
        if repeated_version[i] {
            c.invalid(&field, version, "duplicate version");
        } else {
            c.rule(&field, version.as_str().unwrap_or_default(), names::dns_1035_label);
        }
    }
    if !holds(versions, "v1") && !holds(versions, "v1beta1") {
        let why = "must include at least one of v1, v1beta1";
        c.invalid("admissionReviewVersions", &hook["admissionReviewVersions"], why);
    }
}

pub fn webhooks(c: &mut Checker, object: &Value) {
    let hooks = list(object, "webhooks");
    let repeated_name = repeated_text(hooks, "name");
    c.each_indexed(object, "webhooks", |c, i, hook| {
        fully_qualified(c, text(hook, "name"));
        if !text(hook, "name").is_empty() && repeated_name[i] {
            c.duplicate("name", &hook["name"]);
        }
        c.each(hook, "rules", rule);
        c.optional_choice(hook, "failurePolicy", &["Fail", "Ignore"]);
        c.optional_choice(hook, "matchPolicy", &["Equivalent", "Exact"]);
        c.optional_choice(hook, "reinvocationPolicy", &["IfNeeded", "Never"]);
        if has(hook, "sideEffects") {
            c.supported(hook, "sideEffects", &["None", "NoneOnDryRun"]);
        } else {
            c.required("sideEffects", "must specify one of None, NoneOnDryRun");
        }
        if int(hook, "timeoutSeconds").is_some_and(|n| !(1..=30).contains(&n)) {
            let why = "the timeout value must be between 1 and 30 seconds";
            c.invalid("timeoutSeconds", &hook["timeoutSeconds"], why);
        }
        c.if_set(hook, "namespaceSelector", labels::validate_selector);
        c.if_set(hook, "objectSelector", labels::validate_selector);
        c.at(hook, "clientConfig", client_config);
        match_conditions(c, hook);
        review_versions(c, hook);
    });
}

fn match_conditions(c: &mut Checker, holder: &Value) {
    let conditions = list(holder, "matchConditions");
    if conditions.len() > 64 {
        c.too_many("matchConditions", conditions.len(), 64);
    }
    let repeated_name = repeated_text(conditions, "name");
    c.each_indexed(holder, "matchConditions", |c, i, condition| {
        if text(condition, "expression").trim().is_empty() {
            c.required("expression", "");
        }
        match text(condition, "name") {
            "" => c.required("name", ""),
            name => {
                c.rule("name", name, names::qualified_name);
                if repeated_name[i] {
                    c.duplicate("name", &name.into());
                }
            }
        }
    });
}

fn match_resources(c: &mut Checker, resources: &Value) {
    c.given_choice(resources, "matchPolicy", &["Equivalent", "Exact"]);
    for selector in ["namespaceSelector", "objectSelector"] {
        if has(resources, selector) {
            c.at(resources, selector, labels::validate_selector);
        } else {
            c.required(selector, "");
        }
    }
    c.each(resources, "resourceRules", rule);
    c.each(resources, "excludeResourceRules", rule);
}

fn policy_start(c: &mut Checker, spec: &Value) {
    c.given_choice(spec, "failurePolicy", &["Fail", "Ignore"]);
    c.if_set(spec, "paramKind", |c, kind| {
        let version = text(kind, "apiVersion");
        match GroupVersion::parse(version) {
            _ if version.is_empty() => c.required("apiVersion", ""),
            None => c.invalid_text("apiVersion", version, format!("unexpected GroupVersion string: {version}")),
            Some(parsed) => {
                if !parsed.group.is_empty() {
                    c.rule("apiVersion", &parsed.group, names::dns_subdomain);
                }
                c.rule("apiVersion", &parsed.version, names::dns_1035_label);
            }
        }
        match text(kind, "kind") {
            "" => c.required("kind", ""),
            name => {
                for message in names::dns_1035_label(&name.to_lowercase()) {
                    c.invalid_text("kind", name, format!("may have mixed case, but should otherwise match: {message}"));
                }
            }
        }
    });
    if has(spec, "matchConstraints") {
        c.at(spec, "matchConstraints", |c, constraints| {
            match_resources(c, constraints);
            if list(constraints, "resourceRules").is_empty() {
                c.required("resourceRules", "");
            }
        });
    } else {
        c.required("matchConstraints", "");
    }
    match_conditions(c, spec);
    c.each(spec, "variables", |c, variable| {
        match text(variable, "name") {
            "" => c.required("name", "name is not specified"),
            name if !names::c_identifier(name).is_empty() => {
                c.invalid_text("name", name, "must be a valid CEL identifier")
            }
            _ => {}
        }
        if text(variable, "expression").trim().is_empty() {
            c.required("expression", "expression is not specified");
        }
    });
}

/// An annotation's key is preceded by the policy's name.
fn audit_key(c: &mut Checker, key: &str, name: &str) {
    if name.is_empty() {
        return c.invalid_text("key", key, "requires metadata.name be non-empty");
    }
    let whole = format!("{name}/{key}");
    for message in names::qualified_name(&whole) {
        c.invalid_text("key", &whole, message);
    }
}

pub fn validating_policy(c: &mut Checker, object: &Value) {
    let name = text(&object["metadata"], "name");
    c.at(object, "spec", |c, spec| {
        policy_start(c, spec);
        if list(spec, "validations").is_empty() && list(spec, "auditAnnotations").is_empty() {
            const WHY: &str = "validations or auditAnnotations must contain at least one item";
            c.required("validations", WHY);
            c.required("auditAnnotations", WHY);
            return;
        }
        c.each(spec, "validations", |c, validation| {
            if text(validation, "expression").trim().is_empty() {
                c.required("expression", "expression is not specified");
            }
            let message = text(validation, "message");
            if !message.is_empty() && message.trim().is_empty() {
                c.invalid_text("message", message, "message must be non-empty if specified");
            } else if message.trim().contains('\n') {
                c.invalid_text("message", message, "message must not contain line breaks");
            }
            if text(validation, "expression").contains('\n') && message.is_empty() {
                c.required("message", "message must be specified if expression contains line breaks");
            }
            if has(validation, "reason") {
                c.supported(validation, "reason", &["Forbidden", "Invalid", "RequestEntityTooLarge"]);
            }
        });
        let annotations = list(spec, "auditAnnotations");
        let repeated_key = repeated_text(annotations, "key");
        c.each_indexed(spec, "auditAnnotations", |c, i, annotation| {
            audit_key(c, text(annotation, "key"), name);
            if text(annotation, "valueExpression").trim().is_empty() {
                c.required("valueExpression", "valueExpression is not specified");
            }
            if repeated_key[i] {
                c.duplicate("key", &annotation["key"]);
            }
        });
    });
}

pub fn mutating_policy(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        policy_start(c, spec);
        mutable_operations(c, spec, "matchConstraints");
        if list(spec, "mutations").is_empty() {
            c.required("mutations", "mutations must contain at least one item");
        }
        c.each(spec, "mutations", mutation);
        c.choice(spec, "reinvocationPolicy", &["IfNeeded", "Never"]);
    });
}

/// Only what is created or updated can be mutated.
fn mutable_operations(c: &mut Checker, spec: &Value, field: &str) {
    const SUPPORTED: &[&str] = &["*", "CONNECT", "CREATE", "UPDATE"];
    for operation in list(&spec[field], "resourceRules").iter().flat_map(|rule| list(rule, "operations")) {
        if !operation.as_str().is_some_and(|operation| SUPPORTED.contains(&operation)) {
            c.not_supported(&format!("{field}.resourceRules.operations"), operation, SUPPORTED);
        }
    }
}

fn mutation(c: &mut Checker, mutation: &Value) {
    c.choice(mutation, "patchType", &["ApplyConfiguration", "JSONPatch"]);
    let kind = text(mutation, "patchType");
    for (name, wanted, other) in
        [("JSONPatch", "jsonPatch", "applyConfiguration"), ("ApplyConfiguration", "applyConfiguration", "jsonPatch")]
    {
        if kind != name {
            continue;
        }
        if has(mutation, wanted) {
            c.at(mutation, wanted, |c, patch| {
                if text(patch, "expression").trim().is_empty() {
                    c.required("expression", "");
                }
            });
        } else {
            c.required(wanted, &format!("must be specified when patchType is {name}"));
        }
        if has(mutation, other) {
            c.invalid_text(other, &format!("{{{other}}}"), format!("must not be specified when patchType is {name}"));
        }
    }
}

pub fn policy_binding(c: &mut Checker, object: &Value, validating: bool) {
    c.at(object, "spec", |c, spec| {
        c.name(spec, "policyName", names::dns_subdomain);
        c.if_set(spec, "paramRef", |c, param| {
            match (text(param, "name"), has(param, "selector")) {
                ("", false) => c.required("", "one of name or selector must be specified"),
                ("", true) => c.at(param, "selector", labels::validate_selector),
                (name, false) => c.rule("name", name, names::path_segment),
                _ => c.forbidden("name", "name and selector are mutually exclusive"),
            }
            c.choice(param, "parameterNotFoundAction", &["Deny", "Allow"]);
        });
        c.if_set(spec, "matchResources", match_resources);
        if !validating {
            return mutable_operations(c, spec, "matchResources");
        }
        let actions = list(spec, "validationActions");
        if actions.is_empty() {
            c.required("validationActions", "at least one validation action is required");
        }
        let repeated = repeated_items(actions);
        for (i, action) in actions.iter().enumerate() {
            let field = format!("validationActions[{i}]");
            if !action.as_str().is_some_and(|a| ["Audit", "Deny", "Warn"].contains(&a)) {
                c.not_supported(&field, action, &["Audit", "Deny", "Warn"]);
            }
            if repeated[i] {
                c.duplicate(&field, action);
            }
        }
        if holds(actions, "Deny") && holds(actions, "Warn") {
            let why = "must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)";
            c.invalid("validationActions", &spec["validationActions"], why);
        }
    });
}
