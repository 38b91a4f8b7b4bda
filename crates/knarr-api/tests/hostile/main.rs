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

/// Nesting, repetition and sheer size: each is answered, in time that grows no faster than the input.
#[test]
fn deep_and_huge_inputs_are_answered() {
    // Objects are handled by threads that have such a stack.
    let thread = std::thread::Builder::new().stack_size(knarr_api::tree::STACK_SIZE).spawn(answer_deep_and_huge);
    thread.expect("a thread").join().expect("every entry returns");
}

fn answer_deep_and_huge() {
    let deep = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth));
    let labels: String = (0..4_000).map(|i| format!("\"k{i}\":\"v\",")).collect();
    let huge = format!("{{\"metadata\":{{\"labels\":{{{}}}}}}}", labels.trim_end_matches(','));
    let containers: String = (0..1_000).map(|i| format!("{{\"name\":\"c{i}\"}},")).collect();
    let containers = format!(
        "{{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"spec\":{{\"template\":{{\"spec\":{{\"containers\":[{}]}}}}}}}}",
        containers.trim_end_matches(',')
    );
    let selector = format!("a in ({})", vec!["b"; 10_000].join(","));
    let most = knarr_api::tree::MAX_DEPTH;
    let bodies = [
        deep("[", "]", 100_000),
        deep("{\"a\":", "}", 100_000),
        deep("- ", "", 100_000),
        deep("{a: ", "}", 100_000),
        format!("{{\"data\":{}}}", deep("[", "]", most - 1)),
        format!("{{\"data\":{}1{}}}", "{\"a\":".repeat(most - 1), "}".repeat(most - 1)),
        huge,
        containers.clone(),
        selector,
        "1".repeat(1_000_000),
        format!("1e{}", "9".repeat(1_000)),
    ];
    let revision = entries::index_of("ControllerRevision");
    for body in &bodies {
        for (_, entry) in entries::ENTRIES {
            entry(body.as_bytes());
            entry(&[&[revision], body.as_bytes()].concat());
            entry(&[b"{}\0", body.as_bytes()].concat());
            entry(&[containers.as_bytes(), &[0], body.as_bytes()].concat());
        }
    }
}
