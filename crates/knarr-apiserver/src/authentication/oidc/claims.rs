//! From what a token claims to a user.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::User;
use super::super::configuration::{JwtAuthenticator, PrefixedClaimOrExpression};
use super::expression::Expression;

/// The mappings of one issuer, their expressions compiled.
pub(super) struct Mapper {
    username: PrefixedClaimOrExpression,
    username_expression: Option<Expression>,
    groups: PrefixedClaimOrExpression,
    groups_expression: Option<Expression>,
    uid_claim: String,
    uid_expression: Option<Expression>,
    extra: Vec<(String, Expression)>,
    required: Vec<(String, String)>,
    /// Expressions that must be true of the claims, each with what to say where it is not.
    claim_rules: Vec<(Expression, String)>,
    user_rules: Vec<(Expression, String)>,
}

impl Mapper {
    pub fn new(config: &JwtAuthenticator) -> Result<Self, String> {
        let optional = |text: &str| (!text.is_empty()).then(|| Expression::of_claims(text)).transpose();
        let mappings = &config.claim_mappings;
        let extra = mappings.extra.iter().map(|e| Ok((e.key.clone(), Expression::of_claims(&e.value_expression)?)));
        let rules = &config.claim_validation_rules;
        let by_expression = rules.iter().filter(|r| !r.expression.is_empty());
        let claim_rules = by_expression.map(|r| Ok((Expression::of_claims(&r.expression)?, r.message.clone())));
        let user_rules = config.user_validation_rules.iter();
        let user_rules = user_rules.map(|r| Ok((Expression::of_user(&r.expression)?, r.message.clone())));
        let required = rules.iter().filter(|r| !r.claim.is_empty());
        Ok(Mapper {
            username: mappings.username.clone(),
            username_expression: optional(&mappings.username.expression)?,
            groups: mappings.groups.clone(),
            groups_expression: optional(&mappings.groups.expression)?,
            uid_claim: mappings.uid.claim.clone(),
            uid_expression: optional(&mappings.uid.expression)?,
            extra: extra.collect::<Result<_, String>>()?,
            required: required.map(|r| (r.claim.clone(), r.required_value.clone())).collect(),
            claim_rules: claim_rules.collect::<Result<_, String>>()?,
            user_rules: user_rules.collect::<Result<_, String>>()?,
        })
    }

    /// The user of these proven claims; an error where they do not say enough, or a rule forbids them.
    pub fn user(&self, claims: Map<String, Value>) -> Result<User, String> {
        let claims = Value::Object(claims);
        let user = User {
            name: self.username(&claims)?,
            groups: self.groups(&claims)?,
            uid: self.uid(&claims)?,
            extra: self.extra(&claims)?,
        };
        self.check_required(&claims)?;
        check("claim validation expression", &self.claim_rules, &claims)?;
        let shown = json!({"username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra});
        check("user info validation rule", &self.user_rules, &shown)?;
        Ok(user)
    }

    fn username(&self, claims: &Value) -> Result<String, String> {
        if let Some(expression) = &self.username_expression {
            let error = |e: String| format!("oidc: error evaluating username claim expression: {e}");
            let Value::String(name) = expression.evaluate(claims).map_err(error)? else {
                return Err(error("username claim expression must return a string".into()));
            };
            return if name.is_empty() {
                Err("oidc: empty username via CEL expression is not allowed".into())
            } else {
                Ok(name)
            };
        }
        let claim = &self.username.claim;
        let name = string_claim(claims, claim).map_err(|e| format!("oidc: parse username claims {claim:?}: {e}"))?;
        if claim == "email" && claims.get("email_verified").is_some_and(|verified| *verified != json!(true)) {
            return Err(match &claims["email_verified"] {
                Value::Bool(_) => "oidc: email not verified".into(),
                _ => "oidc: parse 'email_verified' claim: it is no bool".into(),
            });
        }
        Ok(format!("{}{name}", self.username.prefix.as_deref().unwrap_or_default()))
    }

    fn groups(&self, claims: &Value) -> Result<Vec<String>, String> {
        let claim = &self.groups.claim;
        if let Some(value) = claims.get(claim).filter(|_| !claim.is_empty()) {
            let groups =
                strings(value).ok_or_else(|| format!("oidc: parse groups claim {claim:?}: not a string or a list"))?;
            let prefix = self.groups.prefix.as_deref().unwrap_or_default();
            return Ok(groups.into_iter().map(|g| format!("{prefix}{g}")).collect());
        }
        let Some(expression) = &self.groups_expression else { return Ok(Vec::new()) };
        let error = |e: String| format!("oidc: error evaluating group claim expression: {e}");
        expression_strings(expression, claims).map_err(error)
    }

    fn uid(&self, claims: &Value) -> Result<String, String> {
        if !self.uid_claim.is_empty() {
            let claim = &self.uid_claim;
            return string_claim(claims, claim).map_err(|e| format!("oidc: parse uid claim {claim:?}: {e}"));
        }
        let Some(expression) = &self.uid_expression else { return Ok(String::new()) };
        let error = |e: String| format!("oidc: error evaluating uid claim expression: {e}");
        match expression.evaluate(claims).map_err(error)? {
            Value::String(uid) => Ok(uid),
            _ => Err(error("uid claim expression must return a string".into())),
        }
    }

    fn extra(&self, claims: &Value) -> Result<BTreeMap<String, Vec<String>>, String> {
        let mut extra = BTreeMap::new();
        if let Some(id) = claims.get("jti").and_then(Value::as_str).filter(|id| !id.is_empty()) {
            extra.insert("authentication.kubernetes.io/credential-id".to_string(), vec![format!("JTI={id}")]);
        }
        for (key, expression) in &self.extra {
            let error = |e: String| format!("oidc: error evaluating extra claim expression: {key}: {e}");
            let values = expression_strings(expression, claims).map_err(error)?;
            if !values.is_empty() {
                extra.insert(key.clone(), values);
            }
        }
        Ok(extra)
    }

    fn check_required(&self, claims: &Value) -> Result<(), String> {
        for (claim, wanted) in &self.required {
            if claims.get(claim).is_none_or(Value::is_null) {
                return Err(format!("oidc: required claim {claim} not present in ID token"));
            }
            let got = string_claim(claims, claim).map_err(|e| format!("oidc: parse claim {claim}: {e}"))?;
            if got != *wanted {
                return Err(format!("oidc: required claim {claim} value does not match. Got = {got}, want = {wanted}"));
            }
        }
        Ok(())
    }
}

fn check(what: &str, rules: &[(Expression, String)], value: &Value) -> Result<(), String> {
    for (rule, message) in rules {
        let error = |e: String| format!("oidc: error evaluating {what}: {e}");
        match rule.evaluate(value).map_err(error)? {
            Value::Bool(true) => {}
            Value::Bool(false) => {
                return Err(error(format!("validation expression '{}' failed: {message}", rule.text())));
            }
            _ => return Err(error("validation expression must return a boolean".into())),
        }
    }
    Ok(())
}

fn string_claim(claims: &Value, name: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err("claim not present".into()),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err("claim is not a string".into()),
    }
}

/// A string, or a list of strings; nothing at all for null.
fn strings(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::Null => Some(Vec::new()),
        Value::String(one) => Some(vec![one.clone()]),
        Value::Array(many) => many.iter().map(|v| v.as_str().map(str::to_string)).collect(),
        _ => None,
    }
}

/// As [`strings`], but an empty string is no value.
fn expression_strings(expression: &Expression, claims: &Value) -> Result<Vec<String>, String> {
    let values = strings(&expression.evaluate(claims)?);
    let values = values.ok_or("expression must return a string or a list of strings")?;
    Ok(values.into_iter().filter(|v| !v.is_empty()).collect())
}
