//! The store, encrypted where `--encryption-provider-config` says so.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use knarr_apiserver::cache::follow::locate;
use knarr_apiserver::pages::HealthCheck;
use knarr_encryption::{EncryptedStore, EncryptionConfiguration, Rules};
use knarr_store::Store;
use tokio::task::JoinSet;

use crate::settings::{Settings, read_file};
use crate::tasks::Tasks;
use crate::watch_file::WatchedFile;

const FLAG: &str = "encryption-provider-config";

/// The store that the registry is to use, and the checks of the key services that it depends on.
pub async fn around(
    settings: &Settings,
    store: Arc<dyn Store>,
    tasks: &Tasks,
) -> Result<(Arc<dyn Store>, Vec<HealthCheck>)> {
    let Some(path) = &settings.access.encryption_provider_config else { return Ok((store, Vec::new())) };
    let text = read_file(FLAG, path)?;
    let rules = rules(&text).with_context(|| format!("--{FLAG} {}", path.display()))?;
    // Without an answer the server starts all the same: it is unhealthy, and what it cannot decrypt is an error.
    drop(ask(&rules).await);
    let store = Arc::new(EncryptedStore::new(store, rules, locate));
    let reloads = settings.access.encryption_provider_config_automatic_reload == Some(true);
    let file = reloads.then(|| WatchedFile::new(path, text));
    let (following, stop) = (follow(store.clone(), file), tasks.stop.clone());
    tasks.spawn("encryption", async move { stop.run_until_cancelled(following).await.unwrap_or_default() });
    let checked = store.clone();
    let check = HealthCheck {
        name: "kms-providers".into(),
        live: true,
        check: Arc::new(move || checked.rules().key_services().iter().try_for_each(|kms| kms.health())),
    };
    let has_services = !store.rules().key_services().is_empty();
    let checks = if reloads || has_services { vec![check] } else { Vec::new() };
    Ok((store, checks))
}

fn rules(text: &str) -> Result<Rules> {
    let config = EncryptionConfiguration::parse(text).map_err(|e| anyhow!("{e}"))?;
    Rules::new(&config).map_err(|e| anyhow!("{e}"))
}

/// Asks every key service for the state that the first write needs.
async fn ask(rules: &Rules) -> Result<(), String> {
    let asked = rules.key_services().iter().map(|kms| kms.probe());
    futures::future::try_join_all(asked).await.map(drop)
}

/// Follows the key services, and the file if it may change, for ever.
async fn follow(store: Arc<EncryptedStore>, mut file: Option<WatchedFile>) {
    loop {
        let mut services = JoinSet::new();
        let (rules, asked) = (store.rules(), store.rules());
        services.spawn(async move { asked.follow_keys().await });
        for kms in rules.key_services() {
            let (mut health, store) = (kms.watch_health(), store.clone());
            services.spawn(async move {
                while health.changed().await.is_ok() {
                    let healthy = matches!(&*health.borrow(), Some(Ok(())));
                    if healthy {
                        store.mend().await;
                    }
                }
            });
        }
        let Some(file) = &mut file else { return std::future::pending().await };
        loop {
            let text = file.changed().await;
            let rules = match self::rules(&text) {
                Ok(rules) => rules,
                Err(error) => {
                    tracing::error!(%error, "the changed encryption config is not used");
                    continue;
                }
            };
            match ask(&rules).await {
                Ok(()) => break store.replace_rules(rules).await,
                Err(error) => tracing::error!(error, "the changed encryption config is not used"),
            }
        }
        tracing::info!("reloaded encryption config");
    }
}
