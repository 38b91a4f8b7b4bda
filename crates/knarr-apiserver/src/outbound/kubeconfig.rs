//! A target in a kubeconfig file, as the webhooks of authentication, authorization and audit are configured.

use std::path::{Path, PathBuf};

use base64::Engine;
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderMap, HeaderValue};
use serde_json::Value;

use super::{Client, OpenError, Target, TlsOptions};

const BASE64: base64::engine::GeneralPurpose = base64::engine::general_purpose::STANDARD;

/// The server and the user of the file's current context. Fails where the file, or one that it names, cannot be read or makes no
/// sense. Files are named relative to the kubeconfig.
pub fn from_kubeconfig(path: &Path) -> Result<Client, OpenError> {
    let text = std::fs::read_to_string(path).map_err(|error| failed(path, &error))?;
    let config = knarr_api::yaml::parse(&text).map_err(|error| failed(path, &error))?;
    let directory = path.parent().unwrap_or(Path::new("."));
    let context = named(&config, "contexts", "context", &config["current-context"]);
    let context = context.ok_or_else(|| failed(path, &"no current context"))?;
    let cluster = named(&config, "clusters", "cluster", &context["cluster"]);
    let cluster = cluster.ok_or_else(|| failed(path, &"no cluster of the current context"))?;
    let none = Value::Null;
    let user = named(&config, "users", "user", &context["user"]).unwrap_or(&none);
    let tls = tls_options(directory, cluster, user)?;
    let target = Target::of_url(cluster["server"].as_str().unwrap_or_default(), tls)?;
    let (headers, token_file) = credentials(directory, user)?;
    Client::with_headers(&target, None, headers, token_file)
}

fn failed(path: &Path, why: &dyn std::fmt::Display) -> OpenError {
    OpenError::Kubeconfig(format!("{}: {why}", path.display()))
}

fn named<'a>(config: &'a Value, list: &str, field: &str, name: &Value) -> Option<&'a Value> {
    config[list].as_array()?.iter().find(|entry| entry["name"] == *name)?.get(field)
}

fn tls_options(directory: &Path, cluster: &Value, user: &Value) -> Result<TlsOptions, OpenError> {
    let certificate = material(directory, user, "client-certificate")?;
    let key = material(directory, user, "client-key")?;
    Ok(TlsOptions {
        authorities: material(directory, cluster, "certificate-authority")?.unwrap_or_default(),
        insecure: cluster["insecure-skip-tls-verify"] == true,
        server_name: cluster["tls-server-name"].as_str().map(str::to_string),
        identity: certificate.zip(key),
    })
}

/// PEM inline (`NAME-data`) or in a file (`NAME`).
fn material(directory: &Path, holder: &Value, name: &str) -> Result<Option<String>, OpenError> {
    if let Some(data) = holder[format!("{name}-data")].as_str().filter(|d| !d.is_empty()) {
        let bytes = BASE64.decode(data.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        return bytes.map(Some).ok_or_else(|| OpenError::Kubeconfig(format!("{name}-data is no base64 of PEM")));
    }
    let Some(file) = holder[name].as_str().filter(|f| !f.is_empty()) else { return Ok(None) };
    let file = directory.join(file);
    std::fs::read_to_string(&file).map(Some).map_err(|error| failed(&file, &error))
}

fn credentials(directory: &Path, user: &Value) -> Result<(HeaderMap, Option<PathBuf>), OpenError> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static("kube-apiserver"));
    let text = |field: &str| user[field].as_str().filter(|t| !t.is_empty());
    let value = match (text("token"), text("username")) {
        (Some(token), _) => Some(format!("Bearer {token}")),
        (None, Some(name)) => {
            let password = text("password").unwrap_or_default();
            Some(format!("Basic {}", BASE64.encode(format!("{name}:{password}"))))
        }
        _ => None,
    };
    if let Some(value) = value {
        let mut value = HeaderValue::from_str(&value).map_err(|error| OpenError::Kubeconfig(error.to_string()))?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    let token_file = text("tokenFile").filter(|_| text("token").is_none()).map(|file| directory.join(file));
    Ok((headers, token_file))
}
