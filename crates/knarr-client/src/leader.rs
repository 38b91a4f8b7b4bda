//! Leader election: whoever holds a `Lease` leads, and renews it; a lease not renewed in time may be taken.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Which lease, who asks, and the times of client-go's defaults.
#[derive(Clone, Debug)]
pub struct Election {
    pub namespace: String,
    pub name: String,
    /// Unique to this process.
    pub identity: String,
    pub lease_duration: Duration,
    pub renew_deadline: Duration,
    pub retry_period: Duration,
}

impl Election {
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Election {
            namespace: namespace.into(),
            name: name.into(),
            identity: identity.into(),
            lease_duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

/// Takes part in an election over `client`.
pub struct LeaderElector {
    leases: Api<Lease>,
    election: Election,
    /// The last lease seen and when by our own clock: other clocks are not trusted.
    observed: Option<(LeaseSpec, Instant)>,
}

impl LeaderElector {
    pub fn new(client: Client, election: Election) -> Self {
        LeaderElector { leases: Api::namespaced(client, &election.namespace), election, observed: None }
    }

    /// Waits to lead, then runs `lead` with a token that is cancelled when leadership is lost or `shutdown` comes; returns after it has.
    pub async fn run<F: Future<Output = ()>>(
        mut self,
        shutdown: CancellationToken,
        lead: impl FnOnce(CancellationToken) -> F,
    ) {
        let acquired = shutdown.run_until_cancelled(self.acquire()).await.is_some();
        if !acquired {
            return;
        }
        let leading = shutdown.child_token();
        let work = lead(leading.clone());
        let renew = async {
            leading.run_until_cancelled(self.renew_until_lost()).await;
            leading.cancel();
        };
        let finish = async {
            work.await;
            leading.cancel();
        };
        tokio::join!(finish, renew);
        self.release().await;
    }

    async fn acquire(&mut self) {
        while !self.try_hold().await {
            tokio::time::sleep(self.election.retry_period).await;
        }
    }

    async fn renew_until_lost(&mut self) {
        let mut renewed = Instant::now();
        while renewed.elapsed() < self.election.renew_deadline {
            tokio::time::sleep(self.election.retry_period).await;
            if self.try_hold().await {
                renewed = Instant::now();
            }
        }
    }

    /// Takes or renews the lease; false if another holds it or the API could not be asked.
    async fn try_hold(&mut self) -> bool {
        match self.hold().await {
            Ok(held) => held,
            Err(error) => {
                tracing::debug!(lease = self.election.name, %error, "leader election");
                false
            }
        }
    }

    async fn hold(&mut self) -> kube::Result<bool> {
        let Some(mut lease) = self.leases.get_opt(&self.election.name).await? else {
            let metadata = ObjectMeta { name: Some(self.election.name.clone()), ..ObjectMeta::default() };
            let lease = Lease { metadata, spec: Some(self.claim(None)) };
            self.leases.create(&PostParams::default(), &lease).await?;
            return Ok(true);
        };
        let held = lease.spec.take().unwrap_or_default();
        if !self.is_free(&held) {
            return Ok(false);
        }
        lease.spec = Some(self.claim(Some(held)));
        self.leases.replace(&self.election.name, &PostParams::default(), &lease).await?;
        Ok(true)
    }

    fn is_free(&mut self, held: &LeaseSpec) -> bool {
        let holder = held.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.election.identity {
            return true;
        }
        let since = match &self.observed {
            Some((seen, since)) if seen == held => *since,
            _ => Instant::now(),
        };
        self.observed = Some((held.clone(), since));
        let seconds = held.lease_duration_seconds.unwrap_or(0).max(0) as u64;
        since.elapsed() >= Duration::from_secs(seconds)
    }

    fn claim(&self, held: Option<LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let held = held.unwrap_or_default();
        let ours = held.holder_identity.as_deref() == Some(&self.election.identity);
        let transitions = held.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.election.identity.clone()),
            lease_duration_seconds: Some(self.election.lease_duration.as_secs() as i32),
            acquire_time: if ours { held.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if ours {
                transitions
            } else {
                transitions + i32::from(held.holder_identity.is_some())
            }),
            ..LeaseSpec::default()
        }
    }

    /// Gives the lease back, so that the next need not wait for it to run out.
    async fn release(&mut self) {
        let Ok(Some(mut lease)) = self.leases.get_opt(&self.election.name).await else { return };
        let Some(spec) = lease.spec.as_mut().filter(|s| s.holder_identity.as_deref() == Some(&self.election.identity))
        else {
            return;
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        if let Err(error) = self.leases.replace(&self.election.name, &PostParams::default(), &lease).await {
            tracing::debug!(lease = self.election.name, %error, "lease not released");
        }
    }
}
