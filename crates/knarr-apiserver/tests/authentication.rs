//! Who is asking: issuers, webhooks and files that know tokens, over HTTPS of their own.

#[path = "support/access.rs"]
mod access;
#[path = "support/https_service.rs"]
mod https_service;

use std::sync::Arc;
use std::time::Duration;

use access::{Guarded, admin, default_modes};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use https_service::HttpsService;
use knarr_apiserver::access::{TokenSources, WebhookSource};
use knarr_apiserver::authentication::configuration::OidcFlags;
use knarr_apiserver::authentication::token_file::TokenFile;
use knarr_apiserver::jose::Algorithm;
use knarr_apiserver::outbound;
use knarr_pki::TokenKey;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// An OpenID provider whose keys may change.
struct Provider {
    service: HttpsService,
    keys: Arc<Mutex<Vec<TokenKey>>>,
}

fn key() -> TokenKey {
    let directory = tempfile::tempdir().expect("a directory");
    TokenKey::load_or_create(&directory.path().join("key")).expect("a key")
}

fn jwk(key: &TokenKey) -> Value {
    let point = key.public_point();
    json!({"kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.id(),
        "x": URL_SAFE_NO_PAD.encode(&point[1..33]), "y": URL_SAFE_NO_PAD.encode(&point[33..])})
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn compact(header: &Value, claims: &Value, key: &TokenKey) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = key.sign(signed.as_bytes()).expect("a signature");
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

impl Provider {
    async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let keys: Arc<Mutex<Vec<TokenKey>>> = Arc::new(Mutex::new(vec![key()]));
        let published = keys.clone();
        let service = HttpsService::serve(listener, move |path, _| match path {
            "/.well-known/openid-configuration" => (200, json!({"issuer": url, "jwks_uri": format!("{url}/keys")})),
            "/keys" => (200, json!({"keys": published.lock().iter().map(jwk).collect::<Vec<_>>()})),
            _ => (404, json!({})),
        });
        Provider { service, keys }
    }

    /// Claims that are good now, with these changes; `null` takes one away.
    fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({"iss": self.service.url, "aud": "kubernetes", "sub": "jane", "exp": now() + 600, "jti": "1",
            "groups": ["dev", "ops"], "roles": "admin", "tenant": "acme"});
        for (name, value) in changes.as_object().into_iter().flatten() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, changes: &Value) -> String {
        let keys = self.keys.lock();
        compact(&json!({"alg": "ES256", "kid": keys[0].id()}), &self.claims(changes), &keys[0])
    }

    /// An authenticator as YAML, with `more` at its level.
    fn authenticator(&self, more: &str) -> String {
        let authority = self.service.authority_pem.replace('\n', "\n        ");
        format!(
            "- issuer:\n    url: {}\n    audiences: [kubernetes, other]\n    audienceMatchPolicy: MatchAny\n    certificateAuthority: |\n        {authority}\n{more}",
            self.service.url
        )
    }
}

fn configuration(authenticators: &str, more: &str) -> String {
    format!("apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\njwt:\n{authenticators}\n{more}")
}

const MAPPINGS: &str = "  claimMappings:\n    username: {claim: sub, prefix: 'oidc:'}\n    groups: {claim: groups, prefix: 'oidc:'}\n    uid: {claim: tenant}\n  claimValidationRules:\n  - {claim: tenant, requiredValue: acme}\n";

async fn guarded(configuration: String) -> Guarded {
    Guarded::start(TokenSources { configuration: Some(configuration), ..TokenSources::default() }, default_modes())
        .await
}

#[tokio::test]
async fn an_issuers_token_is_the_user_of_its_claims() {
    let provider = Provider::start().await;
    let server = guarded(configuration(&provider.authenticator(MAPPINGS), "")).await;
    let user = server.whoami(&provider.token(&json!({}))).await.expect("a user");
    assert_eq!(user["username"], "oidc:jane");
    assert_eq!(user["groups"], json!(["oidc:dev", "oidc:ops", "system:authenticated"]));
    assert_eq!(user["uid"], "acme");
    assert_eq!(user["extra"], json!({"authentication.kubernetes.io/credential-id": ["JTI=1"]}));
    let one = server.whoami(&provider.token(&json!({"aud": ["other", "x"], "groups": "solo"}))).await.expect("a user");
    assert_eq!(one["groups"], json!(["oidc:solo", "system:authenticated"]));
}

const EXPRESSIONS: &str = "  claimMappings:
    username: {expression: \"'user:' + claims.sub\"}
    groups: {expression: \"claims.roles.split(',')\"}
    uid: {expression: claims.tenant}
    extra:
    - {key: acme.test/tenant, valueExpression: claims.tenant}
  claimValidationRules:
  - {expression: \"claims.tenant == 'acme'\", message: only acme}
  userValidationRules:
  - {expression: \"!user.username.startsWith('user:system:')\", message: no system users}
";

#[tokio::test]
async fn expressions_make_users_and_refuse_them() {
    let provider = Provider::start().await;
    let server = guarded(configuration(&provider.authenticator(EXPRESSIONS), "")).await;
    let user = server.whoami(&provider.token(&json!({"roles": "a,b", "jti": null}))).await.expect("a user");
    assert_eq!(
        user,
        json!({"username": "user:jane", "uid": "acme", "groups": ["a", "b", "system:authenticated"],
            "extra": {"acme.test/tenant": ["acme"]}})
    );
    for changes in
        [json!({"tenant": "other"}), json!({"sub": "system:x"}), json!({"tenant": null}), json!({"roles": 7})]
    {
        assert_eq!(server.whoami(&provider.token(&changes)).await, Err(401), "{changes}");
    }
    let broken = EXPRESSIONS.replace("claims.tenant}", "claims.}");
    let error = server.access.reload_authentication(&configuration(&provider.authenticator(&broken), "")).await;
    assert!(error.is_err_and(|e| e.contains("jwt[0].claimMappings.uid.expression: Invalid value")));
}

#[tokio::test]
async fn bad_tokens_are_nobodys() {
    let provider = Provider::start().await;
    let server = guarded(configuration(&provider.authenticator(MAPPINGS), "")).await;
    let bad_claims = [
        json!({"exp": now() - 1}),
        json!({"exp": null}),
        json!({"nbf": now() + 3600}),
        json!({"aud": "somebody-else"}),
        json!({"aud": null}),
        json!({"iss": "https://evil.test"}),
        json!({"iss": null}),
        json!({"sub": null}),
        json!({"sub": 7}),
        json!({"tenant": "other"}),
        json!({"tenant": null}),
        json!({"groups": {"a": 1}}),
    ];
    for changes in bad_claims {
        assert_eq!(server.whoami(&provider.token(&changes)).await, Err(401), "{changes}");
    }
    let good = provider.token(&json!({}));
    let (signed, signature) = good.rsplit_once('.').expect("a token");
    let (header, claims) = signed.split_once('.').expect("a token");
    let claims_json = provider.claims(&json!({}));
    let stranger = key();
    let known = provider.keys.lock()[0].id().to_string();
    let point = provider.keys.lock()[0].public_point().to_vec();
    let hmac = |header: &Value| {
        // Key confusion: the public key, taken for a shared secret.
        let signed = format!("{}.{claims}", URL_SAFE_NO_PAD.encode(header.to_string()));
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &point);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
    };
    let forged = [
        format!("{header}.{claims}."),
        format!("{header}.{claims}"),
        format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)),
        format!("{}.{claims}.{signature}", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#)),
        hmac(&json!({"alg": "HS256", "kid": known})),
        hmac(&json!({"alg": "ES256", "kid": known})),
        compact(&json!({"alg": "ES256", "kid": "unknown"}), &claims_json, &stranger),
        compact(&json!({"alg": "ES256", "kid": known}), &claims_json, &stranger),
        compact(&json!({"alg": "ES256"}), &claims_json, &stranger),
        format!("{header}.!!!.{signature}"),
        format!("!!!.{claims}.{signature}"),
        format!("{good}="),
        good.repeat(3),
        "x".repeat(200_000),
        format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("[".repeat(100_000))),
    ];
    for token in forged {
        assert_eq!(server.whoami(&token).await, Err(401), "{}", &token[..token.len().min(200)]);
    }
    assert!(server.whoami(&good).await.is_ok());
}

#[tokio::test]
async fn an_issuer_may_take_a_new_key() {
    let provider = Provider::start().await;
    let server = guarded(configuration(&provider.authenticator(MAPPINGS), "")).await;
    let old = provider.token(&json!({}));
    assert!(server.whoami(&old).await.is_ok());
    *provider.keys.lock() = vec![key()];
    let new = provider.token(&json!({"sub": "joe"}));
    let accepted = async {
        while server.whoami(&new).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), accepted).await.expect("the new key is found");
    assert_eq!(server.whoami(&provider.token(&json!({"sub": "jim"}))).await.expect("a user")["username"], "oidc:jim");
}

#[tokio::test]
async fn a_changed_configuration_takes_effect() {
    let (first, second) = (Provider::start().await, Provider::start().await);
    let server = guarded(configuration(&first.authenticator(MAPPINGS), "")).await;
    assert!(server.whoami(&first.token(&json!({}))).await.is_ok());
    assert_eq!(server.whoami(&second.token(&json!({}))).await, Err(401));
    let both = format!("{}\n{}", first.authenticator(MAPPINGS), second.authenticator(MAPPINGS));
    server.access.reload_authentication(&configuration(&both, "")).await.expect("both issuers answer");
    assert!(server.whoami(&second.token(&json!({}))).await.is_ok());
    let bad = configuration(&first.authenticator("  claimMappings: {}\n"), "");
    let error = server.access.reload_authentication(&bad).await.expect_err("no user name");
    assert_eq!(error, "jwt[0].claimMappings.username: Required value: claim or expression is required");
    assert!(server.whoami(&first.token(&json!({}))).await.is_ok(), "the old configuration holds");
    server
        .access
        .reload_authentication(&configuration(&second.authenticator(MAPPINGS), ""))
        .await
        .expect("one answers");
    assert_eq!(server.whoami(&first.token(&json!({}))).await, Err(401), "nothing of the old one is remembered");
}

#[tokio::test]
async fn strangers_go_where_the_configuration_lets_them() {
    let text = "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous:\n  enabled: true\n  conditions:\n  - path: /livez\n";
    let server = guarded(text.into()).await;
    for (path, code) in [("/livez", 200), ("/livez/ping", 401), ("/version", 401), ("/api", 401)] {
        assert_eq!(server.send("GET", path, &[], &Value::Null).await.0, code, "{path}");
    }
    assert_eq!(server.send("GET", "/livez", &[("authorization", "Bearer nonsense")], &Value::Null).await.0, 401);
}

#[tokio::test]
async fn the_old_flags_name_one_issuer() {
    let provider = Provider::start().await;
    let flags = OidcFlags {
        issuer_url: provider.service.url.clone(),
        client_id: "kubernetes".into(),
        authority: provider.service.authority_pem.clone(),
        groups_claim: "groups".into(),
        required_claims: vec![("tenant".into(), "acme".into())],
        ..OidcFlags::default()
    };
    let sources = |algorithms| TokenSources {
        oidc: Some((flags.clone().into_authenticator(), algorithms)),
        ..TokenSources::default()
    };
    let server = Guarded::start(sources(vec![Algorithm::ES256]), default_modes()).await;
    let user = server.whoami(&provider.token(&json!({}))).await.expect("a user");
    assert_eq!(user["username"], format!("{}#jane", provider.service.url));
    assert_eq!(server.whoami(&provider.token(&json!({"tenant": "other"}))).await, Err(401));
    let only_rsa = Guarded::start(sources(vec![Algorithm::RS256]), default_modes()).await;
    assert_eq!(only_rsa.whoami(&provider.token(&json!({}))).await, Err(401));
}

#[tokio::test]
async fn a_webhook_knows_tokens() {
    let service = HttpsService::start(|path, review| {
        assert_eq!(path, "/tokens");
        let status = match review["spec"]["token"].as_str().unwrap_or_default() {
            "good" => json!({"authenticated": true, "audiences": review["spec"]["audiences"],
                "user": {"username": "hook", "uid": "7", "groups": ["g"], "extra": {"a.test/b": ["c"]}}}),
            "foreign" => json!({"authenticated": true, "audiences": ["elsewhere"], "user": {"username": "hook"}}),
            "broken" => return (500, json!({"kind": "Status", "status": "Failure", "code": 500})),
            _ => json!({"authenticated": false, "error": "never heard of it"}),
        };
        (200, json!({"apiVersion": review["apiVersion"], "kind": "TokenReview", "status": status}))
    })
    .await;
    let directory = tempfile::tempdir().expect("a directory");
    let client = outbound::from_kubeconfig(&service.kubeconfig(directory.path(), "/tokens")).expect("a client");
    let webhook = Some(WebhookSource { client, version: "v1".into(), cache_ttl: Duration::from_secs(60) });
    let server = Guarded::start(TokenSources { webhook, ..TokenSources::default() }, default_modes()).await;
    let user = server.whoami("good").await.expect("a user");
    assert_eq!((&user["username"], &user["uid"]), (&json!("hook"), &json!("7")));
    assert_eq!(user["extra"], json!({"a.test/b": ["c"]}));
    assert_eq!(service.received.lock()[0]["apiVersion"], "authentication.k8s.io/v1");
    let calls = service.calls();
    assert!(server.whoami("good").await.is_ok());
    assert_eq!(service.calls(), calls, "the answer is remembered");
    assert_eq!(server.whoami("foreign").await, Err(401));
    assert_eq!(server.whoami("unknown").await, Err(401));
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": "unknown"}});
    let (code, _, answer) = server.call(admin(), "POST", "/apis/authentication.k8s.io/v1/tokenreviews", &review).await;
    assert_eq!((code, answer["status"]["authenticated"].as_bool().unwrap_or_default()), (201, false));
    assert!(answer["status"]["error"].as_str().unwrap_or_default().contains("never heard of it"), "{answer}");
}

#[tokio::test]
async fn a_file_knows_tokens() {
    let file = Some(TokenFile::parse("sesame,ali,u1,\"thieves\"\n").expect("a file"));
    let server = Guarded::start(TokenSources { file, ..TokenSources::default() }, default_modes()).await;
    let user = server.whoami("sesame").await.expect("a user");
    assert_eq!(user, json!({"username": "ali", "uid": "u1", "groups": ["thieves", "system:authenticated"]}));
    assert_eq!(server.whoami("Sesame").await, Err(401));
}
