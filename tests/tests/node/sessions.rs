//! The sessions of `transcripts/node` on real containers: all begun at the first one's turn, a few at a time, since most of a
//! session is waiting for containers.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};

use anyhow::Result;
use knarr_tests::registry::Registry;
use knarr_tests::{Cluster, Transcript};
use libtest_mimic::{Arguments, Failed, Trial};

const AT_ONCE: usize = 4;

type Outcomes = HashMap<String, Result<(), String>>;

/// A trial for each session.
pub fn trials(arguments: &Arguments, cluster: &Arc<Mutex<Option<Cluster>>>, ignored: bool) -> Vec<Trial> {
    let directory = "transcripts/node";
    let all = Transcript::all(Path::new(directory)).expect("the sessions can be read");
    let wanted = |session: &Transcript| match (&arguments.filter, arguments.exact) {
        (None, _) => true,
        (Some(filter), true) => session.name == *filter,
        (Some(filter), false) => session.name.contains(filter.as_str()),
    };
    let begun: Arc<Vec<Transcript>> = Arc::new(all.iter().filter(|session| wanted(session)).cloned().collect());
    let outcomes: Arc<OnceLock<Outcomes>> = Arc::default();
    let trial = |session: Transcript| {
        let (cluster, begun, outcomes) = (cluster.clone(), begun.clone(), outcomes.clone());
        let name = session.name.clone();
        let run = move || {
            let guard = cluster.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let cluster = guard.as_ref().ok_or("no cluster")?;
            let outcomes = outcomes.get_or_init(|| run_all(cluster, &begun));
            outcomes.get(&session.name).cloned().ok_or("not begun")?.map_err(Failed::from)
        };
        // Not yet seen to pass as a whole on one machine: asked for by name until they have.
        let asked = std::env::var_os("KNARR_NODE_SESSIONS").is_some();
        Trial::test(name, run).with_ignored_flag(ignored || !asked)
    };
    all.into_iter().map(trial).collect()
}

fn run_all(cluster: &Cluster, sessions: &[Transcript]) -> Outcomes {
    let registries = match Registries::start(cluster) {
        Ok(registries) => registries,
        Err(error) => return sessions.iter().map(|s| (s.name.clone(), Err(format!("{error:#}")))).collect(),
    };
    let environment = registries.environment();
    let left: Mutex<VecDeque<&Transcript>> = Mutex::new(sessions.iter().collect());
    let outcomes = Mutex::new(Outcomes::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(session) = left.lock().expect("no session panics here").pop_front() {
                    let skipped = session.name == "registry" && registries.open.is_none();
                    let outcome = if skipped { Ok(()) } else { session.run(cluster, &environment) };
                    let outcome = outcome.map_err(|error| format!("{error:#}"));
                    outcomes.lock().expect("no session panics here").insert(session.name.clone(), outcome);
                }
            });
        }
    });
    outcomes.into_inner().expect("no session panics here")
}

/// A registry for everybody, and one that asks for a password.
struct Registries {
    open: Option<Registry>,
    locked: Option<Registry>,
}

impl Registries {
    fn start(cluster: &Cluster) -> Result<Registries> {
        let archive = cluster.image_archive("web");
        let start = |with_password| Registry::start(&archive, "tests/web", with_password);
        Ok(Registries { open: start(false)?, locked: start(true)? })
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let named = [("REGISTRY", &self.open), ("LOCKED", &self.locked)];
        named.into_iter().filter_map(|(name, registry)| Some((name, registry.as_ref()?.address()))).collect()
    }
}
