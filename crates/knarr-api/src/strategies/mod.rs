//! The strategies of the built-in kinds: one [`Row`] a kind, in tables by area.

mod core;
mod others;
mod row;
mod subresource;
mod workloads;

use std::collections::HashMap;
use std::sync::LazyLock;

use foldhash::fast::FixedState;

pub use row::Row;

use crate::resource::GroupVersionKind;
use crate::strategy::Strategy;

static ROWS: LazyLock<HashMap<(&'static str, &'static str), &'static Row, FixedState>> = LazyLock::new(|| {
    let tables: [&'static [Row]; 3] = [core::ROWS, workloads::ROWS, others::ROWS];
    tables.into_iter().flatten().map(|row| ((row.group, row.kind), row)).collect()
});

static PLAIN: Row = Row::new("", "");

/// The row of a built-in kind, whatever its version; a plain one where it needs nothing.
pub fn find(kind: &GroupVersionKind) -> &'static dyn Strategy {
    ROWS.get(&(kind.group.as_ref(), kind.kind.as_ref())).copied().unwrap_or(&PLAIN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::built_in;

    #[test]
    fn every_row_is_of_a_served_kind() {
        for (group, kind) in ROWS.keys() {
            let served = built_in().resources.iter().any(|r| r.kind.group == *group && r.kind.kind == *kind);
            assert!(served, "{group}/{kind}");
        }
    }
}
