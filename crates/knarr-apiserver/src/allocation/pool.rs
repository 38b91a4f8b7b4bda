use std::collections::HashSet;

/// Numbers from 0 to `size`, each free or taken. The lower band is kept for those who ask for a number by name, as long as the upper
/// one lasts (KEP-3668).
#[derive(Debug)]
pub struct Pool {
    size: u64,
    /// Where the upper band begins.
    band: u64,
    taken: HashSet<u64>,
    /// Where the next search begins, so that a number just given back is not at once somebody else's.
    next: u64,
}

impl Pool {
    pub fn new(size: u64, band: u64) -> Self {
        let band = band.min(size);
        Pool { size, band, taken: HashSet::new(), next: band }
    }

    /// Takes this number; `false` if it is taken.
    pub fn take(&mut self, number: u64) -> bool {
        self.taken.insert(number)
    }

    pub fn is_taken(&self, number: u64) -> bool {
        self.taken.contains(&number)
    }

    /// Takes any free number, from the upper band if it has one; `None` if all are taken.
    pub fn take_any(&mut self) -> Option<u64> {
        if self.taken.len() as u64 >= self.size {
            return None;
        }
        let upper = (self.next..self.size).chain(self.band..self.next);
        let free = upper.chain(0..self.band).find(|n| !self.taken.contains(n))?;
        self.taken.insert(free);
        if free >= self.band {
            self.next = free + 1;
        }
        Some(free)
    }

    /// Gives a number back; whether it was taken.
    pub fn release(&mut self, number: u64) -> bool {
        self.taken.remove(&number)
    }

    pub fn taken(&self) -> impl Iterator<Item = u64> + '_ {
        self.taken.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lower_band_is_used_last() {
        let mut pool = Pool::new(4, 2);
        let all: Vec<_> = (0..5).map(|_| pool.take_any()).collect();
        assert_eq!(all, [Some(2), Some(3), Some(0), Some(1), None]);
        assert!(pool.release(3) && !pool.release(3));
        assert_eq!(pool.take_any(), Some(3));
        assert!(!pool.take(3));
    }
}
