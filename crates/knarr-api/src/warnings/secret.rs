//! A secret of a certificate and its key, which nobody may be able to use.

use base64::Engine;
use serde_json::Value;
use x509_parser::pem::Pem;

use crate::object::Object;
use crate::validation::check::text;

pub fn secret(object: &Object, _old: Option<&Object>) -> Vec<String> {
    if text(object, "type") != "kubernetes.io/tls" {
        return Vec::new();
    }
    let labels = |field: &str| labels_of(&object["data"][field]);
    without_certificate(&labels("tls.crt")).or_else(|| without_key(&labels("tls.key"))).into_iter().collect()
}

/// What the PEM blocks in bytes say they are.
fn labels_of(encoded: &Value) -> Vec<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.as_str().unwrap_or_default());
    let bytes = bytes.unwrap_or_default();
    Pem::iter_from_buffer(&bytes).map_while(Result::ok).map(|block| block.label).collect()
}

/// Go's words for blocks among which there is no certificate.
fn without_certificate(labels: &[String]) -> Option<String> {
    Some(match labels {
        _ if labels.iter().any(|label| label == "CERTIFICATE") => return None,
        [] => "tls: failed to find any PEM data in certificate input".to_string(),
        [one] if one.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".to_string()
        }
        _ => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]",
            labels.join(" ")
        ),
    })
}

fn without_key(labels: &[String]) -> Option<String> {
    Some(match labels {
        _ if labels.iter().any(|label| label == "PRIVATE KEY" || label.ends_with(" PRIVATE KEY")) => return None,
        [] => "tls: failed to find any PEM data in key input".to_string(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".to_string()
        }
        _ => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            labels.join(" ")
        ),
    })
}
