use serde_json::json;

use super::*;
use crate::resource::built_in;

const NOW: i64 = 1_700_000_000;
const HOUR_AGO: &str = "2023-11-14T21:13:20Z";

fn cells(group: &'static str, version: &'static str, resource: &'static str, object: Value) -> Vec<Value> {
    let gvr = GroupVersionResource::new(group, version, resource);
    let row = row(&gvr, &object, IncludeObject::None, NOW);
    row["cells"].as_array().cloned().expect("cells")
}

fn pod(spec: Value, status: Value) -> Value {
    json!({"kind": "Pod", "metadata": {"name": "p", "creationTimestamp": HOUR_AGO}, "spec": spec, "status": status})
}

#[test]
fn every_resource_has_a_cell_for_each_column() {
    for resource in built_in().resources.iter().filter(|r| r.has_verb("list")) {
        let printer = Printer::built_in(&resource.gvr());
        let object = json!({"metadata": {"name": "x"}});
        let row = printer.row(&object, IncludeObject::None, NOW);
        let cells = row["cells"].as_array().map_or(0, Vec::len);
        // Upstream's have one more than it names.
        let cells = cells - usize::from(resource.resource == "ipaddresses");
        assert_eq!(cells, printer.columns().len(), "{:?}", resource.gvr());
    }
}

#[test]
fn a_running_pod() {
    let object = pod(
        json!({"containers": [{"name": "a"}, {"name": "b"}], "nodeName": "n"}),
        json!({"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "containerStatuses": [
            {"name": "a", "ready": true, "restartCount": 3, "state": {"running": {}},
             "lastState": {"terminated": {"finishedAt": "2023-11-14T22:08:20Z"}}},
            {"name": "b", "ready": false, "restartCount": 0, "state": {"running": {}}}]}),
    );
    let shown = ["p", "1/2", "Running", "3 (5m ago)", "60m", "10.0.0.1", "n", "<none>", "<none>"];
    assert_eq!(cells("", "v1", "pods", object), shown);
}

#[test]
fn the_status_word_of_a_pod() {
    let waiting = |reason: &str| json!([{"name": "a", "state": {"waiting": {"reason": reason}}}]);
    let terminated = |state: Value| json!([{"name": "a", "state": {"terminated": state}}]);
    let two_init = json!({"containers": [{"name": "a"}], "initContainers": [{"name": "i"}, {"name": "j"}]});
    let one = json!({"containers": [{"name": "a"}]});
    for (spec, status, word) in [
        (&one, json!({"phase": "Pending"}), "Pending"),
        (&one, json!({"phase": "Failed", "reason": "Evicted"}), "Evicted"),
        (&one, json!({"phase": "Pending", "containerStatuses": waiting("ImagePullBackOff")}), "ImagePullBackOff"),
        (&one, json!({"phase": "Running", "containerStatuses": waiting("CrashLoopBackOff")}), "CrashLoopBackOff"),
        (&one, json!({"containerStatuses": terminated(json!({"reason": "Completed", "exitCode": 0}))}), "Completed"),
        (&one, json!({"containerStatuses": terminated(json!({"exitCode": 2}))}), "ExitCode:2"),
        (&one, json!({"containerStatuses": terminated(json!({"signal": 9}))}), "Signal:9"),
        (
            &two_init,
            json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
            "Init:0/2",
        ),
        (
            &two_init,
            json!({"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 0}}},
                {"name": "j", "state": {"waiting": {"reason": "PodInitializing"}}}]}),
            "Init:1/2",
        ),
        (
            &two_init,
            json!({"initContainerStatuses": [{"name": "i", "state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]}),
            "Init:Error",
        ),
        (&one, json!({"conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]}), "SchedulingGated"),
    ] {
        assert_eq!(cells("", "v1", "pods", pod(spec.clone(), status.clone()))[2], word, "{status}");
    }
    let mut deleted = pod(one, json!({"phase": "Running"}));
    deleted["metadata"]["deletionTimestamp"] = json!(HOUR_AGO);
    assert_eq!(cells("", "v1", "pods", deleted)[2], "Terminating");
}

#[test]
fn services_show_ports_and_addresses() {
    let object = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "clusterIPs": ["10.96.0.1"],
        "selector": {"b": "2", "a": "1"}, "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"},
            {"port": 53, "protocol": "UDP"}]}});
    let shown = ["s", "NodePort", "10.96.0.1", "<none>", "80:30080/TCP,53/UDP", "<unknown>", "a=1,b=2"];
    assert_eq!(cells("", "v1", "services", object), shown);
    let pending = json!({"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer"}});
    assert_eq!(cells("", "v1", "services", pending)[3], "<pending>");
}

#[test]
fn nodes_deployments_and_jobs() {
    let node = json!({"metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": ""}},
        "spec": {"unschedulable": true}, "status": {"conditions": [{"type": "Ready", "status": "True"}],
        "addresses": [{"type": "InternalIP", "address": "1.2.3.4"}],
        "nodeInfo": {"kubeletVersion": "v1", "osImage": "os", "kernelVersion": "6", "architecture": "amd64"}}});
    assert_eq!(
        cells("", "v1", "nodes", node),
        [
            "n",
            "Ready,SchedulingDisabled",
            "control-plane",
            "<unknown>",
            "v1",
            "1.2.3.4",
            "<none>",
            "os",
            "6 (amd64)",
            "<unknown>"
        ]
    );
    let deployment = json!({"metadata": {"name": "d", "creationTimestamp": HOUR_AGO},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {"spec": {"containers": [{"name": "c", "image": "i"}, {"name": "e", "image": "j"}]}}},
        "status": {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}});
    assert_eq!(
        cells("apps", "v1", "deployments", deployment),
        [json!("d"), json!("2/3"), json!(3), json!(2), json!("60m"), json!("c,e"), json!("i,j"), json!("a=b")]
    );
    let job = json!({"metadata": {"name": "j", "creationTimestamp": HOUR_AGO}, "spec": {"completions": 1},
        "status": {"succeeded": 1, "startTime": HOUR_AGO, "completionTime": "2023-11-14T21:13:25Z",
            "conditions": [{"type": "Complete", "status": "True"}]}});
    let shown = cells("batch", "v1", "jobs", job);
    assert_eq!(shown[..5], ["j", "Complete", "1/1", "5s", "60m"]);
}

#[test]
fn custom_resources_show_their_columns() {
    let column = |name: &str, kind: &str, path: &str| PrinterColumn {
        name: name.into(),
        kind: kind.into(),
        json_path: path.into(),
        ..PrinterColumn::default()
    };
    let printer =
        Printer::custom(&[column("Size", "integer", ".spec.size"), column("Phase", "string", ".status.phase")]);
    let object = json!({"metadata": {"name": "x"}, "spec": {"size": 3}});
    let row = printer.row(&object, IncludeObject::Metadata, NOW);
    assert_eq!(row["cells"], json!(["x", 3, null]));
    assert_eq!(row["object"]["kind"], "PartialObjectMetadata");
    let plain = Printer::custom(&[]);
    assert_eq!(plain.columns()[1].name, "Age");
    let table = plain.table(vec![], json!({"resourceVersion": "7"}));
    assert_eq!(table["kind"], "Table");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
}
