//! Selectors of nodes and pods, parsed once.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{NodeSelector, NodeSelectorRequirement, NodeSelectorTerm},
    apimachinery::pkg::apis::meta::v1::LabelSelector as ApiLabelSelector,
};
use knarr_api::selector::{LabelSelector, Operator, Requirement};

pub type Labels = BTreeMap<String, String>;

fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        "Gt" => Operator::GreaterThan,
        "Lt" => Operator::LessThan,
        _ => return None,
    })
}

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

/// One term of a node selector: all of its requirements. A term without any selects nothing.
#[derive(Clone, Debug)]
pub struct NodeTerm {
    labels: Vec<Requirement>,
    /// Demands on the node's name: whether it must be among these.
    names: Vec<(bool, Vec<String>)>,
    empty: bool,
}

impl NodeTerm {
    pub fn parse(term: &NodeSelectorTerm) -> NodeTerm {
        let labels: Option<Vec<_>> = term.match_expressions.iter().flatten().map(node_requirement).collect();
        let fields = term.match_fields.iter().flatten();
        let names: Vec<_> =
            fields.map(|field| (field.operator == "In", field.values.clone().unwrap_or_default())).collect();
        let empty = labels.as_ref().is_none_or(Vec::is_empty) && names.is_empty();
        NodeTerm { labels: labels.unwrap_or_default(), names, empty }
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        !self.empty
            && self.names.iter().all(|(among, names)| names.iter().any(|other| other == name) == *among)
            && self.labels.iter().all(|requirement| requirement.matches(labels))
    }

    /// The node names that the term is bound to, if it is.
    fn required_names(&self) -> Option<Vec<&str>> {
        let (_, names) = self.names.iter().find(|(among, _)| *among)?;
        Some(names.iter().map(String::as_str).collect())
    }
}

fn node_requirement(requirement: &NodeSelectorRequirement) -> Option<Requirement> {
    let values = requirement.values.clone().unwrap_or_default();
    Requirement::new(&requirement.key, operator(&requirement.operator)?, values).ok()
}

/// Which nodes a pod may run on by its `nodeSelector` and required node affinity.
#[derive(Clone, Debug, Default)]
pub struct RequiredNodes {
    labels: Labels,
    /// Any of these, if it is there.
    terms: Option<Vec<NodeTerm>>,
}

impl RequiredNodes {
    pub fn parse(node_selector: Option<&Labels>, affinity: Option<&NodeSelector>) -> RequiredNodes {
        RequiredNodes {
            labels: node_selector.cloned().unwrap_or_default(),
            terms: affinity.map(|affinity| affinity.node_selector_terms.iter().map(NodeTerm::parse).collect()),
        }
    }

    pub fn is_any(&self) -> bool {
        self.labels.is_empty() && self.terms.is_none()
    }

    pub fn matches(&self, name: &str, labels: &Labels) -> bool {
        self.labels.iter().all(|(key, value)| labels.get(key) == Some(value))
            && self.terms.as_ref().is_none_or(|terms| terms.iter().any(|term| term.matches(name, labels)))
    }

    /// The only nodes worth a look, if every term names its nodes (as daemon pods do).
    pub fn only_names(&self) -> Option<Vec<&str>> {
        let terms = self.terms.as_ref()?;
        let names: Option<Vec<Vec<&str>>> = terms.iter().map(NodeTerm::required_names).collect();
        names.map(|names| names.concat())
    }
}
