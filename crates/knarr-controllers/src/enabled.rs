//! Which controllers run: upstream's `--controllers`.

use std::str::FromStr;

use crate::CONTROLLERS;

/// The scheduler is started and stopped by the same list, though it is no controller.
const SCHEDULER: &str = "kube-scheduler";

/// A list such as `*,-job-controller`: `*` is all that are on by default (here: all), a name is that one, `-name` is not that one. What
/// names a controller goes before `*`, and of several items the first that speaks of it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enabled(Vec<String>);

/// A name that no controller has.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not in the list of known controllers")]
pub struct UnknownController(String);

impl Default for Enabled {
    fn default() -> Self {
        Enabled(vec!["*".into()])
    }
}

impl FromStr for Enabled {
    type Err = UnknownController;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let items: Vec<String> = text.split(',').map(|item| item.trim().to_string()).collect();
        let known =
            |name: &str| name == "*" || name == SCHEDULER || CONTROLLERS.iter().any(|(known, _)| *known == name);
        match items.iter().find(|item| !known(item.strip_prefix('-').unwrap_or(item))) {
            Some(unknown) => Err(UnknownController(unknown.strip_prefix('-').unwrap_or(unknown).into())),
            None => Ok(Enabled(items)),
        }
    }
}

impl Enabled {
    pub fn has(&self, name: &str) -> bool {
        let said = self.0.iter().find_map(|item| match item.strip_prefix('-') {
            Some(without) => (without == name).then_some(false),
            None => (item == name).then_some(true),
        });
        said.unwrap_or_else(|| self.0.iter().any(|item| item == "*"))
    }

    pub fn has_scheduler(&self) -> bool {
        self.has(SCHEDULER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_before_the_star() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("*", &["job-controller", "kube-scheduler"], &[]),
            ("*,-job-controller", &["deployment-controller"], &["job-controller"]),
            ("job-controller", &["job-controller"], &["deployment-controller", "kube-scheduler"]),
            ("-*", &[], &["job-controller", "kube-scheduler"]),
            ("-kube-scheduler,*", &["job-controller"], &["kube-scheduler"]),
        ];
        for (text, on, off) in cases {
            let enabled: Enabled = text.parse().expect("known names");
            assert!(on.iter().all(|name| enabled.has(name)), "{text}");
            assert!(!off.iter().any(|name| enabled.has(name)), "{text}");
        }
        assert_eq!("*,-jobs".parse::<Enabled>(), Err(UnknownController("jobs".into())));
    }
}
