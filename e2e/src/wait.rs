//! Waiting for conditions, always bounded, always saying what was seen last. The one place where a test lets time pass.

use anyhow::{Context as _, Result, bail};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::time::Duration;

/// How often something that cannot be watched is asked.
const INTERVAL: Duration = Duration::from_millis(250);

/// What a look at something found.
pub enum Look<T> {
    /// What was waited for.
    Found(T),
    /// Not yet; what is there instead, for the message.
    NotYet(String),
}

/// Asks `look` until it finds, at most `within`. An error of `look` counts as not yet.
pub async fn eventually<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Result<Look<T>>) -> Result<T> {
    asking_every(INTERVAL, what, within, look).await
}

/// [`eventually`] with an interval of its own, for benchmarks that want to know when.
pub async fn asking_every<T>(
    interval: Duration,
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Result<Look<T>>,
) -> Result<T> {
    let end = tokio::time::Instant::now() + within;
    loop {
        let seen = match look().await {
            Ok(Look::Found(found)) => return Ok(found),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if tokio::time::Instant::now() > end {
            bail!("{what}: not within {within:?}; last seen: {seen}");
        }
        tokio::time::sleep(interval).await;
    }
}

/// Watches one object until `done` says so, at most `within`. `tell` makes of it what the message shows.
pub async fn watch<K>(
    api: Api<K>,
    name: &str,
    what: &str,
    within: Duration,
    mut done: impl FnMut(&K) -> bool,
    tell: impl Fn(&K) -> String,
) -> Result<K>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut last = "nothing: the object is not there".to_owned();
    let found = tokio::time::timeout(within, async {
        // The default backoff lets a watch survive a restarting API server.
        let mut objects =
            watcher(api, watcher::Config::default().fields(&format!("metadata.name={name}"))).default_backoff().applied_objects().boxed();
        loop {
            match objects.try_next().await {
                Ok(Some(object)) if done(&object) => return Ok(object),
                Ok(Some(object)) => last = tell(&object),
                Ok(None) => bail!("the watch of {name} ended"),
                Err(error) => last = format!("{error} (before that: {last})"),
            }
        }
    })
    .await;
    match found {
        Ok(found) => found.with_context(|| format!("{what} of {name}")),
        Err(_) => bail!("{name}: {what}: not within {within:?}; last seen: {last}"),
    }
}
