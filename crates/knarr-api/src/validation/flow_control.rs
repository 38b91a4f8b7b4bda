//! Flow schemas and priority levels.

use serde_json::{Value, json};

use super::check::{Checker, equal, flag, has, int, list, text};
use crate::names;

const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a flow's hash that are there to deal a hand of queues from.
const HASH_BITS: f64 = 60.0;

pub fn flow_schema(c: &mut Checker, object: &Value) {
    let name = text(&object["metadata"], "name");
    c.at(object, "spec", |c, spec| {
        let precedence = int(spec, "matchingPrecedence").unwrap_or(0);
        let mut refuse = |is: bool, why: &str| {
            if is {
                c.invalid("matchingPrecedence", &precedence.into(), why);
            }
        };
        refuse(precedence <= 0, "must be a positive value");
        refuse(precedence > 10_000, "must not be greater than 10000");
        refuse(precedence == 1 && name != "exempt", "only the schema named 'exempt' may have matchingPrecedence 1");
        c.if_set(spec, "distinguisherMethod", |c, method| {
            if !matches!(text(method, "type"), "ByNamespace" | "ByUser") {
                // Upstream shows the method, not its type.
                let kinds = ["ByNamespace", "ByUser"];
                c.not_supported_as("flowcontrol.FlowDistinguisherMethod", "type", method, &kinds);
            }
        });
        match text(&spec["priorityLevelConfiguration"], "name") {
            "" => c.required("priorityLevelConfiguration.name", "must reference a priority level"),
            level => c.rule("priorityLevelConfiguration.name", level, names::dns_subdomain),
        }
        c.each(spec, "rules", rule);
    });
    if let Some(fixed) = mandatory_schema(name)
        && !equal(&object["spec"], &fixed)
    {
        c.invalid("spec", &object["spec"], format!("spec of '{name}' must equal the fixed value"));
    }
}

/// The schemas that nobody may change.
fn mandatory_schema(name: &str) -> Option<Value> {
    let everything = |subjects: &[&str]| {
        let subject = |group: &&str| json!({"kind": "Group", "group": {"name": group}});
        json!([{
            "subjects": subjects.iter().map(subject).collect::<Vec<_>>(),
            "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "clusterScope": true, "namespaces": ["*"]}],
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
        }])
    };
    match name {
        "exempt" => Some(json!({
            "priorityLevelConfiguration": {"name": "exempt"}, "matchingPrecedence": 1,
            "rules": everything(&["system:masters"]),
        })),
        "catch-all" => Some(json!({
            "priorityLevelConfiguration": {"name": "catch-all"}, "matchingPrecedence": 10_000,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": everything(&["system:unauthenticated", "system:authenticated"]),
        })),
        _ => None,
    }
}

fn rule(c: &mut Checker, rule: &Value) {
    if list(rule, "subjects").is_empty() {
        c.required("subjects", "subjects must contain at least one value");
    }
    c.each(rule, "subjects", subject);
    if list(rule, "resourceRules").is_empty() && list(rule, "nonResourceRules").is_empty() {
        c.required("", "at least one of resourceRules and nonResourceRules has to be non-empty");
    }
    c.each(rule, "resourceRules", resource_rule);
    c.each(rule, "nonResourceRules", |c, rule| {
        verbs(c, rule);
        if !wild(c, rule, "nonResourceURLs", "nonResourceURLs must contain at least one value", "non-resource URLs") {
            for (i, path) in list(rule, "nonResourceURLs").iter().enumerate() {
                non_resource_path(c, &format!("nonResourceURLs[{i}]"), path.as_str().unwrap_or_default());
            }
        }
    });
}

const SUBJECTS: [(&str, &str); 3] = [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

fn subject(c: &mut Checker, subject: &Value) {
    let kind = text(subject, "kind");
    if !SUBJECTS.iter().any(|(k, _)| *k == kind) {
        c.not_supported("kind", &kind.into(), &["Group", "ServiceAccount", "User"]);
        return;
    }
    for (other, field) in SUBJECTS {
        match (other == kind, has(subject, field)) {
            (true, true) => c.at(subject, field, |c, subject| named_subject(c, subject, kind)),
            (true, false) => c.required(field, &format!("{field} is required when subject kind is '{kind}'")),
            (false, true) => c.forbidden(field, &format!("{field} is forbidden when subject kind is not '{other}'")),
            (false, false) => {}
        }
    }
}

fn named_subject(c: &mut Checker, subject: &Value, kind: &str) {
    let name = text(subject, "name");
    if name.is_empty() {
        c.required("name", "");
    }
    if kind != "ServiceAccount" {
        return;
    }
    if !matches!(name, "" | "*") {
        c.rule("name", name, names::dns_subdomain);
    }
    match text(subject, "namespace") {
        "" => c.required("namespace", "must specify namespace for service account"),
        namespace => c.rule("namespace", namespace, names::dns_label),
    }
}

/// A list that is either one `*` or spells things out; says whether nothing more is to be checked.
fn wild(c: &mut Checker, rule: &Value, field: &str, empty: &str, what: &str) -> bool {
    let items = list(rule, field);
    if items.is_empty() {
        c.required(field, empty);
        return true;
    }
    let any = items.iter().any(|i| i == "*");
    if any && items.len() > 1 {
        c.invalid(field, &rule[field], format!("if '*' is present, must not specify other {what}"));
    }
    any
}

fn verbs(c: &mut Checker, rule: &Value) {
    let known = |v: &Value| v.as_str().is_some_and(|v| VERBS.contains(&v));
    if !wild(c, rule, "verbs", "verbs must contain at least one value", "verbs")
        && !list(rule, "verbs").iter().all(known)
    {
        c.not_supported("verbs", &rule["verbs"], VERBS);
    }
}

fn resource_rule(c: &mut Checker, rule: &Value) {
    verbs(c, rule);
    wild(c, rule, "apiGroups", "resource rules must supply at least one api group", "api groups");
    wild(c, rule, "resources", "resource rules must supply at least one resource", "resources");
    if list(rule, "namespaces").is_empty() && flag(rule, "clusterScope") {
        return;
    }
    let empty = "resource rules that are not cluster scoped must supply at least one namespace";
    if wild(c, rule, "namespaces", empty, "namespaces") {
        return;
    }
    for (i, namespace) in list(rule, "namespaces").iter().enumerate() {
        let namespace = namespace.as_str().unwrap_or_default();
        for message in names::dns_label(namespace) {
            let why = format!("each member of this list must be '*' or a DNS-1123 label; {message}");
            c.invalid_text(&format!("namespaces[{i}]"), namespace, why);
        }
    }
}

fn non_resource_path(c: &mut Checker, field: &str, path: &str) {
    let stars = path.matches('*').count();
    let why = match path {
        "" => "must not be empty",
        "/" => return,
        _ if !path.starts_with('/') => "must start with slash",
        _ if path.contains(' ') => "must not contain white-space",
        _ if path.contains("//") => "must not contain double slash",
        _ if stars > 1 || (stars == 1 && !path.ends_with("/*")) => "wildcard can only do suffix matching",
        _ => return,
    };
    c.invalid_text(field, path, why);
}

const ROUND_TRIP: &str = "flowcontrol.k8s.io/v1beta3-preserve-zero-concurrency-shares";

pub fn priority_level(c: &mut Checker, object: &Value) {
    let name = text(&object["metadata"], "name");
    if object["metadata"]["annotations"].get(ROUND_TRIP).is_some() {
        c.forbidden("metadata.annotations", &format!("annotation '{ROUND_TRIP}' is forbidden"));
    }
    c.at(object, "spec", |c, spec| {
        let kind = text(spec, "type");
        if (name == "exempt") != (kind == "Exempt") {
            c.invalid_text("type", kind, "must be 'Exempt' if and only if `name` is 'exempt'");
        }
        match kind {
            "Limited" => {
                if has(spec, "exempt") {
                    c.forbidden("exempt", "must be nil if the type is Limited");
                }
                if has(spec, "limited") {
                    c.at(spec, "limited", limited);
                } else {
                    c.required("limited", "must not be empty when type is Limited");
                }
            }
            "Exempt" => {
                if has(spec, "limited") {
                    c.forbidden("limited", "must be nil if the type is not Limited");
                }
                c.at(spec, "exempt", shares);
            }
            other => c.not_supported("type", &other.into(), &["Exempt", "Limited"]),
        }
    });
    mandatory_level(c, name, &object["spec"]);
}

/// The levels of which nobody may change more than how much `exempt` lends.
fn mandatory_level(c: &mut Checker, name: &str, spec: &Value) {
    let but = match name {
        "exempt" => {
            let mut rest = spec.clone();
            if let Some(fields) = rest.as_object_mut() {
                fields.remove("exempt");
            }
            (!equal(&rest, &json!({"type": "Exempt"}))).then_some(" except the 'spec.exempt' field")
        }
        "catch-all" => {
            let fixed = json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "limitResponse": {"type": "Reject"}, "lendablePercent": 0}});
            (!equal(spec, &fixed)).then_some("")
        }
        _ => None,
    };
    if let Some(but) = but {
        c.invalid("spec", spec, format!("spec of '{name}'{but} must equal the fixed value"));
    }
}

fn shares(c: &mut Checker, level: &Value) {
    if int(level, "nominalConcurrencyShares").is_some_and(|n| n < 0) {
        let why = "must be a non-negative integer";
        c.invalid("nominalConcurrencyShares", &level["nominalConcurrencyShares"], why);
    }
    c.in_range(level, "lendablePercent", 0, 100);
}

fn limited(c: &mut Checker, level: &Value) {
    shares(c, level);
    let response = &level["limitResponse"];
    c.within("limitResponse", |c| match (text(response, "type"), has(response, "queuing")) {
        ("Reject", true) => c.forbidden("queuing", "must be nil if limited.limitResponse.type is not Limited"),
        ("Queue", false) => c.required("queuing", "must not be empty if limited.limitResponse.type is Limited"),
        ("Queue", true) => c.at(response, "queuing", queuing),
        ("Reject", false) => {}
        (other, _) => c.not_supported("type", &other.into(), &["Queue", "Reject"]),
    });
    if int(level, "borrowingLimitPercent").is_some_and(|n| n < 0) {
        let why = "if specified, must be a non-negative integer";
        c.invalid("borrowingLimitPercent", &level["borrowingLimitPercent"], why);
    }
}

fn queuing(c: &mut Checker, queuing: &Value) {
    let number = |field: &str| int(queuing, field).unwrap_or(0);
    let (queues, hand) = (number("queues"), number("handSize"));
    for field in ["queueLengthLimit", "queues", "handSize"] {
        if number(field) <= 0 {
            c.invalid(field, &number(field).into(), "must be positive");
        }
    }
    if queues > MAX_QUEUES {
        c.invalid("queues", &queues.into(), format!("must not be greater than {MAX_QUEUES}"));
    }
    if hand > 0 && hand > queues {
        c.invalid("handSize", &hand.into(), format!("should not be greater than queues ({queues})"));
    } else if hand > 0 && entropy_bits(queues, hand) > HASH_BITS {
        let why = format!(
            "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than {HASH_BITS}"
        );
        c.invalid("handSize", &hand.into(), why);
    }
}

/// The bits it takes to deal `hand` cards from a deck, each deal from one card fewer.
fn entropy_bits(deck: i64, hand: i64) -> f64 {
    (0..hand).take(64).map(|i| ((deck - i) as f64).log2()).sum::<f64>().ceil()
}
