//! Columns of custom resources: their `additionalPrinterColumns`.

use std::sync::Arc;

use serde_json::Value;

use super::Column;
use super::duration::since;
use super::json_path::JsonPath;
use crate::object::{Object, ObjectExt};

/// A row of `additionalPrinterColumns`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrinterColumn {
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    pub format: String,
    pub description: String,
    pub priority: i64,
    pub json_path: String,
}

#[derive(Clone)]
pub struct Columns(Arc<(Vec<Column>, Vec<Option<JsonPath>>)>);

impl Columns {
    pub fn new(columns: &[PrinterColumn]) -> Columns {
        let age = PrinterColumn {
            name: "Age".into(),
            kind: "date".into(),
            json_path: ".metadata.creationTimestamp".into(),
            ..PrinterColumn::default()
        };
        let columns = if columns.is_empty() { std::slice::from_ref(&age) } else { columns };
        let mut shown = vec![Column::new("Name", "string", "name", 0)];
        shown.extend(columns.iter().map(|c| Column {
            description: match c.description.as_str() {
                "" => format!("Custom resource definition column (in JSONPath format): {}", c.json_path),
                said => said.to_string(),
            },
            ..Column::new(&c.name, &c.kind, &c.format, c.priority)
        }));
        Columns(Arc::new((shown, columns.iter().map(|c| JsonPath::parse(&c.json_path)).collect())))
    }

    pub fn columns(&self) -> &[Column] {
        &self.0.0
    }

    pub fn cells(&self, object: &Object, now: i64) -> Vec<Value> {
        let mut cells = vec![Value::from(object.name())];
        let (columns, paths) = &*self.0;
        for (column, path) in columns.iter().skip(1).zip(paths) {
            let found = path.as_ref().map(|p| p.find(object)).unwrap_or_default();
            cells.push(cell(&column.kind, &found, now));
        }
        cells
    }
}

/// What is not there is null; what is not of the column's type too.
fn cell(kind: &str, found: &[&Value], now: i64) -> Value {
    let Some(first) = found.first().copied().filter(|v| !v.is_null()) else { return Value::Null };
    match kind {
        "integer" => first.as_i64().or_else(|| first.as_f64().map(|f| f as i64)).map_or(Value::Null, Value::from),
        "number" if first.is_number() => first.clone(),
        "boolean" if first.is_boolean() => first.clone(),
        "string" => found.iter().map(|v| text(v)).collect::<Vec<_>>().join(" ").into(),
        "date" if first.is_string() => since(first, now).into(),
        _ => Value::Null,
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
