//! What upstream's documentation says of each type and field.
//!
//! The texts are a megabyte: they are unpacked when a document is rendered and dropped after.

use std::collections::{HashMap, HashSet};
use std::io::Read;

use flate2::read::ZlibDecoder;

use crate::schema::{Schema, TypeId};

/// A line for each type: its name, a tab, and a JSON object of its texts by field, where the type's own has the empty name.
const PACKED: &[u8] = include_bytes!("../../generated/descriptions.z");

type Texts = HashMap<String, String>;

/// Descriptions of some types.
pub struct Descriptions(HashMap<String, Texts>);

impl Descriptions {
    pub fn of(schema: &Schema, types: &[TypeId]) -> Descriptions {
        let wanted: HashSet<&str> = types.iter().map(|id| schema.get(*id).name.as_str()).collect();
        let mut lines = String::new();
        ZlibDecoder::new(PACKED).read_to_string(&mut lines).expect("packed by xtask");
        let texts = |line: &str| {
            let (name, texts) = line.split_once('\t')?;
            wanted.contains(name).then(|| (name.to_owned(), serde_json::from_str(texts).expect("written by xtask")))
        };
        Descriptions(lines.lines().filter_map(texts).collect())
    }

    pub fn of_type(&self, name: &str) -> Option<&str> {
        self.of_field(name, "")
    }

    pub fn of_field(&self, type_name: &str, field: &str) -> Option<&str> {
        self.0.get(type_name)?.get(field).map(String::as_str)
    }
}
