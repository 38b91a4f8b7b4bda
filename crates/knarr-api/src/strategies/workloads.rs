//! Kinds that make pods: apps, batch, autoscaling, policy.

use serde_json::{Value, json};

use super::Row;
use crate::names;
use crate::validation::{autoscaling, batch, workload};

pub const ROWS: &[Row] = &[
    Row {
        validate: workload::deployment,
        validate_update: Some(|c, new, old| {
            workload::deployment(c, new);
            c.within("spec", |c| c.immutable(&new["spec"], &old["spec"], "selector"));
        }),
        ..Row::with_status("apps", "Deployment")
    },
    Row {
        validate: workload::replica_set,
        validate_update: Some(|c, new, old| {
            workload::replica_set(c, new);
            c.within("spec", |c| c.immutable(&new["spec"], &old["spec"], "selector"));
        }),
        selectable: &["status.replicas"],
        ..Row::with_status("apps", "ReplicaSet")
    },
    Row {
        validate: workload::daemon_set,
        validate_update: Some(|c, new, old| {
            workload::daemon_set(c, new);
            c.within("spec", |c| c.immutable(&new["spec"], &old["spec"], "selector"));
        }),
        ..Row::with_status("apps", "DaemonSet")
    },
    Row {
        name: names::dns_label,
        validate: workload::stateful_set,
        validate_update: Some(workload::stateful_set_update),
        ..Row::with_status("apps", "StatefulSet")
    },
    Row {
        validate: workload::controller_revision,
        validate_update: Some(|c, new, old| {
            workload::controller_revision(c, new);
            c.immutable(new, old, "data");
        }),
        ..Row::new("apps", "ControllerRevision")
    },
    Row {
        prepare: |_, rc| rc["metadata"]["generation"] = 1.into(),
        validate: workload::replication_controller,
        selectable: &["status.replicas"],
        ..Row::with_status("", "ReplicationController")
    },
    Row {
        prepare: |_, job| batch::generate_selector(job),
        validate: batch::job,
        validate_update: Some(batch::job_update),
        selectable: &["status.successful"],
        ..Row::with_status("batch", "Job")
    },
    Row { validate: batch::cron_job, ..Row::with_status("batch", "CronJob") },
    Row {
        validate: autoscaling::horizontal_pod_autoscaler,
        generation: &[],
        ..Row::with_status("autoscaling", "HorizontalPodAutoscaler")
    },
    Row {
        validate: workload::pod_disruption_budget,
        unconditional: false,
        prepare: |_, pdb| pdb["status"] = empty_pdb_status(),
        ..Row::with_status("policy", "PodDisruptionBudget")
    },
    Row {
        validate: |c, object| c.at(object, "template", crate::validation::pod::validate_template),
        generation: &["template"],
        ..Row::new("", "PodTemplate")
    },
];

fn empty_pdb_status() -> Value {
    json!({"currentHealthy": 0, "desiredHealthy": 0, "disruptionsAllowed": 0, "expectedPods": 0})
}
