//! POST.

use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::status::Reason;
use knarr_api::{Object, StatusError};
use knarr_store::Expect;

use super::commit::{self, AFTER_ADMISSION, Admission, CommitError, Target};
use super::render::Written;
use super::{Registry, Served, Writer, managed};
use crate::admission::Operation;

/// Generated names tried before giving up, as upstream.
const NAME_ATTEMPTS: usize = 8;

impl Registry {
    /// Creates an object (decoded, in the served version).
    pub async fn create(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        object: Object,
        writer: &mut Writer,
    ) -> Result<Written, StatusError> {
        let generate = object.name().is_empty() && !object.meta_str("generateName").is_empty();
        let attempts = if generate { NAME_ATTEMPTS } else { 1 };
        let warnings = writer.warnings.len();
        let mut object = Some(object);
        for attempt in 1..=attempts {
            // The last attempt need not keep the original.
            let candidate = if attempt == attempts { object.take() } else { object.clone() }.unwrap_or_default();
            match self.create_once(served, namespace, candidate, writer).await {
                (_, Err(CommitError::Raced(_))) if attempt < attempts => writer.warnings.truncate(warnings),
                (name, Err(CommitError::Raced(_))) => {
                    return Err(StatusError::already_exists(&served.group_resource, &name));
                }
                (_, Err(CommitError::Status(error))) => return Err(error),
                (_, Ok(written)) => return Ok(written),
            }
        }
        Err(commit::unexpected("no name could be generated"))
    }

    /// One attempt, under the name that it answers with: one that is generated is made once the object has been mutated.
    async fn create_once(
        &self,
        served: &Arc<Served>,
        namespace: &str,
        mut object: Object,
        writer: &mut Writer,
    ) -> (String, Result<Written, CommitError>) {
        let mut target = Target::new(served, namespace, object.name());
        let mut admission = self.admission(Operation::Create, &target, writer, None);
        let mutated = Self::mutate_new(&target, &mut object, &mut admission, writer).await;
        if object.name().is_empty() && !object.meta_str("generateName").is_empty() {
            let name = generated_name(object.meta_str("generateName"));
            object.set_meta_str("name", &name);
        }
        target.name = object.name().to_string();
        let written = match mutated {
            Ok(()) => self.create_named(&target, object, admission, writer).await,
            Err(error) => Err(error.into()),
        };
        (target.name, written)
    }

    async fn mutate_new(
        target: &Target,
        object: &mut Object,
        admission: &mut Admission<'_>,
        writer: &mut Writer,
    ) -> Result<(), StatusError> {
        target.served.refuse_creation(&target.name)?;
        commit::ensure_namespace(target, object)?;
        if !writer.fields_managed {
            commit::unique_owners(object, "", &mut writer.warnings);
        }
        target.served.apply_defaults(object);
        commit::fill_system_fields(object);
        // A writer owns what it wrote and its defaults; what admission or the strategy adds is nobody's.
        if !writer.fields_managed {
            managed::record(&target.served, None, object, "", writer);
        }
        admission.mutate(object, writer).await?;
        target.served.shape_admitted(object)?;
        commit::unique_owners(object, AFTER_ADMISSION, &mut writer.warnings);
        commit::ensure_namespace(target, object)
    }

    async fn create_named(
        &self,
        target: &Target,
        mut object: Object,
        mut admission: Admission<'_>,
        writer: &mut Writer,
    ) -> Result<Written, CommitError> {
        let served = &target.served;
        let context = writer.strategy_context();
        served.reset_for_create(&mut object);
        writer.warnings.append(&mut served.strategy.early_warnings(&object));
        served.strategy.prepare_create(&context, &mut object);
        if served.strategy.has_generation() {
            object.metadata_mut().insert("generation".into(), 1.into());
        }
        let reservations = self.allocate(target, writer, &mut object, None).await?;
        self.validate_new(target, &object, writer)?;
        served.strategy.canonicalize(&mut object);
        admission.validate(target, &mut object, writer).await?;
        if writer.says_empty {
            served.settle(&mut object);
        }
        if writer.options.dry_run {
            return self.dry_create(target, object).await;
        }
        refuse_version(&object)?;
        let entry = self.put(target, object, Expect::Absent, writer.fields_managed).await?;
        commit::commit_all(reservations).await;
        Ok(Written::Stored(entry))
    }

    async fn dry_create(&self, target: &Target, object: Object) -> Result<Written, CommitError> {
        if let Some(entry) = target.served.cache.snapshot().get(&target.key()) {
            return Err(CommitError::Raced(Some(knarr_store::Revision(entry.revision))));
        }
        Ok(commit::unstored(commit::to_stored(&target.served, object).await?))
    }

    fn validate_new(&self, target: &Target, object: &Object, writer: &mut Writer) -> Result<(), StatusError> {
        let served = &target.served;
        let context = writer.strategy_context();
        let mut errors = served.validate_metadata(object);
        errors.extend(served.strategy.validate_create(&context, object));
        if let Some(check) = served.check {
            check(object, None, &mut errors);
        }
        if !errors.is_empty() {
            return Err(StatusError::invalid(&served.kind, object.name(), errors));
        }
        writer.warnings.extend(served.strategy.warnings(object, None));
        Ok(())
    }
}

/// A new object has no version yet. Upstream's store says so, which makes it the server's failure, after all other refusals.
fn refuse_version(object: &Object) -> Result<(), StatusError> {
    // What is no version at all says nothing.
    let version: u64 = object.resource_version().parse().unwrap_or_default();
    if version == 0 {
        return Ok(());
    }
    Err(StatusError::new(Reason::Unknown, "resourceVersion should not be set on objects to be created"))
}

/// The base, cut so that the whole fits a label, and five random characters.
fn generated_name(base: &str) -> String {
    const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";
    const MAX_BASE: usize = 63 - 5;
    let mut end = base.len().min(MAX_BASE);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut random = uuid::Uuid::new_v4().as_u128();
    let mut name = base[..end].to_string();
    for _ in 0..5 {
        name.push(char::from(ALPHABET[(random % ALPHABET.len() as u128) as usize]));
        random /= ALPHABET.len() as u128;
    }
    name
}
