//! From FlowSchema and PriorityLevelConfiguration objects to what classifies requests and seats them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderValue;
use k8s_openapi::api::flowcontrol::v1 as api;
use knarr_api::Object;
use knarr_api::object::ObjectExt;
use serde::Deserialize;

use super::allocation::{Claim, allocate};
use super::level::{CATCH_ALL, EXEMPT, Level, Limits, Settings};
use super::metrics::{FlowMetrics, LevelGauge};
use super::schema::{Rules, Schema};
use crate::authentication::User;
use crate::bootstrap;
use crate::chain::request_info::RequestInfo;

/// The objects, by name.
pub type ByName = BTreeMap<String, Arc<Object>>;

/// The objects that are stored.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub schemas: ByName,
    pub levels: ByName,
}

impl Stored {
    /// What every cluster begins with.
    pub fn defaults() -> Self {
        let mut stored = Stored::default();
        for (resource, object) in bootstrap::default_objects() {
            let name = object.name().to_string();
            match resource.resource.as_ref() {
                "flowschemas" => drop(stored.schemas.insert(name, Arc::new(object))),
                "prioritylevelconfigurations" => drop(stored.levels.insert(name, Arc::new(object))),
                _ => {}
            }
        }
        stored
    }

    /// Adds the objects without which not every request would have a place, where somebody has deleted them.
    fn with_mandatory(&self) -> Stored {
        let mut all = self.clone();
        let complete =
            [EXEMPT, CATCH_ALL].iter().all(|name| all.schemas.contains_key(*name) && all.levels.contains_key(*name));
        if complete {
            return all;
        }
        let mut defaults = Stored::defaults();
        for name in [EXEMPT, CATCH_ALL] {
            for (have, default) in [(&mut all.schemas, &mut defaults.schemas), (&mut all.levels, &mut defaults.levels)]
            {
                if let Some(object) = default.remove(name) {
                    have.entry(name.into()).or_insert(object);
                }
            }
        }
        all
    }
}

/// What requests are measured by; replaced as a whole.
#[derive(Default)]
pub struct Configuration {
    /// In the order in which they are tried.
    schemas: Vec<Arc<Schema>>,
    pub levels: BTreeMap<String, Arc<Level>>,
}

/// Whether a schema's level exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    pub schema: String,
    pub level: String,
    pub found: bool,
}

impl Configuration {
    /// The first schema that matches; the last one matches everybody.
    pub fn classify(&self, info: &RequestInfo, user: &User) -> Option<&Arc<Schema>> {
        let found = self.schemas.iter().find(|schema| schema.rules.matches(info, user));
        found.or_else(|| self.schemas.iter().rfind(|schema| &*schema.name == CATCH_ALL))
    }

    /// The configuration after a change: levels of the same name go on with whoever is served or waits.
    pub fn next(&self, stored: &Stored, total: u32, metrics: &FlowMetrics) -> (Configuration, Vec<Reference>) {
        let all = stored.with_mandatory();
        let mut levels: BTreeMap<String, Arc<Level>> = BTreeMap::new();
        for (name, object) in &all.levels {
            if let Some(settings) = settings(name, object) {
                levels.insert(name.clone(), self.level(name, settings));
            }
        }
        let (schemas, references) = self.schemas(&all, stored, &levels, metrics);
        self.keep_busy_levels(&mut levels, metrics);
        let next = Configuration { schemas, levels };
        next.divide(total, metrics);
        (next, references)
    }

    fn level(&self, name: &str, settings: Settings) -> Arc<Level> {
        match self.levels.get(name) {
            Some(level) => {
                *level.settings.lock() = settings;
                level.quiescing.store(false, Ordering::Relaxed);
                level.clone()
            }
            None => Level::new(name, settings),
        }
    }

    fn schemas(
        &self,
        all: &Stored,
        stored: &Stored,
        levels: &BTreeMap<String, Arc<Level>>,
        metrics: &FlowMetrics,
    ) -> (Vec<Arc<Schema>>, Vec<Reference>) {
        let mut schemas = Vec::new();
        let mut references = Vec::new();
        for (name, object) in &all.schemas {
            let Some(rules) = rules(object) else { continue };
            let level = levels.get(&rules.level);
            if stored.schemas.contains_key(name) {
                references.push(Reference { schema: name.clone(), level: rules.level.clone(), found: level.is_some() });
            }
            let Some(level) = level else { continue };
            let level_uid = all.levels.get(&rules.level).map_or("", |l| l.uid());
            schemas.push(Arc::new(Schema {
                name: name.as_str().into(),
                meters: self.meters(name, &rules.level, metrics),
                rules,
                level: level.clone(),
                uid: header(object.uid()),
                level_uid: header(level_uid),
            }));
        }
        // The catch-all is last even where somebody else has its precedence: nothing behind it would ever be tried.
        schemas.sort_by(|a, b| (a.rules.precedence, &a.name).cmp(&(b.rules.precedence, &b.name)));
        (schemas, references)
    }

    fn meters(&self, schema: &str, level: &str, metrics: &FlowMetrics) -> Arc<super::metrics::SchemaMeters> {
        let same = self.schemas.iter().find(|s| &*s.name == schema && &*s.level.name == level);
        same.map_or_else(|| Arc::new(metrics.schema(level, schema)), |s| s.meters.clone())
    }

    /// A deleted level that still serves keeps its share until it is done.
    fn keep_busy_levels(&self, levels: &mut BTreeMap<String, Arc<Level>>, metrics: &FlowMetrics) {
        for (name, level) in &self.levels {
            if levels.contains_key(name) {
                continue;
            }
            if level.set.lock().is_idle() {
                metrics.forget_level(name);
                continue;
            }
            level.quiescing.store(true, Ordering::Relaxed);
            levels.insert(name.clone(), level.clone());
        }
    }

    /// Divides the server's seats by shares, and by what is lent and borrowed.
    fn divide(&self, total: u32, metrics: &FlowMetrics) {
        let shares: u32 = self.levels.values().map(|l| l.settings.lock().shares).sum();
        for (name, level) in &self.levels {
            let settings = level.settings.lock().clone();
            let nominal = (u64::from(total) * u64::from(settings.shares)).div_ceil(u64::from(shares.max(1))) as u32;
            let part = |percent: u32| (f64::from(nominal) * f64::from(percent) / 100.0).round() as u32;
            let low = nominal.saturating_sub(part(settings.lendable_percent));
            let high = nominal + settings.borrowing_percent.map_or(total, part);
            let before = *level.limits.lock();
            let fresh = before == Limits::default();
            let current = if fresh { nominal - (nominal - low) / 2 } else { before.current };
            *level.limits.lock() = Limits { nominal, low, high, current, demand: before.demand };
            for (which, seats) in [
                (LevelGauge::RequestConcurrencyLimit, nominal),
                (LevelGauge::Nominal, nominal),
                (LevelGauge::Lower, low),
                (LevelGauge::Upper, high),
            ] {
                metrics.set_level(name, which, f64::from(seats));
            }
        }
        self.adjust(metrics);
    }

    /// Lends the seats that nobody used lately to those who could have used more (KEP-1040, "Seat borrowing").
    pub fn adjust(&self, metrics: &FlowMetrics) {
        let now = tokio::time::Instant::now();
        let mut limited: Vec<(&Arc<Level>, Limits, Claim)> = Vec::new();
        let (mut nominal, mut exempt) = (0, 0);
        for level in self.levels.values() {
            let seen = level.set.lock().take_demand(now);
            let mut limits = *level.limits.lock();
            limits.demand.update(seen);
            nominal += limits.nominal;
            if level.is_exempt() {
                limits.current = limits.low.max(limits.demand.high);
                exempt += limits.current;
                level.set_limits(limits);
                note(metrics, level, &limits, f64::from(limits.current));
                continue;
            }
            let least = f64::from(limits.low.max(limits.nominal.min(limits.demand.high)));
            let target = least.max(limits.demand.smoothed);
            limited.push((level, limits, Claim { target, low: least, high: f64::from(limits.high) }));
        }
        let (fraction, seats) = divide_limited(f64::from(nominal), f64::from(exempt), &limited);
        metrics.set_fair_fraction(fraction);
        for ((level, mut limits, claim), seats) in limited.into_iter().zip(seats) {
            limits.current = seats.round() as u32;
            level.set_limits(limits);
            note(metrics, level, &limits, claim.target);
        }
    }
}

/// What the exempt level takes makes the others smaller only where too little is left even for what each is using: then
/// everybody comes down towards what it may never lose.
fn divide_limited(nominal: f64, exempt: f64, limited: &[(&Arc<Level>, Limits, Claim)]) -> (f64, Vec<f64>) {
    let remaining = nominal - exempt;
    let lowest = |limits: &Limits| f64::from(limits.low);
    let lows: f64 = limited.iter().map(|(_, limits, _)| lowest(limits)).sum();
    let leasts: f64 = limited.iter().map(|(_, _, claim)| claim.low).sum();
    if remaining <= lows {
        return (0.0, limited.iter().map(|(_, limits, _)| lowest(limits)).collect());
    }
    if remaining <= leasts {
        let share = (remaining - lows) / (leasts - lows);
        let seats = limited.iter().map(|(_, l, claim)| lowest(l) + (claim.low - lowest(l)) * share);
        return (0.0, seats.collect());
    }
    let claims: Vec<Claim> = limited.iter().map(|(_, _, claim)| *claim).collect();
    allocate(nominal, &claims)
}

fn note(metrics: &FlowMetrics, level: &Level, limits: &Limits, target: f64) {
    let demand = limits.demand;
    for (which, value) in [
        (LevelGauge::Current, f64::from(limits.current)),
        (LevelGauge::High, f64::from(demand.high)),
        (LevelGauge::Average, demand.average),
        (LevelGauge::Deviation, demand.deviation),
        (LevelGauge::Smoothed, demand.smoothed),
        (LevelGauge::Target, target),
        (LevelGauge::CurrentR, level.set.lock().virtual_time()),
    ] {
        metrics.set_level(&level.name, which, value);
    }
}

fn settings(name: &str, object: &Object) -> Option<Settings> {
    let parsed = api::PriorityLevelConfiguration::deserialize(object).ok().and_then(|o| o.spec);
    let settings = parsed.and_then(|spec| Settings::read(name, &spec));
    if settings.is_none() {
        tracing::warn!(name, "a PriorityLevelConfiguration contradicts itself and is left out");
    }
    settings
}

fn rules(object: &Object) -> Option<Rules> {
    let spec = api::FlowSchema::deserialize(object).ok().and_then(|o| o.spec);
    if spec.is_none() {
        tracing::warn!(name = object.name(), "a FlowSchema cannot be read and is left out");
    }
    spec.map(Rules::read)
}

fn header(uid: &str) -> HeaderValue {
    HeaderValue::from_str(uid).unwrap_or_else(|_| HeaderValue::from_static(""))
}
