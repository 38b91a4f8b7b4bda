use knarr_api::{GroupResource, StatusError};

use super::Attributes;

/// The 403 for a request that was not allowed, in upstream's words.
pub fn forbidden(attributes: &Attributes<'_>, reason: &str) -> StatusError {
    let mut why = sentence(attributes);
    if !reason.is_empty() {
        why.push_str(": ");
        why.push_str(reason);
    }
    let resource = GroupResource::new(attributes.group.to_string(), attributes.resource.to_string());
    StatusError::forbidden(&resource, attributes.name, why)
}

fn sentence(a: &Attributes<'_>) -> String {
    let user = &a.user.name;
    let verb = a.verb;
    if !a.is_resource {
        return format!("User {user:?} cannot {verb} path {:?}", a.path);
    }
    let mut resource = a.resource.to_string();
    if !a.subresource.is_empty() {
        resource = format!("{resource}/{}", a.subresource);
    }
    let what = format!("User {user:?} cannot {verb} resource {resource:?} in API group {:?}", a.group);
    if a.namespace.is_empty() {
        format!("{what} at the cluster scope")
    } else {
        format!("{what} in the namespace {:?}", a.namespace)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::User;

    #[test]
    fn reads_as_upstream_writes_it() {
        let user = User::new("x", &[]);
        let list = Attributes {
            user: &user,
            verb: "list",
            is_resource: true,
            resource: "pods",
            namespace: "y",
            ..Attributes::default()
        };
        assert_eq!(
            forbidden(&list, "").message,
            r#"pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y""#
        );
        let node =
            Attributes { name: "n", namespace: "", resource: "nodes", subresource: "status", verb: "patch", ..list };
        assert_eq!(
            forbidden(&node, "why").message,
            r#"nodes "n" is forbidden: User "x" cannot patch resource "nodes/status" in API group "" at the cluster scope: why"#
        );
        let path = Attributes { user: &user, verb: "get", path: "/metrics", ..Attributes::default() };
        assert_eq!(forbidden(&path, "").message, r#"forbidden: User "x" cannot get path "/metrics""#);
    }
}
