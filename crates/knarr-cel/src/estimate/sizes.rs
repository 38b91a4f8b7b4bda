//! Ranges of sizes and costs. Nothing overflows: what is beyond counting stays at the most that can be counted.

/// How large a value is: characters, bytes, elements or entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SizeEstimate {
    pub min: u64,
    pub max: u64,
}

/// What something costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostEstimate {
    pub min: u64,
    pub max: u64,
}

/// The cost of a call and the size of its result, where it is known.
pub struct CallEstimate {
    pub cost: CostEstimate,
    pub size: Option<SizeEstimate>,
}

/// How large the keys and values (or elements) of a container are.
#[derive(Clone, Copy, Debug)]
pub struct EntrySize {
    pub list: bool,
    pub key: SizeEstimate,
    pub value: SizeEstimate,
}

impl EntrySize {
    pub fn union(self, other: EntrySize) -> Self {
        EntrySize { list: self.list, key: self.key.union(other.key), value: self.value.union(other.value) }
    }
}

impl CallEstimate {
    pub fn of(cost: CostEstimate) -> Self {
        CallEstimate { cost, size: None }
    }

    pub fn sized(cost: CostEstimate, size: SizeEstimate) -> Self {
        CallEstimate { cost, size: Some(size) }
    }
}

pub fn scale(count: u64, factor: f64) -> u64 {
    // The cast of a float saturates.
    (count as f64 * factor).ceil() as u64
}

impl SizeEstimate {
    pub const UNKNOWN: SizeEstimate = SizeEstimate { min: 0, max: u64::MAX };
    pub(super) const UP_TO_REQUEST: SizeEstimate = SizeEstimate { min: 0, max: crate::schema::MAX_REQUEST_SIZE };

    pub fn exactly(size: u64) -> Self {
        SizeEstimate { min: size, max: size }
    }

    pub fn plus(self, other: Self) -> Self {
        SizeEstimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: Self) -> Self {
        SizeEstimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn times_factor(self, factor: f64) -> CostEstimate {
        CostEstimate { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub fn times_cost(self, cost: CostEstimate) -> CostEstimate {
        CostEstimate { min: self.min.saturating_mul(cost.min), max: self.max.saturating_mul(cost.max) }
    }

    pub fn union(self, other: Self) -> Self {
        SizeEstimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}

impl CostEstimate {
    pub fn exactly(cost: u64) -> Self {
        CostEstimate { min: cost, max: cost }
    }

    pub fn plus(self, other: Self) -> Self {
        CostEstimate { min: self.min.saturating_add(other.min), max: self.max.saturating_add(other.max) }
    }

    pub fn times(self, other: Self) -> Self {
        CostEstimate { min: self.min.saturating_mul(other.min), max: self.max.saturating_mul(other.max) }
    }

    pub fn times_factor(self, factor: f64) -> Self {
        CostEstimate { min: scale(self.min, factor), max: scale(self.max, factor) }
    }

    pub fn union(self, other: Self) -> Self {
        CostEstimate { min: self.min.min(other.min), max: self.max.max(other.max) }
    }
}
