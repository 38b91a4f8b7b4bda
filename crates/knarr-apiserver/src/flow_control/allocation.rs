//! Dividing the server's seats among the levels that want them.

/// What one level wants and between which bounds it must get something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Claim {
    pub target: f64,
    pub low: f64,
    pub high: f64,
}

/// A target of nothing still gets its share of what nobody wants.
const LEAST_TARGET: f64 = 0.001;
const STEPS: usize = 100;

impl Claim {
    fn at(&self, fraction: f64) -> f64 {
        (fraction * self.target.max(LEAST_TARGET)).clamp(self.low, self.high.max(self.low))
    }
}

/// Gives every claim the same fraction of its target, as far as bounds allow, so that all together get `total`; returns the
/// fraction and the gifts. Where the bounds do not let the sum be `total`, everyone gets their nearest bound.
pub fn allocate(total: f64, claims: &[Claim]) -> (f64, Vec<f64>) {
    let sum = |fraction: f64| claims.iter().map(|c| c.at(fraction)).sum::<f64>();
    let highest = claims.iter().map(|c| c.high / c.target.max(LEAST_TARGET)).fold(0.0, f64::max);
    let (mut low, mut high) = (0.0, highest);
    // The sum grows with the fraction: halve until the answer stands still.
    for _ in 0..STEPS {
        let middle = f64::midpoint(low, high);
        if sum(middle) < total { low = middle } else { high = middle }
    }
    (high, claims.iter().map(|c| c.at(high)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(total: f64, claims: &[(f64, f64, f64)]) -> Vec<i64> {
        let claims: Vec<Claim> = claims.iter().map(|&(target, low, high)| Claim { target, low, high }).collect();
        allocate(total, &claims).1.iter().map(|g| g.round() as i64).collect()
    }

    #[test]
    fn equal_targets_share_equally_and_bounds_hold() {
        assert_eq!(rounded(100.0, &[(10.0, 0.0, 100.0), (10.0, 0.0, 100.0)]), [50, 50]);
        assert_eq!(rounded(100.0, &[(30.0, 0.0, 100.0), (10.0, 0.0, 100.0)]), [75, 25]);
        assert_eq!(rounded(100.0, &[(90.0, 0.0, 40.0), (10.0, 5.0, 100.0)]), [40, 60]);
        assert_eq!(rounded(100.0, &[(1.0, 60.0, 100.0), (99.0, 10.0, 100.0)]), [60, 40]);
        assert_eq!(rounded(100.0, &[(0.0, 0.0, 100.0), (0.0, 0.0, 100.0)]), [50, 50]);
        assert_eq!(rounded(10.0, &[(5.0, 8.0, 20.0), (5.0, 8.0, 20.0)]), [8, 8], "lower bounds win over the total");
    }
}
