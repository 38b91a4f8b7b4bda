//! What a job's controller reports, whoever it is: a job that has ended stays ended, and its counters never go back.

use std::collections::HashSet;

use serde_json::Value;

use super::batch::index_ranges;
use super::check::{Checker, equal, has, int, is_empty, list, same, text};

/// Whether a condition of a job holds.
fn holds(job: &Value, kind: &str) -> bool {
    list(&job["status"], "conditions").iter().any(|c| text(c, "type") == kind && text(c, "status") == "True")
}

fn finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// A change of a job's status. Rules about a field count only where the field or what it depends on changed: a job that
/// broke one before may still report other things.
pub fn validate(c: &mut Checker, job: &Value, old: &Value) {
    let change = Change { job, old, status: &job["status"], before: &old["status"] };
    c.within("status", |c| {
        for field in ["active", "succeeded", "failed", "ready", "terminating"] {
            c.not_negative(change.status, field);
        }
        uncounted(c, change.status);
        change.endings(c);
        change.times(c);
        change.pods(c);
        change.indexes(c);
        change.never_back(c);
    });
}

/// Pods that ended and are not yet counted are named once.
fn uncounted(c: &mut Checker, status: &Value) {
    let mut seen: HashSet<&str> = HashSet::new();
    c.within("uncountedTerminatedPods", |c| {
        for field in ["succeeded", "failed"] {
            for (i, uid) in list(&status["uncountedTerminatedPods"], field).iter().enumerate() {
                let at = format!("{field}[{i}]");
                if uid == "" {
                    c.invalid(&at, uid, "must not be empty");
                } else if !seen.insert(uid.as_str().unwrap_or_default()) {
                    c.duplicate(&at, uid);
                }
            }
        }
    });
}

struct Change<'a> {
    job: &'a Value,
    old: &'a Value,
    status: &'a Value,
    before: &'a Value,
}

impl Change<'_> {
    fn turned(&self, kind: &str) -> bool {
        holds(self.job, kind) != holds(self.old, kind)
    }

    fn changed(&self, field: &str) -> bool {
        !same(self.status, self.before, field)
    }

    fn ended(&self) -> bool {
        finished(self.job) != finished(self.old)
    }

    /// Which conditions exclude or need which.
    fn endings(&self, c: &mut Checker) {
        let is = |kind: &str| holds(self.job, kind);
        let mut refuse = |bad: bool, why: &str| {
            if bad {
                c.invalid_without_value("conditions", why);
            }
        };
        let (complete, failed, target, met) =
            (is("Complete"), is("Failed"), is("FailureTarget"), is("SuccessCriteriaMet"));
        let completed = self.turned("Complete");
        refuse(
            (completed || self.turned("Failed")) && complete && failed,
            "cannot set Complete=True and Failed=true conditions",
        );
        refuse(
            (completed || self.turned("FailureTarget")) && complete && target,
            "cannot set Complete=True and FailureTarget=true conditions",
        );
        refuse(
            (self.turned("Failed") || self.changed("failedIndexes")) && failed && !target,
            "cannot set Failed=True condition without the FailureTarget=true condition",
        );
        refuse(
            (completed || self.turned("SuccessCriteriaMet")) && complete && !met,
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
        refuse(met && failed, "cannot set SuccessCriteriaMet=True and Failed=true conditions");
        refuse(met && target, "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions");
        refuse(
            has(&self.job["spec"], "successPolicy") && !met && complete,
            "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True",
        );
    }

    fn times(&self, c: &mut Checker) {
        let (complete, end, start) = (holds(self.job, "Complete"), "completionTime", "startTime");
        if self.turned("Complete") || self.changed(end) {
            match (has(self.status, end), complete) {
                (true, false) => {
                    let why = "cannot set completionTime when there is no Complete=True condition";
                    c.invalid(end, &self.status[end], why);
                }
                (false, true) => c.required(end, "completionTime is required for Complete jobs"),
                _ => {}
            }
        }
        let ordered =
            !has(self.status, start) || !has(self.status, end) || text(self.status, end) >= text(self.status, start);
        if !ordered && (self.changed(start) || self.changed(end)) {
            c.invalid(end, &self.status[end], "must be equal to or after `startTime`");
        }
        let spec = &self.job["spec"];
        let never_ran = spec["suspend"] == true && int(spec, "completions") == Some(0);
        if (self.ended() || self.changed(start)) && !never_ran && finished(self.job) && !has(self.status, start) {
            c.required(start, "startTime is required for finished job");
        }
    }

    /// A finished job has no pods left.
    fn pods(&self, c: &mut Checker) {
        let over = finished(self.job);
        let number = |field: &str| int(self.status, field).unwrap_or(0);
        for field in ["active", "terminating"] {
            if over && number(field) > 0 && (self.ended() || self.changed(field)) {
                c.invalid(field, &self.status[field], format!("{field}>0 is invalid for finished job"));
            }
        }
        let pods = &self.status["uncountedTerminatedPods"];
        let left = !is_empty(pods, "succeeded") || !is_empty(pods, "failed");
        if over && left && (self.ended() || self.changed("uncountedTerminatedPods")) {
            c.invalid("uncountedTerminatedPods", pods, "must be empty for finished job");
        }
        if (self.changed("ready") || self.changed("active")) && number("ready") > number("active") {
            c.invalid("ready", &self.status["ready"], "cannot set more ready pods than active");
        }
    }

    fn indexes(&self, c: &mut Checker) {
        let spec = &self.job["spec"];
        let completions = int(spec, "completions");
        for field in ["completedIndexes", "failedIndexes"].into_iter().filter(|f| self.changed(f)) {
            let indexes = text(self.status, field);
            if let Some(completions) = completions
                && (field == "completedIndexes" || has(spec, "backoffLimitPerIndex"))
                && let Err(why) = index_ranges(indexes, completions)
            {
                c.invalid_text(field, indexes, format!("error parsing {field}: {why}"));
            }
        }
        if self.changed("completedIndexes")
            && !is_empty(self.status, "completedIndexes")
            && text(spec, "completionMode") != "Indexed"
        {
            let why = "cannot set non-empty completedIndexes when non-indexed completion mode";
            c.invalid("completedIndexes", &self.status["completedIndexes"], why);
        }
        if self.changed("failedIndexes") && has(self.status, "failedIndexes") && !has(spec, "backoffLimitPerIndex") {
            let why = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
            c.invalid("failedIndexes", &self.status["failedIndexes"], why);
        }
        if self.changed("failedIndexes") || self.changed("completedIndexes") {
            self.overlap(c, completions);
        }
    }

    fn overlap(&self, c: &mut Checker, completions: Option<i64>) {
        let Some(completions) = completions else { return };
        let ranges = |field: &str| index_ranges(text(self.status, field), completions).unwrap_or_default();
        let (done, failed) = (ranges("completedIndexes"), ranges("failedIndexes"));
        let both = failed.iter().flat_map(|f| done.iter().map(move |d| (d, f))).find(|(d, f)| d.0 <= f.1 && f.0 <= d.1);
        if let Some((d, f)) = both {
            let why = format!("failedIndexes and completedIndexes overlap at index: {}", d.0.max(f.0));
            c.invalid("failedIndexes", &self.status["failedIndexes"], why);
        }
    }

    /// What was reported for good.
    fn never_back(&self, c: &mut Checker) {
        for kind in ["Failed", "Complete", "FailureTarget", "SuccessCriteriaMet"] {
            if holds(self.old, kind) && !holds(self.job, kind) {
                let terminal = if kind == "SuccessCriteriaMet" { "" } else { "terminal " };
                let why = format!("cannot disable the {terminal}{kind}=True condition");
                c.invalid_without_value("conditions", &why);
            }
        }
        let spec = &self.job["spec"];
        let scaled = text(spec, "completionMode") == "Indexed" && equal(&spec["completions"], &spec["parallelism"]);
        for (field, free) in [("failed", false), ("succeeded", scaled)] {
            let number = |status: &Value| int(status, field).unwrap_or(0);
            if !free && number(self.status) < number(self.before) {
                c.invalid(field, &number(self.status).into(), format!("cannot decrease the {field} counter"));
            }
        }
        if has(self.status, "completionTime") && has(self.before, "completionTime") && self.changed("completionTime") {
            c.invalid("completionTime", &self.status["completionTime"], "field is immutable");
        }
        let suspended = |job: &Value, is: &str| {
            list(&job["status"], "conditions").iter().any(|c| text(c, "type") == "Suspended" && text(c, "status") == is)
        };
        let resuming = suspended(self.old, "True") && suspended(self.job, "False");
        if has(self.before, "startTime") && self.changed("startTime") && !resuming && spec["suspend"] != true {
            let why = "field is immutable for unsuspended job once set";
            c.invalid("startTime", &self.status["startTime"], why);
        }
        let late = holds(self.old, "Complete") && !holds(self.old, "SuccessCriteriaMet");
        if late && holds(self.job, "SuccessCriteriaMet") {
            let why = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            c.invalid_without_value("conditions", why);
        }
    }
}
