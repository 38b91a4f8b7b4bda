//! What upstream demands of an `AuthenticationConfiguration`, in its words.

use knarr_api::field::{FieldError, Path};
use serde_json::{Value, json};

use super::super::configuration::{
    AuthenticationConfiguration, ClaimMappings, ClaimValidationRule, ExtraMapping, Issuer, JwtAuthenticator,
    PrefixedClaimOrExpression, UserValidationRule,
};
use super::expression::Expression;

const MAX_AUTHENTICATORS: usize = 64;

type Errors = Vec<FieldError>;

/// Every fault of a configuration; none if it may be used. `own` are issuers that it must not name.
pub fn validate(config: &AuthenticationConfiguration, own: &[String]) -> Errors {
    let root = Path::ROOT.child("jwt");
    let mut errors = Errors::new();
    if config.jwt.len() > MAX_AUTHENTICATORS {
        return vec![FieldError::too_many(&root, config.jwt.len(), MAX_AUTHENTICATORS)];
    }
    for (i, authenticator) in config.jwt.iter().enumerate() {
        let path = root.index(i);
        check_authenticator(authenticator, &path, own, &mut errors);
        let issuer = path.child("issuer");
        let earlier = &config.jwt[..i];
        if earlier.iter().any(|e| e.issuer.url == authenticator.issuer.url) {
            errors.push(FieldError::duplicate(&issuer.child("url"), &json!(authenticator.issuer.url)));
        }
        let discovery = &authenticator.issuer.discovery_url;
        if !discovery.is_empty() && earlier.iter().any(|e| e.issuer.discovery_url == *discovery) {
            errors.push(FieldError::duplicate(&issuer.child("discoveryURL"), &json!(discovery)));
        }
    }
    if config.anonymous.as_ref().is_some_and(|a| !a.enabled && !a.conditions.is_empty()) {
        let anonymous = Path::ROOT.child("anonymous");
        let why = "enabled should be set to true when conditions are defined";
        errors.push(FieldError::invalid(&anonymous.child("conditions"), &json!([]), why));
    }
    errors
}

fn check_authenticator(config: &JwtAuthenticator, path: &Path<'_>, own: &[String], errors: &mut Errors) {
    check_issuer(&config.issuer, &path.child("issuer"), own, errors);
    let mut verified = check_claim_rules(&config.claim_validation_rules, &path.child("claimValidationRules"), errors);
    let mappings = path.child("claimMappings");
    verified |= check_mappings(&config.claim_mappings, &mappings, errors);
    let username = &config.claim_mappings.username.expression;
    if uses_claim(username, "email") && !verified {
        let username_path = mappings.child("username");
        let why = "claims.email_verified must be used in claimMappings.username.expression or claimMappings.extra[*].valueExpression or claimValidationRules[*].expression when claims.email is used in claimMappings.username.expression";
        errors.push(FieldError::invalid(&username_path.child("expression"), &json!(username), why));
    }
    check_user_rules(&config.user_validation_rules, &path.child("userValidationRules"), errors);
}

/// Whether an expression selects this claim: by its text, since what else could be written as `claims.email`?
fn uses_claim(expression: &str, claim: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let after =
        |form: &str| expression.match_indices(form).any(|(at, _)| !expression[at + form.len()..].starts_with(word));
    after(&format!("claims.{claim}")) || after(&format!("claims.?{claim}"))
}

fn check_issuer(issuer: &Issuer, path: &Path<'_>, own: &[String], errors: &mut Errors) {
    let url = path.child("url");
    if issuer.url.is_empty() {
        errors.push(FieldError::required(&url, ""));
    } else {
        if own.contains(&issuer.url) {
            let why = format!("URL must not overlap with disallowed issuers: [{}]", own.join(" "));
            errors.push(FieldError::invalid(&url, &json!(issuer.url), why));
        }
        check_url(&issuer.url, &url, errors);
    }
    if !issuer.discovery_url.is_empty() {
        let discovery = path.child("discoveryURL");
        if !issuer.url.is_empty() && issuer.url.trim_end_matches('/') == issuer.discovery_url.trim_end_matches('/') {
            let why = "discoveryURL must be different from URL";
            errors.push(FieldError::invalid(&discovery, &json!(issuer.discovery_url), why));
        }
        check_url(&issuer.discovery_url, &discovery, errors);
    }
    check_audiences(issuer, path, errors);
    if !issuer.certificate_authority.is_empty()
        && knarr_pki::root_store(&issuer.certificate_authority).map_or(true, |s| s.is_empty())
    {
        let why = "data does not contain any valid RSA or ECDSA certificates";
        errors.push(FieldError::invalid(&path.child("certificateAuthority"), &json!("<omitted>"), why));
    }
    if !matches!(issuer.egress_selector_type.as_str(), "" | "controlplane" | "cluster") {
        let why = "egress selector must be either controlplane or cluster";
        errors.push(FieldError::invalid(&path.child("egressSelectorType"), &json!(issuer.egress_selector_type), why));
    }
}

fn check_url(text: &str, path: &Path<'_>, errors: &mut Errors) {
    let url = match url::Url::parse(text) {
        Ok(url) => url,
        Err(error) => return errors.push(FieldError::invalid(path, &json!(text), error.to_string())),
    };
    let faults = [
        (url.scheme() != "https", "URL scheme must be https"),
        (!url.username().is_empty() || url.password().is_some(), "URL must not contain a username or password"),
        (url.query().is_some_and(|q| !q.is_empty()), "URL must not contain a query"),
        (url.fragment().is_some_and(|f| !f.is_empty()), "URL must not contain a fragment"),
    ];
    errors.extend(faults.iter().filter(|(bad, _)| *bad).map(|(_, why)| FieldError::invalid(path, &json!(text), *why)));
}

fn check_audiences(issuer: &Issuer, path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("audiences");
    if issuer.audiences.is_empty() {
        errors.push(FieldError::required(&at, format!("at least one {at} is required")));
        return;
    }
    for (i, audience) in issuer.audiences.iter().enumerate() {
        if audience.is_empty() {
            errors.push(FieldError::required(&at.index(i), ""));
        }
        if issuer.audiences[..i].contains(audience) {
            errors.push(FieldError::duplicate(&at.index(i), &json!(audience)));
        }
    }
    let policy = &issuer.audience_match_policy;
    let why = match (issuer.audiences.len(), policy.as_str()) {
        (_, "MatchAny") | (1, "") => return,
        (1, _) => "audienceMatchPolicy must be empty or MatchAny for single audience",
        _ => "audienceMatchPolicy must be MatchAny for multiple audiences",
    };
    errors.push(FieldError::invalid(&path.child("audienceMatchPolicy"), &json!(policy), why));
}

fn check_expression(compiled: Result<Expression, String>, text: &str, path: &Path<'_>, errors: &mut Errors) {
    if let Err(why) = compiled {
        errors.push(FieldError::invalid(path, &json!(text), why));
    }
}

/// Whether a rule looks at `email_verified`.
fn check_claim_rules(rules: &[ClaimValidationRule], path: &Path<'_>, errors: &mut Errors) -> bool {
    let mut verified = false;
    for (i, rule) in rules.iter().enumerate() {
        let at = path.index(i);
        let earlier = &rules[..i];
        match (rule.claim.is_empty(), rule.expression.is_empty()) {
            (false, false) => {
                let why = "claim and expression can't both be set";
                errors.push(FieldError::invalid(&at, &json!(rule.claim), why));
            }
            (true, true) => errors.push(FieldError::required(&at, "claim or expression is required")),
            (false, true) => {
                if !rule.message.is_empty() {
                    let why = "may not be specified when claim is set";
                    errors.push(FieldError::invalid(&at.child("message"), &json!(rule.message), why));
                }
                if earlier.iter().any(|e| e.claim == rule.claim) {
                    errors.push(FieldError::duplicate(&at.child("claim"), &json!(rule.claim)));
                }
            }
            (true, false) => {
                if !rule.required_value.is_empty() {
                    let why = "may not be specified when expression is set";
                    errors.push(FieldError::invalid(&at.child("requiredValue"), &json!(rule.required_value), why));
                }
                let expression = at.child("expression");
                if earlier.iter().any(|e| e.expression == rule.expression) {
                    errors.push(FieldError::duplicate(&expression, &json!(rule.expression)));
                    continue;
                }
                check_expression(Expression::of_claims(&rule.expression), &rule.expression, &expression, errors);
                verified |= uses_claim(&rule.expression, "email_verified");
            }
        }
    }
    verified
}

/// Whether a mapping looks at `email_verified`.
fn check_mappings(mappings: &ClaimMappings, path: &Path<'_>, errors: &mut Errors) -> bool {
    check_mapping(&mappings.username, &path.child("username"), true, errors);
    check_mapping(&mappings.groups, &path.child("groups"), false, errors);
    let uid = path.child("uid");
    match (mappings.uid.claim.as_str(), mappings.uid.expression.as_str()) {
        (_, "") => {}
        ("", text) => check_expression(Expression::of_claims(text), text, &uid.child("expression"), errors),
        _ => errors.push(FieldError::invalid(&uid, &json!(""), "claim and expression can't both be set")),
    }
    let extra = path.child("extra");
    for (i, mapping) in mappings.extra.iter().enumerate() {
        check_extra(mapping, &mappings.extra[..i], &extra.index(i), errors);
    }
    let verified = |text: &str| uses_claim(text, "email_verified");
    verified(&mappings.username.expression) || mappings.extra.iter().any(|e| verified(&e.value_expression))
}

fn check_mapping(mapping: &PrefixedClaimOrExpression, path: &Path<'_>, required: bool, errors: &mut Errors) {
    match (mapping.claim.as_str(), mapping.expression.as_str()) {
        ("", "") if required => errors.push(FieldError::required(path, "claim or expression is required")),
        ("", "") => {}
        ("", text) => {
            if let Some(prefix) = &mapping.prefix {
                let why = "may not be specified when expression is set";
                errors.push(FieldError::invalid(&path.child("prefix"), &json!(prefix), why));
            }
            check_expression(Expression::of_claims(text), text, &path.child("expression"), errors);
        }
        (_, "") if mapping.prefix.is_none() => {
            let why = "prefix is required when claim is set. It can be set to an empty string to disable prefixing";
            errors.push(FieldError::required(&path.child("prefix"), why));
        }
        (_, "") => {}
        _ => errors.push(FieldError::invalid(path, &json!(""), "claim and expression can't both be set")),
    }
}

fn check_extra(mapping: &ExtraMapping, earlier: &[ExtraMapping], path: &Path<'_>, errors: &mut Errors) {
    let at = path.child("key");
    let key = &mapping.key;
    let shown = Value::from(key.as_str());
    let domain = key.split_once('/').filter(|(domain, rest)| !domain.is_empty() && !rest.is_empty()).map(|(d, _)| d);
    match domain {
        _ if key.is_empty() => errors.push(FieldError::required(&at, "")),
        None => {
            let why = "must be a domain-prefixed path (such as \"acme.io/foo\")";
            errors.push(FieldError::invalid(&at, &shown, why));
        }
        Some(domain) => {
            let reserved = |of: &str| domain == of || domain.ends_with(&format!(".{of}"));
            if reserved("kubernetes.io") || reserved("k8s.io") {
                let why = "k8s.io, kubernetes.io and their subdomains are reserved for Kubernetes use";
                errors.push(FieldError::invalid(&at, &shown, why));
            }
        }
    }
    if key.to_lowercase() != *key {
        errors.push(FieldError::invalid(&at, &shown, "must be lowercase"));
    }
    if earlier.iter().any(|e| e.key == *key) {
        errors.push(FieldError::duplicate(&at, &shown));
        return;
    }
    let value = path.child("valueExpression");
    match mapping.value_expression.as_str() {
        "" => errors.push(FieldError::required(&value, "")),
        text => check_expression(Expression::of_claims(text), text, &value, errors),
    }
}

fn check_user_rules(rules: &[UserValidationRule], path: &Path<'_>, errors: &mut Errors) {
    for (i, rule) in rules.iter().enumerate() {
        let rule_path = path.index(i);
        let at = rule_path.child("expression");
        if rule.expression.is_empty() {
            errors.push(FieldError::required(&at, ""));
        } else if rules[..i].iter().any(|e| e.expression == rule.expression) {
            errors.push(FieldError::duplicate(&at, &json!(rule.expression)));
        } else {
            check_expression(Expression::of_user(&rule.expression), &rule.expression, &at, errors);
        }
    }
}
