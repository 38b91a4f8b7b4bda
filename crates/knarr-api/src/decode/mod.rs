//! From a request's bytes to an [`Object`], with upstream's checks and texts.

pub mod empties;
mod json;
mod said;
mod scalar;
pub(crate) mod syntax;
mod yaml;

use crate::object::Object;
use crate::resource::{GroupVersion, GroupVersionKind};
use crate::schema::{Schema, TypeId, schema};
use crate::status::StatusError;

pub use json::add_always_shown;
pub use syntax::check as check_syntax;
pub use yaml::repeated_keys;

/// How the body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    Json,
    Yaml,
}

/// What to do about unknown and duplicate fields (`fieldValidation`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum FieldValidation {
    Ignore,
    #[default]
    Warn,
    Strict,
}

/// A decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// Holds only known fields; `apiVersion` and `kind` are set.
    pub object: Object,
    /// Texts for `Warning` headers; empty unless [`FieldValidation::Warn`].
    pub warnings: Vec<String>,
    /// Whether it says of a list or a map that it is empty, which it then holds: only after [`decode_as_said`].
    pub says_empty: bool,
}

/// The field where an empty list is a wish of its own: nobody shall own anything.
const MANAGERS: &str = "managedFields";

/// Decodes a body that should be a built-in `kind`.
pub fn decode_object(
    bytes: &[u8],
    encoding: Encoding,
    kind: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let id = schema().by_gvk(kind).ok_or_else(|| StatusError::internal(format!("no type for {kind:?}")))?;
    decode_typed(bytes, encoding, schema(), id, kind, validation)
}

/// Decodes a body that should be a `kind` whose type is `id` of `schema`, into the form that is stored.
pub fn decode_typed(
    bytes: &[u8],
    encoding: Encoding,
    schema: &Schema,
    id: TypeId,
    kind: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let mut decoded = decode_as_said(bytes, encoding, schema, id, kind, validation)?;
    if std::mem::take(&mut decoded.says_empty) {
        empties::settle(schema, id, &mut decoded.object);
    }
    Ok(decoded)
}

/// As [`decode_typed`], into the form that it is written in: see [`empties`].
pub fn decode_as_said(
    bytes: &[u8],
    encoding: Encoding,
    schema: &Schema,
    id: TypeId,
    kind: &GroupVersionKind,
    validation: FieldValidation,
) -> Result<Decoded, StatusError> {
    let (json, said) = well_formed(bytes, encoding, kind)?;
    check_kind(&said, kind)?;
    let outcome = json::decode(&json.text, schema, id).map_err(|why| not_handled(kind, &why))?;
    let mut decoded = decoded(outcome, kind);
    let strict = Strict { repeated: json.repeated, fields: std::mem::take(&mut decoded.warnings) };
    decoded.warnings = strict.settle(kind, validation)?;
    Ok(decoded)
}

/// What was decoded, as an object of its kind; strict errors are warnings.
fn decoded(outcome: json::Outcome, kind: &GroupVersionKind) -> Decoded {
    let mut object = outcome.value;
    object["apiVersion"] = kind.api_version().into();
    object["kind"] = kind.kind.to_string().into();
    Decoded { object, warnings: outcome.strict, says_empty: outcome.says_empty }
}

/// Decodes what a strategic patch has made of a `kind`, into the form that it is written in; strict errors are warnings.
pub fn decode_merged(
    bytes: &[u8],
    schema: &Schema,
    id: TypeId,
    kind: &GroupVersionKind,
) -> Result<Decoded, StatusError> {
    let outcome = json::decode_merged(bytes, schema, id).map_err(|why| not_handled(kind, &why))?;
    Ok(decoded(outcome, kind))
}

/// What strict decoding does not accept.
#[derive(Debug, Default)]
pub struct Strict {
    /// Keys that stand twice in YAML, by line.
    repeated: Vec<String>,
    /// `unknown field "x"`, `duplicate field "y"`.
    pub fields: Vec<String>,
}

impl Strict {
    /// What becomes of it: a refusal, warnings, or nothing.
    pub(crate) fn settle(
        self,
        kind: &GroupVersionKind,
        validation: FieldValidation,
    ) -> Result<Vec<String>, StatusError> {
        match validation {
            FieldValidation::Strict if !self.repeated.is_empty() || !self.fields.is_empty() => {
                Err(not_handled(kind, &self.error()))
            }
            FieldValidation::Warn => Ok(self.repeated.into_iter().chain(self.fields).collect()),
            FieldValidation::Ignore | FieldValidation::Strict => Ok(Vec::new()),
        }
    }

    /// The keys that stand twice in `body`, told as YAML's parser does, though the body be JSON.
    pub fn in_yaml(self, body: &[u8]) -> Vec<String> {
        if self.repeated.is_empty() && !self.fields.is_empty() { repeated_keys(body) } else { self.repeated }
    }

    fn error(self) -> String {
        let yaml = (!self.repeated.is_empty()).then(|| unmarshal_errors(&self.repeated));
        strict_error(&yaml.into_iter().chain(self.fields).collect::<Vec<_>>())
    }
}

/// The one error of a strict decoder that met several.
pub fn strict_error(errors: &[String]) -> String {
    format!("strict decoding error: {}", errors.join(", "))
}

/// Upstream's YAML parser's error of several lines.
pub fn unmarshal_errors(lines: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", lines.join("\n  "))
}

const NO_KIND: &str = "couldn't get version/kind; json parse error: ";

/// A body as JSON without a mistake in it, and what it says that it is.
fn well_formed<'b>(
    bytes: &'b [u8],
    encoding: Encoding,
    kind: &GroupVersionKind,
) -> Result<(yaml::Json<'b>, said::TypeMeta), StatusError> {
    let json = match encoding {
        Encoding::Json => yaml::Json { text: bytes.into(), repeated: Vec::new() },
        Encoding::Yaml => yaml::to_json(bytes).map_err(|why| unrecognized(kind, &why, bytes))?,
    };
    let malformed = |why: String| unrecognized(kind, &format!("{NO_KIND}{why}"), &json.text);
    syntax::check(&json.text).map_err(malformed)?;
    let said = said::type_meta(&json.text).map_err(malformed)?;
    Ok((json, said))
}

/// Reads a configuration to apply as it stands: what it sets, and whether that fits its kind, is the apply's to judge.
pub fn read_configuration(bytes: &[u8], kind: &GroupVersionKind) -> Result<(Object, Strict), StatusError> {
    let json = yaml::to_json(bytes).map_err(|why| StatusError::bad_request(format!("error decoding YAML: {why}")))?;
    syntax::check(&json.text).map_err(|why| StatusError::bad_request(format!("error decoding YAML: {why}")))?;
    let mut outcome = json::decode_untyped(&json.text).map_err(|why| not_handled(kind, &why))?;
    match &outcome.value {
        serde_json::Value::Object(_) => {}
        serde_json::Value::Null => outcome.value = serde_json::Value::Object(Default::default()),
        _ => {
            let why = "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal into Go value of type map[string]interface {}";
            return Err(StatusError::bad_request(format!("error decoding YAML: {why}")));
        }
    }
    crate::custom_resource::normalize_numbers(&mut outcome.value);
    Ok((outcome.value, Strict { repeated: json.repeated, fields: outcome.strict }))
}

/// Upstream names where it keeps the kinds that a delete may say.
const NO_SUCH_OPTIONS: &str = "in scheme \"pkg/apis/meta/internalversion/scheme/register.go:27\"";

/// The `DeleteOptions` in the body of a delete, which may name any group and version, or none. What it does not know is passed over.
pub fn read_delete_options(bytes: &[u8], encoding: Encoding) -> Result<Object, StatusError> {
    let unread = |why: String| StatusError::bad_request(format!("{NO_KIND}{why}"));
    let json = match encoding {
        Encoding::Json => yaml::Json { text: bytes.into(), repeated: Vec::new() },
        Encoding::Yaml => yaml::to_json(bytes).map_err(StatusError::bad_request)?,
    };
    syntax::check(&json.text).map_err(unread)?;
    let said = said::type_meta(&json.text).map_err(unread)?;
    check_delete_options(&said.api_version, &said.kind)?;
    let id = schema().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions");
    let id = id.ok_or_else(|| StatusError::internal("no type for DeleteOptions"))?;
    Ok(json::decode(&json.text, schema(), id).map_err(StatusError::bad_request)?.value)
}

/// Refuses what says that it is something else than `DeleteOptions`.
pub fn check_delete_options(api_version: &str, kind: &str) -> Result<(), StatusError> {
    let version = if api_version.is_empty() { "meta.k8s.io/v1" } else { api_version };
    if version.matches('/').count() > 1 {
        return Err(StatusError::bad_request(format!("unexpected GroupVersion string: {version}")));
    }
    match kind {
        "" | "DeleteOptions" => Ok(()),
        "Status" => Err(StatusError::bad_request("converting (v1.Status) to (v1.DeleteOptions): unknown conversion")),
        other => {
            let why = format!("no kind \"{other}\" is registered for version \"{version}\" {NO_SUCH_OPTIONS}");
            Err(StatusError::bad_request(why))
        }
    }
}

/// Any object: its tree as it is, and the duplicate fields in its text.
pub(crate) fn read_untyped(
    bytes: &[u8],
    encoding: Encoding,
    kind: &GroupVersionKind,
) -> Result<(Object, Strict), StatusError> {
    let (json, _) = well_formed(bytes, encoding, kind)?;
    let outcome = json::decode_untyped(&json.text).map_err(|why| not_handled(kind, &why))?;
    Ok((outcome.value, Strict { repeated: json.repeated, fields: outcome.strict }))
}

/// The fields that stand twice in one map of a JSON text: `duplicate field "a.b"`. Empty for what is no JSON.
pub fn duplicate_fields(json: &[u8]) -> Vec<String> {
    if syntax::check(json).is_err() {
        return Vec::new();
    }
    json::decode_untyped(json).map(|outcome| outcome.strict).unwrap_or_default()
}

/// An `ObjectMeta` in the form of its type, and the paths of what it does not know.
pub(crate) fn decode_metadata(metadata: &serde_json::Value) -> Result<(serde_json::Value, Vec<String>), String> {
    let id = schema().by_name("io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta").ok_or("no type for metadata")?;
    let text = serde_json::to_vec(metadata).map_err(|e| e.to_string())?;
    let mut outcome = json::decode(&text, schema(), id).map_err(|why| match why.ends_with("of type ") {
        true => format!("{why}v1.ObjectMeta"),
        false => why,
    })?;
    if outcome.says_empty {
        empties::settle(schema(), id, &mut outcome.value);
    }
    let path =
        |text: &String| text.strip_prefix("unknown field \"").and_then(|t| t.strip_suffix('"')).map(str::to_string);
    Ok((outcome.value, outcome.strict.iter().filter_map(path).collect()))
}

/// A body of a known kind that cannot be decoded.
pub(crate) fn not_handled(kind: &GroupVersionKind, why: &str) -> StatusError {
    StatusError::bad_request(format!(
        "{} in version \"{}\" cannot be handled as a {}: {why}",
        kind.kind, kind.version, kind.kind
    ))
}

/// A body whose kind cannot even be read.
pub(crate) fn unrecognized(kind: &GroupVersionKind, why: &str, body: &[u8]) -> StatusError {
    let shown = said::summary(body);
    StatusError::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {why} ({shown})",
        kind.kind
    ))
}

/// Refuses a body that says it is something else. Saying nothing is fine.
fn check_kind(said: &said::TypeMeta, wanted: &GroupVersionKind) -> Result<(), StatusError> {
    let api_version = if said.api_version.is_empty() { wanted.api_version() } else { said.api_version.clone() };
    let kind = if said.kind.is_empty() { wanted.kind.as_ref() } else { said.kind.as_str() };
    let said_version = GroupVersion::parse(&api_version);
    let same_version = said_version.is_some_and(|gv| gv.group == wanted.group && gv.version == wanted.version);
    if same_version && kind == wanted.kind {
        return Ok(());
    }
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let Some(version_said) = GroupVersion::parse(&api_version) else {
        let why = format!("unexpected GroupVersion string: {api_version}");
        return Err(not_handled(wanted, &why));
    };
    let gvk = GroupVersionKind::new(version_said.group.clone(), version_said.version.clone(), kind.to_string());
    let found = schema().by_gvk(&gvk);
    if found.is_some() && found == schema().by_gvk(wanted) {
        return Ok(());
    }
    if found.is_none() {
        return Err(StatusError::bad_request(format!(
            "{kind} in version \"{version}\" cannot be handled as a {}: no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/api/legacyscheme/scheme.go:30\"",
            wanted.kind
        )));
    }
    if kind == wanted.kind && version_said.group == wanted.group {
        return Err(StatusError::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            wanted.api_version()
        )));
    }
    Err(StatusError::bad_request(format!(
        "{kind} in version \"{version}\" cannot be handled as a {}: converting ({version}.{kind}) to ({}.{}): unknown conversion",
        wanted.kind,
        internal_package(&wanted.group),
        wanted.kind
    )))
}

/// The Go package of a group's internal types, which one upstream message names.
fn internal_package(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.split('.').next().unwrap_or(group) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(text: &str, validation: FieldValidation) -> Result<Decoded, StatusError> {
        decode_object(text.as_bytes(), Encoding::Json, &GroupVersionKind::new("", "v1", "Pod"), validation)
    }

    fn refusal(text: &str) -> String {
        let error = pod(text, FieldValidation::Strict).expect_err(text);
        assert_eq!(error.code, 400, "{text}");
        error.message
    }

    #[test]
    fn a_body_that_says_nothing_of_its_kind_gets_the_expected_one() {
        let decoded = pod("{\"metadata\":{\"name\":\"a\",\"labels\":null}}", FieldValidation::Strict).expect("a pod");
        let object = decoded.object;
        assert_eq!((&object["apiVersion"], &object["kind"]), (&json!("v1"), &json!("Pod")));
        assert_eq!(object["metadata"], json!({"name": "a"}));
    }

    #[test]
    fn refusals_read_as_upstreams() {
        const HANDLED: &str = "Pod in version \"v1\" cannot be handled as a Pod: ";
        const UNRECOGNIZED: &str =
            "the object provided is unrecognized (must be of type Pod): couldn't get version/kind; json parse error: ";
        for (body, wanted) in [
            (
                r#"{"spec":{"zzz":1,"containers":[{"name":"c","name":"d","Image":"i"}]}}"#,
                format!(
                    "{HANDLED}strict decoding error: unknown field \"spec.zzz\", duplicate field \"spec.containers[0].name\", unknown field \"spec.containers[0].Image\""
                ),
            ),
            (
                r#"{"spec":{"zzz":1,"priority":"x"}}"#,
                format!("{HANDLED}json: cannot unmarshal string into Go struct field PodSpec.spec.priority of type int32"),
            ),
            (
                r#"{"spec":{"dnsPolicy":{}}}"#,
                format!("{HANDLED}json: cannot unmarshal object into Go struct field PodSpec.spec.dnsPolicy of type v1.DNSPolicy"),
            ),
            (
                r#"{"spec":{"containers":[{"livenessProbe":{"exec":{"command":{}}}}]}}"#,
                format!(
                    "{HANDLED}json: cannot unmarshal object into Go struct field ExecAction.spec.containers.livenessProbe.ProbeHandler.exec.command of type []string"
                ),
            ),
            (
                r#"{"kind":"Service","apiVersion":"v1"}"#,
                "Service in version \"v1\" cannot be handled as a Pod: converting (v1.Service) to (core.Pod): unknown conversion".into(),
            ),
            ("{\"a\"}", format!("{UNRECOGNIZED}invalid character '}}' after object key ({{\"a\"}})")),
            ("", format!("{UNRECOGNIZED}unexpected end of JSON input (<empty>)")),
        ] {
            assert_eq!(refusal(body), wanted, "{body}");
        }
    }

    #[test]
    fn nothing_is_what_its_field_makes_of_it() {
        let decode = |group: &str, kind: &str, body: &str| {
            let kind = GroupVersionKind::new(group.to_string(), "v1", kind.to_string());
            decode_object(body.as_bytes(), Encoding::Json, &kind, FieldValidation::Strict).expect(body).object
        };
        let secret = decode("", "Secret", r#"{"data":{"a":null}}"#);
        assert_eq!(secret["data"], json!({"a": ""}), "no bytes");
        let capacity = decode("storage.k8s.io", "CSIStorageCapacity", r#"{"capacity":null}"#);
        assert!(capacity.get("capacity").is_none(), "a pointer to no quantity");
        let claim = decode("", "PersistentVolumeClaim", r#"{"spec":{"dataSource":{"kind":"K","name":"n"}}}"#);
        assert_eq!(claim["spec"]["dataSource"]["apiGroup"], json!(null), "a pointer that is always shown");
    }

    #[test]
    fn schemas_within_schemas_are_typed_but_not_strict() {
        let kind = GroupVersionKind::new("apiextensions.k8s.io", "v1", "CustomResourceDefinition");
        let decode = |items: &str| {
            let body = format!(r#"{{"spec":{{"versions":[{{"schema":{{"openAPIV3Schema":{{{items}}}}}}}]}}}}"#);
            decode_object(body.as_bytes(), Encoding::Json, &kind, FieldValidation::Strict)
        };
        let decoded = decode(r#""items":{"type":"string","zzz":1,"maxLength":null}"#).expect("a definition").object;
        let schema = &decoded["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        assert_eq!(schema["items"], json!({"type": "string"}));
        for wrong in [
            r#""items":{"maxLength":1.5}"#,
            r#""additionalProperties":1"#,
            r#""properties":{"a":{"items":{"type":1}}}"#,
        ] {
            assert_eq!(decode(wrong).expect_err(wrong).code, 400, "{wrong}");
        }
    }

    #[test]
    fn unknown_fields_are_pruned_and_warned_of() {
        let body = r#"{"metadata":{"name":"a"},"spec":{"zzz":{"deep":[1]}}}"#;
        let decoded = pod(body, FieldValidation::Warn).expect("a pod");
        assert_eq!(decoded.warnings, ["unknown field \"spec.zzz\""]);
        assert!(decoded.object["spec"].get("zzz").is_none());
        assert!(pod(body, FieldValidation::Ignore).expect("a pod").warnings.is_empty());
    }

    #[test]
    fn depth_costs_no_stack() {
        let nest = |n: usize| format!("{}1{}", "[".repeat(n), "]".repeat(n));
        assert!(refusal(&format!("{{\"zzz\":{}}}", nest(9_000))).contains("unknown field"));
        assert!(refusal(&format!("{{\"zzz\":{}}}", nest(20_000))).contains("exceeded max depth"));
    }

    #[test]
    fn yaml_is_json_with_other_brackets() {
        let kind = GroupVersionKind::new("", "v1", "ConfigMap");
        let yaml = b"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: \"1\"\n";
        let decoded = decode_object(yaml, Encoding::Yaml, &kind, FieldValidation::Strict).expect("a config map");
        assert_eq!(decoded.object["data"], json!({"k": "1"}));
        let wrong = decode_object(b"data: {k: [}", Encoding::Yaml, &kind, FieldValidation::Strict);
        assert_eq!(wrong.expect_err("broken").code, 400);
    }
}
