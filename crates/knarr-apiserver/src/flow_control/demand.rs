//! How many seats a priority level could have used: the measure by which idle seats are lent.

use tokio::time::Instant;

/// Of KEP-1040: with one look every ten seconds, half of an old peak is forgotten in five minutes.
const SMOOTHING: f64 = 0.977;

/// Integrates a value over time.
#[derive(Debug)]
pub struct Integrator {
    value: f64,
    since: Instant,
    began: Instant,
    sum: f64,
    sum_of_squares: f64,
    high: f64,
}

impl Integrator {
    pub fn new(now: Instant) -> Self {
        Integrator { value: 0.0, since: now, began: now, sum: 0.0, sum_of_squares: 0.0, high: 0.0 }
    }

    fn advance(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.since).as_secs_f64();
        self.since = now;
        self.sum += self.value * elapsed;
        self.sum_of_squares += self.value * self.value * elapsed;
    }

    pub fn set(&mut self, now: Instant, value: f64) {
        self.advance(now);
        self.value = value;
        self.high = self.high.max(value);
    }

    /// What was seen since the last call.
    pub fn take(&mut self, now: Instant) -> Observed {
        self.advance(now);
        let duration = now.saturating_duration_since(self.began).as_secs_f64();
        let high = self.high;
        let (sum, squares) = (std::mem::take(&mut self.sum), std::mem::take(&mut self.sum_of_squares));
        self.began = now;
        self.high = self.value;
        if duration <= 0.0 {
            return Observed { high, average: None, deviation: 0.0 };
        }
        let average = sum / duration;
        let variance = (squares / duration - average * average).max(0.0);
        Observed { high, average: Some(average), deviation: variance.sqrt() }
    }
}

/// One period's demand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observed {
    pub high: f64,
    /// `None` where no time has passed.
    pub average: Option<f64>,
    pub deviation: f64,
}

/// The demand that lending goes by: it follows a rise at once and a fall slowly.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Demand {
    pub average: f64,
    pub deviation: f64,
    pub high: u32,
    pub smoothed: f64,
}

impl Demand {
    pub fn update(&mut self, seen: Observed) {
        self.high = seen.high.round() as u32;
        let Some(average) = seen.average else { return };
        (self.average, self.deviation) = (average, seen.deviation);
        let envelope = average + seen.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn averages_and_deviations_are_weighted_by_time() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut integrator = Integrator::new(start);
        integrator.set(at(0), 4.0);
        integrator.set(at(5), 0.0);
        let seen = integrator.take(at(10));
        assert_eq!(seen, Observed { high: 4.0, average: Some(2.0), deviation: 2.0 });
        assert_eq!(integrator.take(at(20)), Observed { high: 0.0, average: Some(0.0), deviation: 0.0 });
    }

    #[test]
    fn demand_rises_at_once_and_falls_slowly() {
        let mut demand = Demand::default();
        demand.update(Observed { high: 10.0, average: Some(8.0), deviation: 2.0 });
        assert_eq!(demand.smoothed, 10.0);
        for _ in 0..30 {
            demand.update(Observed { high: 0.0, average: Some(0.0), deviation: 0.0 });
        }
        assert!((4.5..5.5).contains(&demand.smoothed), "half is left after five minutes: {}", demand.smoothed);
    }
}
