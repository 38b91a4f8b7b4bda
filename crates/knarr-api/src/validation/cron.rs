//! Whether a text is a cron schedule: five fields, or a word such as `@daily`.

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// The bounds of a field and the names of its values, counted from the lower bound.
struct Bounds(u32, u32, &'static [&'static str]);

const FIELDS: [Bounds; 5] =
    [Bounds(0, 59, &[]), Bounds(0, 23, &[]), Bounds(1, 31, &[]), Bounds(1, 12, MONTHS), Bounds(0, 6, DAYS)];

/// Checks a schedule.
pub fn check(schedule: &str) -> Result<(), String> {
    if let Some(word) = schedule.strip_prefix('@') {
        let every = word.strip_prefix("every ").is_some_and(|d| !d.is_empty());
        let known = ["yearly", "annually", "monthly", "weekly", "daily", "midnight", "hourly"].contains(&word);
        return if every || known { Ok(()) } else { Err(format!("unrecognized descriptor: {schedule}")) };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        let shown: Vec<String> = fields.iter().map(ToString::to_string).collect();
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), shown.join(" ")));
    }
    fields.iter().zip(&FIELDS).try_for_each(|(field, bounds)| field.split(',').try_for_each(|part| range(part, bounds)))
}

fn range(text: &str, bounds: &Bounds) -> Result<(), String> {
    let (span, step) = match text.split_once('/') {
        Some((_, step)) if step.contains('/') => return Err(format!("too many slashes: {text}")),
        Some((span, step)) => (span, Some(step)),
        None => (text, None),
    };
    let (low, high) = match span.split_once('-') {
        _ if matches!(span, "*" | "?") => (bounds.0, bounds.1),
        Some((_, high)) if high.contains('-') => return Err(format!("too many hyphens: {text}")),
        Some((low, high)) => (number(low, bounds)?, number(high, bounds)?),
        None => {
            let low = number(span, bounds)?;
            (low, if step.is_some() { bounds.1 } else { low })
        }
    };
    if let Some(step) = step
        && step
            .parse::<u32>()
            .map_err(|_| format!("failed to parse int from {step}: strconv.Atoi: parsing \"{step}\": invalid syntax"))?
            == 0
    {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    if low < bounds.0 {
        return Err(format!("beginning of range ({low}) below minimum ({}): {text}", bounds.0));
    }
    if high > bounds.1 {
        return Err(format!("end of range ({high}) above maximum ({}): {text}", bounds.1));
    }
    if low > high {
        return Err(format!("beginning of range ({low}) beyond end of range ({high}): {text}"));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, String> {
    if let Some(at) = bounds.2.iter().position(|name| name.eq_ignore_ascii_case(text)) {
        return Ok(bounds.0 + at as u32);
    }
    text.parse()
        .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_are_told_from_other_texts() {
        for good in ["* * * * *", "*/5 0-23/2 1,15 jan-dec mon", "@daily", "@every 1h", "0 0 ? * 0"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in ["", "* * * *", "60 * * * *", "* * 0 * *", "5-1 * * * *", "*/0 * * * *", "@often", "a b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
