//! A school's server: the three calls, over HTTPS, with the key and the CA that the platform's Secrets hold.

use crate::lab::Lab;
use crate::settings::PLATFORM;
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::client::Body;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A client of the gateway.
pub struct Gateway {
    http: kube::Client,
    key: String,
}

/// What StartStream answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Started {
    /// For EndStream and WatchStream.
    pub id: String,
    /// Where to publish.
    pub ingest_url: String,
    /// With which key.
    pub stream_key: String,
    /// Where to watch.
    pub player_url: String,
    /// Where to watch.
    pub hls_url: String,
    /// How far it is.
    pub state: String,
}

/// What WatchStream answers.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Watched {
    /// How far it is.
    pub state: String,
    /// The page.
    pub player_url: Option<String>,
    /// The live playlist.
    pub hls_url: Option<String>,
    /// The recording's playlist, once it is there.
    pub vod_url: Option<String>,
}

impl Gateway {
    /// With the first key of the Secret of keys.
    pub async fn of(lab: &Lab) -> Result<Self> {
        let secrets = Api::<Secret>::namespaced(lab.client.clone(), PLATFORM);
        let entries =
            |secret: Secret| secret.data.unwrap_or_default().into_iter().map(|(name, value)| (name, value.0)).collect::<BTreeMap<_, _>>();
        let keys = entries(secrets.get("lectern-gateway-keys").await?);
        let key = keys.into_values().next().context("lectern-gateway-keys has no entry")?;
        let tls = entries(secrets.get("lectern-gateway-tls").await?);
        let ca = tls.get("ca.crt").context("lectern-gateway-tls has no ca.crt")?;
        // kube's HTTP client is the one client with TLS that this workspace builds anyway.
        let mut config = kube::Config::new(format!("https://localhost:{}", lab.settings.gateway_port).parse()?);
        config.root_cert = Some(certificates(&String::from_utf8(ca.clone())?)?);
        Ok(Self { http: kube::Client::try_from(config)?, key: String::from_utf8(key)?.trim().to_owned() })
    }

    /// The same server, spoken to with another key.
    pub fn with_key(&self, key: &str) -> Self {
        Self { http: self.http.clone(), key: key.to_owned() }
    }

    /// One request: the status and the answer's JSON.
    pub async fn request(&self, method: &str, path: &str, body: Option<Value>) -> Result<(u16, Value)> {
        let bytes = body.map(|body| body.to_string().into_bytes()).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("authorization", format!("Bearer {}", self.key));
        let request = request.header("content-type", "application/json").body(Body::from(bytes))?;
        let response = self.http.send(request).await.with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        let bytes = response.into_body().collect_bytes().await?;
        let text = String::from_utf8_lossy(&bytes);
        Ok((status, serde_json::from_str(&text).unwrap_or_else(|_| json!(text))))
    }

    async fn call<T: serde::de::DeserializeOwned>(&self, method: &str, path: &str, body: Option<Value>) -> Result<T> {
        let (status, answer) = self.request(method, path, body).await?;
        ensure!((200..300).contains(&status), "{method} {path} answers {status}: {answer}");
        serde_json::from_value(answer.clone()).with_context(|| format!("{method} {path}: {answer}"))
    }

    /// StartStream(userId, name).
    pub async fn start(&self, user: &str, name: &str) -> Result<Started> {
        self.call("POST", "/v1/streams", Some(json!({"userId": user, "name": name}))).await
    }

    /// EndStream(userId, name, streamID).
    pub async fn end(&self, user: &str, name: &str, id: &str) -> Result<Value> {
        self.call("POST", &format!("/v1/streams/{id}/end"), Some(json!({"userId": user, "name": name}))).await
    }

    /// WatchStream(streamID).
    pub async fn watch(&self, id: &str) -> Result<Watched> {
        self.call("GET", &format!("/v1/streams/{id}/watch"), None).await
    }
}

/// The DER of every certificate in a PEM text.
fn certificates(pem: &str) -> Result<Vec<Vec<u8>>> {
    let blocks = pem.split("-----BEGIN CERTIFICATE-----").skip(1);
    blocks
        .map(|block| {
            let body: String = block.split("-----END").next().unwrap_or_default().split_whitespace().collect();
            base64::engine::general_purpose::STANDARD.decode(body).context("a certificate is no base64")
        })
        .collect()
}
