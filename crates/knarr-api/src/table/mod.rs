//! What `kubectl get` shows: `metav1.Table` with the columns and the texts of upstream's printers.
//!
//! Columns come from `generated/tables.json`; the cells of a kind are computed by its row in [`cells`]. All columns are
//! always sent; the client hides those of priority above zero unless `-o wide`.

mod apps;
mod cells;
mod cluster;
mod core;
mod custom;
mod duration;
mod events;
mod json_path;
mod pod;
mod storage;

use std::collections::HashMap;
use std::sync::LazyLock;

use serde_json::{Value, json};

pub use custom::PrinterColumn;
pub use duration::human_duration;

use crate::object::{Object, ObjectExt};
use crate::resource::GroupVersionResource;
use crate::status::StatusError;

/// One column of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    pub name: String,
    /// `string`, `integer`, `boolean`, `date`...
    pub kind: String,
    /// `name` for the column that names the object.
    pub format: String,
    pub description: String,
    pub priority: i64,
}

impl Column {
    fn new(name: &str, kind: &str, format: &str, priority: i64) -> Self {
        Column { name: name.into(), kind: kind.into(), format: format.into(), description: String::new(), priority }
    }

    fn to_value(&self) -> Value {
        json!({"name": self.name, "type": self.kind, "format": self.format, "description": self.description,
            "priority": self.priority})
    }
}

/// What a row carries besides its cells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    None,
    #[default]
    Metadata,
    Object,
}

impl IncludeObject {
    /// The query parameter `includeObject`.
    pub fn parse(text: &str) -> Result<Self, StatusError> {
        match text {
            "None" => Ok(IncludeObject::None),
            "Metadata" | "" => Ok(IncludeObject::Metadata),
            "Object" => Ok(IncludeObject::Object),
            other => Err(StatusError::bad_request(format!(
                "Unable to convert to Table as requested: includeObject: Invalid value: {}: must be 'Metadata', 'Object', 'None', or empty",
                Value::from(other)
            ))),
        }
    }
}

static COLUMNS: LazyLock<HashMap<String, Vec<Column>>> = LazyLock::new(|| {
    let rows: HashMap<String, Vec<(String, String, String, i64)>> =
        serde_json::from_str(include_str!("../../generated/tables.json"))
            .expect("the generator wrote it and a test reads it");
    let column = |(name, kind, format, priority): (String, String, String, i64)| Column {
        description: description(&name).to_string(),
        ..Column::new(&name, &kind, &format, priority)
    };
    rows.into_iter().map(|(key, columns)| (key, columns.into_iter().map(column).collect())).collect()
});

fn description(column: &str) -> &'static str {
    match column {
        "Name" => "The name of the object, unique among the objects of its kind in its namespace.",
        "Age" | "Created At" => "When the object was created, as far as its server's clock tells.",
        _ => "",
    }
}

fn key(gvr: &GroupVersionResource) -> String {
    if gvr.group.is_empty() {
        format!("{}/{}", gvr.version, gvr.resource)
    } else {
        format!("{}/{}/{}", gvr.group, gvr.version, gvr.resource)
    }
}

/// How a resource is shown: its columns, and how its cells are computed. Look it up once a request.
#[derive(Clone)]
pub struct Printer(Kind);

#[derive(Clone)]
enum Kind {
    BuiltIn { columns: &'static [Column], cells: cells::Cells },
    Custom(custom::Columns),
}

impl Printer {
    /// The printer of a built-in resource; one without a printer of its own shows name and creation time.
    pub fn built_in(gvr: &GroupVersionResource) -> Printer {
        match COLUMNS.get(&key(gvr)) {
            Some(columns) => Printer(Kind::BuiltIn { columns, cells: cells::of(&gvr.group, &gvr.resource) }),
            None => Printer(Kind::BuiltIn { columns: &PLAIN, cells: cells::plain }),
        }
    }

    /// The printer of the `scale` subresource.
    pub fn scale() -> Printer {
        Printer(Kind::BuiltIn { columns: &SCALE, cells: cells::scale })
    }

    /// The printer of a custom resource with these `additionalPrinterColumns`; without any it shows its age.
    pub fn custom(columns: &[PrinterColumn]) -> Printer {
        Printer(Kind::Custom(custom::Columns::new(columns)))
    }

    pub fn columns(&self) -> &[Column] {
        match &self.0 {
            Kind::BuiltIn { columns, .. } => columns,
            Kind::Custom(custom) => custom.columns(),
        }
    }

    /// The object's `TableRow`; `now` is seconds since the epoch.
    pub fn row(&self, object: &Object, include: IncludeObject, now: i64) -> Value {
        let cells = match &self.0 {
            Kind::BuiltIn { cells, .. } => cells(object, now),
            Kind::Custom(custom) => custom.cells(object, now),
        };
        let mut row = json!({"cells": cells});
        match include {
            IncludeObject::None => row["object"] = Value::Null,
            IncludeObject::Metadata => row["object"] = partial_metadata(object, "meta.k8s.io/v1"),
            IncludeObject::Object => row["object"] = object.clone(),
        }
        if let Some(conditions) = pod::row_conditions(object) {
            row["conditions"] = conditions;
        }
        row
    }

    /// A whole `meta.k8s.io/v1` Table of these rows; `list_metadata` is the list's (or the object's) `metadata`.
    pub fn table(&self, rows: Vec<Value>, list_metadata: Value) -> Value {
        json!({
            "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
            "columnDefinitions": self.columns().iter().map(Column::to_value).collect::<Vec<_>>(), "rows": rows,
        })
    }
}

static PLAIN: LazyLock<Vec<Column>> =
    LazyLock::new(|| vec![Column::new("Name", "string", "name", 0), Column::new("Created At", "date", "", 0)]);

static SCALE: LazyLock<Vec<Column>> = LazyLock::new(|| {
    let columns = [("Name", "string"), ("Desired", "integer"), ("Available", "integer"), ("Age", "string")];
    columns.map(|(name, kind)| Column::new(name, kind, "", 0)).into()
});

/// The columns of a built-in resource.
pub fn columns(gvr: &GroupVersionResource) -> Vec<Column> {
    Printer::built_in(gvr).columns().to_vec()
}

/// One object's row as [`Printer::row`] makes it, for a single look-up.
pub fn row(gvr: &GroupVersionResource, object: &Object, include: IncludeObject, now: i64) -> Value {
    Printer::built_in(gvr).row(object, include, now)
}

/// The object as `PartialObjectMetadata` of the given apiVersion.
pub fn partial_metadata(object: &Object, api_version: &str) -> Value {
    let metadata = object.metadata().cloned().unwrap_or_default();
    json!({"kind": "PartialObjectMetadata", "apiVersion": api_version, "metadata": metadata})
}

#[cfg(test)]
mod tests;
