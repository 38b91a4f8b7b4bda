//! Kinds that make pods: apps, batch, autoscaling, policy.

use serde_json::{Value, json};

use super::Row;
use super::core::drop_unless_used;
use crate::convert;
use crate::names;
use crate::object::Object;
use crate::resource::GroupVersionKind;
use crate::validation::check::{equal, text};
use crate::validation::{autoscaling, batch, job_status, status, workload};
use crate::warnings;

pub const ROWS: &[Row] = &[
    Row {
        validate: workload::deployment,
        validate_update: Some(|c, new, old| {
            workload::deployment(c, new);
            c.within("spec", |c| c.immutable_as("*meta.LabelSelector", &new["spec"], &old["spec"], "selector"));
        }),
        validate_status: status::deployment,
        generation_metadata: &["annotations"],
        warnings: warnings::workload,
        ..Row::with_status("apps", "Deployment")
    },
    Row {
        validate: workload::replica_set,
        validate_update: Some(|c, new, old| {
            workload::replica_set(c, new);
            c.within("spec", |c| c.immutable_as("*meta.LabelSelector", &new["spec"], &old["spec"], "selector"));
        }),
        validate_status: status::replica_set,
        warnings: warnings::workload,
        ..Row::with_status("apps", "ReplicaSet")
    },
    Row {
        normalize: |set| {
            if text(&set["metadata"]["annotations"], TEMPLATE_GENERATION).is_empty() {
                set_template_generation(set, 0);
            }
        },
        prepare: |_, set| set_template_generation(set, 1),
        prepare_update: |set, old| {
            let before = text(&old["metadata"]["annotations"], TEMPLATE_GENERATION).parse().unwrap_or(1);
            let changed = !equal(&set["spec"]["template"], &old["spec"]["template"]);
            set_template_generation(set, before + i64::from(changed));
        },
        prepare_status: |_, set, old| {
            let before = text(&old["metadata"]["annotations"], TEMPLATE_GENERATION).parse().unwrap_or(1);
            set_template_generation(set, before);
        },
        validate: workload::daemon_set,
        validate_update: Some(|c, new, old| {
            c.within("spec", |c| c.immutable_as("*meta.LabelSelector", &new["spec"], &old["spec"], "selector"));
            workload::daemon_set(c, new);
        }),
        validate_status: status::daemon_set,
        warnings: warnings::daemon_set,
        ..Row::with_status("apps", "DaemonSet")
    },
    Row {
        name: names::dns_label,
        prepare: |_, set| drop_unless_used(set, &Value::Null, ROLLING_UPDATE, "maxUnavailable"),
        prepare_update: |set, old| drop_unless_used(set, old, ROLLING_UPDATE, "maxUnavailable"),
        validate: workload::stateful_set_create,
        validate_update: Some(workload::stateful_set_update),
        validate_status: status::stateful_set,
        warnings: warnings::stateful_set,
        ..Row::with_status("apps", "StatefulSet")
    },
    Row {
        validate: workload::controller_revision,
        validate_update: Some(|c, new, old| {
            // Whatever data became, it may not have changed.
            c.not_negative(new, "revision");
            c.immutable(new, old, "data");
        }),
        ..Row::new("apps", "ControllerRevision")
    },
    Row {
        prepare: |_, rc| rc["metadata"]["generation"] = 1.into(),
        name: names::declared_subdomain,
        validate: workload::replication_controller,
        selectable: &["status.replicas"],
        validate_status: status::replica_set,
        warnings: warnings::workload,
        ..Row::with_status("", "ReplicationController")
    },
    Row {
        prepare: |_, job| {
            batch::generate_selector(job);
            batch::share_labels(job);
        },
        canonicalize: batch::take_labels,
        validate: batch::job,
        validate_update: Some(batch::job_update),
        selectable: &["status.successful"],
        validate_status: job_status::validate,
        warnings: warnings::job,
        ..Row::with_status("batch", "Job")
    },
    Row { validate: batch::cron_job, warnings: warnings::cron_job, ..Row::with_status("batch", "CronJob") },
    Row {
        normalize: by_the_newer_version,
        validate: autoscaling::horizontal_pod_autoscaler,
        validate_update: Some(autoscaling::horizontal_pod_autoscaler_update),
        generation: &[],
        validate_status: status::horizontal_pod_autoscaler,
        ..Row::with_status("autoscaling", "HorizontalPodAutoscaler")
    },
    Row {
        validate: workload::pod_disruption_budget,
        name: names::path_segment,
        unconditional: false,
        prepare: |_, pdb| pdb["status"] = empty_pdb_status(),
        validate_status: status::pod_disruption_budget,
        own_finalizers: false,
        ..Row::with_status("policy", "PodDisruptionBudget")
    },
    Row {
        validate: |c, object| c.at(object, "template", crate::validation::pod::validate_template),
        generation: &["template"],
        warnings: warnings::pod_template,
        ..Row::new("", "PodTemplate")
    },
];

/// What the older version says in annotations becomes fields of the newer one, or is nothing: whoever says it owns no annotation.
fn by_the_newer_version(autoscaler: &mut Object) {
    if text(autoscaler, "apiVersion") != "autoscaling/v1" {
        return;
    }
    let older = GroupVersionKind::new("autoscaling", "v1", "HorizontalPodAutoscaler");
    let newer = convert::storage_version(&older);
    *autoscaler = convert::convert(convert::convert(autoscaler.take(), &newer), &older);
}

/// Where a stateful set would say how many pods may be gone at once, which is switched off.
const ROLLING_UPDATE: &[&str] = &["spec", "updateStrategy", "rollingUpdate"];

const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// Where a field of an older version lives on.
fn set_template_generation(set: &mut Value, generation: i64) {
    if !set["metadata"]["annotations"].is_object() {
        set["metadata"]["annotations"] = json!({});
    }
    set["metadata"]["annotations"][TEMPLATE_GENERATION] = generation.to_string().into();
}

fn empty_pdb_status() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}
