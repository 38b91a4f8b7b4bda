//! The result of a JSON patch or a merge patch as upstream shows one that it cannot read. What the patch has touched is written anew, by name;
//! what it has not is still as Go had written it, in the order of its structs, which is that of their numbers in protobuf.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::schema::{Schema, Shape, Type, TypeId};

/// The text of `patched`, an object of type `id` that was `before`.
pub fn result_text(schema: &Schema, id: TypeId, patched: &Value, before: &Value) -> String {
    let root = Shape::Type(id);
    let mut text = Text { schema, out: String::new() };
    text.touched(Some(&root), patched, before);
    text.out
}

struct Text<'s> {
    schema: &'s Schema,
    out: String,
}

impl<'s> Text<'s> {
    fn touched(&mut self, shape: Option<&'s Shape>, value: &Value, before: &Value) {
        match (value, before) {
            (value, before) if value == before => self.untouched(shape, value),
            (Value::Object(fields), before) => {
                let keys = fields.iter().collect();
                self.object(shape, keys, |text, shape, key, value| {
                    text.touched(shape, value, before.get(key).unwrap_or(&Value::Null));
                });
            }
            (Value::Array(items), before) => {
                let stood = before.as_array().map_or(&[][..], Vec::as_slice);
                let known: HashSet<&Value> = stood.iter().collect();
                self.array(shape, items, |text, shape, index, item| {
                    let before = if known.contains(item) { item } else { stood.get(index).unwrap_or(&Value::Null) };
                    text.touched(shape, item, before);
                });
            }
            (scalar, _) => self.scalar(scalar),
        }
    }

    fn untouched(&mut self, shape: Option<&'s Shape>, value: &Value) {
        match value {
            Value::Object(fields) => {
                let keys = self.in_order(shape, fields);
                self.object(shape, keys, |text, shape, _, value| text.untouched(shape, value));
            }
            Value::Array(items) => self.array(shape, items, |text, shape, _, item| text.untouched(shape, item)),
            scalar => self.scalar(scalar),
        }
    }

    fn in_order<'v>(&self, shape: Option<&'s Shape>, fields: &'v Map<String, Value>) -> Vec<(&'v String, &'v Value)> {
        let mut keys: Vec<(&String, &Value)> = fields.iter().collect();
        if let Some(ty) = self.struct_of(shape) {
            // What has no number stands first.
            keys.sort_by_key(|(key, _)| {
                let proto = ty.field(key).and_then(|field| field.proto.as_ref());
                proto.map(|proto| (proto.nested_in.first().copied().unwrap_or(proto.number), proto.number))
            });
        }
        keys
    }

    fn struct_of(&self, shape: Option<&'s Shape>) -> Option<&'s Type> {
        match shape {
            Some(Shape::Type(id)) => Some(self.schema.get(*id)),
            _ => None,
        }
    }

    fn object(
        &mut self,
        shape: Option<&'s Shape>,
        fields: Vec<(&String, &Value)>,
        mut write: impl FnMut(&mut Self, Option<&'s Shape>, &str, &Value),
    ) {
        let ty = self.struct_of(shape);
        self.out.push('{');
        for (i, (key, value)) in fields.into_iter().enumerate() {
            let separator = if i > 0 { "," } else { "" };
            let _ = write!(self.out, "{separator}{}:", Value::from(key.as_str()));
            let below = match shape {
                Some(Shape::Map(item)) => Some(&**item),
                _ => ty.and_then(|ty| ty.field(key)).map(|field| &field.shape),
            };
            write(self, below, key, value);
        }
        self.out.push('}');
    }

    fn array(
        &mut self,
        shape: Option<&'s Shape>,
        items: &[Value],
        mut write: impl FnMut(&mut Self, Option<&'s Shape>, usize, &Value),
    ) {
        let below = match shape {
            Some(Shape::List(item)) => Some(&**item),
            _ => None,
        };
        self.out.push('[');
        for (i, item) in items.iter().enumerate() {
            if i > 0 {
                self.out.push(',');
            }
            write(self, below, i, item);
        }
        self.out.push(']');
    }

    fn scalar(&mut self, value: &Value) {
        let _ = write!(self.out, "{value}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resource::GroupVersionKind;
    use crate::schema::schema;

    #[test]
    fn what_a_patch_leaves_alone_keeps_gos_order() {
        let before = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"creationTimestamp": "t", "name": "s", "labels": {"b": "1", "a": "2"}},
            "data": {"b": "", "a": ""}});
        let mut patched = before.clone();
        patched["data"]["c"] = "x".into();
        let id = schema().by_gvk(&GroupVersionKind::new("", "v1", "Secret")).expect("a type");
        assert_eq!(
            result_text(schema(), id, &patched, &before),
            r#"{"apiVersion":"v1","data":{"a":"","b":"","c":"x"},"kind":"Secret","metadata":{"name":"s","creationTimestamp":"t","labels":{"a":"2","b":"1"}}}"#
        );
    }
}
