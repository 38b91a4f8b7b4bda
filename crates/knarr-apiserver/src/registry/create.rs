//! POST.

use std::sync::Arc;

use knarr_api::object::ObjectExt;
use knarr_api::{Object, StatusError};
use knarr_store::Expect;

use super::commit::{self, CommitError, Target};
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
        let mut object = Some(object);
        for attempt in 1..=attempts {
            // The last attempt need not keep the original.
            let mut candidate = if attempt == attempts { object.take() } else { object.clone() }.unwrap_or_default();
            if generate {
                let name = generated_name(candidate.meta_str("generateName"));
                candidate.set_meta_str("name", &name);
            }
            let target = Target::new(served, namespace, candidate.name());
            match self.create_named(&target, candidate, writer).await {
                Err(CommitError::Raced(_)) if attempt < attempts => {}
                Err(CommitError::Raced(_)) => {
                    return Err(StatusError::already_exists(&served.group_resource, &target.name));
                }
                Err(CommitError::Status(error)) => return Err(error),
                Ok(written) => return Ok(written),
            }
        }
        Err(commit::unexpected("no name could be generated"))
    }

    async fn create_named(
        &self,
        target: &Target,
        mut object: Object,
        writer: &mut Writer,
    ) -> Result<Written, CommitError> {
        let served = &target.served;
        commit::ensure_namespace(target, &mut object)?;
        served.apply_defaults(&mut object);
        commit::fill_system_fields(&mut object);
        self.admit_mutating(Operation::Create, target, writer, &mut object, None).await?;
        let context = writer.strategy_context();
        served.reset_for_create(&mut object);
        served.strategy.prepare_create(&context, &mut object);
        if !served.strategy.generation_fields().is_empty() {
            object.metadata_mut().insert("generation".into(), 1.into());
        }
        let reservations = self.allocate(target, writer, &mut object, None).await?;
        if !writer.fields_managed {
            managed::record(served, None, &mut object, "", writer);
        }
        self.validate_new(target, &object, writer)?;
        served.strategy.canonicalize(&mut object);
        self.admit_validating(Operation::Create, target, writer, &mut object, None).await?;
        if writer.options.dry_run {
            return self.dry_create(target, object);
        }
        let entry = self.put(target, object, Expect::Absent).await?;
        reservations.into_iter().for_each(|r| r.commit());
        Ok(Written::Stored(entry))
    }

    fn dry_create(&self, target: &Target, object: Object) -> Result<Written, CommitError> {
        if let Some(entry) = target.served.cache.snapshot().get(&target.key()) {
            return Err(CommitError::Raced(Some(knarr_store::Revision(entry.revision))));
        }
        Ok(commit::dry(commit::to_stored(&target.served, object)?))
    }

    fn validate_new(&self, target: &Target, object: &Object, writer: &mut Writer) -> Result<(), StatusError> {
        let served = &target.served;
        let context = writer.strategy_context();
        let mut errors = served.validate_metadata(object, None);
        errors.extend(served.strategy.validate_create(&context, object));
        if !errors.is_empty() {
            return Err(StatusError::invalid(&served.kind, object.name(), errors));
        }
        writer.warnings.extend(served.strategy.warnings(object, None));
        Ok(())
    }
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
