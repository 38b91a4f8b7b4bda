//! Nobody may grant what they do not hold.

use super::rule::{Rule, url_matches};

/// The parts of `wanted` that `held` does not cover; empty if it covers all.
pub fn covers(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let missing = wanted.iter().flat_map(atoms).filter(|atom| !held.iter().any(|rule| covers_atom(rule, atom)));
    compact(missing.collect())
}

/// One rule as rules of one verb, one group, one resource, one name each.
fn atoms(rule: &Rule) -> Vec<Rule> {
    let mut out = Vec::new();
    for verb in &rule.verbs {
        let with_verb = |rest: Rule| Rule { verbs: vec![verb.clone()], ..rest };
        for group in &rule.api_groups {
            for resource in &rule.resources {
                let plain = with_verb(Rule {
                    api_groups: vec![group.clone()],
                    resources: vec![resource.clone()],
                    ..Rule::default()
                });
                if rule.resource_names.is_empty() {
                    out.push(plain);
                    continue;
                }
                let named = |n: &String| Rule { resource_names: vec![n.clone()], ..plain.clone() };
                out.extend(rule.resource_names.iter().map(named));
            }
        }
        for url in &rule.non_resource_urls {
            out.push(with_verb(Rule { non_resource_urls: vec![url.clone()], ..Rule::default() }));
        }
    }
    out
}

fn covers_atom(held: &Rule, atom: &Rule) -> bool {
    let all =
        |held: &[String], wanted: &[String]| held.iter().any(|h| h == "*") || wanted.iter().all(|w| held.contains(w));
    if !all(&held.verbs, &atom.verbs) {
        return false;
    }
    if let Some(url) = atom.non_resource_urls.first() {
        return held.non_resource_urls.iter().any(|h| h == url || url_matches(h, url));
    }
    all(&held.api_groups, &atom.api_groups)
        && atom.resources.iter().all(|r| covers_resource(&held.resources, r))
        && (held.resource_names.is_empty()
            || (!atom.resource_names.is_empty() && atom.resource_names.iter().all(|n| held.resource_names.contains(n))))
}

fn covers_resource(held: &[String], wanted: &str) -> bool {
    let subresource = wanted.split_once('/').map(|(_, s)| s);
    held.iter()
        .any(|h| h == "*" || h == wanted || matches!((h.strip_prefix("*/"), subresource), (Some(a), Some(b)) if a == b))
}

/// Atoms of the same resource and name become one rule with all their verbs.
fn compact(atoms: Vec<Rule>) -> Vec<Rule> {
    let mut out: Vec<Rule> = Vec::new();
    for atom in atoms {
        let same = out.iter_mut().find(|r| {
            r.non_resource_urls.is_empty()
                && atom.non_resource_urls.is_empty()
                && r.api_groups == atom.api_groups
                && r.resources == atom.resources
                && r.resource_names == atom.resource_names
        });
        match same {
            Some(rule) => rule.verbs.extend(atom.verbs),
            None => out.push(atom),
        }
    }
    out
}

/// `{APIGroups:["apps"], Resources:["deployments"], Verbs:["get" "list"]}`
pub fn compact_string(rule: &Rule) -> String {
    let fields = [
        ("APIGroups", &rule.api_groups),
        ("Resources", &rule.resources),
        ("NonResourceURLs", &rule.non_resource_urls),
        ("ResourceNames", &rule.resource_names),
        ("Verbs", &rule.verbs),
    ];
    let parts: Vec<String> =
        fields.iter().filter(|(_, l)| !l.is_empty()).map(|(n, l)| format!("{n}:{}", quoted_list(l))).collect();
    format!("{{{}}}", parts.join(", "))
}

/// A list of strings as Go's `%q` prints it.
pub fn quoted_list(list: &[String]) -> String {
    let quoted: Vec<String> = list.iter().map(|s| format!("{s:?}")).collect();
    format!("[{}]", quoted.join(" "))
}
