use anyhow::{Context, Result};
use base64::Engine;
use serde_json::Value;

use crate::Cluster;

/// A raw HTTPS client with the administrator's certificate, for requests that no well-behaved client makes.
pub struct Raw {
    client: reqwest::Client,
    server: String,
}

impl Raw {
    /// One that speaks HTTP/2.
    pub fn new(cluster: &Cluster) -> Result<Raw> {
        Self::with(cluster, |builder| builder)
    }

    /// One with the credentials and the trust of `cluster` that speaks to another server.
    pub fn to(cluster: &Cluster, server: &str) -> Result<Raw> {
        Ok(Raw { server: server.to_string(), ..Self::new(cluster)? })
    }

    /// One that speaks HTTP/1.1: a connection a request.
    pub fn http1(cluster: &Cluster) -> Result<Raw> {
        Self::with(cluster, reqwest::ClientBuilder::http1_only)
    }

    fn with(cluster: &Cluster, shape: impl Fn(reqwest::ClientBuilder) -> reqwest::ClientBuilder) -> Result<Raw> {
        let config: Value = serde_json::from_slice(&std::fs::read(cluster.kubeconfig())?)?;
        let decode = |value: &Value| -> Result<Vec<u8>> {
            let text = value.as_str().context("credentials are in the kubeconfig")?;
            Ok(base64::engine::general_purpose::STANDARD.decode(text)?)
        };
        let user = &config["users"][0]["user"];
        let mut identity = decode(&user["client-key-data"])?;
        identity.extend(decode(&user["client-certificate-data"])?);
        let authority = decode(&config["clusters"][0]["cluster"]["certificate-authority-data"])?;
        let builder = reqwest::Client::builder()
            .use_rustls_tls()
            .add_root_certificate(reqwest::Certificate::from_pem(&authority)?)
            .identity(reqwest::Identity::from_pem(&identity)?);
        Ok(Raw { client: shape(builder).build()?, server: cluster.server() })
    }

    /// The client itself, for requests with headers of their own.
    pub fn http(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends this body and returns the code and the answered object.
    pub async fn send(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<(u16, Value)> {
        let (code, bytes) = self.bytes(method, path, content_type, body).await?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        Ok((code, serde_json::from_str(&text).unwrap_or(Value::String(text))))
    }

    /// As [`Raw::send`], with the answer as it came.
    pub async fn bytes(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: impl Into<reqwest::Body>,
    ) -> Result<(u16, Vec<u8>)> {
        let request = self.client.request(method.parse()?, format!("{}{path}", self.server));
        let response = request.header("content-type", content_type).body(body).send().await?;
        Ok((response.status().as_u16(), response.bytes().await?.to_vec()))
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<(u16, Value)> {
        self.send("POST", path, "application/json", body.to_string()).await
    }

    pub async fn get(&self, path: &str) -> Result<(u16, Value)> {
        self.send("GET", path, "application/json", "").await
    }

    /// A response whose body is still to come, such as a watch.
    pub async fn stream(&self, path: &str) -> Result<reqwest::Response> {
        Ok(self.client.get(format!("{}{path}", self.server)).send().await?.error_for_status()?)
    }
}
