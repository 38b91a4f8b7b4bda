//! `componentstatuses`: how the parts of the control plane are. Found out when somebody asks, and never stored, so that they have no versions
//! and cannot be watched.

use std::sync::Arc;

use http::{Response, StatusCode};
use knarr_api::StatusError;
use knarr_api::object::ObjectExt;
use serde_json::json;

use crate::cache::entry::stored_json;
use crate::cache::{Entry, Reader};
use crate::health::HealthCheck;
use crate::http::Body;
use crate::registry::commit::Target;
use crate::registry::options::ListOptions;
use crate::registry::read::Page;
use crate::registry::render::{Presenter, Written};

/// The components, as this server can tell how they are.
pub struct ComponentStatuses(pub Vec<HealthCheck>);

impl ComponentStatuses {
    pub fn serves(group: &str, resource: &str) -> bool {
        resource == "componentstatuses" && group.is_empty()
    }

    pub async fn get(&self, target: &Target, presenter: &Presenter) -> Result<Response<Body>, StatusError> {
        let Some(component) = self.0.iter().find(|component| component.name == target.name) else {
            return Err(target.not_found());
        };
        presenter.single(StatusCode::OK, &Written::Stored(status(component).await?)).await
    }

    pub async fn list(&self, options: &ListOptions, presenter: &Presenter) -> Result<Response<Body>, StatusError> {
        let mut entries = Vec::with_capacity(self.0.len());
        for component in &self.0 {
            entries.push(status(component).await?);
        }
        entries.retain(|entry| entry.matches(&options.labels, &options.fields));
        presenter.list(&Page::last(entries, 0)).await
    }
}

async fn status(component: &HealthCheck) -> Result<Arc<Entry>, StatusError> {
    let condition = match (component.check)().await {
        Ok(()) => json!({"type": "Healthy", "status": "True", "message": "ok"}),
        Err(why) => json!({"type": "Healthy", "status": "False", "message": why, "error": why}),
    };
    let mut object = json!({"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {}, "conditions": [condition]});
    object.set_meta_str("name", &component.name);
    let stored = stored_json(&mut object).map_err(StatusError::internal)?;
    let entry = Entry::parse(component.name.as_str().into(), &stored, 0, &Reader::default());
    Ok(Arc::new(entry.map_err(StatusError::internal)?))
}
