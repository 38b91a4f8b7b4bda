//! `--token-auth-file`: tokens that never change, one a line: `token,user,uid,"group1,group2"`.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use ring::digest::{SHA256, digest};

use super::User;
use super::token::{TokenAuthenticator, TokenIdentity};

/// Authenticates the tokens of a file.
pub struct TokenFile {
    /// By the token's digest, so that looking one up tells nothing of the others.
    users: HashMap<Vec<u8>, Arc<User>>,
}

fn key(token: &str) -> Vec<u8> {
    digest(&SHA256, token.as_bytes()).as_ref().to_vec()
}

impl TokenFile {
    /// Reads the file's text; an error for a line with fewer than three columns.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let columns = columns(line);
            let [token, name, uid, ..] = columns.as_slice() else {
                let found = columns.len();
                return Err(format!(
                    "line {}: at least 3 columns (token, user name, user uid), found {found}",
                    number + 1
                ));
            };
            if token.is_empty() {
                tracing::warn!(line = number + 1, "empty token in the token file");
                continue;
            }
            let groups = columns.get(3).map(String::as_str).unwrap_or_default();
            let groups = groups.split(',').map(str::trim).filter(|g| !g.is_empty()).map(str::to_string).collect();
            let user = User { name: name.clone(), uid: uid.clone(), groups, ..User::default() };
            users.insert(key(token), Arc::new(user));
        }
        Ok(TokenFile { users })
    }
}

/// One line of comma-separated values; a column in quotes may hold commas, and a doubled quote is one.
fn columns(line: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut quoted = false;
    let mut characters = line.chars().peekable();
    while let Some(c) = characters.next() {
        let column = out.last_mut().expect("there is a first column");
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                characters.next();
                column.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => out.push(String::new()),
            ' ' if column.is_empty() && !quoted => {}
            c => column.push(c),
        }
    }
    out
}

#[async_trait]
impl TokenAuthenticator for TokenFile {
    async fn authenticate_token(&self, token: &str, audiences: &[String]) -> Result<Option<TokenIdentity>, String> {
        let user = self.users.get(&key(token)).cloned();
        Ok(user.map(|user| TokenIdentity { user, audiences: audiences.to_vec() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_line_is_a_user() {
        let file = TokenFile::parse("# people\nabc,ann,u1,\"dev,ops\"\n\nxyz,bob,u2\n").unwrap();
        let ann = file.authenticate_token("abc", &["api".into()]).await.unwrap().unwrap();
        assert_eq!(
            (ann.user.name.as_str(), ann.user.groups.as_slice()),
            ("ann", ["dev".to_string(), "ops".into()].as_slice())
        );
        let bob = file.authenticate_token("xyz", &[]).await.unwrap().unwrap();
        assert_eq!((bob.user.uid.as_str(), bob.user.groups.len()), ("u2", 0));
        assert!(file.authenticate_token("ab", &[]).await.unwrap().is_none());
        assert!(TokenFile::parse("abc,ann\n").is_err());
    }
}
