//! Every path of a resource, with its operations as upstream names them.

use serde_json::{Map, Value, json};

use super::Dialect;
use super::operations::{self, Answer, Operation, in_path, meta, query};
use crate::resource::{GroupVersion, GroupVersionKind, Resource, Subresource, built_in};
use crate::schema::Schema;

pub struct Paths<'s> {
    pub schema: &'s Schema,
    pub dialect: Dialect,
    pub out: Map<String, Value>,
}

/// `apps`, `rbacAuthorization`: the group's part of operation ids and tags.
fn group_word(group: &str) -> String {
    let stem = group.strip_suffix(".k8s.io").unwrap_or(group);
    let mut words = stem.split('.');
    let mut out = words.next().filter(|w| !w.is_empty()).unwrap_or("core").to_string();
    words.for_each(|word| out.push_str(&capitalized(word)));
    out
}

pub fn capitalized(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or(String::new(), |first| first.to_uppercase().chain(chars).collect())
}

pub fn base(gv: &GroupVersion) -> String {
    if gv.group.is_empty() { format!("/api/{}", gv.version) } else { format!("/apis/{}/{}", gv.group, gv.version) }
}

/// One resource, and the words that its operations are named with.
struct Named<'r> {
    resource: &'r Resource,
    kind: &'r str,
    /// `CoreV1`
    group_version: String,
    tag: String,
    /// `Namespaced` or nothing.
    scope: &'static str,
    definition: String,
}

impl<'s> Paths<'s> {
    /// `/api/`, `/apis/apps/`, `/apis/apps/v1/`.
    pub fn index(&mut self, path: &str, id: String, tag: String, description: &str, answer: &str) {
        let operation = Operation {
            id,
            tag,
            description: description.into(),
            action: "",
            gvk: None,
            body: None,
            body_required: false,
            query: &[],
            answer: Answer::Definition(answer.into()),
            codes: &["200"],
        };
        let rendered = operation.render(self.dialect);
        self.out.insert(path.into(), json!({"get": rendered}));
    }

    /// The discovery paths of a group.
    pub fn group(&mut self, group: &str) {
        let word = group_word(group);
        let (path, id, description, answer) = if group.is_empty() {
            ("/api/".to_string(), "getCoreAPIVersions".into(), "get available API versions", meta("APIVersions"))
        } else {
            let id = format!("get{}APIGroup", capitalized(&word));
            (format!("/apis/{group}/"), id, "get information of a group", meta("APIGroup"))
        };
        self.index(&path, id, word, description, &answer);
    }

    /// The discovery path of a group version.
    pub fn group_version(&mut self, gv: &GroupVersion) {
        let word = group_word(&gv.group);
        let id = format!("get{}{}APIResources", capitalized(&word), capitalized(&gv.version));
        let tag = format!("{word}_{}", gv.version);
        self.index(&format!("{}/", base(gv)), id, tag, "get available resources", &meta("APIResourceList"));
    }

    /// All paths of a resource.
    pub fn resource(&mut self, resource: &Resource) {
        let word = group_word(&resource.group);
        let named = Named {
            resource,
            kind: &resource.kind.kind,
            group_version: format!("{}{}", capitalized(&word), capitalized(&resource.version)),
            tag: format!("{word}_{}", resource.version),
            scope: if resource.namespaced() { "Namespaced" } else { "" },
            definition: self.definition(&resource.gvk()),
        };
        let base = base(&resource.group_version());
        let scope = if resource.namespaced() { "/namespaces/{namespace}" } else { "" };
        let plural = &resource.resource;
        let collection = format!("{base}{scope}/{plural}");
        self.add(&named, &collection, None, self.collection(&named));
        self.add(&named, &format!("{collection}/{{name}}"), None, self.item(&named));
        for subresource in &resource.subresources {
            let path = format!("{collection}/{{name}}/{}", subresource.name);
            self.add(&named, &path, Some(subresource), self.subresource(&named, subresource, false));
            if subresource.name == "proxy" {
                let path = format!("{path}/{{path}}");
                self.add(&named, &path, Some(subresource), self.subresource(&named, subresource, true));
            }
        }
        if resource.namespaced() && resource.has_verb("list") {
            let list = self.list(&named, "", "ForAllNamespaces");
            self.add(&named, &format!("{base}/{plural}"), None, vec![("get", list)]);
        }
        if resource.has_verb("watch") {
            self.watches(&named, &base, scope);
        }
    }

    fn watches(&mut self, named: &Named<'_>, base: &str, scope: &str) {
        let plural = &named.resource.resource;
        let list = |scope: &str, suffix: &str| Operation {
            id: format!("watch{}{scope}{}List{suffix}", named.group_version, named.kind),
            description: format!(
                "watch individual changes to a list of {}. deprecated: use the 'watch' parameter with a list operation instead.",
                named.kind
            ),
            answer: Answer::Definition(meta("WatchEvent")),
            query: operations::LIST,
            ..self.plain(named, "watchlist")
        };
        let one = Operation {
            id: format!("watch{}{}{}", named.group_version, named.scope, named.kind),
            description: format!(
                "watch changes to an object of kind {}. deprecated: use the 'watch' parameter with a list operation instead, filtered to a single item with the 'fieldSelector' parameter.",
                named.kind
            ),
            answer: Answer::Definition(meta("WatchEvent")),
            query: operations::LIST,
            ..self.plain(named, "watch")
        };
        let in_scope = list(named.scope, "");
        let everywhere = list("", "ForAllNamespaces");
        self.add(named, &format!("{base}/watch{scope}/{plural}"), None, vec![("get", in_scope)]);
        self.add(named, &format!("{base}/watch{scope}/{plural}/{{name}}"), None, vec![("get", one)]);
        if named.resource.namespaced() {
            self.add(named, &format!("{base}/watch/{plural}"), None, vec![("get", everywhere)]);
        }
    }

    fn add(
        &mut self,
        named: &Named<'_>,
        path: &str,
        subresource: Option<&Subresource>,
        operations: Vec<(&str, Operation)>,
    ) {
        if operations.is_empty() {
            return;
        }
        let kind = subresource.map_or(named.kind, |s| s.kind.kind.as_str());
        let mut item = Map::new();
        let mut parameters = Vec::new();
        for (name, text) in [
            ("name", format!("name of the {kind}")),
            ("namespace", "the namespace of the object".to_string()),
            ("path", "path to the resource".to_string()),
        ] {
            if path.contains(&format!("{{{name}}}")) {
                parameters.push(in_path(self.dialect, name, &text));
            }
        }
        let connects = operations.iter().any(|(_, o)| o.action == "connect");
        let extra: &[&str] = match subresource.map(|s| s.name.as_str()) {
            Some("exec") => &["command", "container", "stderr", "stdin", "stdout", "tty"],
            Some("attach") => &["container", "stderr", "stdin", "stdout", "tty"],
            Some("portforward") => &["ports"],
            Some("proxy") => &["path"],
            _ if connects => &[],
            _ => &["pretty"],
        };
        parameters.extend(extra.iter().map(|name| query(self.dialect, name)));
        for (method, operation) in operations {
            item.insert(method.into(), operation.render(self.dialect));
        }
        item.insert("parameters".into(), parameters.into());
        self.out.insert(path.into(), Value::Object(item));
    }

    fn definition(&self, gvk: &GroupVersionKind) -> String {
        match self.schema.by_gvk(gvk) {
            Some(id) => self.schema.get(id).name.clone(),
            None if built_in().by_gvk(gvk).is_some() => meta("Status"),
            None => super::custom::definition_name(gvk),
        }
    }

    fn plain(&self, named: &Named<'_>, action: &'static str) -> Operation {
        Operation {
            id: String::new(),
            tag: named.tag.clone(),
            description: String::new(),
            action,
            gvk: Some(named.resource.gvk()),
            body: None,
            body_required: false,
            query: &[],
            answer: Answer::Definition(named.definition.clone()),
            codes: &["200"],
        }
    }

    fn list(&self, named: &Named<'_>, scope: &str, suffix: &str) -> Operation {
        Operation {
            id: format!("list{}{scope}{}{suffix}", named.group_version, named.kind),
            description: format!("list or watch objects of kind {}", named.kind),
            answer: Answer::Definition(format!("{}List", named.definition)),
            query: operations::LIST,
            ..self.plain(named, "list")
        }
    }

    fn collection(&self, named: &Named<'_>) -> Vec<(&'static str, Operation)> {
        let Named { group_version, scope, kind, resource, .. } = named;
        let mut out = Vec::new();
        if resource.has_verb("list") {
            out.push(("get", self.list(named, scope, "")));
        }
        if resource.has_verb("create") {
            let create = Operation {
                id: format!("create{group_version}{scope}{kind}"),
                description: format!("create {} {kind}", article(kind)),
                body: Some(named.definition.clone()),
                body_required: true,
                query: operations::WRITE,
                codes: &["200", "201", "202"],
                ..self.plain(named, "post")
            };
            out.push(("post", create));
        }
        if resource.has_verb("deletecollection") {
            let delete = Operation {
                id: format!("delete{group_version}Collection{scope}{kind}"),
                description: format!("delete collection of {kind}"),
                body: Some(meta("DeleteOptions")),
                query: operations::DELETE_COLLECTION,
                answer: Answer::Definition(meta("Status")),
                ..self.plain(named, "deletecollection")
            };
            out.push(("delete", delete));
        }
        out
    }

    fn item(&self, named: &Named<'_>) -> Vec<(&'static str, Operation)> {
        let Named { group_version, scope, kind, resource, .. } = named;
        let mut out = self.read_and_write(named, &resource.verbs, "", &named.definition, &resource.gvk());
        if resource.has_verb("delete") {
            let delete = Operation {
                id: format!("delete{group_version}{scope}{kind}"),
                description: format!("delete {} {kind}", article(kind)),
                body: Some(meta("DeleteOptions")),
                query: operations::DELETE,
                answer: Answer::Definition(self.deleted(named)),
                codes: &["200", "202"],
                ..self.plain(named, "delete")
            };
            out.push(("delete", delete));
        }
        out
    }

    /// Some kinds answer a delete with the object instead of a Status.
    fn deleted(&self, named: &Named<'_>) -> String {
        const RETURN_OBJECT: [&str; 12] = [
            "pods",
            "podtemplates",
            "persistentvolumes",
            "persistentvolumeclaims",
            "resourcequotas",
            "serviceaccounts",
            "services",
            "csidrivers",
            "csinodes",
            "storageclasses",
            "volumeattachments",
            "volumeattributesclasses",
        ];
        let dynamic = named.resource.group == "resource.k8s.io";
        let returns = dynamic || RETURN_OBJECT.contains(&named.resource.resource.as_str());
        if returns { named.definition.clone() } else { meta("Status") }
    }

    /// Get, put and patch of an object or of a part of it.
    fn read_and_write(
        &self,
        named: &Named<'_>,
        verbs: &[String],
        part: &str,
        definition: &str,
        gvk: &GroupVersionKind,
    ) -> Vec<(&'static str, Operation)> {
        let Named { group_version, scope, kind, .. } = named;
        let of = if part.is_empty() { String::new() } else { format!("{part} of ") };
        let suffix = capitalized(part);
        let has = |verb: &str| verbs.iter().any(|v| v == verb);
        let plain = |action| Operation {
            gvk: Some(gvk.clone()),
            answer: Answer::Definition(definition.into()),
            ..self.plain(named, action)
        };
        let mut out = Vec::new();
        if has("get") {
            let get = Operation {
                id: format!("read{group_version}{scope}{kind}{suffix}"),
                description: format!("read {of}the specified {kind}"),
                ..plain("get")
            };
            out.push(("get", get));
        }
        if has("update") {
            let put = Operation {
                id: format!("replace{group_version}{scope}{kind}{suffix}"),
                description: format!("replace {of}the specified {kind}"),
                body: Some(definition.into()),
                body_required: true,
                query: operations::WRITE,
                codes: &["200", "201"],
                ..plain("put")
            };
            out.push(("put", put));
        }
        if has("patch") {
            let patch = Operation {
                id: format!("patch{group_version}{scope}{kind}{suffix}"),
                description: format!("partially update {of}the specified {kind}"),
                body: Some(meta("Patch")),
                body_required: true,
                query: operations::PATCH,
                codes: &["200", "201"],
                ..plain("patch")
            };
            out.push(("patch", patch));
        }
        out
    }

    fn subresource(&self, named: &Named<'_>, part: &Subresource, with_path: bool) -> Vec<(&'static str, Operation)> {
        let Named { group_version, scope, kind, .. } = named;
        let gvk = GroupVersionKind::new(part.kind.group.clone(), part.kind.version.clone(), part.kind.kind.clone());
        let suffix = capitalized(&part.name);
        if matches!(part.name.as_str(), "exec" | "attach" | "portforward" | "proxy") {
            let methods: &[&'static str] = match part.name.as_str() {
                "proxy" => &["delete", "get", "head", "options", "patch", "post", "put"],
                _ => &["get", "post"],
            };
            let path = if with_path { "WithPath" } else { "" };
            let connect = |method: &&'static str| Operation {
                id: format!("connect{group_version}{}{scope}{kind}{suffix}{path}", capitalized(method)),
                description: format!("connect {} requests to {} of {kind}", method.to_uppercase(), part.name),
                gvk: Some(gvk.clone()),
                answer: Answer::Text,
                ..self.plain(named, "connect")
            };
            return methods.iter().map(|method| (*method, connect(method))).collect();
        }
        let definition = self.definition(&gvk);
        let mut out = self.read_and_write(named, &part.verbs, &part.name, &definition, &gvk);
        if part.name == "log" {
            out.iter_mut().for_each(|(_, operation)| {
                operation.answer = Answer::Text;
                operation.query = operations::LOG;
            });
        }
        if part.verbs.iter().any(|v| v == "create") {
            let create = Operation {
                id: format!("create{group_version}{scope}{kind}{suffix}"),
                description: format!("create {} of {} {kind}", part.name, article(kind)),
                body: Some(definition.clone()),
                body_required: true,
                query: operations::WRITE,
                codes: &["200", "201", "202"],
                gvk: Some(gvk),
                answer: Answer::Definition(definition),
                ..self.plain(named, "post")
            };
            out.push(("post", create));
        }
        out
    }
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['A', 'E', 'I', 'O', 'U']) { "an" } else { "a" }
}
