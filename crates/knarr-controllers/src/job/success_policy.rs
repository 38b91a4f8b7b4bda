//! When a job with numbered pods has done enough: `successPolicy` (KEP-3998).

use k8s_openapi::api::batch::v1::{Job, SuccessPolicyRule};

use super::index_set::Indexes;
use super::spec;

/// Which of the job's rules the succeeded indexes fulfil, in upstream's words; the first one.
pub(super) fn fulfilled(job: &Job, succeeded: &Indexes) -> Option<String> {
    let (policy, completions) = (spec(job).success_policy.as_ref()?, spec(job).completions?);
    if succeeded.is_empty() {
        return None;
    }
    let rule = policy.rules.iter().position(|rule| fulfils(rule, succeeded, completions))?;
    Some(format!("Matched rules at index {rule}"))
}

fn fulfils(rule: &SuccessPolicyRule, succeeded: &Indexes, completions: i32) -> bool {
    let enough = |count: i64| rule.succeeded_count.is_some_and(|wanted| count >= i64::from(wanted));
    let Some(listed) = &rule.succeeded_indexes else { return enough(succeeded.len()) };
    let listed = Indexes::parse(listed, completions);
    let done = listed.common(succeeded);
    !listed.is_empty() && (done == listed.len() || enough(done))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_rule_names_indexes_a_count_or_so_many_of_the_indexes() {
        let rules = |rules: serde_json::Value| -> Job {
            serde_json::from_value(json!({"metadata": {}, "spec": {"template": {}, "completions": 10,
                "completionMode": "Indexed", "successPolicy": {"rules": rules}}}))
            .expect("a job")
        };
        let job = rules(json!([
            {"succeededIndexes": "0,2-4"},
            {"succeededIndexes": "5-9", "succeededCount": 2},
            {"succeededCount": 6},
        ]));
        for (succeeded, rule) in [
            ("", None),
            ("0,2,3", None),
            ("0-4", Some(0)),
            ("0,6", None),
            ("5,8", Some(1)),
            ("0-3,5", None),
            ("0-2,4,5,9", Some(1)),
        ] {
            let expected = rule.map(|rule| format!("Matched rules at index {rule}"));
            assert_eq!(fulfilled(&job, &Indexes::parse(succeeded, 10)), expected, "{succeeded}");
        }
        let job = rules(json!([{"succeededCount": 3}]));
        assert_eq!(fulfilled(&job, &Indexes::parse("0,1", 10)), None);
        assert!(fulfilled(&job, &Indexes::parse("0,1,9", 10)).is_some());
    }
}
