//! How little of something may be left before pods are evicted, as `--eviction-hard` says it.

use super::{Pressure, Signal};

/// What may be left of something.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Least {
    Amount(i64),
    /// Of what there is in all.
    Percent(f64),
}

/// Pods are evicted while less than `least` is left.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Threshold {
    pub signal: Signal,
    pub least: Least,
}

impl Threshold {
    /// The threshold as an amount, where there is `capacity` in all.
    pub fn amount(&self, capacity: i64) -> i64 {
        match self.least {
            Least::Amount(amount) => amount,
            Least::Percent(percent) => (capacity as f64 * percent / 100.0) as i64,
        }
    }
}

impl Signal {
    const ALL: [(&'static str, Signal); 6] = [
        ("memory.available", Signal::Memory),
        ("nodefs.available", Signal::NodeDisk),
        ("nodefs.inodesFree", Signal::NodeInodes),
        ("imagefs.available", Signal::ImageDisk),
        ("imagefs.inodesFree", Signal::ImageInodes),
        ("pid.available", Signal::Pids),
    ];

    /// The node's condition while little of this is left.
    pub fn pressure(self) -> Pressure {
        match self {
            Signal::Memory => Pressure::Memory,
            Signal::Pids => Pressure::Pids,
            Signal::NodeDisk | Signal::NodeInodes | Signal::ImageDisk | Signal::ImageInodes => Pressure::Disk,
        }
    }

    /// What a message calls it.
    pub fn resource(self) -> &'static str {
        match self {
            Signal::Memory => "memory",
            Signal::NodeDisk | Signal::ImageDisk => "ephemeral-storage",
            Signal::NodeInodes | Signal::ImageInodes => "inodes",
            Signal::Pids => "pids",
        }
    }
}

/// Upstream's thresholds, but for the disk: its tenth, and 15% for images, are meant for machines that do nothing else.
pub fn usual() -> Vec<Threshold> {
    let usual =
        "memory.available<100Mi,nodefs.available<5%,nodefs.inodesFree<5%,imagefs.available<5%,imagefs.inodesFree<5%";
    parse(usual).unwrap_or_default()
}

/// Reads `memory.available<100Mi,nodefs.available<10%`; the error says which part is wrong and why.
pub fn parse(text: &str) -> Result<Vec<Threshold>, String> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(parse_one).collect()
}

fn parse_one(part: &str) -> Result<Threshold, String> {
    let (name, least) = part
        .split_once('<')
        .ok_or_else(|| format!("invalid eviction threshold syntax {part}, expected <signal><operator><value>"))?;
    let known = Signal::ALL.iter().find(|(known, _)| *known == name);
    let signal = known.map(|(_, signal)| *signal).ok_or_else(|| format!("unsupported eviction signal {name}"))?;
    let invalid = || format!("eviction percentage threshold {name} must be positive: {least}");
    let least = match least.strip_suffix('%') {
        Some(percent) => {
            let percent = percent.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
            Least::Percent(percent.ok_or_else(invalid)?)
        }
        None => {
            let quantity = least.parse::<knarr_api::quantity::Quantity>();
            Least::Amount(
                quantity.map_err(|_| format!("eviction threshold {name} must be a quantity: {least}"))?.to_i64(),
            )
        }
    };
    Ok(Threshold { signal, least })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_amounts_or_shares() {
        let thresholds = parse("memory.available<1Gi, nodefs.available<10%").expect("thresholds");
        assert_eq!(thresholds[0], Threshold { signal: Signal::Memory, least: Least::Amount(1 << 30) });
        assert_eq!(thresholds[1].amount(1000), 100);
        assert_eq!(usual().len(), 5);
        for wrong in ["memory.available=1", "disk<1", "memory.available<-3%", "nodefs.available<lots"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
