//! Deployments, replica sets, daemon sets, stateful sets, replication controllers, disruption budgets.

use serde_json::{Value, json};

use super::check::{Checker, entries, equal, has, int, is_empty, list, text};
use super::{labels, persistent, pod};
use crate::names;

/// `spec.selector`, required, not empty, matching the template's labels.
fn selector_and_template(c: &mut Checker, spec: &Value, kind: &str) {
    match &spec["selector"] {
        Value::Null => c.required("selector", ""),
        selector => {
            c.within("selector", |c| labels::validate_selector(c, selector));
            if labels::is_empty_selector(selector) {
                c.invalid_as(
                    "*meta.LabelSelector",
                    "selector",
                    selector,
                    &format!("empty selector is invalid for {kind}"),
                );
            }
        }
    }
}

fn valid_selector(selector: &Value) -> bool {
    let mut scratch = Checker::new();
    labels::validate_selector(&mut scratch, selector);
    scratch.error_count() == 0
}

/// What upstream says of a selector that is none; of a stateful set's it says nothing.
const INVALID_SELECTOR: &str = "invalid label selector";

/// The template, its labels, and that its pods restart always.
fn template(c: &mut Checker, spec: &Value, fault: &str) {
    let selector = &spec["selector"];
    let template_labels = &spec["template"]["metadata"]["labels"];
    if !valid_selector(selector) {
        c.invalid_as("*meta.LabelSelector", "selector", selector, fault);
        return;
    }
    let everything = !selector.is_null() && labels::is_empty_selector(selector);
    if !everything && (selector.is_null() || !labels::matches(selector, template_labels)) {
        c.invalid("template.metadata.labels", template_labels, "`selector` does not match template `labels`");
    }
    c.at(spec, "template", pod::validate_template);
    always_restarts(c, spec);
}

fn always_restarts(c: &mut Checker, spec: &Value) {
    let policy = &spec["template"]["spec"]["restartPolicy"];
    if policy.as_str().unwrap_or_default() != "Always" {
        c.not_supported("template.spec.restartPolicy", policy, &["Always"]);
    }
    if has(&spec["template"]["spec"], "activeDeadlineSeconds") {
        c.forbidden("template.spec.activeDeadlineSeconds", "activeDeadlineSeconds in ReplicaSet is not Supported");
    }
}

pub fn deployment(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.not_negative(spec, "replicas");
        selector_and_template(c, spec, "deployment");
        template(c, spec, INVALID_SELECTOR);
        c.at(spec, "strategy", deployment_strategy);
        c.not_negative(spec, "minReadySeconds");
        c.not_negative(spec, "revisionHistoryLimit");
        c.not_negative(spec, "progressDeadlineSeconds");
        if let Some(deadline) = int(spec, "progressDeadlineSeconds")
            && deadline <= int(spec, "minReadySeconds").unwrap_or(0)
        {
            c.invalid("progressDeadlineSeconds", &deadline.into(), "must be greater than minReadySeconds");
        }
    });
}

fn deployment_strategy(c: &mut Checker, strategy: &Value) {
    match text(strategy, "type") {
        "Recreate" if has(strategy, "rollingUpdate") => {
            c.forbidden("rollingUpdate", "may not be specified when strategy `type` is 'Recreate'");
        }
        "Recreate" => {}
        "RollingUpdate" => match &strategy["rollingUpdate"] {
            Value::Null => c.required("rollingUpdate", "this should be defaulted and never be nil"),
            rolling => c.within("rollingUpdate", |c| rolling_update(c, rolling)),
        },
        _ => c.not_supported_as("apps.DeploymentStrategy", "", strategy, &["Recreate", "RollingUpdate"]),
    }
}

fn rolling_update(c: &mut Checker, rolling: &Value) {
    int_or_percent(c, rolling, "maxUnavailable");
    int_or_percent(c, rolling, "maxSurge");
    if is_nothing(&rolling["maxUnavailable"]) && is_nothing(&rolling["maxSurge"]) {
        c.invalid("maxUnavailable", &rolling["maxUnavailable"], "may not be 0 when `maxSurge` is 0");
    }
    at_most_all(c, rolling, "maxUnavailable");
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::String(text) => text.strip_suffix('%').and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) == 0,
        other => other.as_i64().unwrap_or(0) == 0,
    }
}

/// A count that is not negative, or a percentage.
pub fn int_or_percent(c: &mut Checker, value: &Value, field: &str) {
    match &value[field] {
        Value::String(text) => c.rule(field, text, names::percent),
        _ => c.not_negative(value, field),
    }
}

/// A percentage may not exceed the whole.
pub fn at_most_all(c: &mut Checker, value: &Value, field: &str) {
    let percent = value[field].as_str().and_then(|t| t.strip_suffix('%')).and_then(|n| n.parse::<i64>().ok());
    if percent.is_some_and(|p| p > 100) {
        c.invalid(field, &value[field], "must not be greater than 100%");
    }
}

pub fn replica_set(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.not_negative(spec, "replicas");
        c.not_negative(spec, "minReadySeconds");
        selector_and_template(c, spec, "deployment");
        template(c, spec, INVALID_SELECTOR);
    });
}

pub fn daemon_set(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.at(spec, "selector", labels::validate_selector);
        let (selector, template_labels) = (&spec["selector"], &spec["template"]["metadata"]["labels"]);
        if !selector.is_null() && labels::is_empty_selector(selector) {
            c.invalid_as("*meta.LabelSelector", "selector", selector, "empty selector is invalid for daemonset");
        }
        let selects = has(spec, "selector") && valid_selector(selector);
        if !has(spec, "selector") || (selects && !labels::matches(selector, template_labels)) {
            c.invalid("template.metadata.labels", template_labels, "`selector` does not match template `labels`");
        }
        c.at(spec, "template", pod::validate_template);
        always_restarts(c, spec);
        c.not_negative(spec, "minReadySeconds");
        c.at(spec, "updateStrategy", daemon_strategy);
        c.not_negative(spec, "revisionHistoryLimit");
    });
}

fn daemon_strategy(c: &mut Checker, strategy: &Value) {
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => match &strategy["rollingUpdate"] {
            Value::Null => c.required("rollingUpdate", ""),
            rolling => c.within("rollingUpdate", |c| {
                int_or_percent(c, rolling, "maxUnavailable");
                int_or_percent(c, rolling, "maxSurge");
                at_most_all(c, rolling, "maxUnavailable");
                at_most_all(c, rolling, "maxSurge");
                let (unavailable, surge) = (is_nothing(&rolling["maxUnavailable"]), is_nothing(&rolling["maxSurge"]));
                if !unavailable && !surge {
                    c.invalid("maxSurge", &rolling["maxSurge"], "may not be set when maxUnavailable is non-zero");
                }
                if unavailable && surge {
                    c.required("maxUnavailable", "cannot be 0 when maxSurge is 0");
                }
            }),
        },
        _ => c.not_supported_as("apps.DaemonSetUpdateStrategy", "", strategy, &["RollingUpdate", "OnDelete"]),
    }
}

fn stateful_set(c: &mut Checker, object: &Value, new: bool) {
    c.at(object, "spec", |c, spec| {
        match text(spec, "podManagementPolicy") {
            "" => c.required("podManagementPolicy", ""),
            "OrderedReady" | "Parallel" => {}
            other => c.invalid_text("podManagementPolicy", other, "must be 'OrderedReady' or 'Parallel'"),
        }
        c.at(spec, "updateStrategy", stateful_strategy);
        c.if_set(spec, "persistentVolumeClaimRetentionPolicy", |c, policy| {
            c.supported(policy, "whenDeleted", &["Retain", "Delete"]);
            c.supported(policy, "whenScaled", &["Retain", "Delete"]);
        });
        if new {
            claim_templates(c, spec);
        }
        c.not_negative(spec, "replicas");
        c.not_negative(spec, "minReadySeconds");
        c.if_set(spec, "ordinals", |c, ordinals| c.not_negative(ordinals, "start"));
        if new && !is_empty(spec, "serviceName") {
            c.rule("serviceName", text(spec, "serviceName"), names::dns_label);
        }
        selector_and_template(c, spec, "statefulset");
        template(c, &with_claim_volumes(spec), "");
        if valid_selector(&spec["selector"]) {
            // Upstream looks at them once more.
            c.at(spec, "template", pod::validate_template_metadata);
        }
    });
}

/// The template as the pods will be: claim templates become volumes, and are checked as such.
fn with_claim_volumes(spec: &Value) -> Value {
    let claims = list(spec, "volumeClaimTemplates");
    let mut spec = spec.clone();
    let volume = |claim: &Value| {
        let name = text(&claim["metadata"], "name");
        json!({"name": name, "persistentVolumeClaim": {"claimName": name}})
    };
    let mut volumes: Vec<Value> = claims.iter().map(volume).collect();
    volumes.dedup();
    let named = |v: &Value| volumes.iter().any(|c| c["name"] == v["name"]);
    let own: Vec<Value> = list(&spec["template"]["spec"], "volumes").iter().filter(|v| !named(v)).cloned().collect();
    volumes.extend(own);
    if let Some(pod) = spec["template"]["spec"].as_object_mut() {
        pod.insert("volumes".into(), volumes.into());
        // The set gives its pods names of its own.
        pod.remove("hostname");
        pod.remove("subdomain");
    }
    spec
}

/// A new stateful set: its claim templates and its service's name are checked only now.
pub fn stateful_set_create(c: &mut Checker, object: &Value) {
    stateful_set(c, object, true);
}

fn stateful_strategy(c: &mut Checker, strategy: &Value) {
    match text(strategy, "type") {
        "" => c.required("", ""),
        "OnDelete" if has(strategy, "rollingUpdate") => {
            c.invalid("rollingUpdate", &strategy["rollingUpdate"], "only allowed for updateStrategy 'RollingUpdate'");
        }
        "OnDelete" => {}
        "RollingUpdate" => c.if_set(strategy, "rollingUpdate", |c, rolling| {
            c.not_negative(rolling, "partition");
            if has(rolling, "maxUnavailable") {
                int_or_percent(c, rolling, "maxUnavailable");
                at_most_all(c, rolling, "maxUnavailable");
                if is_nothing(&rolling["maxUnavailable"]) {
                    c.invalid("maxUnavailable", &rolling["maxUnavailable"], "cannot be 0");
                }
            }
        }),
        _ => c.invalid_as("apps.StatefulSetUpdateStrategy", "", strategy, "must be 'RollingUpdate' or 'OnDelete'"),
    }
}

pub fn stateful_set_update(c: &mut Checker, object: &Value, old: &Value) {
    stateful_set(c, object, false);
    let mut masked = object["spec"].clone();
    for field in [
        "replicas",
        "template",
        "updateStrategy",
        "minReadySeconds",
        "ordinals",
        "persistentVolumeClaimRetentionPolicy",
        "revisionHistoryLimit",
    ] {
        masked[field] = old["spec"][field].clone();
    }
    if !equal(&masked, &old["spec"]) {
        c.forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        );
    }
}

/// Claim templates are checked as claims are, on creation.
fn claim_templates(c: &mut Checker, spec: &Value) {
    c.each(spec, "volumeClaimTemplates", |c, claim| c.at(claim, "spec", persistent::validate_claim_spec));
}

pub fn controller_revision(c: &mut Checker, object: &Value) {
    match &object["data"] {
        Value::Null => c.required("data", "data is mandatory"),
        Value::Object(_) => {}
        _ => c.required("data", "data must be a valid JSON object"),
    }
    c.not_negative(object, "revision");
}

pub fn replication_controller(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.not_negative(spec, "minReadySeconds");
        if entries(spec, "selector").next().is_none() {
            c.required("selector", "");
        }
        match int(spec, "replicas") {
            None => c.required("replicas", ""),
            Some(_) => c.not_negative(spec, "replicas"),
        }
        if !has(spec, "template") {
            c.required("template", "");
            return;
        }
        let template_labels = &spec["template"]["metadata"]["labels"];
        let mut wanted = entries(spec, "selector").peekable();
        if wanted.peek().is_some() && !wanted.all(|(k, v)| template_labels.get(k) == Some(v)) {
            c.invalid("template.metadata.labels", template_labels, "`selector` does not match template `labels`");
        }
        c.at(spec, "template", pod::validate_template);
        always_restarts(c, spec);
    });
}

pub fn pod_disruption_budget(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        if has(spec, "minAvailable") && has(spec, "maxUnavailable") {
            let why = "minAvailable and maxUnavailable cannot be both set";
            c.invalid_as("policy.PodDisruptionBudgetSpec", "", spec, why);
        }
        for field in ["minAvailable", "maxUnavailable"] {
            if has(spec, field) {
                int_or_percent(c, spec, field);
                at_most_all(c, spec, field);
            }
        }
        c.if_set(spec, "selector", labels::validate_selector);
        c.optional_choice(spec, "unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]);
    });
}
