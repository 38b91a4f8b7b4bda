//! Topologies as columns: for each topology key the domain of every node, as a small number.

use std::{collections::HashMap, sync::Arc};

use crate::{cluster::NodeIndex, node::NodeInfo};

/// A domain of one topology: a value of its label.
pub type DomainId = u32;

/// A topology key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColumnId(usize);

#[derive(Default)]
struct Column {
    key: Arc<str>,
    of_node: Vec<Option<DomainId>>,
    ids: HashMap<String, DomainId>,
}

impl Column {
    fn look_up(&mut self, node: &NodeInfo) -> Option<DomainId> {
        let value = node.labels.get(&*self.key).filter(|_| node.exists)?;
        if let Some(id) = self.ids.get(value) {
            return Some(*id);
        }
        let id = self.ids.len() as DomainId;
        self.ids.insert(value.clone(), id);
        Some(id)
    }

    fn set(&mut self, node: &NodeInfo) -> (Option<DomainId>, Option<DomainId>) {
        let to = self.look_up(node);
        let row = node.index as usize;
        if self.of_node.len() <= row {
            self.of_node.resize(row + 1, None);
        }
        (std::mem::replace(&mut self.of_node[row], to), to)
    }
}

/// The columns of all topology keys that anybody asked about.
#[derive(Default)]
pub struct Columns {
    columns: Vec<Column>,
    by_key: HashMap<Arc<str>, ColumnId>,
}

impl Columns {
    pub fn of_key(&mut self, key: &Arc<str>, nodes: &[NodeInfo]) -> ColumnId {
        if let Some(id) = self.by_key.get(key) {
            return *id;
        }
        let mut column = Column { key: key.clone(), ..Column::default() };
        for node in nodes {
            column.set(node);
        }
        let id = ColumnId(self.columns.len());
        self.columns.push(column);
        self.by_key.insert(key.clone(), id);
        id
    }

    /// The domain of a node that exists and has the label.
    pub fn domain(&self, column: ColumnId, node: NodeIndex) -> Option<DomainId> {
        self.columns[column.0].of_node.get(node as usize).copied().flatten()
    }

    /// How many domains there are or were.
    pub fn domains(&self, column: ColumnId) -> usize {
        self.columns[column.0].ids.len()
    }

    /// Takes over a node's labels: the columns in which it moved, from where and to where.
    pub fn update(&mut self, node: &NodeInfo) -> Vec<(ColumnId, Option<DomainId>, Option<DomainId>)> {
        let moved = self.columns.iter_mut().enumerate().filter_map(|(id, column)| {
            let (from, to) = column.set(node);
            (from != to).then_some((ColumnId(id), from, to))
        });
        moved.collect()
    }
}
