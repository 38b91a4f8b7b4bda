//! `PodLogOptions` in a query: validated, and as the kubelet wants them.

use knarr_api::field::{FieldError, Path};
use knarr_api::{GroupVersionKind, StatusError};
use serde_json::Value;

use super::{is_true, parameters};

pub(super) struct LogOptions {
    pub container: String,
    pub kubelet_query: String,
}

const FLAGS: [&str; 3] = ["follow", "previous", "timestamps"];
/// Name and smallest value.
const NUMBERS: [(&str, i64); 3] = [("sinceSeconds", 1), ("tailLines", 0), ("limitBytes", 1)];

pub(super) fn read(query: &str) -> Result<LogOptions, StatusError> {
    let parameters = parameters(query);
    let value = |name: &str| {
        parameters.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_str())
    };
    let mut kubelet_query = url::form_urlencoded::Serializer::new(String::new());
    let mut errors = Vec::new();
    for name in FLAGS {
        if parameters.iter().any(|(key, value)| key == name && is_true(value)) {
            kubelet_query.append_pair(name, "true");
        }
    }
    for (name, least) in NUMBERS {
        let Some(text) = value(name) else { continue };
        let number: i64 = text
            .parse()
            .map_err(|_| StatusError::bad_request(format!("strconv.ParseInt: parsing \"{text}\": invalid syntax")))?;
        if number < least {
            let bound = if least == 0 { "greater than or equal to 0" } else { "greater than 0" };
            errors.push(FieldError::invalid(&Path::ROOT.child(name), &Value::from(number), format!("must be {bound}")));
        }
        kubelet_query.append_pair(name, text);
    }
    if let Some(time) = value("sinceTime") {
        if value("sinceSeconds").is_some() {
            let both = "at most one of `sinceTime` or `sinceSeconds` may be specified";
            errors.push(FieldError::forbidden(&Path::ROOT, both));
        }
        let parsed: Result<jiff::Timestamp, _> = time.parse();
        parsed.map_err(|_| StatusError::bad_request(format!("parsing time \"{time}\" as RFC 3339 failed")))?;
        kubelet_query.append_pair("sinceTime", time);
    }
    match value("stream") {
        None | Some("All") => {}
        Some(stream @ ("Stdout" | "Stderr")) => {
            if value("tailLines").is_some() {
                let why = "`tailLines` and specific `stream` are mutually exclusive for now";
                errors.push(FieldError::forbidden(&Path::ROOT, why));
            }
            kubelet_query.append_pair("stream", stream);
        }
        Some(other) => errors.push(FieldError::not_supported(
            &Path::ROOT.child("stream"),
            &Value::from(other),
            &["All", "Stderr", "Stdout"],
        )),
    }
    if !errors.is_empty() {
        return Err(StatusError::invalid(&GroupVersionKind::new("", "v1", "PodLogOptions"), "", errors));
    }
    Ok(LogOptions {
        container: value("container").unwrap_or_default().to_owned(),
        kubelet_query: kubelet_query.finish(),
    })
}
