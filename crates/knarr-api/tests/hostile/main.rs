//! The fuzz entries, each run over a fixed corpus and over changes of it from a fixed seed: enough to prove that the targets of
//! `fuzz/` build and start from something. Finding more is `cargo fuzz run NAME`'s.

mod entries;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Small bodies that get past the first check of some entry.
fn corpus() -> Vec<Vec<u8>> {
    let pod = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","labels":{"x":"y"}},"spec":{"containers":[{"name":"c","image":"i","resources":{"limits":{"cpu":"1500m"}}}]}}"#;
    let deployment = r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a"},"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"c","image":"i"}]}}}}"#;
    let patches = [
        r#"[{"op":"add","path":"/metadata/labels/a~1b","value":{"c":[1]}},{"op":"move","from":"/spec","path":"/x"},{"op":"test","path":"/kind","value":"Pod"}]"#,
        r#"{"metadata":{"labels":{"x":null}},"spec":{"template":{"spec":{"containers":[{"name":"c","$patch":"delete"},{"name":"d"}]}}}}"#,
        r#"{"spec":{"$setElementOrder/containers":[{"name":"c"}],"$retainKeys":["replicas"],"replicas":3}}"#,
        deployment,
    ];
    let at = entries::index_of;
    let mut corpus: Vec<Vec<u8>> =
        [("Pod", pod), ("Deployment", deployment)].map(|(kind, body)| [&[at(kind)], body.as_bytes()].concat()).into();
    corpus.extend(patches.iter().map(|patch| [deployment.as_bytes(), &[0], patch.as_bytes()].concat()));
    let texts =
        ["a in (b,c),!d,e!=f,g>5", "metadata.name=a\\,b,spec.nodeName!=n", "1.5Gi", "-3e-6", "0.000000001n", "9E18"];
    corpus.extend(texts.map(|t| t.as_bytes().to_vec()));
    let value: serde_json::Value = serde_json::from_str(pod).expect("written above");
    let protobuf = knarr_api::protobuf::encode(knarr_api::schema::schema(), &value).expect("a pod");
    corpus.push([&[at("Pod")], &protobuf[..]].concat());
    corpus
}

/// Bytes changed here and there, cut, or doubled.
fn changed(seed: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4);
    (edits, any::<prop::sample::Index>(), 0..3u8).prop_map(move |(edits, cut, how)| {
        let mut bytes = seed.clone();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = cut.index(bytes.len());
        match how {
            0 => bytes.truncate(cut),
            1 => bytes.extend_from_within(cut..),
            _ => {}
        }
        bytes
    })
}

#[test]
fn every_entry_survives_its_corpus_and_changes_of_it() {
    let corpus = corpus();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { cases: 40, ..Config::default() }, rng);
    for (name, entry) in entries::ENTRIES {
        for seed in &corpus {
            entry(seed);
            let outcome = runner.run(&changed(seed.clone()), |bytes| {
                entry(&bytes);
                Ok(())
            });
            outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        }
    }
}

/// A list of many items is checked, merged and compared in time that grows as the list does: ten thousand of each take a
/// moment, where a look at every pair would take minutes.
#[test]
fn long_lists_are_checked_in_a_moment() {
    let many = |item: &dyn Fn(usize) -> String| (0..10_000).map(item).collect::<Vec<_>>().join(",");
    let pod = |spec: String| {
        format!("{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"name\":\"a\"}},\"spec\":{{{spec}}}}}")
    };
    let container = |fields: String| pod(format!("\"containers\":[{{\"name\":\"c\",\"image\":\"i\",{fields}}}]"));
    let bodies = [
        pod(format!("\"containers\":[{}]", many(&|i| format!("{{\"name\":\"c{i}\",\"image\":\"i\"}}")))),
        pod(format!("\"tolerations\":[{}]", many(&|i| format!("{{\"key\":\"k{i}\",\"operator\":\"Exists\"}}")))),
        pod(format!("\"volumes\":[{}]", many(&|i| format!("{{\"name\":\"v{i}\",\"emptyDir\":{{}}}}")))),
        container(format!(
            "\"ports\":[{}]",
            many(&|i| format!("{{\"containerPort\":{},\"hostPort\":{}}}", i + 1, i + 1))
        )),
        container(format!("\"env\":[{}]", many(&|i| format!("{{\"name\":\"E{i}\",\"value\":\"v\"}}")))),
    ];
    let kind = knarr_api::GroupVersionKind::new("", "v1", "Pod");
    let id = knarr_api::schema::schema().by_gvk(&kind).expect("a built-in kind");
    let scope = knarr_api::apply::Scope {
        schema: knarr_api::schema::schema(),
        ty: id,
        api_version: "v1",
        kind: "Pod",
        subresource: "",
        reset: knarr_api::apply::reset_fields("Pod", true, ""),
    };
    let start = std::time::Instant::now();
    for body in &bodies {
        entries::decode_json(&[&[entries::index_of("Pod")], body.as_bytes()].concat());
        let object: serde_json::Value = serde_json::from_str(body).expect("written above");
        let first = knarr_api::apply::apply(&scope, None, &object, "one", false, 0).expect("nothing stands there");
        knarr_api::apply::apply(&scope, Some(&first), &object, "two", true, 1).expect("forced");
    }
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "{:?}", start.elapsed());
}

/// Nesting, repetition and sheer size: each is answered, in time that grows no faster than the input.
#[test]
fn deep_and_huge_inputs_are_answered() {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let labels: String = (0..40_000).map(|i| format!("\"k{i}\":\"v\",")).collect();
    let huge = format!("{{\"metadata\":{{\"labels\":{{{}}}}}}}", labels.trim_end_matches(','));
    let containers: String = (0..20_000).map(|i| format!("{{\"name\":\"c{i}\"}},")).collect();
    let containers = format!(
        "{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{}]}}}}}}}}",
        containers.trim_end_matches(',')
    );
    let selector = format!("a in ({})", vec!["b"; 100_000].join(","));
    let bodies = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        deep("- ", ""),
        deep("{a: ", "}"),
        huge.clone(),
        containers.clone(),
        selector,
        "1".repeat(1_000_000),
        format!("1e{}", "9".repeat(1_000)),
    ];
    for body in &bodies {
        for (_, entry) in entries::ENTRIES {
            entry(body.as_bytes());
            entry(&[&[0], body.as_bytes()].concat());
            entry(&[b"{}\0", body.as_bytes()].concat());
            entry(&[containers.as_bytes(), &[0], body.as_bytes()].concat());
        }
    }
}
