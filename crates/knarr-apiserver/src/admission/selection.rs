//! Which plug-ins run.

use super::Plugin;

/// Upstream's names of the plug-ins that there are. All are on by default; what is not here runs always, since it is part of how
/// a resource is written and no plug-in upstream.
const NAMES: [&str; 25] = [
    "NamespaceLifecycle",
    "LimitRanger",
    "ServiceAccount",
    "NodeRestriction",
    "TaintNodesByCondition",
    "PodSecurity",
    "Priority",
    "DefaultTolerationSeconds",
    "DefaultStorageClass",
    "StorageObjectInUseProtection",
    "PersistentVolumeClaimResize",
    "RuntimeClass",
    "CertificateApproval",
    "CertificateSigning",
    "ClusterTrustBundleAttest",
    "CertificateSubjectRestriction",
    "DefaultIngressClass",
    "PodTopologyLabels",
    "NodeDeclaredFeatureValidator",
    "PodResizeValidator",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionWebhook",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionWebhook",
    "ResourceQuota",
];

/// The plug-ins that do not run, as upstream's `--enable-admission-plugins` and `--disable-admission-plugins` say.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    disabled: Vec<String>,
}

impl Selection {
    /// Fails, in upstream's words, for a name that no plug-in has, and for one that is to run and not to run.
    pub fn new(enabled: &[String], disabled: &[String]) -> Result<Self, String> {
        for (flag, names) in [("enable", enabled), ("disable", disabled)] {
            if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
                return Err(format!("{flag}-admission-plugins plugin {unknown:?} is unknown"));
            }
        }
        let mut both: Vec<&str> = enabled.iter().filter(|name| disabled.contains(name)).map(String::as_str).collect();
        both.sort_unstable();
        if !both.is_empty() {
            let both = both.join(" ");
            return Err(format!("[{both}] in enable-admission-plugins and disable-admission-plugins overlapped"));
        }
        Ok(Selection { disabled: disabled.to_vec() })
    }

    pub fn runs(&self, plugin: &dyn Plugin) -> bool {
        !self.disabled.iter().any(|name| name == plugin.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::{DefaultTolerationSeconds, StorageObjectInUseProtection};

    fn selection(enabled: &[&str], disabled: &[&str]) -> Result<Selection, String> {
        let owned = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
        Selection::new(&owned(enabled), &owned(disabled))
    }

    #[test]
    fn what_is_disabled_does_not_run() {
        let some = selection(&["LimitRanger"], &["DefaultTolerationSeconds"]).expect("both are known");
        assert!(!some.runs(&DefaultTolerationSeconds));
        assert!(some.runs(&StorageObjectInUseProtection));
        assert!(Selection::default().runs(&DefaultTolerationSeconds));
    }

    #[test]
    fn mistakes_are_told_in_upstreams_words() {
        for (enabled, disabled, why) in [
            (&["Nonsense"][..], &[][..], "enable-admission-plugins plugin \"Nonsense\" is unknown"),
            (&[], &["RbacEscalation"], "disable-admission-plugins plugin \"RbacEscalation\" is unknown"),
            (
                &["Priority", "LimitRanger"],
                &["LimitRanger", "Priority"],
                "[LimitRanger Priority] in enable-admission-plugins and disable-admission-plugins overlapped",
            ),
        ] {
            assert_eq!(selection(enabled, disabled).expect_err(why), why);
        }
    }
}
