use super::*;

fn refused(rules: &str) -> String {
    let text = format!("apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n{rules}");
    EncryptionConfiguration::parse(&text).unwrap_err().to_string()
}

#[test]
fn faults_are_named_with_their_paths() {
    let rule = |resources: &str, provider: &str| format!("- resources: [{resources}]\n  providers:\n  - {provider}\n");
    let cases = [
        (
            rule("secrets", "aescbc: {keys: [{name: a, secret: c2hvcnQ=}]}"),
            "resources[0].providers[0].aescbc.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, expected one of [16 24 32]",
        ),
        (
            rule("secrets", "secretbox: {keys: []}"),
            "resources[0].providers[0].secretbox.keys: Required value: at least one keys is required",
        ),
        (rule("Secrets", "identity: {}"), "resource name should not contain capital letters"),
        (rule("'*'", "identity: {}"), "use '*.' to encrypt all the resources from core API group"),
        (rule("secrets, '*.'", "identity: {}"), "using overlapping resources"),
        (rule("secrets, secrets", "identity: {}"), "the same resource cannot be specified multiple times"),
        (rule("secrets", "{}"), "provider does not contain any of the expected providers"),
        (rule("secrets", "kms: {name: k, endpoint: 'unix:///k.sock'}"), "KMSv1 is deprecated"),
        (
            rule("secrets", "kms: {apiVersion: v2, name: 'a:b', endpoint: 'tcp://x', cachesize: 1}"),
            "invalid KMS provider name a:b, must not contain ':'",
        ),
    ];
    for (rules, want) in cases {
        let got = refused(&rules);
        assert!(got.contains(want), "{rules}\n{got}");
    }
}

#[test]
fn a_typo_is_a_mistake() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresource: []\n";
    assert!(EncryptionConfiguration::parse(text).is_err());
}
