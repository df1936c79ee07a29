//! The chart's release in the test cluster, by way of helm.

use crate::lab::STEP;
use crate::settings::{PLATFORM, cache, e2e_folder};
use crate::wait::{Look, eventually};
use crate::{Lab, Share};
use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use lectern_crds::{DEFAULT_POOL, POOL_LABEL};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tokio::process::Command;

/// The release's name, and the chart's.
const LECTERN: &str = "lectern";
/// Longer than anything that helm waits for takes here.
const PATIENCE: &str = "--timeout=3m";

/// Runs a test that changes the release, and brings it back.
pub async fn with_the_release(test: &str, body: impl AsyncFnOnce(&Lab, &Release) -> Result<()>) -> Result<()> {
    Lab::run(test, Share::Whole, async |lab| restored_after(lab, async |release| body(lab, release).await).await).await
}

/// Runs what changes the release, and brings it back.
pub async fn restored_after<T>(lab: &Lab, body: impl AsyncFnOnce(&Release) -> Result<T>) -> Result<T> {
    let release = Release::found(&lab.settings.kubeconfig, &lab.out).await?;
    let before = templates(lab).await?;
    let outcome = body(&release).await;
    // As it was, whatever has happened: without an operator not even the test's namespace goes.
    let restored = release.upgrade(&[]).await;
    let outcome = outcome.and_then(|done| restored.map(|()| done))?;
    // The operator replaces the pool's pods when helm has long ended, and the next test wants them to stay.
    eventually("the pool's pods are of their templates again", 2 * STEP, async || {
        let now = templates(lab).await?;
        Ok(if now == before { Look::Found(()) } else { Look::NotYet(format!("{now:?}, and not {before:?}")) })
    })
    .await?;
    Ok(outcome)
}

/// Of which templates the pool's pods are, by StatefulSet, Deployment and operator, once none is coming or going any more.
async fn templates(lab: &Lab) -> Result<BTreeSet<String>> {
    let media = format!("{POOL_LABEL}={DEFAULT_POOL}");
    lab.steady(&media).await?;
    let pods = lab.pods().list(&ListParams::default().labels(&media)).await?;
    let of = |pod: &Pod| {
        let labels = ["controller-revision-hash", "pod-template-hash"].into_iter().find_map(|name| pod.labels().get(name));
        labels.or_else(|| pod.annotations().get("lectern.video/spec-hash")).cloned()
    };
    pods.iter().map(|pod| of(pod).with_context(|| format!("the template of {}", pod.name_any()))).collect()
}

/// The release `lectern`, as `e2e/cluster/install` left it.
pub struct Release {
    kubeconfig: PathBuf,
    /// What was given to it.
    values: Value,
    /// Where values are handed to helm.
    folder: PathBuf,
}

impl Release {
    /// Reads what it was installed with. Files go into `folder`.
    pub async fn found(kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let mut release = Self { kubeconfig: kubeconfig.to_owned(), values: Value::Null, folder: folder.to_owned() };
        release.values = serde_json::from_str(&release.helm(&["get", "values", LECTERN, "--output=json"]).await?.0)?;
        Ok(release)
    }

    /// Installs or upgrades to this clone's chart, with what it was installed with and `more`, `key=value`; waits until all has rolled out.
    pub async fn upgrade(&self, more: &[&str]) -> Result<()> {
        self.bring(&charts().join(LECTERN), &self.values, more).await
    }

    /// The same to the chart before this one, which knows none of the values `unknown`.
    pub async fn go_back(&self, unknown: &[&str]) -> Result<()> {
        let mut packages = std::fs::read_dir(charts().join("tests/previous"))?;
        let package = packages.next().context("charts/tests/previous is empty")??.path();
        let mut values = self.values.clone();
        for name in unknown {
            values.as_object_mut().context("the values")?.remove(*name);
        }
        self.bring(&package, &values, &[]).await
    }

    async fn bring(&self, chart: &Path, values: &Value, more: &[&str]) -> Result<()> {
        let file = self.folder.join("values.json");
        std::fs::write(&file, values.to_string())?;
        let (chart, file) = (chart.to_string_lossy(), format!("--values={}", file.display()));
        let more: Vec<_> = more.iter().map(|pair| format!("--set={pair}")).collect();
        let arguments = ["upgrade", "--install", LECTERN, &*chart, &*file, "--wait", PATIENCE].into_iter();
        self.helm(&arguments.chain(more.iter().map(String::as_str)).collect::<Vec<_>>()).await.map(drop)
    }

    /// `helm test`: what the hook printed.
    pub async fn test(&self) -> Result<String> {
        Ok(self.helm(&["test", LECTERN, PATIENCE]).await?.1)
    }

    /// `helm uninstall`: what the hook printed.
    pub async fn uninstall(&self) -> Result<String> {
        Ok(self.helm(&["uninstall", LECTERN, PATIENCE]).await?.1)
    }

    /// What helm writes, and what it writes as errors, where hooks' words are, too.
    async fn helm(&self, arguments: &[&str]) -> Result<(String, String)> {
        let ours = cache()?.join("bin/helm");
        let helm = if ours.exists() { ours } else { "helm".into() };
        let done = Command::new(helm).args(["--namespace", PLATFORM]).args(arguments).env("KUBECONFIG", &self.kubeconfig).output().await;
        let done = done.context("helm")?;
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        ensure!(done.status.success(), "helm {}: {err}\n{out}", arguments.join(" "));
        Ok((out.into_owned(), err.into_owned()))
    }
}

fn charts() -> PathBuf {
    e2e_folder().with_file_name("charts")
}
