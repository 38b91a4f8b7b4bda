use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

use super::SelectorError;
use super::label_syntax::{self, check_key, check_value};

/// Where labels can be looked up.
pub trait Labels {
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for Map<String, Value> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

/// An object's `metadata.labels` as it stands: anything but a map has no labels.
impl Labels for Value {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Value::as_str)
    }
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<K: AsRef<str>, V: AsRef<str>> Labels for [(K, V)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k.as_ref() == key).map(|(_, v)| v.as_ref())
    }
}

impl<L: Labels> Labels for Option<L> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref().and_then(|labels| labels.label(key))
    }
}

impl<L: Labels + ?Sized> Labels for &L {
    fn label(&self, key: &str) -> Option<&str> {
        (**self).label(key)
    }
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    key: String,
    operator: Operator,
    /// Sorted, without doubles.
    values: Vec<String>,
}

impl Requirement {
    /// Checks the key, the values and that their number fits the operator.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, SelectorError> {
        let mut errors = Vec::new();
        errors.extend(check_key(key, "key"));
        errors.extend(check_values(operator, &values));
        for (index, value) in values.iter().enumerate() {
            errors.extend(check_value(key, value, index));
        }
        match errors.len() {
            0 => {
                values.sort_unstable();
                values.dedup();
                Ok(Requirement { key: key.to_string(), operator, values })
            }
            1 => Err(SelectorError::new(errors.remove(0))),
            _ => Err(SelectorError::new(format!("[{}]", errors.join(", ")))),
        }
    }

    pub fn key(&self) -> &str {
        &self.key
    }

    pub fn operator(&self) -> Operator {
        self.operator
    }

    pub fn values(&self) -> &[String] {
        &self.values
    }

    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        let value = labels.label(&self.key);
        let listed = |value: &str| self.values.iter().any(|v| v == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan => self.compares(value, |label, bound| label > bound),
            Operator::LessThan => self.compares(value, |label, bound| label < bound),
        }
    }

    fn compares(&self, value: Option<&str>, holds: fn(i64, i64) -> bool) -> bool {
        let bound = self.values.first().and_then(|v| v.parse().ok());
        match (value.and_then(|v| v.parse().ok()), bound) {
            (Some(label), Some(bound)) => holds(label, bound),
            _ => false,
        }
    }
}

fn check_values(operator: Operator, values: &[String]) -> Vec<String> {
    let shown = || serde_json::to_string(values).unwrap_or_default();
    let wrong_count = |detail: &str| vec![format!("values: Invalid value: {}: {detail}", shown())];
    match operator {
        Operator::In | Operator::NotIn if values.is_empty() => {
            wrong_count("for 'in', 'notin' operators, values set can't be empty")
        }
        Operator::Equals | Operator::DoubleEquals | Operator::NotEquals if values.len() != 1 => {
            wrong_count("exact-match compatibility requires one single value")
        }
        Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
            wrong_count("values set must be empty for exists and does not exist")
        }
        Operator::GreaterThan | Operator::LessThan => {
            let mut errors = Vec::new();
            if values.len() != 1 {
                errors = wrong_count("for 'Gt', 'Lt' operators, exactly one value is required");
            }
            for (index, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
                errors.push(format!(
                    "values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an integer",
                    Value::from(value.as_str())
                ));
            }
            errors
        }
        _ => Vec::new(),
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::DoubleEquals => write!(f, "{key}=={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// All requirements must hold. Shown in the canonical form that upstream's `labels.Selector` prints.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    /// Sorted by key. `None` selects nothing at all, which no list of requirements can say.
    requirements: Option<Vec<Requirement>>,
}

impl Default for LabelSelector {
    fn default() -> Self {
        Self::everything()
    }
}

impl LabelSelector {
    pub fn everything() -> Self {
        LabelSelector { requirements: Some(Vec::new()) }
    }

    pub fn nothing() -> Self {
        LabelSelector { requirements: None }
    }

    /// Parses the query form: `app=web,tier in (a, b),!canary,generation>3`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        Ok(Self::of(label_syntax::parse(text)?))
    }

    /// The conjunction of these requirements.
    pub fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        LabelSelector { requirements: Some(requirements) }
    }

    /// A plain map selector, such as a Service's or a ReplicationController's: every label must be equal. Values are
    /// taken as they are (validation has seen them). An empty map selects everything here; callers for whom it means
    /// nothing must say so.
    pub fn of_map(map: &Map<String, Value>) -> Self {
        let equals = |(key, value): (&String, &Value)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.as_str().unwrap_or_default().to_string()],
        };
        Self::of(map.iter().map(equals).collect())
    }

    /// A `metav1.LabelSelector`. An absent (or null) one selects nothing, an empty one everything.
    pub fn of_object(selector: Option<&Value>) -> Result<Self, SelectorError> {
        let Some(selector) = selector.filter(|s| !s.is_null()) else {
            return Ok(Self::nothing());
        };
        let mut requirements = Vec::new();
        for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_string();
            requirements.push(Requirement::new(key, Operator::Equals, vec![value])?);
        }
        for expression in selector["matchExpressions"].as_array().into_iter().flatten() {
            requirements.push(expression_requirement(expression)?);
        }
        Ok(Self::of(requirements))
    }

    pub fn matches(&self, labels: &(impl Labels + ?Sized)) -> bool {
        self.requirements.as_ref().is_some_and(|all| all.iter().all(|r| r.matches(labels)))
    }

    pub fn requirements(&self) -> &[Requirement] {
        self.requirements.as_deref().unwrap_or_default()
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.as_ref().is_some_and(Vec::is_empty)
    }

    pub fn is_nothing(&self) -> bool {
        self.requirements.is_none()
    }
}

fn expression_requirement(expression: &Value) -> Result<Requirement, SelectorError> {
    let word = expression["operator"].as_str().unwrap_or_default();
    let operator = match word {
        "In" => Operator::In,
        "NotIn" => Operator::NotIn,
        "Exists" => Operator::Exists,
        "DoesNotExist" => Operator::DoesNotExist,
        other => {
            return Err(SelectorError::new(format!("{} is not a valid label selector operator", Value::from(other))));
        }
    };
    let values = expression["values"].as_array().into_iter().flatten().filter_map(Value::as_str);
    Requirement::new(expression["key"].as_str().unwrap_or_default(), operator, values.map(str::to_string).collect())
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements().iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(text: &str) -> String {
        match LabelSelector::parse(text) {
            Ok(selector) => selector.to_string(),
            Err(error) => format!("error: {error}"),
        }
    }

    #[test]
    fn text_is_parsed_and_shown_in_canonical_form() {
        for (text, canonical) in [
            ("", ""),
            (" ", ""),
            ("x=a,y=b,z=c", "x=a,y=b,z=c"),
            ("z=c , a==b", "a==b,z=c"),
            ("x!=a", "x!=a"),
            ("!x", "!x"),
            ("x", "x"),
            ("x in ()", "x in ()"),
            ("x in (c, a,b ,a)", "x in (a,b,c)"),
            ("x notin (a)", "x notin (a)"),
            ("x>1,y<7", "x>1,y<7"),
            ("x=", "x="),
            ("in in (in,notin)", "in in (in,notin)"),
            ("x in (,)", "x in ()"),
            ("x in (a,,b)", "x in (,a,b)"),
        ] {
            assert_eq!(shown(text), canonical, "{text:?}");
        }
    }

    #[test]
    fn bad_text_is_refused_in_upstreams_words() {
        for (text, error) in [
            ("x in", "unable to parse requirement: found '' expected: '('"),
            ("x==a==b", "found '==', expected: ',' or 'end of string'"),
            ("x,", "found '', expected: identifier after ','"),
            ("(", "found '(', expected: !, identifier, or 'end of string'"),
            ("x y", "unable to parse requirement: found 'y', expected: in, notin, =, ==, !=, gt, lt"),
            ("!x=a", "found '=', expected: ',' or 'end of string'"),
            (
                "x>a",
                "unable to parse requirement: values[0]: Invalid value: \"a\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
            (
                "-x=a",
                "unable to parse requirement: <nil>: Invalid value: \"-x\": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
            ),
        ] {
            assert_eq!(shown(text), format!("error: {error}"), "{text:?}");
        }
    }

    #[test]
    fn matching_follows_the_operator() {
        let labels = json!({"app": "web", "tier": "front", "n": "5"});
        for (text, matches) in [
            ("", true),
            ("app=web", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=db", true),
            ("missing notin (db)", true),
            ("app in (web,db)", true),
            ("app notin (web)", false),
            ("tier", true),
            ("!tier", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>5", false),
        ] {
            let selector = LabelSelector::parse(text).expect(text);
            assert_eq!(selector.matches(&labels), matches, "{text}");
        }
        assert!(!LabelSelector::nothing().matches(&labels));
    }

    #[test]
    fn object_selectors_follow_metav1() {
        let selector = json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
        assert_eq!(LabelSelector::of_object(Some(&selector)).expect("valid").to_string(), "a=b,c");
        assert!(LabelSelector::of_object(None).expect("valid").is_nothing());
        assert!(LabelSelector::of_object(Some(&json!({}))).expect("valid").is_everything());
        let bad = json!({"matchExpressions": [{"key": "c", "operator": "Gt"}]});
        let error = LabelSelector::of_object(Some(&bad)).expect_err("Gt is no metav1 operator");
        assert_eq!(error.to_string(), "\"Gt\" is not a valid label selector operator");
    }
}
