//! LiveStreams: made at a steady rate, and weighed.

use crate::platform::school;
use crate::watched::Watched;
use anyhow::{Context as _, Result};
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt as _};
use lectern_crds::LiveStream;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

/// Objects of one answer.
const PAGE: usize = 500;

/// Creates `count` LiveStreams, `rate` a second, however long each takes.
pub async fn create(client: &Client, count: usize, rate: u32, watched: &Watched) -> Result<()> {
    let mut ticks = interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut made = JoinSet::new();
    for number in 0..count {
        ticks.tick().await;
        let stream: LiveStream = serde_json::from_value(json!({
            "apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream",
            "metadata": {"name": format!("lecture-{number:05}"), "namespace": school(number)},
            "spec": {"title": format!("Lecture {number}")},
        }))?;
        let api: Api<LiveStream> = Api::namespaced(client.clone(), &school(number));
        made.spawn(async move {
            let sent = Instant::now();
            api.create(&PostParams::default(), &stream).await.map(|_| (stream.namespace(), stream.name_any(), sent, Instant::now()))
        });
        while let Some(done) = made.try_join_next() {
            let (namespace, name, sent, had) = done??;
            watched.created(namespace.unwrap_or_default(), name, sent, had);
        }
    }
    while let Some(done) = made.join_next().await {
        let (namespace, name, sent, had) = done??;
        watched.created(namespace.unwrap_or_default(), name, sent, had);
    }
    Ok(())
}

/// What objects weigh as JSON, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sizes {
    /// All LiveStreams, as the API server serves them.
    pub streams: usize,
    /// Without what the API server notes of who owns which field.
    pub streams_slim: usize,
    /// All RouteSlices, as the API server serves them.
    pub slices: usize,
}

/// Weighs all LiveStreams and RouteSlices.
pub async fn sizes(client: &Client) -> Result<Sizes> {
    let (streams, streams_slim) = weigh(client, "livestreams").await?;
    let (slices, _) = weigh(client, "routeslices").await?;
    Ok(Sizes { streams, streams_slim, slices })
}

async fn weigh(client: &Client, resource: &str) -> Result<(usize, usize)> {
    let (mut whole, mut slim, mut token) = (0, 0, String::new());
    loop {
        let path = format!("/apis/lectern.video/v1alpha1/{resource}?limit={PAGE}&continue={token}");
        let mut page: Value = client.request(http::Request::get(path).body(Vec::new())?).await?;
        for item in page["items"].as_array_mut().context("no items")? {
            whole += item.to_string().len();
            if let Some(metadata) = item["metadata"].as_object_mut() {
                metadata.remove("managedFields");
            }
            slim += item.to_string().len();
        }
        token = page["metadata"]["continue"].as_str().unwrap_or_default().to_owned();
        if token.is_empty() {
            return Ok((whole, slim));
        }
    }
}
