//! Label selectors, parsed once.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector as ApiLabelSelector;
use knarr_api::selector::{LabelSelector, Operator, Requirement};
use knarr_client::fit::operator;
pub use knarr_client::fit::{Labels, NodeTerm, RequiredNodes};

/// A label selector of the API. Without one nothing is selected; an empty one selects everything.
pub fn label_selector(selector: Option<&ApiLabelSelector>) -> LabelSelector {
    selector.and_then(parse_label_selector).unwrap_or_else(LabelSelector::nothing)
}

fn parse_label_selector(selector: &ApiLabelSelector) -> Option<LabelSelector> {
    let mut requirements = Vec::new();
    for (key, value) in selector.match_labels.iter().flatten() {
        requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()]).ok()?);
    }
    for expression in selector.match_expressions.iter().flatten() {
        let values = expression.values.clone().unwrap_or_default();
        requirements.push(Requirement::new(&expression.key, operator(&expression.operator)?, values).ok()?);
    }
    Some(LabelSelector::of(requirements))
}
