//! A pool's origins as pods, and the autoscaler that says how many there are.

use crate::lab::{Lab, STEP};
use crate::playlist::{self, Media};
use crate::settings::PLATFORM;
use crate::shards::is_ready;
use crate::wait::{Look, eventually};
use crate::{PortForward, wait};
use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use lectern_crds::POOL_LABEL;
use reqwest::Url;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::task::AbortHandle;

/// Segments of each playlist that are compared.
const COMPARED: usize = 3;

impl Lab {
    /// An address that this machine reaches the ports of Services by.
    pub async fn node_address(&self) -> Result<String> {
        let nodes = Api::<Node>::all(self.client.clone()).list(&ListParams::default()).await?;
        let mut addresses = nodes.iter().flat_map(|node| node.status.iter().flat_map(|status| status.addresses.iter().flatten()));
        let found = addresses.find(|address| address.type_ == "InternalIP" && address.address.parse::<Ipv4Addr>().is_ok());
        Ok(found.context("no node has an address")?.address.clone())
    }

    /// Waits, at most `within`, until a pool has so many origins and no others, all of them ready; their names.
    pub async fn origins_are(&self, pool: &str, within: Duration, wanted: impl Fn(usize) -> bool) -> Result<Vec<String>> {
        let selector = ListParams::default().labels(&format!("{POOL_LABEL}={pool},app.kubernetes.io/component=origin"));
        eventually("all origins are ready", within, async || {
            let pods = self.pods().list(&selector).await?;
            let ready = |pod: &Pod| pod.metadata.deletion_timestamp.is_none() && is_ready(pod);
            let names: Vec<_> = pods.iter().map(Pod::name_any).collect();
            let all_there = wanted(names.len()) && pods.iter().all(ready);
            Ok(if all_there { Look::Found(names) } else { Look::NotYet(format!("{names:?}")) })
        })
        .await
    }

    /// Waits, at most `within`, until the autoscaler of a pool wants so many origins.
    pub async fn origins_wanted(&self, pool: &str, within: Duration, wanted: impl Fn(i32) -> bool) -> Result<i32> {
        let api = Api::<HorizontalPodAutoscaler>::namespaced(self.client.clone(), PLATFORM);
        let of = |scaler: &HorizontalPodAutoscaler| scaler.status.as_ref().map_or(0, |status| status.desired_replicas);
        let tell = |scaler: &HorizontalPodAutoscaler| serde_json::to_string(&scaler.status).unwrap_or_default();
        let name = format!("lectern-origin-{pool}");
        Ok(of(&wait::watch(api, &name, "wants as many", within, |scaler| wanted(of(scaler)), tell).await?))
    }

    /// Whether each of these origins serves the same newest segments of a lecture, whose multivariant playlist this is; how many were compared.
    pub async fn origins_serve_the_same(&self, origins: &[String], hls: &Url) -> Result<usize> {
        let (mut ways, mut compared) = (Vec::new(), 0);
        for origin in origins {
            ways.push(PortForward::to(&self.settings, origin, 8080).await?);
        }
        let at = |way: &PortForward, url: &Url| format!("http://127.0.0.1:{}{}", way.port, url.path());
        let first = ways.first().context("an origin")?;
        for name in playlist::variants(&self.http(&at(first, hls)).await?) {
            let playlist = hls.join(&name)?;
            let listed = listed(self, &at(first, &playlist)).await?;
            for segment in listed.segments.iter().rev().filter(|segment| !segment.gap).take(COMPARED) {
                let url = playlist.join(&segment.uri)?;
                let wanted = self.http_bytes(&at(first, &url)).await?;
                for (way, origin) in ways.iter().zip(origins) {
                    ensure!(self.http_bytes(&at(way, &url)).await? == wanted, "{origin} serves another {url} than {}", origins[0]);
                }
                compared += 1;
            }
        }
        Ok(compared)
    }
}

/// A playlist, once there are enough segments in it.
async fn listed(lab: &Lab, url: &str) -> Result<Media> {
    eventually(&format!("{COMPARED} segments in {url}"), STEP, async || {
        let media = playlist::media(&lab.http(url).await?);
        Ok(if media.segments.len() >= COMPARED { Look::Found(media) } else { Look::NotYet(media.segments.len().to_string()) })
    })
    .await
}

/// How many origins a pool was to have, one number after the other.
pub struct Counted {
    seen: Arc<Mutex<Vec<i32>>>,
    counting: AbortHandle,
}

impl Counted {
    /// From now on.
    pub fn of(lab: &Lab, pool: &str) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let only = watcher::Config::default().fields(&format!("metadata.name=lectern-origin-{pool}"));
        let mut told =
            watcher(Api::<Deployment>::namespaced(lab.client.clone(), PLATFORM), only).default_backoff().applied_objects().boxed();
        let notes = Arc::clone(&seen);
        let counting = tokio::spawn(async move {
            while let Some(next) = told.next().await {
                let Some(count) = next.ok().and_then(|deployment| deployment.spec?.replicas) else { continue };
                let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
                if notes.last() != Some(&count) {
                    notes.push(count);
                }
            }
        });
        Self { seen, counting: counting.abort_handle() }
    }

    /// Each number that was another than the one before.
    pub fn numbers(&self) -> Vec<i32> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.counting.abort();
    }
}
