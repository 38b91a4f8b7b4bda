//! How the API server serves, records and ends, as upstream's flags of the same names say.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use knarr_apiserver::Limits;
use knarr_apiserver::audit::batch::Batching;
use knarr_apiserver::audit::log::{Log, Rotation};
use knarr_apiserver::audit::policy::Policy;
use knarr_apiserver::audit::webhook::Webhook;
use knarr_apiserver::audit::{AuditConfig, BackendConfig, Mode};
use regex::Regex;

use super::{LoggingFormat, Said, duration};

/// How the API server serves.
#[derive(Clone, Debug)]
pub struct Serving {
    pub limits: Limits,
    pub shutdown_delay: Duration,
    pub shutdown_send_retry_after: bool,
    pub cors_origins: Vec<Regex>,
    pub logging_format: LoggingFormat,
    audit: Audit,
}

#[derive(Clone, Debug)]
struct Audit {
    policy_file: Option<PathBuf>,
    log_path: Option<PathBuf>,
    log_rotation: Rotation,
    log_mode: Mode,
    webhook_config_file: Option<PathBuf>,
    webhook_mode: Mode,
    webhook_initial_backoff: Duration,
    webhook_batching: Batching,
}

impl Serving {
    pub(super) fn resolve(said: &Said) -> Result<Self> {
        let defaults = Limits::default();
        let limits = Limits {
            priority_and_fairness: said.enable_priority_and_fairness.unwrap_or(defaults.priority_and_fairness),
            max_requests: said.max_requests_inflight.map_or(defaults.max_requests, |n| n as usize),
            max_mutating_requests: said
                .max_mutating_requests_inflight
                .map_or(defaults.max_mutating_requests, |n| n as usize),
            request_timeout: duration("request-timeout", said.request_timeout.as_deref(), defaults.request_timeout)?,
        };
        if limits.priority_and_fairness && limits.max_requests + limits.max_mutating_requests == 0 {
            bail!(
                "--max-requests-inflight and --max-mutating-requests-inflight must not both be 0 with priority and fairness"
            );
        }
        let delay = duration("shutdown-delay-duration", said.shutdown_delay_duration.as_deref(), Duration::ZERO)?;
        Ok(Serving {
            limits,
            shutdown_delay: delay,
            shutdown_send_retry_after: said.shutdown_send_retry_after.unwrap_or_default(),
            cors_origins: origins(said.cors_allowed_origins.as_deref().unwrap_or_default())?,
            logging_format: said.logging_format.unwrap_or_default(),
            audit: Audit::resolve(said)?,
        })
    }

    /// What is recorded, and where; opens the log. `None` without a policy.
    pub fn audit(&self) -> Result<Option<AuditConfig>> {
        self.audit.open()
    }
}

impl Audit {
    fn resolve(said: &Said) -> Result<Self> {
        let rotation = Rotation::default();
        let batching = Batching::WEBHOOK;
        let (qps, burst) = batching.throttle.unwrap_or((0.0, 0));
        let qps = said.audit_webhook_batch_throttle_qps.unwrap_or(qps);
        let burst = said.audit_webhook_batch_throttle_burst.unwrap_or(burst);
        let wait = said.audit_webhook_batch_max_wait.as_deref();
        let number = |said: Option<u32>, default: usize| said.map_or(default, |n| n as usize);
        Ok(Audit {
            policy_file: said.audit_policy_file.clone(),
            log_path: said.audit_log_path.clone(),
            log_rotation: Rotation {
                megabytes: said.audit_log_maxsize.map_or(rotation.megabytes, u64::from),
                backups: number(said.audit_log_maxbackup, rotation.backups),
                days: said.audit_log_maxage.map_or(rotation.days, u64::from),
            },
            log_mode: mode("--audit-log-mode", &said.audit_log_mode, Mode::Blocking)?,
            webhook_config_file: said.audit_webhook_config_file.clone(),
            webhook_mode: mode("--audit-webhook-mode", &said.audit_webhook_mode, Mode::Batch)?,
            webhook_initial_backoff: duration(
                "audit-webhook-initial-backoff",
                said.audit_webhook_initial_backoff.as_deref(),
                Duration::from_secs(10),
            )?,
            webhook_batching: Batching {
                buffer: number(said.audit_webhook_batch_buffer_size, batching.buffer),
                most: number(said.audit_webhook_batch_max_size, batching.most),
                longest_wait: duration("audit-webhook-batch-max-wait", wait, batching.longest_wait)?,
                throttle: (qps > 0.0).then_some((qps, burst)),
            },
        })
    }

    fn open(&self) -> Result<Option<AuditConfig>> {
        let Some(policy) = &self.policy_file else {
            if self.log_path.is_some() || self.webhook_config_file.is_some() {
                tracing::warn!("no audit policy file is given: nothing is recorded");
            }
            return Ok(None);
        };
        let policy = Policy::load(policy).with_context(|| format!("loading audit policy file {}", policy.display()))?;
        let mut backends = Vec::new();
        if let Some(path) = &self.log_path {
            let log = Log::open(path, self.log_rotation).with_context(|| path.display().to_string())?;
            backends.push(BackendConfig::Log { log, mode: self.log_mode, batching: Batching::LOG });
        }
        if let Some(file) = &self.webhook_config_file {
            let webhook = Webhook::open(file, self.webhook_initial_backoff)
                .with_context(|| format!("--audit-webhook-config-file {}", file.display()))?;
            let (mode, batching) = (self.webhook_mode, self.webhook_batching);
            backends.push(BackendConfig::Sink { sink: Box::new(webhook), mode, batching });
        }
        Ok(Some(AuditConfig { policy, backends }))
    }
}

fn mode(flag: &str, said: &Option<String>, default: Mode) -> Result<Mode> {
    let Some(text) = said else { return Ok(default) };
    Mode::parse(text).with_context(|| format!("{flag} {text:?} is none of batch, blocking, blocking-strict"))
}

fn origins(patterns: &str) -> Result<Vec<Regex>> {
    let patterns = patterns.split(',').map(str::trim).filter(|p| !p.is_empty());
    patterns.map(|p| Regex::new(p).with_context(|| format!("--cors-allowed-origins {p:?}"))).collect()
}
