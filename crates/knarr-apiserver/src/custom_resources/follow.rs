//! The loop that follows the definitions and changes the registry's table.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use knarr_api::custom_resource::Definition;
use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};
use tokio::task::JoinSet;

use super::names::{Taken, settle};
use super::rows::{self, Installed};
use super::{definitions, deletion};
use crate::objects::{Change, Objects};
use crate::outbound::Outbound;
use crate::registry::{Registry, Served};

/// How soon something that failed is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Serves what is defined now, and follows the definitions until the registry shuts down.
pub fn start(registry: &Arc<Registry>) {
    let mut follower = Follower {
        registry: registry.clone(),
        outbound: Outbound::new(registry.clone()),
        groups: BTreeMap::new(),
        installed: BTreeMap::new(),
        ends: JoinSet::new(),
        ending: BTreeSet::new(),
    };
    let known = registry.cache(&definitions());
    let snapshot = arc_swap::Guard::into_inner(known.snapshot());
    let objects: Vec<Object> = snapshot.range("", None).map(|entry| entry.object()).collect();
    follower.install_all(&objects);
    tokio::spawn(follower.run());
}

struct Follower {
    registry: Arc<Registry>,
    outbound: Outbound,
    /// Definitions by group, then by name.
    groups: BTreeMap<String, BTreeSet<String>>,
    /// What is served, by the definition's name.
    installed: BTreeMap<String, Installed>,
    /// Deletions on their way; each answers with the definition's name.
    ends: JoinSet<(String, Result<(), StatusError>)>,
    ending: BTreeSet<String>,
}

impl Follower {
    async fn run(mut self) {
        let registry = self.registry.clone();
        let mut changes = Objects::watch(&*registry, &definitions());
        loop {
            tokio::select! {
                change = changes.next() => match change {
                    Some(change) => self.take(change).await,
                    None => return,
                },
                Some(ended) = self.ends.join_next() => self.ended(ended).await,
                () = registry.shutdown.cancelled() => return,
            }
        }
    }

    async fn take(&mut self, change: Change) {
        match change {
            Change::Set { object, .. } => self.look_at(object.name().to_string()).await,
            Change::Gone { object } => self.forget(&object).await,
            Change::Synced => {}
        }
    }

    /// Settles the names of a definition, and serves it if it may be.
    async fn look_at(&mut self, name: String) {
        // The newest state: an event may be old, and looking at what stands mends whatever was missed.
        let Some(object) = self.read(&name).await else { return };
        self.groups.entry(Definition(&object).group().to_string()).or_default().insert(name.clone());
        let taken = self.taken(&object).await;
        let mut settled = object.clone();
        settle(&mut settled, &taken);
        let frees_names = settled["status"]["acceptedNames"] != object["status"]["acceptedNames"];
        if Definition(&settled).is("Established") || Definition(&settled).is("NamesAccepted") {
            self.install(&settled);
        }
        if settled != object
            && let Err(error) = self.write_status(&object, &taken).await
        {
            tracing::error!(%error, name, "cannot state what became of a definition");
            return;
        }
        if deletion::is_due(&settled) && self.ending.insert(name.clone()) {
            let stored = self.installed.get(&name).map(|i| i.stored.clone());
            let registry = self.registry.clone();
            self.ends.spawn(async move { (name.clone(), deletion::finish(registry, name, stored).await) });
        }
        if frees_names {
            self.look_at_rivals(&object).await;
        }
    }

    async fn read(&self, name: &str) -> Option<Object> {
        match Objects::get(&*self.registry, &definitions(), "", name).await {
            Ok(object) => object.map(|o| Object::clone(&o)),
            Err(error) => {
                tracing::error!(%error, name, "cannot read a definition");
                None
            }
        }
    }

    async fn taken(&self, object: &Object) -> Taken {
        let mut taken = Taken::default();
        for rival in self.rivals(object) {
            if let Some(rival) = self.read(&rival).await {
                taken.add(Definition(&rival));
            }
        }
        taken
    }

    /// The other definitions of a group.
    fn rivals(&self, object: &Object) -> Vec<String> {
        let names = self.groups.get(Definition(object).group()).into_iter().flatten();
        names.filter(|name| *name != object.name()).cloned().collect()
    }

    /// A name may have become free for those that were refused it.
    async fn look_at_rivals(&mut self, object: &Object) {
        for rival in self.rivals(object) {
            let refused = self.read(&rival).await.is_some_and(|rival| !Definition(&rival).is("NamesAccepted"));
            if refused {
                Box::pin(self.look_at(rival)).await;
            }
        }
    }

    async fn write_status(&self, object: &Object, taken: &Taken) -> Result<(), StatusError> {
        let uid = object.uid();
        let mut write = |newest: &mut Object| {
            // Another definition of this name has its own event.
            if newest.uid() == uid {
                settle(newest, taken);
            }
            Ok(())
        };
        match self.registry.modify_status(&definitions(), object.name(), &mut write).await {
            Err(error) if error.code == 404 => Ok(()),
            written => written.map(drop),
        }
    }

    fn install(&mut self, object: &Object) {
        let name = object.name();
        if self.installed.get(name).is_some_and(|installed| installed.state == rows::state_of(object)) {
            return;
        }
        if let Some(installed) = rows::build(&self.registry, &self.outbound, object) {
            self.replace(name, Some(installed));
        }
    }

    /// As [`Follower::install`] for many, in one change of the table.
    fn install_all(&mut self, objects: &[Object]) {
        for object in objects {
            self.groups.entry(Definition(object).group().to_string()).or_default().insert(object.name().to_string());
            let accepted = Definition(object).is("Established") || Definition(object).is("NamesAccepted");
            if let Some(installed) = accepted.then(|| rows::build(&self.registry, &self.outbound, object)).flatten() {
                self.installed.insert(object.name().to_string(), installed);
            }
        }
        let rows: Vec<Arc<Served>> = self.installed.values().flat_map(|i| i.rows.clone()).collect();
        if !rows.is_empty() {
            self.registry.change_table(|table| {
                table.extend(rows.iter().cloned());
                sort(table);
            });
        }
    }

    /// Serves a definition's resource in its new form, or no longer.
    fn replace(&mut self, name: &str, new: Option<Installed>) {
        let old_resource = self.installed.remove(name).map(|old| old.resource);
        let rows = new.as_ref().map(|new| new.rows.clone()).unwrap_or_default();
        self.registry.change_table(|table| {
            table.retain(|row| row.custom.as_ref().is_none_or(|custom| custom.kind.name != name));
            table.extend(rows.iter().cloned());
            sort(table);
        });
        // Watches show objects as the kind was; clients begin anew.
        if let Some(resource) = old_resource {
            self.registry.cache(&resource).close_watches();
        }
        if let Some(new) = new {
            self.installed.insert(name.to_string(), new);
        }
    }

    async fn forget(&mut self, object: &Object) {
        let name = object.name();
        // One of the same name may have come since: its own event puts it in its place.
        if self.installed.contains_key(name) {
            self.replace(name, None);
        }
        if let Some(names) = self.groups.get_mut(Definition(object).group()) {
            names.remove(name);
        }
        self.look_at_rivals(object).await;
        self.look_at(name.to_string()).await;
    }

    async fn ended(&mut self, ended: Result<(String, Result<(), StatusError>), tokio::task::JoinError>) {
        match ended {
            Ok((name, Ok(()))) => drop(self.ending.remove(&name)),
            Ok((name, Err(error))) => {
                self.ending.remove(&name);
                if error.code == 404 {
                    return;
                }
                tracing::error!(%error, name, "cannot delete the objects of a definition; trying again");
                tokio::time::sleep(RETRY).await;
                self.look_at(name).await;
            }
            Err(error) => tracing::error!(%error, "a deletion ended early"),
        }
    }
}

/// Custom resources stand after the built-in ones, by group and name.
fn sort(table: &mut [Arc<Served>]) {
    let first_custom = table.partition_point(|row| row.custom.is_none());
    table[first_custom..].sort_by(|a, b| {
        let key = |row: &Arc<Served>| (row.resource.group.clone(), row.resource.resource.clone());
        key(a).cmp(&key(b))
    });
}
