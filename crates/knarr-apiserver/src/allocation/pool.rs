use std::collections::HashMap;

/// Whom a number belongs to: `namespace/name`.
pub type Owner = String;

/// Numbers from 0 to `size`, each free or somebody's. The lower band is kept for those who ask for a number by name, as
/// long as the upper one lasts (KEP-3070).
#[derive(Debug)]
pub struct Pool {
    size: u64,
    /// Where the upper band begins.
    band: u64,
    taken: HashMap<u64, Owner>,
    /// Where the next search begins, so that a number just given back is not at once somebody else's.
    next: u64,
}

impl Pool {
    pub fn new(size: u64, band: u64) -> Self {
        Pool { size, band: band.min(size), taken: HashMap::new(), next: band.min(size) }
    }

    /// Takes this number; `false` if it is another's.
    pub fn take(&mut self, number: u64, owner: &str) -> bool {
        match self.taken.get(&number) {
            Some(holder) => holder == owner,
            None => {
                self.taken.insert(number, owner.into());
                true
            }
        }
    }

    /// Whether `owner` could have this number.
    pub fn available(&self, number: u64, owner: &str) -> bool {
        self.taken.get(&number).is_none_or(|holder| holder == owner)
    }

    /// Takes any free number, from the upper band if it has one; `None` if all are taken.
    pub fn take_any(&mut self, owner: &str) -> Option<u64> {
        if self.taken.len() as u64 >= self.size {
            return None;
        }
        let upper = (self.next..self.size).chain(self.band..self.next);
        let free = upper.chain(0..self.band).find(|n| !self.taken.contains_key(n))?;
        self.taken.insert(free, owner.into());
        if free >= self.band {
            self.next = free + 1;
        }
        Some(free)
    }

    /// Gives a number back, if it is this owner's.
    pub fn release(&mut self, number: u64, owner: &str) {
        if self.taken.get(&number).is_some_and(|holder| holder == owner) {
            self.taken.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_band_is_used_last() {
        let mut pool = Pool::new(4, 2);
        let all: Vec<_> = (0..5).map(|_| pool.take_any("o")).collect();
        assert_eq!(all, [Some(2), Some(3), Some(0), Some(1), None]);
        pool.release(3, "another");
        assert_eq!(pool.take_any("o"), None);
        pool.release(3, "o");
        assert_eq!(pool.take_any("p"), Some(3));
        assert!(!pool.take(3, "o"));
    }
}
