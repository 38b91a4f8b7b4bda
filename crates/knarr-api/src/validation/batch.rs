//! Jobs and cron jobs.

use serde_json::{Value, json};

use super::check::{Checker, equal, flag, has, int, is_empty, list, repeated_items, same, text};
use super::{cron, labels, pod};
use crate::names;
use crate::object::Object;

const UID_LABEL: &str = "batch.kubernetes.io/controller-uid";
const OLD_UID_LABEL: &str = "controller-uid";
/// In the order that upstream looks for them.
const GENERATED_LABELS: [&str; 4] = [OLD_UID_LABEL, "job-name", UID_LABEL, "batch.kubernetes.io/job-name"];

/// A job without a manual selector selects by its own uid, which its pods carry.
pub fn generate_selector(job: &mut Object) {
    job["metadata"]["generation"] = 1.into();
    let uid = text(&job["metadata"], "uid").to_string();
    let name = text(&job["metadata"], "name").to_string();
    let spec = &mut job["spec"];
    if flag(spec, "manualSelector") || !spec.is_object() {
        return;
    }
    let labels = &mut spec["template"]["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    for (key, value) in
        [(UID_LABEL, &uid), (OLD_UID_LABEL, &uid), ("batch.kubernetes.io/job-name", &name), ("job-name", &name)]
    {
        if labels.get(key).is_none() {
            labels[key] = value.clone().into();
        }
    }
    if !spec["selector"].is_object() {
        spec["selector"] = json!({});
    }
    let selected = &mut spec["selector"]["matchLabels"];
    if !selected.is_object() {
        *selected = json!({});
    }
    if selected.get(UID_LABEL).is_none() {
        selected[UID_LABEL] = uid.into();
    }
}

/// A job without labels of its own has its template's.
pub fn take_labels(job: &mut Object) {
    if is_empty(&job["metadata"], "labels") {
        job["metadata"]["labels"] = job["spec"]["template"]["metadata"]["labels"].clone();
    }
}

/// Labels that a job has of its template are the same as its template's: the generated ones among them.
pub fn share_labels(job: &mut Object) {
    let all = &job["spec"]["template"]["metadata"]["labels"];
    let mut own = all.clone();
    if let Some(own) = own.as_object_mut() {
        own.retain(|key, _| !GENERATED_LABELS.contains(&key.as_str()));
    }
    if !is_empty(&job["metadata"], "labels") && equal(&job["metadata"]["labels"], &own) {
        job["metadata"]["labels"] = all.clone();
    }
}

pub fn job(c: &mut Checker, job: &Value) {
    validate(c, job, &GENERATED_LABELS);
}

fn validate(c: &mut Checker, job: &Value, generated: &[&str]) {
    c.within("spec", |c| {
        let spec = &job["spec"];
        validate_generated_selector(c, job, spec, generated);
        validate_spec(c, spec);
        validate_selector(c, spec);
    });
    validate_indexed_name(c, job);
}

/// The pods of an indexed job are named by their index; the last one's name must be valid too.
fn validate_indexed_name(c: &mut Checker, job: &Value) {
    let completions = int(&job["spec"], "completions").unwrap_or(0);
    if text(&job["spec"], "completionMode") == "Indexed" && completions > 0 {
        let name = text(&job["metadata"], "name");
        let last = format!("{name}-{}", completions - 1);
        for _ in names::dns_label(&last) {
            let why = format!("will not able to create pod with invalid DNS label: {last}");
            c.invalid_text("metadata.name", name, why);
        }
    }
}

/// The template has the labels that were generated for it, and they alone are what a generated selector selects by.
fn validate_generated_selector(c: &mut Checker, job: &Value, spec: &Value, generated: &[&str]) {
    if flag(spec, "manualSelector") || !has(spec, "selector") {
        return;
    }
    let (uid, name) = (text(&job["metadata"], "uid"), text(&job["metadata"], "name"));
    let of_template = &spec["template"]["metadata"]["labels"];
    let mut expected = json!({});
    for key in generated {
        let wanted = if key.ends_with("name") { name } else { uid };
        expected[*key] = wanted.into();
        let field = format!("template.metadata.labels[{key}]");
        let why = format!("must be '{wanted}'");
        match of_template.get(key).and_then(Value::as_str) {
            None => c.required(&field, &why),
            Some(label) if label != wanted => c.invalid(&field, of_template, why),
            Some(_) => {}
        }
    }
    let selector = &spec["selector"];
    if is_valid_selector(selector) && !labels::matches(selector, &expected) {
        c.invalid_as("*meta.LabelSelector", "selector", selector, "`selector` not auto-generated");
    }
}

fn is_valid_selector(selector: &Value) -> bool {
    let mut scratch = Checker::new();
    labels::validate_selector(&mut scratch, selector);
    scratch.error_count() == 0
}

fn validate_selector(c: &mut Checker, spec: &Value) {
    let selector = &spec["selector"];
    if selector.is_null() {
        c.required("selector", "");
    }
    c.within("selector", |c| labels::validate_selector(c, selector));
    let labels_of_template = &spec["template"]["metadata"]["labels"];
    if selector.is_null() || is_valid_selector(selector) && !labels::matches(selector, labels_of_template) {
        c.invalid("template.metadata.labels", labels_of_template, "`selector` does not match template `labels`");
    }
}

/// A job's spec, also in cron jobs.
fn validate_spec(c: &mut Checker, spec: &Value) {
    for field in [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ] {
        c.not_negative(spec, field);
    }
    if has(spec, "maxFailedIndexes") && !has(spec, "backoffLimitPerIndex") {
        c.required("backoffLimitPerIndex", "when maxFailedIndexes is specified");
    }
    if has(spec, "managedBy") {
        domain_prefixed_path(c, spec, "managedBy");
        if text(spec, "managedBy").len() > 63 {
            c.too_long("managedBy", 63);
        }
    }
    c.optional_choice(spec, "completionMode", &["NonIndexed", "Indexed"]);
    match text(spec, "completionMode") {
        "Indexed" => validate_indexed(c, spec),
        mode if mode == "NonIndexed" || !has(spec, "completionMode") => {
            for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
                if has(spec, field) {
                    c.invalid(field, &spec[field], "requires indexed completion mode");
                }
            }
        }
        _ => {}
    }
    c.if_set(spec, "podFailurePolicy", |c, policy| validate_failure_policy(c, policy, spec));
    validate_success_policy(c, spec);
    if has(spec, "podReplacementPolicy") {
        let supported: &[&str] =
            if has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        c.supported(spec, "podReplacementPolicy", supported);
    }
    c.at(spec, "template", pod::validate_template);
    validate_restart_policy(c, spec);
}

fn validate_indexed(c: &mut Checker, spec: &Value) {
    let (completions, failed) = (int(spec, "completions"), int(spec, "maxFailedIndexes"));
    if completions.is_none() {
        c.required("completions", "when completion mode is Indexed");
    }
    let at_most = |c: &mut Checker, field: &str, most: i64, why: &str| {
        if int(spec, field).is_some_and(|n| n > most) {
            c.invalid(field, &spec[field], why);
        }
    };
    at_most(c, "parallelism", 100_000, "must be less than or equal to 100000 when completion mode is Indexed");
    if let Some(completions) = completions {
        at_most(c, "maxFailedIndexes", completions, "must be less than or equal to completions");
    }
    at_most(c, "maxFailedIndexes", 100_000, "must be less than or equal to 100000");
    if completions.is_some_and(|n| n > 100_000) && has(spec, "backoffLimitPerIndex") {
        if failed.is_none() {
            c.required("maxFailedIndexes", "must be specified when completions is above 100000");
        }
        let why = "must be less than or equal to 10000 when completions are above 100000 and used with backoff limit per index";
        at_most(c, "parallelism", 10_000, why);
        at_most(c, "maxFailedIndexes", 10_000, why);
    }
}

fn validate_restart_policy(c: &mut Checker, spec: &Value) {
    const FIELD: &str = "template.spec.restartPolicy";
    let policy = text(&spec["template"]["spec"], "restartPolicy");
    match policy {
        "Always" | "" => c.required(FIELD, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if has(spec, "podFailurePolicy") => {
            c.invalid_text(FIELD, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        "OnFailure" | "Never" => {}
        _ => c.not_supported(FIELD, &policy.into(), &["OnFailure", "Never"]),
    }
}

fn validate_failure_policy(c: &mut Checker, policy: &Value, spec: &Value) {
    let template = &spec["template"]["spec"];
    let names: Vec<&str> =
        list(template, "containers").iter().chain(list(template, "initContainers")).map(|v| text(v, "name")).collect();
    if list(policy, "rules").len() > 20 {
        c.too_many("rules", list(policy, "rules").len(), 20);
    }
    c.each(policy, "rules", |c, rule| {
        const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
        match text(rule, "action") {
            "" => c.required("action", "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]"),
            "FailIndex" if !has(spec, "backoffLimitPerIndex") => {
                c.invalid("action", &rule["action"], "requires the backoffLimitPerIndex to be set");
            }
            action if ACTIONS.contains(&action) => {}
            _ => c.not_supported("action", &rule["action"], ACTIONS),
        }
        c.if_set(rule, "onExitCodes", |c, codes| validate_exit_codes(c, codes, &names));
        c.each(rule, "onPodConditions", |c, pattern| {
            c.rule("type", text(pattern, "type"), names::qualified_name);
            c.choice(pattern, "status", &["False", "True", "Unknown"]);
        });
        match (has(rule, "onExitCodes"), list(rule, "onPodConditions").is_empty()) {
            (true, false) => {
                c.invalid_without_value("", "specifying both OnExitCodes and OnPodConditions is not supported")
            }
            (false, true) => {
                c.invalid_without_value("", "specifying one of OnExitCodes and OnPodConditions is required")
            }
            _ => {}
        }
    });
}

fn validate_exit_codes(c: &mut Checker, codes: &Value, containers: &[&str]) {
    match is_empty(codes, "operator") {
        true => c.required("operator", "valid values: [\"In\" \"NotIn\"]"),
        false => c.choice(codes, "operator", &["In", "NotIn"]),
    }
    if has(codes, "containerName") && !containers.contains(&text(codes, "containerName")) {
        let why = "must be one of the container or initContainer names in the pod template";
        c.invalid("containerName", &codes["containerName"], why);
    }
    let values = list(codes, "values");
    if values.is_empty() {
        c.invalid("values", &codes["values"], "at least one value is required");
    } else if values.len() > 255 {
        c.too_many("values", values.len(), 255);
    }
    let repeated = repeated_items(values);
    for (i, value) in values.iter().enumerate() {
        if text(codes, "operator") == "In" && *value == 0 {
            c.invalid(&format!("values[{i}]"), value, "must not be 0 for the In operator");
        }
        if repeated[i] {
            c.duplicate(&format!("values[{i}]"), value);
        }
    }
    if !values.is_sorted_by_key(|v| v.as_i64().unwrap_or(0)) {
        c.invalid("values", &codes["values"], "must be ordered");
    }
}

fn validate_success_policy(c: &mut Checker, spec: &Value) {
    if !has(spec, "successPolicy") {
        return;
    }
    if text(spec, "completionMode") != "Indexed" {
        c.invalid_as(
            "*batch.SuccessPolicy",
            "successPolicy",
            &spec["successPolicy"],
            "requires indexed completion mode",
        );
        return;
    }
    let completions = int(spec, "completions").unwrap_or(0);
    c.at(spec, "successPolicy", |c, policy| {
        if list(policy, "rules").is_empty() {
            c.required("rules", "at least one rules must be specified when the successPolicy is specified");
        }
        c.each(policy, "rules", |c, rule| {
            if !has(rule, "succeededCount") && !has(rule, "succeededIndexes") {
                c.required("", "at least one of succeededCount or succeededIndexes must be specified");
            }
            success_rule(c, rule, completions);
        });
    });
}

fn success_rule(c: &mut Checker, rule: &Value, completions: i64) {
    const INDEXES_BYTES: usize = 64 * 1024;
    let indexes = text(rule, "succeededIndexes");
    if indexes.len() > INDEXES_BYTES {
        c.too_long("succeededIndexes", INDEXES_BYTES);
    }
    let ranges = index_ranges(indexes, completions);
    if let Err(why) = &ranges {
        c.invalid_text("succeededIndexes", indexes, format!("error parsing succeededIndexes: {why}"));
    }
    c.not_negative(rule, "succeededCount");
    let Some(count) = int(rule, "succeededCount") else { return };
    if count > completions {
        let why = format!("must be less than or equal to {completions} (the number of specified completions)");
        c.invalid("succeededCount", &rule["succeededCount"], why);
    }
    let total: i64 = ranges.unwrap_or_default().iter().map(|(first, last)| last - first + 1).sum();
    if has(rule, "succeededIndexes") && count > total {
        let why = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        c.invalid("succeededCount", &rule["succeededCount"], why);
    }
}

/// The ranges of `1,3-5`: increasing, below `completions`; or what is wrong with them.
pub fn index_ranges(indexes: &str, completions: i64) -> Result<Vec<(i64, i64)>, String> {
    let number = |part: &str| -> Result<i64, String> {
        let number: i64 = part.parse().map_err(|_| format!("cannot convert string to integer for index: {part:?}"))?;
        if number >= completions { Err(format!("too large index: {part:?}")) } else { Ok(number) }
    };
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for range in indexes.split(',').filter(|_| !indexes.is_empty()) {
        let (first, last) = match range.split('-').collect::<Vec<_>>().as_slice() {
            [index] => (number(index)?, number(index)?),
            [first, last] => (number(first)?, number(last)?),
            _ => {
                return Err(format!(
                    "the fragment {range:?} violates the requirement that an index interval can have at most two parts separated by '-'"
                ));
            }
        };
        let unordered = |a: i64, b: i64| Err(format!("non-increasing order, previous: {a}, current: {b}"));
        if range.contains('-') && first >= last {
            return unordered(first, last);
        }
        if let Some((_, previous)) = ranges.last()
            && *previous >= first
        {
            return unordered(*previous, first);
        }
        ranges.push((first, last));
    }
    Ok(ranges)
}

/// `acme.io/path`
pub fn domain_prefixed_path(c: &mut Checker, value: &Value, field: &str) {
    let path = text(value, field);
    match path.split_once('/') {
        _ if path.is_empty() => c.required(field, ""),
        Some((host, rest)) if !host.is_empty() && !rest.is_empty() => {
            for message in names::dns_subdomain(host) {
                c.invalid_text(field, host, message);
            }
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !rest.bytes().all(allowed) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                c.invalid_text(field, rest, why);
            }
        }
        _ => c.invalid_text(field, path, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
}

pub fn job_update(c: &mut Checker, object: &Value, old: &Value) {
    // A job from before the labels had prefixes need not get them.
    let before = &old["spec"]["template"]["metadata"]["labels"];
    let prefixed = GENERATED_LABELS[2..].iter().all(|key| before.get(*key).is_some());
    validate(c, object, if prefixed { &GENERATED_LABELS } else { &GENERATED_LABELS[..2] });
    c.within("spec", |c| {
        let (spec, before) = (&object["spec"], &old["spec"]);
        validate_spec(c, spec);
        validate_selector(c, spec);
        completions_update(c, spec, before);
        c.immutable_as("*meta.LabelSelector", spec, before, "selector");
        template_update(c, spec, before);
        c.immutable(spec, before, "completionMode");
        c.immutable_as("*batch.PodFailurePolicy", spec, before, "podFailurePolicy");
        c.immutable(spec, before, "backoffLimitPerIndex");
        c.immutable(spec, before, "managedBy");
        c.immutable_as("*batch.SuccessPolicy", spec, before, "successPolicy");
    });
}

/// An indexed job may change its completions together with its parallelism.
fn completions_update(c: &mut Checker, spec: &Value, before: &Value) {
    if text(spec, "completionMode") != "Indexed" {
        return c.immutable(spec, before, "completions");
    }
    let both_set = has(spec, "completions") && has(before, "completions");
    if both_set && !same(spec, before, "completions") && spec["completions"] != spec["parallelism"] {
        c.invalid("completions", &spec["completions"], "can only be modified in tandem with spec.parallelism");
    }
}

/// A suspended job may change where its pods go, and what they ask for.
fn template_update(c: &mut Checker, spec: &Value, before: &Value) {
    let (template, old) = (&spec["template"], &before["template"]);
    if !flag(before, "suspend") {
        if !equal(template, old) {
            c.invalid_as("core.PodTemplateSpec", "template", template, "field is immutable");
        }
        return;
    }
    let mut allowed = old["spec"].clone();
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        allowed[field] = template["spec"][field].clone();
    }
    let affinity = |spec: &Value| spec["affinity"]["nodeAffinity"].clone();
    if has(&template["spec"], "affinity") || has(&allowed, "affinity") {
        if !allowed["affinity"].is_object() {
            allowed["affinity"] = json!({});
        }
        allowed["affinity"]["nodeAffinity"] = affinity(&template["spec"]);
    }
    for field in ["containers", "initContainers"] {
        let new = list(&template["spec"], field);
        let old = allowed[field].as_array_mut().map(Vec::as_mut_slice).unwrap_or_default();
        if old.len() == new.len() {
            for (old, new) in old.iter_mut().zip(new).filter(|(old, new)| old["name"] == new["name"]) {
                old["resources"] = new["resources"].clone();
            }
        }
    }
    if !equal(&template["spec"], &allowed) {
        c.invalid_as("core.PodSpec", "template.spec", &template["spec"], "field is immutable");
    }
}

pub fn cron_job(c: &mut Checker, object: &Value) {
    if text(&object["metadata"], "name").len() > 52 {
        let name = &object["metadata"]["name"];
        c.invalid("metadata.name", name, "must be no more than 52 characters");
    }
    c.at(object, "spec", |c, spec| {
        match text(spec, "schedule") {
            "" => c.required("schedule", ""),
            schedule => {
                if schedule.contains("TZ") {
                    c.invalid_text(
                        "schedule",
                        schedule,
                        "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
                    );
                }
                if let Err(why) = cron::check(schedule) {
                    c.invalid_text("schedule", schedule, why);
                }
            }
        }
        c.not_negative(spec, "startingDeadlineSeconds");
        if has(spec, "timeZone") {
            validate_time_zone(c, text(spec, "timeZone"));
        }
        c.choice(spec, "concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
        c.at(spec, "jobTemplate", |c, template| {
            c.at(template, "spec", |c, job| {
                validate_spec(c, job);
                if flag(job, "manualSelector") {
                    c.not_supported("manualSelector", &true.into(), &["nil", "false"]);
                }
                if !is_empty(job, "selector") {
                    c.forbidden("selector", "`selector` will be auto-generated");
                }
            });
        });
        c.not_negative(spec, "successfulJobsHistoryLimit");
        c.not_negative(spec, "failedJobsHistoryLimit");
    });
}

fn validate_time_zone(c: &mut Checker, zone: &str) {
    match zone {
        "" => c.invalid_text("timeZone", zone, "timeZone must be nil or non-empty string"),
        _ if zone.eq_ignore_ascii_case("local") => {
            c.invalid_text(
                "timeZone",
                zone,
                "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones",
            );
        }
        _ if jiff::tz::TimeZone::get(zone).is_err() => {
            c.invalid_text("timeZone", zone, format!("unknown time zone {zone}"));
        }
        _ => {}
    }
}
