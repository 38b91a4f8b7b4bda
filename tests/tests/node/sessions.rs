//! The sessions of `transcripts/node` on real containers: a few at a time, beside the other tests, since most of a session is waiting
//! for containers.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::Result;
use knarr_tests::registry::Registry;
use knarr_tests::{Cluster, Transcript};
use libtest_mimic::{Arguments, Failed, Trial};

const AT_ONCE: usize = 4;

/// Sessions under way on threads of their own, beside the other tests.
pub struct Sessions {
    outcomes: Mutex<HashMap<String, Result<(), String>>>,
    changed: Condvar,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Sessions {
    /// Begins every session that the arguments ask for.
    pub fn begin(arguments: &Arguments, cluster: &Arc<Cluster>) -> Result<Arc<Sessions>> {
        let wanted = |session: &Transcript| match (&arguments.filter, arguments.exact) {
            (None, _) => true,
            (Some(filter), true) => session.name == *filter,
            (Some(filter), false) => session.name.contains(filter.as_str()),
        };
        let mut all = all()?;
        all.retain(wanted);
        let sessions =
            Arc::new(Sessions { outcomes: Mutex::default(), changed: Condvar::new(), threads: Mutex::default() });
        let left: Arc<Mutex<VecDeque<Transcript>>> = Arc::new(Mutex::new(all.into()));
        let registries = Arc::new(Registries::start(cluster)?);
        for _ in 0..AT_ONCE {
            let (sessions, left, registries, cluster) =
                (sessions.clone(), left.clone(), registries.clone(), cluster.clone());
            let thread = std::thread::spawn({
                let sessions = sessions.clone();
                move || {
                    let next = || lock(&left).pop_front();
                    while let Some(session) = next() {
                        sessions.run(&session, &cluster, &registries);
                    }
                }
            });
            lock(&sessions.threads).push(thread);
        }
        Ok(sessions)
    }

    fn run(&self, session: &Transcript, cluster: &Cluster, registries: &Registries) {
        let skipped = session.name == "registry" && registries.open.is_none();
        let outcome = if skipped { Ok(()) } else { session.run(cluster, &registries.environment()) };
        let outcome = outcome.map_err(|error| format!("{error:#}"));
        lock(&self.outcomes).insert(session.name.clone(), outcome);
        self.changed.notify_all();
    }

    /// What became of a session; waits for its end.
    fn outcome(&self, name: &str) -> Result<(), String> {
        let outcomes = lock(&self.outcomes);
        let ended = |outcomes: &mut HashMap<_, _>| !outcomes.contains_key(name);
        let outcomes = self.changed.wait_while(outcomes, ended).unwrap_or_else(PoisonError::into_inner);
        outcomes[name].clone()
    }

    /// Waits until no session runs.
    pub fn join(&self) {
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            let _ = thread.join();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn all() -> Result<Vec<Transcript>> {
    Transcript::all(Path::new("transcripts/node"))
}

/// A trial for each session; none can be run where `sessions` are none.
pub fn trials(sessions: &Option<Arc<Sessions>>) -> Result<Vec<Trial>> {
    let trial = |session: Transcript| {
        let (sessions, name) = (sessions.clone(), session.name.clone());
        let ignored = sessions.is_none();
        let run = move || sessions.map_or(Ok(()), |sessions| sessions.outcome(&name)).map_err(Failed::from);
        Trial::test(session.name, run).with_ignored_flag(ignored)
    };
    Ok(all()?.into_iter().map(trial).collect())
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
