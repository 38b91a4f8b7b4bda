//! The conversion webhook of a definition, called over the network.

use async_trait::async_trait;
use serde_json::Value;

use super::conversion::{Converter, Reviewer};
use crate::outbound::{Limits, Outbound, Target};

struct Webhook {
    outbound: Outbound,
    /// Why it cannot be called, where it cannot.
    target: Result<Target, String>,
}

#[async_trait]
impl Reviewer for Webhook {
    async fn review(&self, review: &Value) -> Result<Value, String> {
        let target = self.target.as_ref().map_err(String::clone)?;
        let client = self.outbound.client(target).map_err(|error| error.to_string())?;
        client.post(review, Limits::default()).await.map_err(|error| error.to_string())
    }
}

/// The converter that `spec.conversion.webhook` describes.
pub(super) fn converter(outbound: &Outbound, webhook: &Value) -> Converter {
    let versions = webhook["conversionReviewVersions"].as_array().into_iter().flatten();
    let target = Target::of_client_config(&webhook["clientConfig"]).map_err(|error| error.to_string());
    Converter {
        reviewer: Box::new(Webhook { outbound: outbound.clone(), target }),
        review_versions: versions.filter_map(Value::as_str).map(str::to_string).collect(),
    }
}
