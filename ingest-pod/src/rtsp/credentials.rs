//! User names and passwords of cameras: one Secret of the pool, watched by name. The shard may read no other.

use super::backoff::Backoff;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::runtime::watcher as watch_objects;
use kube::runtime::watcher::{self, Event};
use lectern_crds::cameras_secret;
use lectern_podkit::Task;
use serde::Deserialize;
use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a camera asks for.
#[derive(Clone, PartialEq, Eq, Deserialize)]
pub struct Credentials {
    /// The user name.
    pub username: String,
    /// The password.
    pub password: String,
}

impl fmt::Debug for Credentials {
    /// Says nothing: this may end in a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// The credentials of the pool's cameras, by their key in the Secret: the run id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Known(HashMap<String, Credentials>);

impl Known {
    /// Those with this key.
    pub fn of(&self, key: &str) -> Option<&Credentials> {
        self.0.get(key)
    }
}

impl FromIterator<(String, Credentials)> for Known {
    fn from_iter<I: IntoIterator<Item = (String, Credentials)>>(all: I) -> Self {
        Self(all.into_iter().collect())
    }
}

impl From<&Secret> for Known {
    /// What of the Secret can be read; the rest is as if it were not there.
    fn from(secret: &Secret) -> Self {
        let entries = secret.data.iter().flatten().filter_map(|(key, value)| {
            // Not the parser's words: they may quote the password.
            let read = serde_json::from_slice(&value.0).ok();
            if read.is_none() {
                tracing::warn!(run = key, "a camera's credentials are not JSON with username and password");
            }
            Some((key.clone(), read?))
        });
        entries.collect()
    }
}

/// Pauses after a failure: the first, doubled up to the longest. The watcher's own begin anew with each try to list, and a watch can be forbidden for good.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Watches the Secret of the pool's cameras in `namespace` and keeps `known` up to date until `stop`.
pub fn follow(
    client: kube::Client,
    namespace: String,
    pool: String,
    known: watch::Sender<Known>,
    stop: CancellationToken,
) -> Task<Infallible> {
    Box::pin(async move {
        let api = Api::<Secret>::namespaced(client, &namespace);
        let config = watcher::Config::default().fields(&format!("metadata.name={}", cameras_secret(&pool)));
        let mut events = watch_objects(api, config).boxed();
        let (mut listed, mut pauses) = (Known::default(), Backoff::new(FIRST_PAUSE, LONGEST_PAUSE));
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                event = events.try_next() => event,
            };
            let now = match event {
                Ok(Some(Event::Init)) => {
                    listed = Known::default();
                    continue;
                }
                Ok(Some(Event::InitApply(secret))) => {
                    listed = Known::from(&secret);
                    continue;
                }
                Ok(Some(Event::InitDone)) => {
                    pauses.reset();
                    std::mem::take(&mut listed)
                }
                Ok(Some(Event::Apply(secret))) => Known::from(&secret),
                Ok(Some(Event::Delete(_))) => Known::default(),
                Ok(None) => {
                    tracing::warn!("the watch of the cameras' credentials ended; it is started anew");
                    continue;
                }
                Err(error) => {
                    let pause = pauses.pause(None, rand::random());
                    tracing::warn!(
                        %error, ?pause,
                        "the cameras' credentials cannot be watched; going on with those known. Where it is forbidden: is the pool among the chart's `otherPools`?"
                    );
                    stop.run_until_cancelled(tokio::time::sleep(pause)).await;
                    continue;
                }
            };
            known.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    #[test]
    fn entries_that_can_be_read_are_known_and_others_are_not() {
        let entries = [("r1", r#"{"username":"viewer","password":"s3cret"}"#), ("r2", "viewer:s3cret"), ("r3", r#"{"username":"x"}"#)];
        let data = entries.map(|(key, value)| (key.to_owned(), ByteString(value.as_bytes().to_vec())));
        let known = Known::from(&Secret { data: Some(data.into()), ..Secret::default() });
        assert_eq!(known.of("r1"), Some(&Credentials { username: "viewer".into(), password: "s3cret".into() }));
        assert_eq!((known.of("r2"), known.of("r3")), (None, None));
    }

    #[test]
    fn a_password_does_not_end_in_a_log() {
        let known = Known::from_iter([("r1".to_owned(), Credentials { username: "viewer".into(), password: "s3cret".into() })]);
        assert!(!format!("{known:?}").contains("s3cret"));
    }
}
