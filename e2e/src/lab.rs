//! A test's place on the cluster: a namespace of its own, evidence when it fails, nothing left behind.

use crate::certificate::Certificate;
use crate::settings::{PLATFORM, Settings, out_folder};
use crate::storage::Storage;
use crate::wait::{self, Look, eventually};
use crate::{Browser, Publisher, Shot, evidence};
use anyhow::{Context as _, Result, bail, ensure};
use futures::FutureExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use lectern_contract::SegmentDuration;
use lectern_contract::keys::RunPrefix;
use lectern_crds::{Exposure, Latency, LiveStream, StreamPool, StreamPoolSpec};
use serde_json::{Value, json};
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Quarters of what two cores encode in real time.
static QUARTERS: Semaphore = Semaphore::const_new(4);

/// How much of the platform a test takes: as many run side by side as fit (`scripts/test` gives them the threads).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// No lecture: only the API.
    Nothing,
    /// One small lecture that nobody watches.
    Quarter,
    /// Two small ones.
    Half,
    /// One of several renditions, in a browser that must not stall.
    Most,
    /// No other lecture runs: the test breaks what they would need, or encodes more than real time leaves room for.
    Whole,
}

/// Long enough for anything that a busy machine with two cores does within one step.
pub const STEP: Duration = Duration::from_secs(120);

/// A test's place.
pub struct Lab {
    /// The test's name.
    pub test: String,
    /// Its namespace.
    pub namespace: String,
    /// The cluster.
    pub client: Client,
    /// Where the platform is.
    pub settings: Settings,
    /// The bucket.
    pub storage: Storage,
    /// Where what the test leaves for people is put.
    pub out: PathBuf,
    browsers: Mutex<u32>,
    /// What is not in the namespace and must go with the test.
    elsewhere: Mutex<Vec<Elsewhere>>,
}

pub(crate) enum Elsewhere {
    LiveStream {
        namespace: String,
        name: String,
    },
    StreamPool(String),
    /// Of the platform's namespace.
    Secret(String),
    /// A pod of the platform that is kept from going.
    HeldPod(String),
    /// A pod of the platform that not all packets reach.
    CutOffPod(String),
    /// A node that takes no pods.
    CordonedNode(String),
    /// A node that is paused or killed.
    StruckNode(String),
    /// Of a namespace, or of the cluster.
    Resource {
        kind: ApiResource,
        namespace: Option<String>,
        name: String,
    },
}

impl Lab {
    /// Runs a test: makes its namespace, saves evidence if it fails, removes the namespace in any case.
    pub async fn run(test: &str, share: Share, body: impl AsyncFnOnce(&Lab) -> Result<()>) -> Result<()> {
        Self::run_at(None, test, share, body).await
    }

    /// [`Lab::run`] with objects in another server than MiniStack.
    pub async fn run_at(storage: Option<Storage>, test: &str, share: Share, body: impl AsyncFnOnce(&Lab) -> Result<()>) -> Result<()> {
        let permits = match share {
            Share::Nothing => 0,
            Share::Quarter => 1,
            Share::Half => 2,
            Share::Most => 3,
            Share::Whole => 4,
        };
        let mut lab = Self::new(test).await?;
        lab.storage = storage.unwrap_or(lab.storage);
        let permit = QUARTERS.acquire_many(permits).await?;
        let outcome = AssertUnwindSafe(body(&lab)).catch_unwind().await;
        if !matches!(outcome, Ok(Ok(()))) {
            match evidence::save(&lab, &lab.out).await {
                Ok(()) => eprintln!("{test} failed; logs, events, resources and the browser's console are in {}", lab.out.display()),
                Err(error) => eprintln!("{test} failed, and its evidence could not be saved to {}: {error:#}", lab.out.display()),
            }
        }
        let mended = lab.mend().await;
        drop(permit); // what is left costs time, not processors
        let removed = lab.remove().await;
        match outcome {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(result) => result.and(mended).and(removed),
        }
    }

    /// A namespace, restricted as the platform's is.
    async fn new(test: &str) -> Result<Self> {
        let settings = Settings::from_env()?;
        let client = settings.cluster().await?;
        let out = out_folder(test);
        std::fs::remove_dir_all(&out).ok();
        std::fs::create_dir_all(&out)?;
        let namespace = format!(
            "e2e-{}-{:05x}",
            test.replace('_', "-").chars().take(40).collect::<String>().trim_end_matches('-'),
            rand::random_range(0..1u32 << 20)
        );
        let object = serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted", "lectern.video/e2e": "true"}},
        }))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &object).await.context("the test's namespace")?;
        Ok(Self {
            test: test.to_owned(),
            namespace,
            client,
            storage: Storage::new(&settings),
            settings,
            out,
            browsers: Mutex::default(),
            elsewhere: Mutex::default(),
        })
    }

    /// Undoes what was done outside the namespace.
    async fn mend(&self) -> Result<()> {
        let elsewhere = self.elsewhere.lock().map(|mut list| std::mem::take(&mut *list)).unwrap_or_default();
        for left in elsewhere {
            let gone = match &left {
                Elsewhere::LiveStream { namespace, name } => {
                    Api::<LiveStream>::namespaced(self.client.clone(), namespace).delete(name, &DeleteParams::default()).await.map(drop)
                }
                Elsewhere::StreamPool(name) => {
                    Api::<StreamPool>::all(self.client.clone()).delete(name, &DeleteParams::default()).await.map(drop)
                }
                Elsewhere::Secret(name) => self.secrets(PLATFORM).delete(name, &DeleteParams::default()).await.map(drop),
                Elsewhere::Resource { kind, namespace, name } => {
                    let api: Api<DynamicObject> = match namespace {
                        Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, kind),
                        None => Api::all_with(self.client.clone(), kind),
                    };
                    api.delete(name, &DeleteParams::default()).await.map(drop)
                }
                Elsewhere::HeldPod(name) => self.let_go(name).await,
                Elsewhere::StruckNode(name) => {
                    self.node_is_mended(name).await;
                    Ok(())
                }
                Elsewhere::CordonedNode(name) => self.cordon(name, false).await,
                Elsewhere::CutOffPod(name) => {
                    self.passes_all(name).await.ok(); // a pod that has gone has taken its rules along
                    Ok(())
                }
            };
            match gone {
                Err(kube::Error::Api(answer)) if answer.code == 404 => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// Removes the namespace and waits until it is gone: finalizers are part of what is tested.
    async fn remove(&self) -> Result<()> {
        self.agents_go().await?;
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(&self.namespace, &DeleteParams::default()).await?;
        let gone = eventually("the test's namespace goes", STEP, async || match namespaces.get_opt(&self.namespace).await? {
            None => Ok(Look::Found(())),
            Some(left) => Ok(Look::NotYet(conditions(
                left.status
                    .and_then(|status| status.conditions)
                    .iter()
                    .flatten()
                    .map(|c| (&c.type_, &c.status, c.message.as_deref().unwrap_or_default())),
            ))),
        });
        let gone = gone.await;
        if gone.is_err() {
            evidence::save(self, &self.out.join("left-behind")).await.ok();
        }
        gone
    }

    /// `kubectl apply` of a LiveStream of the test's own namespace: returns what the API server answers.
    pub async fn apply(&self, name: &str, spec: Value) -> Result<Lecture<'_>, kube::Error> {
        let lecture = self.lecture(&self.namespace, name);
        lecture.apply(spec).await?;
        Ok(lecture)
    }

    /// A LiveStream that is there, or will be.
    pub fn lecture(&self, namespace: &str, name: &str) -> Lecture<'_> {
        Lecture { lab: self, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// A LiveStream that somebody else made for the test, by the address of its playlist; it is deleted with the test.
    pub fn adopt(&self, hls: &str) -> Result<Lecture<'_>> {
        let url = reqwest::Url::parse(hls)?;
        let (prefix, _) =
            RunPrefix::of_key(url.path().trim_start_matches('/')).with_context(|| format!("{hls} is no playlist of a run"))?;
        let mut parts = prefix.as_str().split('/').skip(1).map(str::to_owned);
        let (namespace, name) = parts.next().zip(parts.next()).context("a namespace and a name")?;
        let lecture = self.lecture(&namespace, &name);
        self.goes_with_the_test(Elsewhere::LiveStream { namespace, name });
        Ok(lecture)
    }

    /// A pool of the test's own: the default one, as small as it gets, not exposed, with a queue of its own in the same place.
    pub async fn small_pool(&self, kind: &str) -> Result<(String, StreamPoolSpec)> {
        // The namespace's random end makes the name unique; the whole would be longer than a pool's name may be.
        let name = format!("{kind}-{}", self.namespace.rsplit('-').next().unwrap_or_default());
        let mut spec = Api::<StreamPool>::all(self.client.clone()).get(lectern_crds::DEFAULT_POOL).await?.spec;
        spec.ingest.shards = 1;
        spec.ingest.memory_mib = 64;
        spec.ingest.exposure = Exposure::default();
        spec.transcoder.class.pods = 1;
        spec.transcoder.class.slots = 1;
        spec.origin.replicas = 1;
        spec.origin.exposure = Exposure::default();
        spec.queue.name = name.clone();
        Ok((name, spec))
    }

    /// Secrets of a namespace.
    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// A text of a Secret.
    pub async fn entry(&self, namespace: &str, secret: &str, name: &str) -> Result<String> {
        let data = self.secrets(namespace).get(secret).await?.data.unwrap_or_default();
        Ok(String::from_utf8(data.get(name).with_context(|| format!("{secret} has no {name}"))?.0.clone())?)
    }

    /// Applies a certificate as a Secret of the platform's namespace, which is deleted with the test.
    pub async fn apply_certificate(&self, name: &str, certificate: &Certificate) -> Result<()> {
        self.goes_with_the_test(Elsewhere::Secret(name.to_owned()));
        let object = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name}, "stringData": certificate.entries(),
        });
        self.secrets(PLATFORM).patch(name, &PatchParams::apply("lectern-e2e").force(), &Patch::Apply(object)).await?;
        Ok(())
    }

    /// Applies a StreamPool that is deleted with the test.
    pub async fn apply_pool(&self, name: &str, spec: &StreamPoolSpec) -> Result<()> {
        self.goes_with_the_test(Elsewhere::StreamPool(name.to_owned()));
        let pool = StreamPool::new(name, spec.clone());
        Api::<StreamPool>::all(self.client.clone()).create(&PostParams::default(), &pool).await?;
        Ok(())
    }

    /// Waits until a StreamPool is Ready, at most `within`.
    pub async fn pool_is_ready(&self, name: &str, within: Duration) -> Result<()> {
        let conditions_of = |pool: &StreamPool| pool.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
        let ready = |pool: &StreamPool| conditions_of(pool).iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let tell = |pool: &StreamPool| conditions(conditions_of(pool).iter().map(|c| (&c.type_, &c.status, c.message.as_str())));
        wait::watch(Api::<StreamPool>::all(self.client.clone()), name, "becomes Ready", within, ready, tell).await.map(drop)
    }

    pub(crate) fn goes_with_the_test(&self, what: Elsewhere) {
        self.elsewhere.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(what);
    }

    /// A browser of the test's own.
    pub async fn browser(&self) -> Result<Browser> {
        let number = {
            let mut browsers = self.browsers.lock().map_err(|_| anyhow::anyhow!("a test thread panicked"))?;
            *browsers += 1;
            *browsers
        };
        Browser::start(&self.out.join(format!("browser-{number}"))).await
    }

    /// Publishes over RTMP.
    pub fn publish(&self, url: &str, key: &str, shot: Shot) -> Result<Publisher> {
        Publisher::rtmp(&self.out, url, key, shot)
    }

    /// The text at a URL of the platform.
    pub async fn http(&self, url: &str) -> Result<String> {
        String::from_utf8(self.http_bytes(url).await?).with_context(|| url.to_owned())
    }

    /// The same for what is no text.
    pub async fn http_bytes(&self, url: &str) -> Result<Vec<u8>> {
        let response = reqwest::get(url).await.with_context(|| url.to_owned())?;
        ensure!(response.status().is_success(), "{url} answers {}", response.status());
        Ok(response.bytes().await?.into())
    }
}

/// One LiveStream under test.
#[derive(Clone)]
pub struct Lecture<'a> {
    lab: &'a Lab,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Lecture<'_> {
    /// The API of its namespace.
    pub fn api(&self) -> Api<LiveStream> {
        Api::namespaced(self.lab.client.clone(), &self.namespace)
    }

    /// Server-side apply. What is not in `spec` is the operator's or the schema's to fill in.
    pub async fn apply(&self, spec: Value) -> Result<LiveStream, kube::Error> {
        let object = json!({"apiVersion": "lectern.video/v1alpha1", "kind": "LiveStream", "metadata": {"name": self.name}, "spec": spec});
        self.api().patch(&self.name, &PatchParams::apply("lectern-e2e").validation_strict(), &Patch::Apply(object)).await
    }

    /// `kubectl patch`, to end the lecture.
    pub async fn end(&self) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"ended": true}}));
        self.api().patch(&self.name, &PatchParams::default(), &patch).await.context("ending the lecture")?;
        Ok(())
    }

    /// `kubectl annotate`.
    pub async fn annotate(&self, name: &str, value: &str) -> Result<()> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {name: value}}}));
        self.api().patch(&self.name, &PatchParams::default(), &patch).await.with_context(|| format!("annotating with {name}"))?;
        Ok(())
    }

    /// Waits by watch, at most `within`.
    pub async fn wait_for(&self, what: &str, within: Duration, done: impl FnMut(&LiveStream) -> bool) -> Result<LiveStream> {
        wait::watch(self.api(), &self.name, what, within, done, tell).await
    }

    /// Waits until a condition has a status, at most [`STEP`].
    pub async fn until(&self, kind: &str, status: &str) -> Result<LiveStream> {
        self.wait_for(&format!("{kind}={status}"), STEP, |stream| condition(stream, kind).is_some_and(|c| c.status == status)).await
    }

    /// Where to publish and with which key, once the stream is placed.
    pub async fn credentials(&self) -> Result<(String, String)> {
        self.credentials_of("key").await
    }

    /// [`Lecture::credentials`] with another key of the Secret: `backupKey`.
    pub async fn credentials_of(&self, key: &str) -> Result<(String, String)> {
        let placed = self.wait_for("Placed=True with an ingest URL", STEP, |stream| {
            condition(stream, "Placed").is_some_and(|c| c.status == "True")
                && stream.status.as_ref().is_some_and(|status| status.ingest.is_some())
        });
        let ingest = placed.await?.status.and_then(|status| status.ingest).context("status.ingest")?;
        let secret = self.lab.secrets(&self.namespace).get(&ingest.secret_name).await?;
        let entry = |name: &str| {
            let value =
                secret.data.as_ref().and_then(|data| data.get(name)).with_context(|| format!("{} has no {name}", ingest.secret_name))?;
            anyhow::Ok(String::from_utf8(value.0.clone())?)
        };
        ensure!(entry("url")? == ingest.url, "the Secret's url is {:?}, the status says {:?}", entry("url")?, ingest.url);
        Ok((ingest.url, entry(key)?))
    }

    /// Publishes to it.
    pub async fn publish(&self, shot: Shot) -> Result<Publisher> {
        let (url, key) = self.credentials().await?;
        self.lab.publish(&url, &key, shot)
    }

    /// Where its objects are, once it is placed.
    pub async fn prefix(&self) -> Result<RunPrefix> {
        let placed =
            self.wait_for("status.playback", STEP, |stream| stream.status.as_ref().is_some_and(|status| status.playback.is_some())).await?;
        prefix_of(&placed)
    }

    /// Waits until the bucket holds `count` segments from `from` on, in every rendition and without a hole; returns the next number.
    pub async fn segments_go_on(&self, prefix: &RunPrefix, from: u64, count: u64) -> Result<u64> {
        let wanted: Vec<_> = (from..from + count).collect();
        eventually(&format!("segments {from} to {} in {prefix}", from + count - 1), STEP, async || {
            let segments = self.lab.storage.segments(prefix).await?;
            let there = !segments.is_empty() && segments.values().all(|numbers| wanted.iter().all(|number| numbers.contains(number)));
            Ok(if there { Look::Found(from + count) } else { Look::NotYet(format!("{segments:?}")) })
        })
        .await
    }

    /// Waits until the newest segment is `count` after `from`, whatever is missing in between; returns it.
    pub async fn segments_resume(&self, prefix: &RunPrefix, from: u64, count: u64) -> Result<u64> {
        eventually(&format!("segment {} in {prefix}", from + count), STEP, async || {
            let newest = self.newest_segment(prefix).await?;
            Ok(if newest >= from + count { Look::Found(newest) } else { Look::NotYet(newest.to_string()) })
        })
        .await
    }

    /// The newest number that the bucket has in every rendition, once there is one.
    pub async fn newest_segment(&self, prefix: &RunPrefix) -> Result<u64> {
        eventually(&format!("a segment in {prefix}"), STEP, async || {
            let segments = self.lab.storage.segments(prefix).await?;
            let newest = segments.values().map(|numbers| numbers.last().copied()).min().flatten();
            Ok(newest.map_or_else(|| Look::NotYet(format!("{segments:?}")), Look::Found))
        })
        .await
    }
}

/// A lecture that costs little to encode, with `more` in its spec.
pub fn small(more: Value) -> Value {
    let mut spec = json!({
        "latency": "Low",
        "ladder": {
            "video": [{"name": "180p", "width": 320, "height": 180, "bitrate": 300_000}],
            "audio": [{"name": "audio", "bitrate": 64_000}],
        },
    });
    assert!(more.is_object(), "fields of a spec, and not {more}");
    if let (Some(spec), Value::Object(more)) = (spec.as_object_mut(), more) {
        spec.extend(more);
    }
    spec
}

/// The prefix in a LiveStream's status.
pub fn prefix_of(stream: &LiveStream) -> Result<RunPrefix> {
    let playback = stream.status.as_ref().and_then(|status| status.playback.as_ref()).context("status.playback")?;
    match RunPrefix::of_key(&format!("{}/x", playback.prefix.trim_end_matches('/'))) {
        Some((prefix, _)) => Ok(prefix),
        None => bail!("status.playback.prefix is {:?}", playback.prefix),
    }
}

/// How long the stream's segments are.
pub fn segment_duration(stream: &LiveStream) -> SegmentDuration {
    match stream.spec.latency {
        Latency::Low => SegmentDuration::LOW_LATENCY,
        Latency::Standard => SegmentDuration::STANDARD,
    }
}

/// A condition of a LiveStream.
pub fn condition<'a>(stream: &'a LiveStream, kind: &str) -> Option<&'a Condition> {
    stream.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == kind)
}

/// What a message shows of a LiveStream.
fn tell(stream: &LiveStream) -> String {
    let Some(status) = &stream.status else { return "no status yet".to_owned() };
    let error = status.last_error.as_deref().map(|error| format!("; last error: {error}")).unwrap_or_default();
    let phase = status.phase.as_deref().unwrap_or("-");
    format!("phase {phase}; {}{error}", conditions(status.conditions.iter().map(|c| (&c.type_, &c.status, c.message.as_str()))))
}

fn conditions<'a>(of: impl Iterator<Item = (&'a String, &'a String, &'a str)>) -> String {
    of.map(|(kind, status, message)| format!("{kind}={status} ({message})")).collect::<Vec<_>>().join(", ")
}
