//! The algebra of apply and of patches, over generated objects.

use knarr_api::apply::{Scope, apply, reset_fields, update_managed_fields};
use knarr_api::patch::{json, merge, strategic};
use knarr_api::resource::GroupVersionKind;
use knarr_api::schema::{TypeId, schema};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_700_000_000;

fn deployment_type() -> TypeId {
    schema().by_gvk(&GroupVersionKind::new("apps", "v1", "Deployment")).expect("a kind")
}

fn scope() -> Scope<'static> {
    Scope {
        schema: schema(),
        ty: deployment_type(),
        api_version: "apps/v1",
        kind: "Deployment",
        subresource: "",
        reset: reset_fields("Deployment", true, ""),
    }
}

/// A container of this name with some of its fields.
fn container(name: &'static str) -> impl Strategy<Value = Value> {
    let env = prop::collection::btree_map("[A-C]", "[a-z]{0,2}", 0..3);
    let ports = prop::collection::btree_set(1u16..5, 0..3);
    (prop::option::of("[a-z]{1,3}"), env, ports).prop_map(move |(image, env, ports)| {
        let mut out = json!({"name": name});
        if let Some(image) = image {
            out["image"] = image.into();
        }
        if !env.is_empty() {
            out["env"] = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        }
        if !ports.is_empty() {
            out["ports"] = ports.iter().map(|p| json!({"containerPort": p, "protocol": "TCP"})).collect();
        }
        out
    })
}

/// A deployment made of these containers and labels, each perhaps there.
fn configuration(names: [&'static str; 2], label: &'static str) -> impl Strategy<Value = Value> {
    let containers = (prop::option::of(container(names[0])), prop::option::of(container(names[1])));
    (containers, prop::option::of("[a-z]{1,3}"), prop::option::of(0..9i64)).prop_map(
        move |((a, b), value, replicas)| {
            let mut out = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
            let containers: Vec<Value> = [a, b].into_iter().flatten().collect();
            if !containers.is_empty() {
                out["spec"]["template"]["spec"]["containers"] = containers.into();
            }
            if let Some(value) = value {
                out["metadata"]["labels"][label] = value.into();
            }
            if let (Some(replicas), "x") = (replicas, label) {
                out["spec"]["replicas"] = replicas.into();
            }
            out
        },
    )
}

fn applied(live: Option<&Value>, config: &Value, manager: &str) -> Value {
    apply(&scope(), live, config, manager, false, NOW).expect("no conflict")
}

/// What an object says, its lists in key order: who came first decides the order of merged lists.
fn content(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(containers) = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut) {
        containers.sort_by_key(|c| c["name"].to_string());
    }
    object
}

/// Any small JSON.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..9i64).prop_map(Value::from),
        "[a-c/~$]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = prop_oneof![
            "[a-c]",
            Just("name".to_string()),
            Just("spec".to_string()),
            Just("containers".to_string()),
            Just("metadata".to_string()),
            Just("managedFields".to_string()),
            Just("$patch".to_string()),
            Just("$retainKeys".to_string()),
            Just("$setElementOrder/containers".to_string()),
            Just("$deleteFromPrimitiveList/finalizers".to_string()),
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(key, inner, 0..4).prop_map(|map| map.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn apply_is_idempotent(live in configuration(["a", "b"], "x"), config in configuration(["b", "c"], "y")) {
        let live = applied(None, &live, "first");
        let once = apply(&scope(), Some(&live), &config, "second", true, NOW).expect("forced");
        let twice = apply(&scope(), Some(&once), &config, "second", false, NOW + 9).expect("nothing to fight over");
        prop_assert_eq!(once, twice);
    }

    #[test]
    fn disjoint_applies_commute(one in configuration(["a", "b"], "x"), two in configuration(["c", "d"], "y")) {
        let base = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}});
        let base = applied(None, &base, "base");
        let first = applied(Some(&applied(Some(&base), &one, "one")), &two, "two");
        let second = applied(Some(&applied(Some(&base), &two, "two")), &one, "one");
        prop_assert_eq!(content(&first), content(&second));
    }

    #[test]
    fn what_is_applied_is_there_and_what_is_dropped_is_gone(
        before in configuration(["a", "b"], "x"), after in configuration(["a", "b"], "x"),
    ) {
        let live = applied(Some(&applied(None, &before, "me")), &after, "me");
        let only = applied(None, &after, "me");
        let spec = |o: &Value| content(o).pointer("/spec/template/spec/containers").cloned().filter(|c| c != &json!([]));
        prop_assert_eq!(spec(&live), spec(&only));
    }

    #[test]
    fn an_update_without_a_change_changes_nothing(object in configuration(["a", "b"], "x")) {
        let mut live = object;
        update_managed_fields(&scope(), None, &mut live, "one", NOW);
        let mut again = live.clone();
        update_managed_fields(&scope(), Some(&live), &mut again, "two", NOW + 9);
        prop_assert_eq!(live, again);
    }

    #[test]
    fn strategic_patches_of_disjoint_fields_commute(
        object in configuration(["a", "b"], "x"), one in container("a"), two in container("b"), label in "[a-z]{1,3}",
    ) {
        let patch = |change: &Value| change.to_string().into_bytes();
        let one = patch(&json!({"spec": {"template": {"spec": {"containers": [one]}}}}));
        let two = patch(&json!({"metadata": {"labels": {"z": label}},
            "spec": {"template": {"spec": {"containers": [two]}}}}));
        let run = |object: &Value, patches: [&[u8]; 2]| {
            patches.iter().fold(object.clone(), |object, patch| {
                strategic::apply(schema(), deployment_type(), object, patch).expect("fits")
            })
        };
        prop_assert_eq!(content(&run(&object, [&one, &two])), content(&run(&object, [&two, &one])));
    }

    #[test]
    fn a_patch_that_says_what_is_there_changes_nothing(object in configuration(["a", "b"], "x")) {
        let same = strategic::apply(schema(), deployment_type(), object.clone(), object.to_string().as_bytes());
        prop_assert_eq!(same, Ok(object.clone()));
        prop_assert_eq!(merge::apply(object.clone(), object.to_string().as_bytes()), Ok(object));
    }

    #[test]
    fn no_input_panics(object in any_json(), patch in any_json()) {
        let object = if object.is_object() { object } else { json!({"spec": object}) };
        let bytes = patch.to_string();
        let _ = json::apply(object.clone(), bytes.as_bytes());
        let _ = merge::apply(object.clone(), bytes.as_bytes());
        let _ = strategic::apply(schema(), deployment_type(), object.clone(), bytes.as_bytes());
        let _ = apply(&scope(), Some(&object), &patch, "m", true, NOW);
        let mut config = patch;
        if config.is_object() {
            config["apiVersion"] = "apps/v1".into();
            config["kind"] = "Deployment".into();
        }
        let _ = apply(&scope(), Some(&object), &config, "m", true, NOW);
        if config.is_object() {
            update_managed_fields(&scope(), Some(&object), &mut config, "m", NOW);
        }
    }
}
