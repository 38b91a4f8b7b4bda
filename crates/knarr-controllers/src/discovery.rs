//! What the API serves, as the loops over every kind need it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;
use kube::Client;
use kube::api::ApiResource;

/// A resource at its group's preferred version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Discovered {
    pub kind: ApiResource,
    pub namespaced: bool,
    pub verbs: Vec<String>,
}

impl Discovered {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

/// Every resource at its group's preferred version, and what could not be discovered.
pub(crate) async fn preferred_resources(client: &Client) -> (Vec<Discovered>, Vec<String>) {
    let (mut found, mut failures) = (Vec::new(), Vec::new());
    match client.list_core_api_resources("v1").await {
        Ok(list) => found.extend(resources_of("", "v1", list)),
        Err(error) => failures.push(error.to_string()),
    }
    let groups = match client.list_api_groups().await {
        Ok(groups) => groups.groups,
        Err(error) => {
            failures.push(error.to_string());
            return (found, failures);
        }
    };
    for group in groups {
        // A resource that only another version serves counts too, at the first version that has it.
        let preferred = group.preferred_version.iter();
        for version in preferred.chain(group.versions.iter()) {
            match client.list_api_group_resources(&version.group_version).await {
                Ok(list) => {
                    for resource in resources_of(&group.name, &version.version, list) {
                        let known = |other: &Discovered| {
                            other.kind.group == resource.kind.group && other.kind.plural == resource.kind.plural
                        };
                        if !found.iter().any(known) {
                            found.push(resource);
                        }
                    }
                }
                Err(error) => failures.push(format!("{}: {error}", version.group_version)),
            }
        }
    }
    (found, failures)
}

fn resources_of(group: &str, version: &str, list: APIResourceList) -> Vec<Discovered> {
    let whole = list.resources.into_iter().filter(|resource| !resource.name.contains('/'));
    whole
        .map(|resource| Discovered {
            kind: ApiResource {
                group: group.into(),
                version: version.into(),
                api_version: if group.is_empty() { version.into() } else { format!("{group}/{version}") },
                kind: resource.kind,
                plural: resource.name,
            },
            namespaced: resource.namespaced,
            verbs: resource.verbs,
        })
        .collect()
}
