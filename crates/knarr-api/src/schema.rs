//! The schema table: every type of the API as data, embedded from `generated/schema.json`.
//!
//! Types refer to each other by [`TypeId`], an index into the table, so that walking an object and its type together costs
//! no string hashing beyond the field look-up.

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;
use serde_json::Value;

use crate::resource::GroupVersionKind;

/// Index of a type in the [`Schema`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TypeId(pub u32);

/// What a value must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    String,
    /// Base64 in JSON, raw in protobuf.
    Bytes,
    Boolean,
    Int32,
    Int64,
    Double,
    List(Box<Shape>),
    /// Keys are always strings.
    Map(Box<Shape>),
    Type(TypeId),
}

/// How server-side apply treats a list (`x-kubernetes-list-type`).
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum ListKind {
    /// Not said: apply treats it as atomic.
    #[default]
    Unset,
    Atomic,
    Set,
    /// Associative by these keys.
    Map(Vec<String>),
}

/// `x-kubernetes-map-type`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum MapKind {
    /// Not said: a field's type says it, and a type that does not say is granular.
    #[default]
    Unset,
    Granular,
    Atomic,
}

/// How a strategic merge patch treats a field.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct PatchStrategy {
    pub merge: bool,
    pub retain_keys: bool,
    pub replace: bool,
    /// The key that lists of objects are merged by.
    pub merge_key: Option<String>,
}

/// How a field travels in protobuf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtoField {
    pub number: u32,
    /// The declared protobuf type: `string`, `int32`, `bytes`, `map<string,string>`, a message name.
    pub proto_type: String,
    /// Field numbers of the nested messages that JSON inlines, outermost first.
    pub nested_in: Vec<u32>,
}

/// How Go keeps a field, which decides when an object shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Presence {
    /// Absent is different from zero; shown when set (a pointer).
    #[default]
    Optional,
    /// Zero means absent; never shown when zero.
    WhenSet,
    /// Always shown, also when zero.
    Always,
    /// A pointer that is always shown: null where it is unset.
    Nullable,
}

/// What Go's side of the API says of a field.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct GoField {
    pub presence: Presence,
    /// The Go type that type errors name (`v1.DNSPolicy`, `[]v1.Container`).
    pub type_name: String,
    /// Embedded structs between the type and the field (`ProbeHandler`), which type errors show in the path.
    pub embedded: Vec<String>,
}

/// One field of a type.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// The name in JSON.
    pub name: String,
    pub shape: Shape,
    pub required: bool,
    pub default: Option<Value>,
    pub enumeration: Vec<Value>,
    pub list: ListKind,
    pub map: MapKind,
    pub patch: PatchStrategy,
    pub proto: Option<ProtoField>,
    pub go: GoField,
}

/// Types whose JSON is not a plain struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// An ordinary struct.
    None,
    Quantity,
    Time,
    MicroTime,
    IntOrString,
    /// Any JSON object, kept as it is (`RawExtension`, `FieldsV1`).
    AnyObject,
    /// Any JSON at all (`JSON`, and the `JSONSchemaPropsOr…` family).
    Any,
}

/// One type.
#[derive(Clone, Debug)]
pub struct Type {
    /// The definition's name, such as `io.k8s.api.core.v1.Pod`.
    pub name: String,
    pub gvks: Vec<GroupVersionKind>,
    pub special: Special,
    pub map: MapKind,
    /// Whether it may have fields beyond these, of any type.
    pub open: bool,
    /// Sorted by name.
    pub fields: Vec<Field>,
    /// Indexes of the fields that are shown even when zero.
    pub always: Vec<usize>,
    /// Messages that JSON inlines: (protobuf field name, number, message).
    pub inline: Vec<(String, u32, String)>,
    /// Protobuf fields that have no JSON field of that name: (name, number, protobuf type).
    pub proto_only: Vec<(String, u32, String)>,
}

impl Type {
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.binary_search_by(|f| f.name.as_str().cmp(name)).ok().map(|i| &self.fields[i])
    }

    /// `Pod` of `io.k8s.api.core.v1.Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or(&self.name)
    }
}

/// The table.
pub struct Schema {
    types: Vec<Type>,
    by_name: HashMap<String, TypeId, FixedState>,
    by_gvk: HashMap<GroupVersionKind, TypeId, FixedState>,
}

impl Type {
    /// Whether OpenAPI documents name it. The metadata kinds, which only an `Accept` header asks for, stand in none.
    pub fn is_published(&self) -> bool {
        !self.name.starts_with("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata")
    }
}

/// Kinds that are served in a later version only, and still taken where clients say the older: group, kind, older and later version.
const TAKEN_FOR: &[(&str, &str, &str, &str)] = &[("policy", "Eviction", "v1beta1", "v1")];

fn served_since(gvk: &GroupVersionKind) -> Option<GroupVersionKind> {
    let said = (&*gvk.group, &*gvk.kind, &*gvk.version);
    let (group, kind, _, later) = TAKEN_FOR.iter().find(|(group, kind, older, _)| said == (*group, *kind, *older))?;
    Some(GroupVersionKind::new(*group, *later, *kind))
}

impl Schema {
    /// A schema of one's own, such as a custom resource's. A [`TypeId`] is an index into `types`; fields must be sorted by
    /// name, and `always` must hold the indexes of the fields that are shown even when zero.
    pub fn new(types: Vec<Type>) -> Self {
        let ids = || (0u32..).map(TypeId).zip(&types);
        let by_name = ids().map(|(id, ty)| (ty.name.clone(), id)).collect();
        let by_gvk = ids().flat_map(|(id, ty)| ty.gvks.iter().map(move |gvk| (gvk.clone(), id))).collect();
        Schema { by_name, by_gvk, types }
    }

    pub fn get(&self, id: TypeId) -> &Type {
        &self.types[id.0 as usize]
    }

    pub fn by_name(&self, name: &str) -> Option<TypeId> {
        self.by_name.get(name).copied()
    }

    pub fn by_gvk(&self, gvk: &GroupVersionKind) -> Option<TypeId> {
        self.by_gvk.get(gvk).or_else(|| self.by_gvk.get(&served_since(gvk)?)).copied()
    }

    /// The Go type that goes with a shape where a field says nothing else.
    pub fn go_type_name(&self, shape: &Shape) -> String {
        go_name(shape, &|id: TypeId| self.get(id).name.as_str())
    }

    pub fn types(&self) -> impl Iterator<Item = (TypeId, &Type)> {
        (0u32..).map(TypeId).zip(&self.types)
    }
}

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    parse(include_str!("../generated/schema.json"), include_str!("../generated/go_fields.json"))
        .expect("the generator wrote it and a test reads it")
});

/// The schema of Kubernetes v1.36.
pub fn schema() -> &'static Schema {
    &SCHEMA
}

fn parse(text: &str, go_fields: &str) -> Result<Schema, String> {
    let root: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let go_fields: Value = serde_json::from_str(go_fields).map_err(|e| e.to_string())?;
    let rows = root["types"].as_object().ok_or("no types")?;
    let by_name: HashMap<String, TypeId, FixedState> =
        rows.keys().zip(0u32..).map(|(name, i)| (name.clone(), TypeId(i))).collect();
    let names: Vec<&String> = rows.keys().collect();
    let mut types = Vec::with_capacity(rows.len());
    for (name, row) in rows {
        let mut parsed = parse_type(name, row, &by_name)?;
        read_go_fields(&mut parsed, &go_fields[name.as_str()], &names);
        types.push(parsed);
    }
    Ok(Schema::new(types))
}

fn parse_type(name: &str, row: &Value, ids: &HashMap<String, TypeId, FixedState>) -> Result<Type, String> {
    let mut fields = Vec::new();
    for (field, facts) in row["fields"].as_object().into_iter().flatten() {
        fields.push(parse_field(field, facts, ids).map_err(|e| format!("{name}.{field}: {e}"))?);
    }
    fields.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Type {
        name: name.to_string(),
        gvks: row["gvk"].as_array().into_iter().flatten().map(parse_gvk).collect(),
        special: special(name, row),
        map: map_kind(&row["map-type"]),
        open: false,
        fields,
        always: Vec::new(),
        inline: parse_messages(&row["inline"]),
        proto_only: parse_messages(&row["pbOnly"]),
    })
}

/// Adds what Go's side says. A type it does not know is shown as it was written.
fn read_go_fields(parsed: &mut Type, row: &Value, names: &[&String]) {
    let package = package_of(&parsed.name).to_string();
    for field in &mut parsed.fields {
        field.go.type_name = go_name(&field.shape, &|id: TypeId| names[id.0 as usize]);
        let Some(text) = row[field.name.as_str()].as_str() else { continue };
        let (text, embedded) = text.split_once(" @").unwrap_or((text, ""));
        let (flags, type_name) = text.split_once(' ').unwrap_or((text, ""));
        field.go.embedded = embedded.split('.').filter(|e| !e.is_empty()).map(str::to_string).collect();
        if !type_name.is_empty() {
            field.go.type_name = qualify(type_name, &package);
        }
        field.go.presence = presence(flags, &field.shape);
    }
    let shown = |(index, field): (usize, &Field)| {
        matches!(field.go.presence, Presence::Always | Presence::Nullable).then_some(index)
    };
    parsed.always = parsed.fields.iter().enumerate().filter_map(shown).collect();
}

/// Structs that are not pointers are always shown, whatever their tag says, unless it says `omitzero`.
fn presence(flags: &str, shape: &Shape) -> Presence {
    let omits = flags.contains('o') && !matches!(shape, Shape::Type(_));
    match () {
        () if flags == "p" => Presence::Nullable,
        () if flags.contains('p') => Presence::Optional,
        () if omits || flags.contains('z') => Presence::WhenSet,
        () => Presence::Always,
    }
}

/// `v1` of `io.k8s.api.core.v1.Pod`.
fn package_of(type_name: &str) -> &str {
    type_name.rsplit('.').nth(1).unwrap_or_default()
}

/// Puts the package before a type of the same package: `[]Container` becomes `[]v1.Container`.
fn qualify(go: &str, package: &str) -> String {
    let start = go.rfind([']', '*']).map_or(0, |i| i + 1);
    let (prefix, base) = go.split_at(start);
    let prefix = match prefix.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        Some((key, rest)) => format!("map[{}]{rest}", qualify(key, package)),
        None => prefix.to_string(),
    };
    let plain = base.chars().next().is_some_and(char::is_lowercase);
    let base = match base.split_once('.') {
        Some(("metav1" | "corev1" | "apiv1" | "v1", name)) => format!("v1.{name}"),
        Some(_) => base.to_string(),
        None if base == "byte" => "uint8".to_string(),
        None if plain => base.to_string(),
        None => format!("{package}.{base}"),
    };
    format!("{prefix}{base}")
}

/// The Go type that goes with a shape where nothing else is said.
fn go_name<'a>(shape: &Shape, name_of: &dyn Fn(TypeId) -> &'a str) -> String {
    match shape {
        Shape::String => "string".into(),
        Shape::Bytes => "[]uint8".into(),
        Shape::Boolean => "bool".into(),
        Shape::Int32 => "int32".into(),
        Shape::Int64 => "int64".into(),
        Shape::Double => "float64".into(),
        Shape::List(item) => format!("[]{}", go_name(item, name_of)),
        Shape::Map(item) => format!("map[string]{}", go_name(item, name_of)),
        Shape::Type(id) => {
            let name = name_of(*id);
            format!("{}.{}", package_of(name), name.rsplit('.').next().unwrap_or_default())
        }
    }
}

fn map_kind(word: &Value) -> MapKind {
    match word.as_str() {
        Some("atomic") => MapKind::Atomic,
        Some("granular") => MapKind::Granular,
        _ => MapKind::Unset,
    }
}

fn parse_gvk(gvk: &Value) -> GroupVersionKind {
    let part = |i: usize| gvk[i].as_str().unwrap_or_default().to_string();
    GroupVersionKind::new(part(0), part(1), part(2))
}

fn parse_messages(map: &Value) -> Vec<(String, u32, String)> {
    let entry = |(name, v): (&String, &Value)| {
        (name.clone(), v[0].as_u64().unwrap_or_default() as u32, v[1].as_str().unwrap_or_default().to_string())
    };
    map.as_object().into_iter().flatten().map(entry).collect()
}

fn special(name: &str, row: &Value) -> Special {
    match name.rsplit('.').next().unwrap_or_default() {
        "Quantity" => Special::Quantity,
        "Time" => Special::Time,
        "MicroTime" => Special::MicroTime,
        "IntOrString" => Special::IntOrString,
        _ => match row["type"].as_str() {
            Some("any") => Special::Any,
            Some("object") if row.get("pbOnly").is_some() => Special::AnyObject,
            _ => Special::None,
        },
    }
}

fn parse_field(name: &str, row: &Value, ids: &HashMap<String, TypeId, FixedState>) -> Result<Field, String> {
    let strings = |v: &Value| {
        v.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_string).collect::<Vec<_>>()
    };
    let list = match row["list"].as_str() {
        None => ListKind::Unset,
        Some("atomic") => ListKind::Atomic,
        Some("set") => ListKind::Set,
        Some("map") => ListKind::Map(strings(&row["keys"])),
        Some(other) => return Err(format!("list kind {other}")),
    };
    let patch = row["patch"].as_str().unwrap_or_default();
    let has = |word: &str| patch.split(',').any(|p| p == word);
    let proto = row["pb"].as_u64().map(|number| ProtoField {
        number: number as u32,
        proto_type: row["pbt"].as_str().unwrap_or_default().to_string(),
        nested_in: row["in"].as_array().into_iter().flatten().filter_map(Value::as_u64).map(|n| n as u32).collect(),
    });
    Ok(Field {
        name: name.to_string(),
        shape: parse_shape(row["t"].as_str().ok_or("no type")?, ids)?,
        required: row["req"] == true,
        default: row.get("default").cloned(),
        enumeration: row["enum"].as_array().cloned().unwrap_or_default(),
        list,
        map: map_kind(&row["map"]),
        patch: PatchStrategy {
            merge: has("merge"),
            retain_keys: has("retainKeys"),
            replace: has("replace"),
            merge_key: row["mergeKey"].as_str().map(str::to_string),
        },
        proto,
        go: GoField::default(),
    })
}

fn parse_shape(text: &str, ids: &HashMap<String, TypeId, FixedState>) -> Result<Shape, String> {
    if let Some(item) = text.strip_prefix("[]") {
        return Ok(Shape::List(Box::new(parse_shape(item, ids)?)));
    }
    if let Some(item) = text.strip_prefix("map:") {
        return Ok(Shape::Map(Box::new(parse_shape(item, ids)?)));
    }
    Ok(match text {
        "string" => Shape::String,
        "string:byte" => Shape::Bytes,
        "boolean" => Shape::Boolean,
        "integer:int32" => Shape::Int32,
        "integer:int64" => Shape::Int64,
        "number:double" => Shape::Double,
        name => Shape::Type(*ids.get(name).ok_or_else(|| format!("unknown type {name}"))?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_loads_and_knows_a_container() {
        let container = schema().get(schema().by_name("io.k8s.api.core.v1.Container").expect("containers exist"));
        let ports = container.field("ports").expect("containers have ports");
        assert_eq!(ports.list, ListKind::Map(vec!["containerPort".into(), "protocol".into()]));
        assert_eq!(ports.patch.merge_key.as_deref(), Some("containerPort"));
        assert!(schema().by_gvk(&GroupVersionKind::new("apps", "v1", "Deployment")).is_some());
    }
}
