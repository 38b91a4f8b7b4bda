//! Which store a cluster keeps its objects in, and opening it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use knarr_store::etcd::Endpoints;
use knarr_store::{Embedded, Etcd, Store};

/// Where objects are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum StoreChoice {
    /// In the data directory; one server.
    #[default]
    Embedded,
    /// In an etcd cluster, which other servers may share.
    Etcd(EtcdChoice),
}

/// An etcd cluster and the files that let a client in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EtcdChoice {
    pub urls: Vec<String>,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

/// What `--store`, `--etcd-servers` and the `--etcd-…file` flags say.
pub struct Said<'a> {
    pub store: Option<&'a str>,
    pub etcd_servers: Option<&'a str>,
    pub ca: Option<PathBuf>,
    pub certificate: Option<PathBuf>,
    pub key: Option<PathBuf>,
}

impl StoreChoice {
    /// Refuses what cannot be meant.
    pub fn resolve(said: Said) -> Result<StoreChoice> {
        if said.certificate.is_some() != said.key.is_some() {
            bail!("--etcd-certfile and --etcd-keyfile belong together");
        }
        let tls = said.ca.is_some() || said.certificate.is_some();
        let servers = match (said.store, said.etcd_servers) {
            (Some(_), Some(_)) => bail!("--store and --etcd-servers say the same: give one of them"),
            (None | Some("embedded"), None) if tls => bail!("--etcd-cafile and its like need --store etcd://…"),
            (None | Some("embedded"), None) => return Ok(StoreChoice::Embedded),
            (None, Some(servers)) => servers,
            (Some(store), None) => store
                .strip_prefix("etcd://")
                .with_context(|| format!("--store {store:?} is neither \"embedded\" nor etcd://host:port,host:port"))?,
        };
        let urls = servers.split(',').map(|server| url(server.trim(), tls)).collect::<Result<Vec<_>>>()?;
        Ok(StoreChoice::Etcd(EtcdChoice { urls, ca: said.ca, certificate: said.certificate, key: said.key }))
    }

    /// Whether other servers may write to it.
    pub fn is_shared(&self) -> bool {
        matches!(self, StoreChoice::Etcd(_))
    }

    /// Opens it; the embedded one in `directory`.
    pub async fn open(&self, directory: &Path) -> Result<Arc<dyn Store>> {
        match self {
            StoreChoice::Embedded => Ok(Arc::new(Embedded::open(directory)?)),
            StoreChoice::Etcd(etcd) => Ok(Arc::new(Etcd::connect(&etcd.endpoints()?).await?)),
        }
    }
}

impl EtcdChoice {
    fn endpoints(&self) -> Result<Endpoints> {
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
        let identity = match (&self.certificate, &self.key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            _ => None,
        };
        Ok(Endpoints { urls: self.urls.clone(), ca: self.ca.as_ref().map(read).transpose()?, identity })
    }
}

/// `host:port` or a whole URL as upstream's `--etcd-servers` has them.
fn url(server: &str, tls: bool) -> Result<String> {
    let (scheme, host) = server.split_once("://").unwrap_or((if tls { "https" } else { "http" }, server));
    let host = host.trim_end_matches('/');
    let port = host.rsplit_once(':').and_then(|(name, port)| port.parse::<u16>().ok().filter(|_| !name.is_empty()));
    if !matches!(scheme, "http" | "https") || port.is_none() {
        bail!("{server:?} is not an etcd server such as host:2379");
    }
    if tls && scheme == "http" {
        bail!("{server:?}: --etcd-cafile and its like need https");
    }
    Ok(format!("{scheme}://{host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said<'a>(store: Option<&'a str>, etcd_servers: Option<&'a str>) -> Said<'a> {
        Said { store, etcd_servers, ca: None, certificate: None, key: None }
    }

    fn urls(said: Said) -> Vec<String> {
        match StoreChoice::resolve(said).expect("valid") {
            StoreChoice::Etcd(etcd) => etcd.urls,
            StoreChoice::Embedded => Vec::new(),
        }
    }

    #[test]
    fn the_store_is_said_in_either_way() {
        assert_eq!(StoreChoice::resolve(said(None, None)).expect("valid"), StoreChoice::Embedded);
        assert_eq!(StoreChoice::resolve(said(Some("embedded"), None)).expect("valid"), StoreChoice::Embedded);
        assert_eq!(urls(said(Some("etcd://a:2379,b:2379"), None)), ["http://a:2379", "http://b:2379"]);
        assert_eq!(urls(said(None, Some("https://a:2379/, http://b:1"))), ["https://a:2379", "http://b:1"]);
        let tls = Said { ca: Some("ca.pem".into()), ..said(Some("etcd://a:2379"), None) };
        assert_eq!(urls(tls), ["https://a:2379"]);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let ca = || Some(PathBuf::from("ca.pem"));
        for wrong in [
            said(Some("sqlite"), None),
            said(Some("etcd://"), None),
            said(Some("etcd://a"), None),
            said(Some("etcd://a:2379"), Some("http://a:2379")),
            said(None, Some("ftp://a:1")),
            Said { ca: ca(), ..said(None, None) },
            Said { ca: ca(), ..said(None, Some("http://a:1")) },
            Said { key: ca(), ..said(Some("etcd://a:1"), None) },
        ] {
            assert!(StoreChoice::resolve(wrong).is_err());
        }
    }
}
