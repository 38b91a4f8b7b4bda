use std::sync::Arc;

use async_trait::async_trait;

use super::User;

/// Whom a token speaks for, and which of the audiences asked about it is meant for.
#[derive(Clone, Debug)]
pub struct TokenIdentity {
    pub user: Arc<User>,
    pub audiences: Vec<String>,
}

/// One kind of bearer token, asked by requests and by TokenReview alike.
#[async_trait]
pub trait TokenAuthenticator: Send + Sync {
    /// `Ok(None)`: not a token of this kind. `Err`: it is, and it is no good; the text says why.
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String>;
}
