//! The environment of a container: literal values, fields, resources, ConfigMaps, Secrets, and the addresses of services.

pub mod expansion;
pub mod fields;
pub mod services;

use std::collections::BTreeMap;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, EnvVarSource};

use crate::pod::DesiredContainer;
use fields::FieldSource;

/// Why an environment cannot be made. The texts are upstream's, as they show in the container's status.
#[derive(Debug, thiserror::Error)]
pub enum EnvironmentError {
    #[error("{kind} \"{name}\" not found")]
    NotFound { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {namespace}/{name}")]
    NoSuchKey { key: String, kind: &'static str, namespace: String, name: String },
    #[error("{0}")]
    Field(String),
    #[error("{0}")]
    Api(String),
}

/// Where the values of ConfigMaps and Secrets of the pod's namespace come from.
#[async_trait]
pub trait KeyedSource: Send + Sync {
    /// The text values of a ConfigMap, if there is one of that name.
    async fn config_map(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, String>;
    /// The values of a Secret.
    async fn secret(&self, name: &str) -> Result<Option<BTreeMap<String, Vec<u8>>>, String>;
}

/// The environment of `container`, in its order; later ones win over earlier ones of the same name. `service_links` come first.
pub async fn environment_of(
    container: &DesiredContainer,
    fields: &FieldSource<'_>,
    keyed: &dyn KeyedSource,
    service_links: BTreeMap<String, String>,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let mut environment = Environment::default();
    for source in container.spec.env_from.iter().flatten() {
        for (name, value) in values_from(source, keyed).await? {
            environment.set(name, value);
        }
    }
    for variable in container.spec.env.iter().flatten() {
        let lookup = |name: &str| environment.get(name).or_else(|| service_links.get(name).cloned());
        let value = match &variable.value_from {
            Some(source) => value_from(source, variable, container, fields, keyed).await?,
            None => Some(expansion::expand(variable.value.as_deref().unwrap_or_default(), &lookup)),
        };
        if let Some(value) = value {
            environment.set(variable.name.clone(), value);
        }
    }
    for (name, value) in service_links {
        environment.set_default(name, value);
    }
    Ok(environment.variables)
}

#[derive(Default)]
struct Environment {
    variables: Vec<(String, String)>,
}

impl Environment {
    fn get(&self, name: &str) -> Option<String> {
        self.variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    fn set(&mut self, name: String, value: String) {
        match self.variables.iter_mut().find(|(known, _)| *known == name) {
            Some(variable) => variable.1 = value,
            None => self.variables.push((name, value)),
        }
    }

    fn set_default(&mut self, name: String, value: String) {
        if self.get(&name).is_none() {
            self.variables.push((name, value));
        }
    }
}

async fn values_from(
    source: &EnvFromSource,
    keyed: &dyn KeyedSource,
) -> Result<Vec<(String, String)>, EnvironmentError> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let values = if let Some(reference) = &source.config_map_ref {
        all_values(keyed, CONFIG_MAP, &reference.name, reference.optional).await?
    } else if let Some(reference) = &source.secret_ref {
        all_values(keyed, SECRET, &reference.name, reference.optional).await?
    } else {
        None
    };
    let values = values.unwrap_or_default().into_iter();
    Ok(values.map(|(key, value)| (format!("{prefix}{key}"), String::from_utf8_lossy(&value).into_owned())).collect())
}

const CONFIG_MAP: &str = "configmap";
const SECRET: &str = "secret";

/// All values of a ConfigMap or Secret; none where it is missing and may be.
async fn all_values(
    keyed: &dyn KeyedSource,
    kind: &'static str,
    name: &str,
    optional: Option<bool>,
) -> Result<Option<BTreeMap<String, Vec<u8>>>, EnvironmentError> {
    let found = match kind {
        SECRET => keyed.secret(name).await,
        _ => keyed.config_map(name).await,
    };
    match found.map_err(EnvironmentError::Api)? {
        Some(values) => Ok(Some(values)),
        None if optional == Some(true) => Ok(None),
        None => Err(EnvironmentError::NotFound { kind, name: name.to_owned() }),
    }
}

/// The value of one variable; none where its source is missing and may be.
async fn value_from(
    source: &EnvVarSource,
    variable: &EnvVar,
    container: &DesiredContainer,
    fields: &FieldSource<'_>,
    keyed: &dyn KeyedSource,
) -> Result<Option<String>, EnvironmentError> {
    if let Some(field) = &source.field_ref {
        return fields.field(&field.field_path).map(Some).map_err(EnvironmentError::Field);
    }
    if let Some(resource) = &source.resource_field_ref {
        return fields.resource(resource, Some(container)).map(Some).map_err(EnvironmentError::Field);
    }
    if let Some(key) = &source.config_map_key_ref {
        return one_value(fields, keyed, CONFIG_MAP, &key.name, &key.key, key.optional).await;
    }
    if let Some(key) = &source.secret_key_ref {
        return one_value(fields, keyed, SECRET, &key.name, &key.key, key.optional).await;
    }
    tracing::warn!(
        variable = variable.name,
        "an environment variable's source is of a kind this kubelet does not know"
    );
    Ok(None)
}

async fn one_value(
    fields: &FieldSource<'_>,
    keyed: &dyn KeyedSource,
    kind: &'static str,
    name: &str,
    key: &str,
    optional: Option<bool>,
) -> Result<Option<String>, EnvironmentError> {
    let Some(values) = all_values(keyed, kind, name, optional).await? else { return Ok(None) };
    match values.get(key) {
        Some(value) => Ok(Some(String::from_utf8_lossy(value).into_owned())),
        None if optional == Some(true) => Ok(None),
        None => {
            let namespace = fields.pod.namespace.clone();
            Err(EnvironmentError::NoSuchKey {
                key: key.to_owned(),
                kind: display_kind(kind),
                namespace,
                name: name.to_owned(),
            })
        }
    }
}

/// Upstream's two messages differ in how they write the kind.
fn display_kind(kind: &'static str) -> &'static str {
    if kind == SECRET { "Secret" } else { "ConfigMap" }
}
