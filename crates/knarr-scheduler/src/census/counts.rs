//! Sums by node and by domain.

use smallvec::SmallVec;

use super::columns::{ColumnId, Columns, DomainId};
use crate::cluster::NodeIndex;

#[derive(Default)]
pub struct Counts {
    by_node: Vec<i64>,
    by_domain: SmallVec<[(ColumnId, Vec<i64>); 2]>,
    total: i64,
}

impl Counts {
    pub fn on_node(&self, node: NodeIndex) -> i64 {
        self.by_node.get(node as usize).copied().unwrap_or(0)
    }

    /// Over the existing nodes of a domain.
    pub fn in_domain(&self, column: ColumnId, domain: DomainId) -> i64 {
        let sums = self.by_domain.iter().find(|(other, _)| *other == column);
        sums.and_then(|(_, sums)| sums.get(domain as usize)).copied().unwrap_or(0)
    }

    /// In the node's domain; nothing if it is in none.
    pub fn around(&self, column: ColumnId, node: NodeIndex, columns: &Columns) -> i64 {
        columns.domain(column, node).map_or(0, |domain| self.in_domain(column, domain))
    }

    /// Whether all domains are empty.
    pub fn is_empty_over(&self, column: ColumnId) -> bool {
        let mut sums = self.by_domain.iter().filter(|(other, _)| *other == column);
        sums.all(|(_, sums)| sums.iter().all(|sum| *sum == 0))
    }

    pub fn total(&self) -> i64 {
        self.total
    }

    /// Sums over this column too from now on.
    pub fn add_column(&mut self, column: ColumnId, columns: &Columns) {
        if self.by_domain.iter().any(|(other, _)| *other == column) {
            return;
        }
        let mut sums = Vec::new();
        for (node, count) in self.by_node.iter().enumerate() {
            raise(&mut sums, columns.domain(column, node as NodeIndex), *count);
        }
        self.by_domain.push((column, sums));
    }

    pub fn add(&mut self, node: NodeIndex, by: i64, columns: &Columns) {
        if by == 0 {
            return;
        }
        let row = node as usize;
        if self.by_node.len() <= row {
            self.by_node.resize(row + 1, 0);
        }
        self.by_node[row] += by;
        self.total += by;
        for (column, sums) in &mut self.by_domain {
            raise(sums, columns.domain(*column, node), by);
        }
    }

    pub fn node_moved(&mut self, node: NodeIndex, column: ColumnId, from: Option<DomainId>, to: Option<DomainId>) {
        let count = self.on_node(node);
        if let Some((_, sums)) = self.by_domain.iter_mut().find(|(other, _)| *other == column) {
            raise(sums, from, -count);
            raise(sums, to, count);
        }
    }
}

fn raise(sums: &mut Vec<i64>, domain: Option<DomainId>, by: i64) {
    let Some(domain) = domain.map(|domain| domain as usize) else { return };
    if sums.len() <= domain {
        sums.resize(domain + 1, 0);
    }
    sums[domain] += by;
}
