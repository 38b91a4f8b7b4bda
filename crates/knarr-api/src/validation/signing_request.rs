//! Certificate signing requests: what they ask for, who approves them, who signs them.

use serde_json::Value;

use super::check::{Checker, int, is_empty, list, repeated_items, repeated_text, same, text};
use crate::names;

const USAGES: &[&str] = &[
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// A new request.
pub fn validate(c: &mut Checker, object: &Value) {
    validate_all(c, object, &Value::Null);
}

fn validate_all(c: &mut Checker, object: &Value, old: &Value) {
    c.at(object, "spec", |c, spec| {
        if !is_certificate_request(text(spec, "request")) {
            c.invalid("request", &spec["request"], "PEM block type must be CERTIFICATE REQUEST");
        }
        let usages = list(spec, "usages");
        if usages.is_empty() {
            c.required("usages", "");
        }
        let repeated = repeated_items(usages);
        for (i, usage) in usages.iter().enumerate() {
            let field = format!("usages[{i}]");
            if !usage.as_str().is_some_and(|u| USAGES.contains(&u)) {
                c.not_supported(&field, usage, USAGES);
            }
            if repeated[i] {
                c.duplicate(&field, usage);
            }
        }
        signer_name(c, text(spec, "signerName"));
        if int(spec, "expirationSeconds").is_some_and(|n| n < 600) {
            let why = "may not specify a duration less than 600 seconds (10 minutes)";
            c.invalid("expirationSeconds", &spec["expirationSeconds"], why);
        }
    });
    validate_conditions(c, object, old);
    let certificate = text(&object["status"], "certificate");
    if !is_certificates(certificate) && is_certificates(text(&old["status"], "certificate")) {
        c.invalid_text("status.certificate", "<certificate data>", "must contain at least one CERTIFICATE PEM block");
    }
}

fn conditions(object: &Value) -> &[Value] {
    list(&object["status"], "conditions")
}

fn is_of(condition: &Value, kind: &str) -> bool {
    text(condition, "type") == kind
}

/// What was wrong already may stay so.
fn validate_conditions(c: &mut Checker, object: &Value, old: &Value) {
    let both =
        |object: &Value| ["Approved", "Denied"].iter().all(|kind| conditions(object).iter().any(|c| is_of(c, kind)));
    let kinds = |object: &Value| repeated_text(conditions(object), "type");
    let (empty_before, repeated_before) = (conditions(old).iter().any(|c| is_of(c, "")), kinds(old).contains(&true));
    let repeated = kinds(object);
    let mut decided: Option<&str> = None;
    for (i, condition) in conditions(object).iter().enumerate() {
        c.within(&format!("status.conditions[{i}]"), |c| {
            let kind = text(condition, "type");
            if kind.is_empty() && !empty_before {
                c.required("type", "");
            }
            let only_true = matches!(kind, "Approved" | "Denied" | "Failed");
            c.choice(condition, "status", if only_true { &["True"] } else { &["False", "True", "Unknown"] });
        });
        let kind = text(condition, "type");
        if matches!(kind, "Approved" | "Denied") {
            if decided.is_some_and(|decided| decided != kind) && !both(old) {
                let why = "Approved and Denied conditions are mutually exclusive";
                c.invalid_text("status.conditions", kind, why);
            }
            decided = decided.or(Some(kind));
        }
        if repeated[i] && !repeated_before {
            c.duplicate(&format!("status.conditions[{i}].type"), &kind.into());
        }
    }
}

/// Whether base64 text is of PEM blocks that are certificates; nothing is, too.
fn is_certificates(encoded: &str) -> bool {
    use base64::Engine;
    use x509_parser::pem::Pem;
    if encoded.is_empty() {
        return true;
    }
    let Ok(text) = base64::engine::general_purpose::STANDARD.decode(encoded) else { return false };
    let mut blocks = Pem::iter_from_buffer(&text).peekable();
    blocks.peek().is_some()
        && blocks.all(|block| block.is_ok_and(|block| block.label == "CERTIFICATE" && block.parse_x509().is_ok()))
}

/// What an update may do to a request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum May {
    Neither,
    Approve,
    Sign,
}

/// An update: neither approves nor signs.
pub fn validate_update(c: &mut Checker, object: &Value, old: &Value) {
    change(c, object, old, May::Neither);
}

/// An update of the status: signs.
pub fn validate_status(c: &mut Checker, object: &Value, old: &Value) {
    change(c, object, old, May::Sign);
}

/// An update of the approval: approves or denies.
pub fn validate_approval(c: &mut Checker, object: &Value, old: &Value) {
    change(c, object, old, May::Approve);
}

fn change(c: &mut Checker, object: &Value, old: &Value, may: May) {
    validate_all(c, object, old);
    let of = |object: &Value, kind: &str| -> Vec<Value> {
        conditions(object).iter().filter(|condition| is_of(condition, kind)).cloned().collect()
    };
    for kind in ["Approved", "Denied", "Failed"] {
        if of(object, kind).len() < of(old, kind).len() {
            c.forbidden("status.conditions", &format!("updates may not remove a condition of type {kind:?}"));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| may != May::Approve) {
        let (is, was) = (of(object, kind), of(old, kind));
        if is.len() > was.len() {
            c.forbidden("status.conditions", &format!("updates may not add a condition of type {kind:?}"));
        } else if is.len() == was.len() && is != was {
            c.forbidden("status.conditions", &format!("updates may not modify a condition of type {kind:?}\n"));
        }
    }
    if !same(&object["status"], &old["status"], "certificate") {
        if may != May::Sign {
            c.forbidden("status.certificate", "updates may not set certificate content");
        } else if !is_empty(&old["status"], "certificate") {
            c.forbidden("status.certificate", "updates may not modify existing certificate content");
        }
    }
}

fn is_certificate_request(encoded: &str) -> bool {
    use base64::Engine;
    let Ok(pem) = base64::engine::general_purpose::STANDARD.decode(encoded) else { return false };
    let Ok((_, block)) = x509_parser::pem::parse_x509_pem(&pem) else { return false };
    use x509_parser::prelude::FromDer;
    block.label == "CERTIFICATE REQUEST"
        && x509_parser::certification_request::X509CertificationRequest::from_der(&block.contents).is_ok()
}

fn signer_name(c: &mut Checker, name: &str) {
    if name.is_empty() {
        c.required("signerName", "");
        return;
    }
    let segments: Vec<&str> = name.split('/').collect();
    let [domain, path] = segments.as_slice() else {
        c.invalid_text(
            "signerName",
            name,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    if domain.len() > 253 || path.len() > 253 * 2 + 1 {
        c.too_long("signerName", 571);
    }
    if names::dns_subdomain(domain).is_empty() && domain.split('.').count() < 2 {
        c.invalid_text("signerName", domain, "should be a domain with at least two segments separated by dots");
    }
    for message in names::dns_subdomain(domain) {
        c.invalid_text("signerName", domain, format!("validating label {domain:?}: {message}"));
    }
    for label in path.split('.') {
        for message in names::dns_label(&label.to_lowercase()) {
            c.invalid_text("signerName", path, format!("validating label {label:?}: {message}"));
        }
    }
}
