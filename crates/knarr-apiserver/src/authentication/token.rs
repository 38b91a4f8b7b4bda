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

    /// The same of a token that came with a request and must be meant for the server itself. It may be believed for what it was a
    /// moment ago: a client's requests come by the hundred.
    async fn authenticate_request(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        self.authenticate_token(token, audiences).await
    }
}
