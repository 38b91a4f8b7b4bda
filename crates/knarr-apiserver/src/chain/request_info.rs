//! What a request's path and method ask for, read exactly as upstream reads them: authorization depends on it.

use http::Method;
use percent_encoding::percent_decode_str;

/// A request as authorization, audit and the handlers see it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestInfo {
    pub is_resource: bool,
    /// get, list, watch, create, update, patch, delete, deletecollection, proxy; the lower-case method elsewhere.
    pub verb: String,
    /// The decoded path.
    pub path: String,
    pub group: String,
    pub version: String,
    pub namespace: String,
    pub resource: String,
    pub subresource: String,
    pub name: String,
    /// What follows the subresource (of proxies).
    pub rest: String,
    pub field_selector: String,
    pub label_selector: String,
    /// Served until one side ends it: it does not count as in flight and has no timeout.
    pub long_running: bool,
    /// JSON is answered with lines and indentation.
    pub indented: bool,
}

/// A path that cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("the path is not valid UTF-8 once decoded")]
    Encoding,
    #[error("unable to determine kind and namespace from url, {0}")]
    NoKind(String),
}

const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];
const LONG_RUNNING_SUBRESOURCES: [&str; 5] = ["attach", "exec", "proxy", "log", "portforward"];

impl RequestInfo {
    pub fn parse(method: &Method, path: &str, query: &str) -> Result<Self, PathError> {
        let decoded = percent_decode_str(path).decode_utf8().map_err(|_| PathError::Encoding)?.into_owned();
        let mut info = RequestInfo { verb: method.as_str().to_ascii_lowercase(), path: decoded, ..Self::default() };
        let path = std::mem::take(&mut info.path);
        let read = info.read_resource(method, &path, query);
        info.path = path;
        read?;
        info.long_running = info.is_resource
            && (matches!(info.verb.as_str(), "watch" | "proxy")
                || LONG_RUNNING_SUBRESOURCES.contains(&info.subresource.as_str()));
        Ok(info)
    }

    /// Whether nothing is changed by it.
    pub fn reads(&self) -> bool {
        matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    fn read_resource(&mut self, method: &Method, path: &str, query: &str) -> Result<(), PathError> {
        let trimmed = path.trim_matches('/');
        let parts: Vec<&str> = trimmed.split('/').collect();
        let mut parts = parts.as_slice();
        if parts.len() < 3 {
            return Ok(());
        }
        match parts[0] {
            "api" => parts = &parts[1..],
            "apis" if parts.len() > 3 => {
                self.group = parts[1].to_string();
                parts = &parts[2..];
            }
            _ => return Ok(()),
        }
        self.is_resource = true;
        self.version = parts[0].to_string();
        parts = &parts[1..];
        self.verb = verb_of(method).to_string();
        if matches!(parts.first(), Some(&"proxy" | &"watch")) {
            if parts.len() < 2 {
                return Err(PathError::NoKind(path.to_string()));
            }
            self.verb = parts[0].to_string();
            parts = &parts[1..];
        }
        parts = self.read_namespace(parts);
        self.read_names(parts);
        self.read_collection(query);
        Ok(())
    }

    fn read_namespace<'a>(&mut self, parts: &'a [&'a str]) -> &'a [&'a str] {
        if parts.first() != Some(&"namespaces") || parts.len() < 2 {
            return parts;
        }
        self.namespace = parts[1].to_string();
        let is_namespace_itself = parts.len() < 3 || NAMESPACE_SUBRESOURCES.contains(&parts[2]);
        if is_namespace_itself { parts } else { &parts[2..] }
    }

    fn read_names(&mut self, parts: &[&str]) {
        let part = |i: usize| parts.get(i).copied().unwrap_or_default().to_string();
        self.resource = part(0);
        self.name = part(1);
        if self.verb == "proxy" {
            self.rest = parts.get(2..).unwrap_or_default().join("/");
        } else {
            self.subresource = part(2);
            self.rest = parts.get(3..).unwrap_or_default().join("/");
        }
    }

    /// A GET or DELETE without a name is of the collection; its selectors count for authorization.
    fn read_collection(&mut self, query: &str) {
        if self.name.is_empty() {
            match self.verb.as_str() {
                "get" => self.verb = if wants_watch(query) { "watch" } else { "list" }.into(),
                "delete" => self.verb = "deletecollection".into(),
                _ => {}
            }
        }
        if !matches!(self.verb.as_str(), "list" | "watch" | "deletecollection") {
            return;
        }
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            match key.as_ref() {
                "fieldSelector" => self.field_selector = value.into_owned(),
                "labelSelector" => self.label_selector = value.into_owned(),
                _ => {}
            }
        }
        if self.name.is_empty()
            && let Some(name) = self.field_selector.split(',').find_map(|r| r.strip_prefix("metadata.name="))
        {
            self.name = name.trim_start_matches('=').to_string();
        }
    }
}

fn verb_of(method: &Method) -> &'static str {
    match method.as_str() {
        "POST" => "create",
        "GET" | "HEAD" => "get",
        "PUT" => "update",
        "PATCH" => "patch",
        "DELETE" => "delete",
        _ => "",
    }
}

fn wants_watch(query: &str) -> bool {
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(k, v)| k == "watch" && !matches!(v.to_ascii_lowercase().as_str(), "0" | "false"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// (method, path and query, verb, group/version, namespace, resource, subresource, name)
    type Case = (
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    );

    const CASES: &[Case] = &[
        ("GET", "/api/v1/namespaces", "list", "/v1", "", "namespaces", "", ""),
        ("GET", "/api/v1/namespaces/x", "get", "/v1", "x", "namespaces", "", "x"),
        ("PUT", "/api/v1/namespaces/x/finalize", "update", "/v1", "x", "namespaces", "finalize", "x"),
        ("PUT", "/api/v1/namespaces/x/status", "update", "/v1", "x", "namespaces", "status", "x"),
        ("GET", "/api/v1/namespaces/x/pods", "list", "/v1", "x", "pods", "", ""),
        ("GET", "/api/v1/namespaces/x/pods/p", "get", "/v1", "x", "pods", "", "p"),
        ("POST", "/api/v1/namespaces/x/pods/p/exec", "create", "/v1", "x", "pods", "exec", "p"),
        ("GET", "/api/v1/nodes/n/proxy/metrics/x", "get", "/v1", "", "nodes", "proxy", "n"),
        ("GET", "/api/v1/pods?watch=true", "watch", "/v1", "", "pods", "", ""),
        ("GET", "/api/v1/watch/namespaces/x/pods", "watch", "/v1", "x", "pods", "", ""),
        ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Da", "list", "/v1", "", "pods", "", "a"),
        ("DELETE", "/apis/apps/v1/namespaces/x/deployments", "deletecollection", "apps/v1", "x", "deployments", "", ""),
        (
            "PATCH",
            "/apis/apps/v1/namespaces/x/deployments/d/scale",
            "patch",
            "apps/v1",
            "x",
            "deployments",
            "scale",
            "d",
        ),
    ];

    #[test]
    fn resource_paths_read_as_upstream() {
        for (method, target, verb, gv, namespace, resource, subresource, name) in CASES {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let info = RequestInfo::parse(&method.parse().expect("a method"), path, query).expect(target);
            assert!(info.is_resource, "{target}");
            let got_gv = format!("{}/{}", info.group, info.version);
            let got = (info.verb.as_str(), got_gv.as_str(), info.namespace.as_str(), info.resource.as_str());
            assert_eq!(got, (*verb, *gv, *namespace, *resource), "{target}");
            assert_eq!((info.subresource.as_str(), info.name.as_str()), (*subresource, *name), "{target}");
        }
    }

    #[test]
    fn other_paths_are_not_resources() {
        for path in
            ["/", "/api", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1", "/healthz", "/version", "/metrics/api/v1"]
        {
            let info = RequestInfo::parse(&Method::GET, path, "").expect(path);
            assert!(!info.is_resource && info.verb == "get", "{path}");
        }
    }

    #[test]
    fn hostile_paths_are_refused_or_read_literally() {
        assert_eq!(RequestInfo::parse(&Method::GET, "/api/v1/%ff/x", ""), Err(PathError::Encoding));
        assert!(RequestInfo::parse(&Method::GET, "/api/v1/watch", "").is_err());
        let up = RequestInfo::parse(&Method::GET, "/api/v1/namespaces/x/pods/../../y", "").expect("reads");
        assert_eq!((up.name.as_str(), up.subresource.as_str()), ("..", ".."));
        let slashes = RequestInfo::parse(&Method::GET, "/api/v1/namespaces//pods", "").expect("reads");
        assert_eq!((slashes.namespace.as_str(), slashes.resource.as_str()), ("", "pods"));
    }
}
