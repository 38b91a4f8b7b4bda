//! Devices: classes, claims and slices of `resource.k8s.io`. Whether their CEL compiles is not checked here.

use serde_json::Value;

use super::check::{Checker, entries, equal, flag, has, int, is_empty, list, quantity, repeated_items, text};
use super::persistent::csi_driver_name;
use super::{labels, metadata, node_selector, resources};
use crate::names;

const SELECTORS: usize = 32;
const REQUESTS: usize = 32;
const ALTERNATIVES: usize = 8;
const CONSTRAINTS: usize = 32;
const CONFIGURATIONS: usize = 32;
const EXPRESSION_BYTES: usize = 10 * 1024;
const PARAMETER_BYTES: usize = 10 * 1024;
const DEVICES: usize = 128;
/// Of slices whose devices have taints, counters or lists of values.
const ADVANCED_DEVICES: usize = 64;
const COUNTER_SETS: usize = 8;
const COUNTERS: usize = 32;
const COUNTER_CONSUMPTIONS: usize = 2;
const ATTRIBUTES: usize = 32;
const ATTRIBUTE_VALUES: usize = 48;
const TAINTS: usize = 16;
const BINDING_CONDITIONS: usize = 4;
const VALUE_BYTES: usize = 64;
const IDENTIFIER_BYTES: usize = 32;

/// Checks the items of a list that is not too long; a list that is gets that one error.
fn slice(c: &mut Checker, value: &Value, field: &str, max: usize, check: impl FnMut(&mut Checker, &Value)) {
    let count = list(value, field).len();
    if count > max {
        c.too_many(field, count, max);
    } else {
        c.each(value, field, check);
    }
}

/// As [`slice`], and no two items have the same key.
fn set(
    c: &mut Checker,
    value: &Value,
    field: &str,
    max: usize,
    key: impl Fn(&Value) -> &str,
    check: impl FnMut(&mut Checker, &Value),
) {
    let items = list(value, field);
    slice(c, value, field, max, check);
    if items.len() > max {
        return;
    }
    let mut seen = std::collections::HashSet::new();
    for (i, item) in items.iter().enumerate() {
        if !seen.insert(key(item)) {
            c.duplicate(&format!("{field}[{i}]"), &key(item).into());
        }
    }
}

fn named(item: &Value) -> &str {
    text(item, "name")
}

fn itself(item: &Value) -> &str {
    item.as_str().unwrap_or_default()
}

pub fn class(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        slice(c, spec, "selectors", SELECTORS, selector);
        slice(c, spec, "config", CONFIGURATIONS, configuration);
        if has(spec, "extendedResourceName") && !resources::is_extended(text(spec, "extendedResourceName")) {
            let why = "must be a valid extended resource name";
            c.invalid("extendedResourceName", &spec["extendedResourceName"], why);
        }
    });
}

fn selector(c: &mut Checker, selector: &Value) {
    if !has(selector, "cel") {
        c.required("cel", "");
        return;
    }
    c.at(selector, "cel", |c, cel| {
        let expression = text(cel, "expression");
        if expression.len() > EXPRESSION_BYTES {
            c.too_long("expression", EXPRESSION_BYTES);
        } else if expression.trim().is_empty() {
            c.invalid_text(
                "expression",
                expression,
                "compilation failed: ERROR: <input>:1:0: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}",
            );
        }
    });
}

fn configuration(c: &mut Checker, config: &Value) {
    if !has(config, "opaque") {
        c.required("opaque", "");
        return;
    }
    c.at(config, "opaque", |c, opaque| {
        csi_driver_name(c, text(opaque, "driver"), "driver");
        raw(c, opaque, "parameters", PARAMETER_BYTES);
    });
}

/// A JSON object of the user's own.
fn raw(c: &mut Checker, value: &Value, field: &str, max: usize) {
    match &value[field] {
        Value::Null => c.required(field, ""),
        parameters if parameters.to_string().len() > max => c.too_long(field, max),
        Value::Object(_) => {}
        _ => c.invalid_text(field, "<value omitted>", "must be a valid JSON object"),
    }
}

pub fn claim(c: &mut Checker, object: &Value) {
    c.at(object, "spec", claim_spec);
}

/// A claim of which nothing but the status ever changes.
pub fn claim_update(c: &mut Checker, object: &Value, old: &Value) {
    c.immutable_as("resource.ResourceClaimSpec", object, old, "spec");
}

pub fn claim_template(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| {
        c.at(spec, "metadata", |c, template| {
            labels::validate(c, template, "labels");
            metadata::validate_annotations(c, template);
        });
        c.at(spec, "spec", claim_spec);
    });
}

fn claim_spec(c: &mut Checker, spec: &Value) {
    c.at(spec, "devices", |c, devices| {
        set(c, devices, "requests", REQUESTS, named, request);
        slice(c, devices, "constraints", CONSTRAINTS, |c, constraint| {
            request_references(c, constraint, devices);
            match (has(constraint, "matchAttribute"), has(constraint, "distinctAttribute")) {
                (true, _) => fully_qualified(c, "matchAttribute", text(constraint, "matchAttribute")),
                (false, true) => fully_qualified(c, "distinctAttribute", text(constraint, "distinctAttribute")),
                _ => c.required("", "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set"),
            }
        });
        slice(c, devices, "config", CONFIGURATIONS, |c, config| {
            request_references(c, config, devices);
            configuration(c, config);
        });
    });
}

fn request(c: &mut Checker, request: &Value) {
    c.rule("name", text(request, "name"), names::dns_label);
    match (has(request, "exactly"), is_empty(request, "firstAvailable")) {
        (false, true) => c.required("", "exactly one of `exactly` or `firstAvailable` is required"),
        (true, false) => {
            let why = "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set";
            c.invalid("", &Value::Null, why);
        }
        (true, true) => c.at(request, "exactly", device_request),
        (false, false) => set(c, request, "firstAvailable", ALTERNATIVES, named, |c, alternative| {
            c.rule("name", text(alternative, "name"), names::dns_label);
            device_request(c, alternative);
        }),
    }
}

fn device_request(c: &mut Checker, request: &Value) {
    c.name(request, "deviceClassName", names::dns_subdomain);
    slice(c, request, "selectors", SELECTORS, selector);
    let count = int(request, "count").unwrap_or(0);
    match text(request, "allocationMode") {
        "All" if count != 0 => c.invalid("count", &count.into(), "must not be specified when allocationMode is 'All'"),
        "ExactCount" if count <= 0 => c.invalid("count", &count.into(), "must be greater than zero"),
        "All" | "ExactCount" => {}
        other => c.not_supported("allocationMode", &other.into(), &["All", "ExactCount"]),
    }
    slice(c, request, "tolerations", TAINTS, toleration);
}

fn toleration(c: &mut Checker, toleration: &Value) {
    if !is_empty(toleration, "key") {
        c.rule("key", text(toleration, "key"), names::qualified_name);
    }
    let value = text(toleration, "value");
    match text(toleration, "operator") {
        "Exists" if !value.is_empty() => c.invalid_text("value", value, "must be empty for operator `Exists`"),
        "Exists" => {}
        "Equal" => c.rule("value", value, names::label_value),
        "" => c.required("operator", ""),
        other => c.not_supported("operator", &other.into(), &["Equal", "Exists"]),
    }
    if !is_empty(toleration, "effect") {
        c.supported(toleration, "effect", EFFECTS);
    }
}

const EFFECTS: &[&str] = &["NoExecute", "NoSchedule", "None"];

/// `requests` of a constraint or configuration: names of requests, or of their alternatives as `request/alternative`.
fn request_references(c: &mut Checker, value: &Value, devices: &Value) {
    const FORM: &str =
        "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let known = |reference: &str| {
        let (name, alternative) = reference.split_once('/').map_or((reference, None), |(n, a)| (n, Some(a)));
        list(devices, "requests").iter().filter(|r| text(r, "name") == name).any(|request| {
            alternative.is_none_or(|a| list(request, "firstAvailable").iter().any(|r| text(r, "name") == a))
        })
    };
    set(c, value, "requests", REQUESTS, itself, |c, item| {
        let reference = itself(item);
        if reference.split('/').count() > 2 {
            c.invalid("", item, FORM);
            return;
        }
        reference.split('/').for_each(|part| c.rule("", part, names::dns_label));
        if !known(reference) {
            c.invalid("", item, FORM);
        }
    });
}

/// `domain/identifier`, or an identifier alone.
fn qualified(c: &mut Checker, field: &str, name: &str) {
    match name.split('/').collect::<Vec<_>>().as_slice() {
        [identifier] => c_identifier(c, field, identifier),
        [domain, identifier] => {
            match *domain {
                "" => c.invalid_text(field, "", "the domain must not be empty"),
                domain => csi_driver_name(c, domain, field),
            }
            match *identifier {
                "" => c.invalid_text(field, "", "the name must not be empty"),
                identifier => c_identifier(c, field, identifier),
            }
        }
        _ => {}
    }
}

fn fully_qualified(c: &mut Checker, field: &str, name: &str) {
    qualified(c, field, name);
    if !name.contains('/') {
        c.invalid_text(field, name, "a fully qualified name must be a domain and a name separated by a slash");
    }
}

fn c_identifier(c: &mut Checker, field: &str, identifier: &str) {
    if identifier.len() > IDENTIFIER_BYTES {
        c.too_long(field, IDENTIFIER_BYTES);
    }
    c.rule(field, identifier, names::c_identifier);
}

pub fn resource_slice(c: &mut Checker, object: &Value) {
    c.at(object, "spec", |c, spec| slice_spec(c, spec, None));
}

pub fn resource_slice_update(c: &mut Checker, object: &Value, old: &Value) {
    c.at(object, "spec", |c, spec| slice_spec(c, spec, Some(&old["spec"])));
}

fn slice_spec(c: &mut Checker, spec: &Value, old: Option<&Value>) {
    csi_driver_name(c, text(spec, "driver"), "driver");
    c.at(spec, "pool", pool);
    if let Some(old) = old {
        c.within("pool", |c| c.immutable(&spec["pool"], &old["pool"], "name"));
        c.immutable(spec, old, "driver");
        c.immutable(spec, old, "nodeName");
    }
    slice_place(c, spec);
    if has(spec, "sharedCounters") && has(spec, "devices") {
        c.invalid_text("", "", "only one of `sharedCounters` or `devices` is allowed");
    }
    let max = if list(spec, "devices").iter().any(is_advanced) { ADVANCED_DEVICES } else { DEVICES };
    let before = |name: &str| list(old.unwrap_or(&Value::Null), "devices").iter().find(|d| text(d, "name") == name);
    set(c, spec, "devices", max, named, |c, d| device(c, d, before(text(d, "name")), spec));
    set(c, spec, "sharedCounters", COUNTER_SETS, named, |c, counters| {
        c.name(counters, "name", names::dns_label);
        counter_map(c, counters);
    });
}

fn pool(c: &mut Checker, pool: &Value) {
    match text(pool, "name") {
        "" => c.required("name", ""),
        name => {
            if name.len() > 253 {
                c.too_long("name", 253);
            }
            name.split('/').for_each(|part| c.rule("name", part, names::dns_subdomain));
        }
    }
    let count = int(pool, "resourceSliceCount").unwrap_or(0);
    if count <= 0 {
        c.invalid("resourceSliceCount", &count.into(), "must be greater than zero");
    }
    if int(pool, "generation").is_some_and(|n| n < 0) {
        c.invalid("generation", &pool["generation"], "must be greater than or equal to zero");
    }
}

/// Checks where things are, and returns the fields that say so.
fn places(c: &mut Checker, holder: &Value, empty_node: &str, flags: &[&'static str]) -> Vec<&'static str> {
    let mut said = Vec::new();
    if has(holder, "nodeName") {
        match text(holder, "nodeName") {
            "" => c.invalid_text("nodeName", "", empty_node),
            name => {
                said.push("nodeName");
                c.rule("nodeName", name, names::dns_subdomain);
            }
        }
    }
    if has(holder, "nodeSelector") {
        said.push("nodeSelector");
        c.at(holder, "nodeSelector", node_selector::validate);
    }
    for name in flags {
        match &holder[*name] {
            Value::Bool(true) => said.push(name),
            Value::Null => {}
            other => c.invalid(name, other, "must be either unset or set to true"),
        }
    }
    said
}

fn slice_place(c: &mut Checker, spec: &Value) {
    const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let flags = ["allNodes", "perDeviceNodeSelection"];
    let said = places(c, spec, "must be either unset or set to a non-empty string", &flags);
    if has(spec, "nodeSelector") && list(&spec["nodeSelector"], "nodeSelectorTerms").len() != 1 {
        let why = "must have exactly one node selector term";
        c.invalid("nodeSelector.nodeSelectorTerms", &spec["nodeSelector"]["nodeSelectorTerms"], why);
    }
    match said.as_slice() {
        [] => c.required("", RULE),
        [_] => {}
        many => c.invalid_text("", &braced(many), format!("{RULE}, but multiple fields are set")),
    }
}

fn braced(fields: &[&str]) -> String {
    let quoted: Vec<String> = fields.iter().map(|f| format!("`{f}`")).collect();
    format!("{{{}}}", quoted.join(", "))
}

const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

fn is_advanced(device: &Value) -> bool {
    !is_empty(device, "taints")
        || !is_empty(device, "consumesCounters")
        || entries(device, "attributes").any(|(_, a)| LISTS.iter().any(|l| has(a, l)))
}

fn device(c: &mut Checker, device: &Value, old: Option<&Value>, spec: &Value) {
    c.rule("name", text(device, "name"), names::dns_label);
    attribute_counts(c, device);
    c_map(c, device, "attributes", attribute);
    let shared = flag(device, "allowMultipleAllocations");
    c_map(c, device, "capacity", |c, capacity| match (shared, has(capacity, "requestPolicy")) {
        (_, false) => {}
        (false, true) => c.forbidden("requestPolicy", "allowMultipleAllocations must be true"),
        (true, true) => c.at(capacity, "requestPolicy", |c, policy| request_policy(c, &capacity["value"], policy)),
    });
    if old.is_none_or(|old| !equal(&old["taints"], &device["taints"])) {
        slice(c, device, "taints", TAINTS, taint);
    }
    set(
        c,
        device,
        "consumesCounters",
        COUNTER_CONSUMPTIONS,
        |v| text(v, "counterSet"),
        |c, consumption| {
            c.name(consumption, "counterSet", names::dns_label);
            counter_map(c, consumption);
        },
    );
    device_place(c, device, spec);
    binding_conditions(c, device);
}

fn attribute_counts(c: &mut Checker, device: &Value) {
    let count = entries(device, "attributes").count() + entries(device, "capacity").count();
    if count > ATTRIBUTES {
        let why = format!("the total number of attributes and capacities must not exceed {ATTRIBUTES}");
        c.invalid("", &count.into(), why);
    }
    let values = |attribute: &Value| LISTS.iter().map(|l| list(attribute, l).len()).sum::<usize>().max(1);
    let count: usize = entries(device, "attributes").map(|(_, a)| values(a)).sum();
    if count > ATTRIBUTE_VALUES {
        let why = format!("the total number of attribute values must not exceed {ATTRIBUTE_VALUES}");
        c.invalid("", &count.into(), why);
    }
}

/// A map whose keys are qualified names; errors in a key stand at the map.
fn c_map(c: &mut Checker, value: &Value, field: &str, mut check: impl FnMut(&mut Checker, &Value)) {
    for (key, item) in entries(value, field) {
        qualified(c, field, key);
        c.within(&format!("{field}[{}]", shortened(key, 63 + 1 + IDENTIFIER_BYTES)), |c| check(c, item));
    }
}

/// A key as errors show it: a long one without its middle.
fn shortened(key: &str, max: usize) -> String {
    if key.len() <= max || !key.is_ascii() {
        return key.to_string();
    }
    let rest = max - 3;
    format!("{}...{}", &key[..rest.div_ceil(2)], &key[key.len() - rest / 2..])
}

fn attribute(c: &mut Checker, attribute: &Value) {
    let text_value = |c: &mut Checker, field: &str, value: &str| {
        if value.len() > VALUE_BYTES {
            c.too_long(field, VALUE_BYTES);
        }
    };
    let version = |c: &mut Checker, field: &str, value: &str| {
        if !is_semantic_version(value) {
            c.invalid_text(field, value, "must be a string compatible with semver.org spec 2.0.0");
        }
        text_value(c, field, value);
    };
    text_value(c, "string", text(attribute, "string"));
    if has(attribute, "version") {
        version(c, "version", text(attribute, "version"));
    }
    for field in LISTS.iter().filter(|f| has(attribute, f)) {
        if is_empty(attribute, field) {
            c.invalid(field, &attribute[*field], "must not be empty if specified");
        }
        for (i, item) in list(attribute, field).iter().enumerate() {
            match *field {
                "strings" => text_value(c, &format!("strings[{i}]"), itself(item)),
                "versions" => version(c, &format!("versions[{i}]"), itself(item)),
                _ => {}
            }
        }
    }
    let given = ["bool", "int", "string", "version"].iter().chain(&LISTS).filter(|f| has(attribute, f)).count();
    match given {
        1 => {}
        0 => c.invalid_text("", "", "exactly one value must be specified"),
        _ => c.invalid("", attribute, "exactly one value must be specified"),
    }
}

/// `1.2.3-pre.1+build`, as semver.org has it.
fn is_semantic_version(text: &str) -> bool {
    let (rest, build) = text.split_once('+').map_or((text, None), |(r, b)| (r, Some(b)));
    let (core, pre) = rest.split_once('-').map_or((rest, None), |(r, p)| (r, Some(p)));
    let number = |t: &str| t == "0" || (!t.is_empty() && !t.starts_with('0') && t.bytes().all(|b| b.is_ascii_digit()));
    let word = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let pre_part = |t: &str| number(t) || (word(t) && !t.bytes().all(|b| b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(|p| p.split('.').all(pre_part))
        && build.is_none_or(|b| b.split('.').all(word))
}

fn taint(c: &mut Checker, taint: &Value) {
    c.rule("key", text(taint, "key"), names::qualified_name);
    c.rule("value", text(taint, "value"), names::label_value);
    c.choice(taint, "effect", EFFECTS);
}

/// What a shared capacity may be asked for in.
fn request_policy(c: &mut Checker, capacity: &Value, policy: &Value) {
    match (is_empty(policy, "validValues"), has(policy, "validRange")) {
        (false, true) => c.forbidden(
            "",
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        ),
        (false, false) if !has(policy, "default") => c.required("default", "required when validValues is defined"),
        (false, false) => valid_values(c, capacity, policy),
        (true, true) if !has(policy, "default") => c.required("default", "required when validRange is defined"),
        (true, true) => c.at(policy, "validRange", |c, range| valid_range(c, capacity, &policy["default"], range)),
        (true, false) => {}
    }
}

fn valid_values(c: &mut Checker, capacity: &Value, policy: &Value) {
    let values = list(policy, "validValues");
    for (i, pair) in values.windows(2).enumerate() {
        if quantity(&pair[0]) > quantity(&pair[1]) {
            c.invalid(&format!("validValues[{}]", i + 1), &pair[1], "values must be sorted in ascending order");
        }
    }
    slice(c, policy, "validValues", 10, |c, option| {
        if quantity(option) > quantity(capacity) {
            c.invalid("", option, format!("option is larger than capacity value: {}", itself(capacity)));
        }
    });
    let repeated = repeated_items(values);
    for (i, value) in values.iter().enumerate().filter(|(i, _)| repeated[*i]) {
        c.duplicate(&format!("validValues[{i}]"), value);
    }
    if !values.iter().any(|v| quantity(v) == quantity(&policy["default"])) {
        c.invalid("validValues", &policy["default"], "default value is not valid according to the requestPolicy");
    }
}

fn valid_range(c: &mut Checker, capacity: &Value, default: &Value, range: &Value) {
    let (min, max, step) = (&range["min"], &range["max"], &range["step"]);
    if min.is_null() {
        c.required("min", "required when validRange is defined");
        return;
    }
    let more = |a: &Value, b: &Value| quantity(a) > quantity(b);
    let mut refuse = |is: bool, field: &str, value: &Value, what: &str, other: &Value| {
        if is {
            c.invalid(field, value, format!("{what}: {}", itself(other)));
        }
    };
    refuse(more(min, capacity), "min", min, "min is larger than capacity value", capacity);
    refuse(more(min, default), "min", default, "default is less than min", min);
    if !max.is_null() {
        refuse(more(min, max), "max", min, "min is larger than max", max);
        refuse(more(max, capacity), "max", max, "max is larger than capacity value", capacity);
        refuse(more(default, max), "max", default, "default is more than max", max);
    }
    if step.is_null() {
        return;
    }
    let one = quantity(min) + quantity(step);
    if one > quantity(capacity) {
        let why = format!("one step {one} is larger than capacity value: {}", itself(capacity));
        c.invalid("step", step, why);
    }
    let width = quantity(step).to_i64();
    for value in [default, max].into_iter().filter(|v| !v.is_null()) {
        let distance = quantity(value).to_i64().saturating_sub(quantity(min).to_i64());
        if width != 0 && distance % width != 0 {
            let why = format!("value is not a multiple of a given step ({}) from ({})", itself(step), itself(min));
            c.invalid("step", value, why);
        }
    }
}

fn counter_map(c: &mut Checker, holder: &Value) {
    let count = entries(holder, "counters").count();
    if count == 0 {
        c.required("counters", "");
    } else if count > COUNTERS {
        c.too_many("counters", count, COUNTERS);
    } else {
        entries(holder, "counters").for_each(|(key, _)| c.rule("counters", key, names::dns_label));
    }
}

fn device_place(c: &mut Checker, device: &Value, spec: &Value) {
    if flag(spec, "perDeviceNodeSelection") {
        const RULE: &str = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        match places(c, device, "must not be empty", &["allNodes"]).as_slice() {
            [] => c.required("", RULE),
            [_] => {}
            many => c.invalid_text("", &braced(many), RULE),
        }
    } else if ["nodeName", "nodeSelector", "allNodes"].iter().any(|f| has(device, f)) {
        let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
        c.invalid("", &Value::Null, why);
    }
}

fn binding_conditions(c: &mut Checker, device: &Value) {
    let (good, bad) = (list(device, "bindingConditions"), list(device, "bindingFailureConditions"));
    for (field, items) in [("bindingConditions", good), ("bindingFailureConditions", bad)] {
        slice(c, device, field, BINDING_CONDITIONS, |c, item| c.rule("", itself(item), names::qualified_name));
        let repeated = repeated_items(items);
        for (i, item) in items.iter().enumerate() {
            let at = format!("{field}[{i}]");
            if repeated[i] {
                c.duplicate(&at, item);
            }
            if field == "bindingFailureConditions" && good.contains(item) {
                c.invalid(&at, item, "bindingFailureConditions must not overlap with bindingConditions");
            }
        }
    }
    if good.is_empty() && !bad.is_empty() {
        let why = "bindingConditions are required to use bindingFailureConditions";
        c.invalid("bindingConditions", &device["bindingConditions"], why);
    }
    if bad.is_empty() && !good.is_empty() {
        let why = "bindingFailureConditions are required to use bindingConditions";
        c.invalid("bindingFailureConditions", &device["bindingFailureConditions"], why);
    }
}
