use async_trait::async_trait;

use super::super::ALL_AUTHENTICATED;
use super::*;
use crate::authorization::{Authorizer, Decision};

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    pairs.iter().map(|(k, v)| (k.parse::<http::HeaderName>().unwrap(), v.parse().unwrap())).collect()
}

/// Allows what its list has, as `verb resource[/subresource] name`.
struct Listed(&'static [&'static str]);

#[async_trait]
impl Authorizer for Listed {
    async fn authorize(&self, a: &Attributes<'_>) -> Decision {
        let resource = match a.subresource {
            "" => a.resource.to_string(),
            subresource => format!("{}/{subresource}", a.resource),
        };
        let asked = format!("{} {resource} {}", a.verb, a.name);
        match self.0.contains(&asked.trim()) {
            true => Decision::Allow { reason: String::new() },
            false => Decision::NoOpinion { reason: String::new() },
        }
    }
}

async fn ask(
    requester: User,
    allowed: &'static [&'static str],
    pairs: &[(&'static str, &'static str)],
) -> Result<Arc<User>, StatusError> {
    let requester = Arc::new(requester);
    let request = Attributes {
        user: &requester,
        verb: "list",
        is_resource: true,
        resource: "pods",
        namespace: "a",
        ..Attributes::default()
    };
    impersonate(&headers(pairs), &requester, &request, &Chain::new(vec![Arc::new(Listed(allowed))])).await
}

#[tokio::test]
async fn masters_become_whom_they_ask_for() {
    let admin = || User::new("admin", &["system:masters"]);
    let account = [("Impersonate-User", "system:serviceaccount:a:b")];
    let user = ask(admin(), &[], &account).await.unwrap();
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:a", ALL_AUTHENTICATED]);
    let extra = [("Impersonate-User", "x"), ("Impersonate-Group", "system:masters"), ("Impersonate-Extra-a%2Fb", "c")];
    let user = ask(admin(), &[], &extra).await.unwrap();
    assert_eq!(
        (user.extra["a/b"].as_slice(), user.groups[0].as_str()),
        (["c".to_string()].as_slice(), "system:masters")
    );
    let node = ask(admin(), &[], &[("Impersonate-User", "system:node:n1")]).await.unwrap();
    assert_eq!(node.groups, ["system:nodes", ALL_AUTHENTICATED]);
    let anonymous = ask(admin(), &[], &[("Impersonate-User", "system:anonymous")]).await.unwrap();
    assert_eq!(anonymous.groups, ["system:unauthenticated"]);
}

#[tokio::test]
async fn each_mode_needs_its_rights() {
    let person = || User::new("x", &[]);
    let mut pod = User::new("system:serviceaccount:a:agent", &[]);
    pod.extra.insert("authentication.kubernetes.io/node-name".into(), vec!["n1".into()]);
    let as_user = [("Impersonate-User", "y")];
    let with_group = [("Impersonate-User", "y"), ("Impersonate-Group", "g")];
    let as_node = [("Impersonate-User", "system:node:n1")];
    let as_other_node = [("Impersonate-User", "system:node:n2")];
    type Case<'a> = (User, &'static [&'static str], &'a [(&'static str, &'static str)], bool);
    let cases: &[Case<'_>] = &[
        (person(), &["impersonate users y"], &as_user, true),
        (person(), &["impersonate-on:user-info:list pods"], &as_user, false),
        (person(), &["impersonate-on:user-info:list pods", "impersonate:user-info users y"], &as_user, true),
        (person(), &["impersonate-on:user-info:get pods", "impersonate:user-info users y"], &as_user, false),
        (person(), &["impersonate users y"], &with_group, false),
        (person(), &["impersonate users y", "impersonate groups g"], &with_group, true),
        (
            pod.clone(),
            &["impersonate-on:associated-node:list pods", "impersonate:associated-node nodes *"],
            &as_node,
            true,
        ),
        (
            pod,
            &["impersonate-on:associated-node:list pods", "impersonate:associated-node nodes *"],
            &as_other_node,
            false,
        ),
    ];
    for (requester, allowed, pairs, want) in cases {
        let got = ask(requester.clone(), allowed, pairs).await;
        assert_eq!(got.is_ok(), *want, "{} {allowed:?} {pairs:?}", requester.name);
    }
}

#[tokio::test]
async fn the_first_refusal_is_the_answer() {
    let refused = ask(User::new("x", &[]), &[], &[("Impersonate-User", "y")]).await.unwrap_err();
    assert_eq!(
        refused.message,
        r#"pods is forbidden: User "x" cannot impersonate-on:user-info:list resource "pods" in API group "" in the namespace "a""#
    );
    assert_eq!(ask(User::new("x", &[]), &[], &[("Impersonate-Group", "g")]).await.unwrap_err().code, 400);
    assert_eq!(ask(User::new("x", &[]), &[], &[]).await.unwrap().name, "x");
}
