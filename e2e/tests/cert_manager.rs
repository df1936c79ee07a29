//! cert-manager keeps the CA that the operator issues by, and the certificates that are shown to others. A binary of its own that `make cert-manager` runs: it takes
//! twenty minutes, because it waits again and again for longer than kubelets take to renew files.
#![allow(clippy::unwrap_used)]

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::ListParams;
use lectern_crds::{DEFAULT_POOL, POOL_LABEL};
use lectern_e2e::cert_manager::Kept;
use lectern_e2e::lab::{Lecture, STEP};
use lectern_e2e::release::{Release, with_the_release};
use lectern_e2e::rotation::{PATIENCE, Step, ask, is_asked, issuing, moved, moved_on, plays_through, step, turned};
use lectern_e2e::settings::PLATFORM;
use lectern_e2e::shards::is_ready;
use lectern_e2e::visitor::{der, shown_to_strangers};
use lectern_e2e::wait::{Look, eventually};
use lectern_e2e::{Lab, PortForward, Visitor};
use serde_json::{Value, json};
use std::time::Instant;

/// The page that tells a school how to do what is done here, with the CA as a manifest.
const TOLD: &str = include_str!("../../docs/trust.md");
/// What gateway and origins show to others is cert-manager's.
const SHOWN: [&str; 4] = [
    "gateway.tls.issue=false",
    "gateway.tls.secretName=school-gateway",
    "pool.origin.tls.enabled=true",
    "pool.origin.tls.secretName=school-watch",
];
const GIVEN: &str = "trust.caSecretName=school-lectern-ca";
const HTTPS: u16 = 8443;

/// One lecture plays through all of it: certificates of cert-manager's are renewed where others see them, the platform goes over to a CA of cert-manager's, and
/// cert-manager renews that CA.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cert_manager_keeps_the_ca_and_certificates_under_a_playing_lecture() -> Result<()> {
    with_the_release("cert_manager_keeps_certificates", async |lab, release| {
        let before = issuing(lab).await?;
        let outcome = Box::pin(under_a_lecture(lab, release)).await;
        let own = own_again(lab, release, &before).await;
        outcome.and(own)
    })
    .await
}

async fn under_a_lecture(lab: &Lab, release: &Release) -> Result<()> {
    let school = school(lab).await?;
    let gateway = lab.apply_kept(&server("school-gateway", "gateway.school.example")).await?;
    let watch = lab.apply_kept(&server("school-watch", "watch.school.example")).await?;
    release.upgrade(&SHOWN).await?;
    let gateways = https(lab, "gateway").await?;
    let origins = https(lab, "origin").await?;
    let media = format!("{POOL_LABEL}={DEFAULT_POOL}");
    let lived = lab.steady(&media).await?;

    plays_through(lab, async |lecture| {
        let playlist = path(lecture).await?;
        let mut servers = Vec::new();
        for pod in gateways {
            let asked = Asked { name: "gateway.school.example", path: "/v1/streams/none/watch", answer: StatusCode::UNAUTHORIZED };
            servers.push(Server::of(lab, pod, &gateway, asked, &school).await?);
        }
        for pod in origins {
            let asked = Asked { name: "watch.school.example", path: &playlist, answer: StatusCode::OK };
            servers.push(Server::of(lab, pod, &watch, asked, &school).await?);
        }
        gateway.renew().await?;
        watch.renew().await?;
        for server in &mut servers {
            server.shows_what_is_kept(lab, &school).await?;
        }

        let given = lab.apply_kept(&told()?).await?;
        release.upgrade(&[&SHOWN[..], &[GIVEN]].concat()).await?;
        let moves = turned(lab, async || moved(lecture).await).await?;
        is_issued_by(lab, &given, &school).await?;
        given.renew().await?;
        let more = turned(lab, async || moved(lecture).await).await?;
        is_issued_by(lab, &given, &school).await?;
        let last = moved_on(lecture).await?;
        eprintln!("{}: {moves} moves, {more} after cert-manager had renewed the CA, {last} after that", lab.test);

        for server in &mut servers {
            server.held_answers().await?;
        }
        ensure!(lab.lives(&media).await? == lived, "{lived:?} became {:?}", lab.lives(&media).await?);
        Ok(())
    })
    .await
}

/// The school's own CA, a root, in cert-manager's namespace, and the ClusterIssuer that the manifest of the docs names; its certificate, PEM.
async fn school(lab: &Lab) -> Result<String> {
    lab.apply_issuer("school-root", json!({"selfSigned": {}})).await?;
    lab.apply_issuer("school-ca", json!({"ca": {"secretName": "school-ca"}})).await?;
    let root = json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": "school-ca", "namespace": "cert-manager"},
        "spec": {
            "isCA": true, "commonName": "School", "secretName": "school-ca", "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"kind": "ClusterIssuer", "name": "school-root"},
        },
    });
    lab.apply_kept(&root).await?.entry("tls.crt").await
}

/// A Certificate for a server, RSA as cert-manager has it unless told otherwise.
fn server(secret: &str, name: &str) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": {"name": secret, "namespace": PLATFORM},
        "spec": {"secretName": secret, "dnsNames": [name], "issuerRef": {"kind": "ClusterIssuer", "name": "school-ca"}},
    })
}

/// The Certificate of the docs.
fn told() -> Result<Value> {
    let mut blocks = TOLD.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    Ok(serde_yaml::from_str(blocks.find(|block| block.contains("isCA: true")).context("docs/trust.md has no Certificate")?)?)
}

/// The pods of a component once all of them serve HTTPS, and none is coming or going.
async fn https(lab: &Lab, component: &str) -> Result<Vec<String>> {
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/name=lectern,app.kubernetes.io/component={component}"));
    let serves = |pod: &Pod| {
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ports = containers.flat_map(|container| container.ports.iter().flatten());
        pod.metadata.deletion_timestamp.is_none() && is_ready(pod) && ports.any(|port| port.container_port == i32::from(HTTPS))
    };
    eventually(&format!("HTTPS at every {component}"), STEP, async || {
        let pods = lab.pods().list(&selector).await?;
        let waited: Vec<_> = pods.iter().filter(|pod| !serves(pod)).map(Pod::name_any).collect();
        let all = || pods.iter().map(Pod::name_any).collect();
        Ok(if waited.is_empty() && !pods.items.is_empty() { Look::Found(all()) } else { Look::NotYet(format!("{waited:?} do not")) })
    })
    .await
}

/// The path of the lecture's playlist.
async fn path(lecture: &Lecture<'_>) -> Result<String> {
    let playback = lecture.api().get(&lecture.name).await?.status.and_then(|status| status.playback).context("status.playback")?;
    Ok(http::Uri::try_from(playback.hls)?.path().to_owned())
}

/// What a server is asked.
#[derive(Clone, Copy)]
struct Asked<'a> {
    /// Whom its certificate is for.
    name: &'a str,
    path: &'a str,
    answer: StatusCode,
}

/// A pod with a certificate of cert-manager's, and a connection to it that is held.
struct Server<'a> {
    pod: String,
    kept: &'a Kept<'a>,
    asked: Asked<'a>,
    held: Visitor,
    _way: PortForward,
    /// Another way to it, for others.
    others: PortForward,
}

impl<'a> Server<'a> {
    async fn of(lab: &Lab, pod: String, kept: &'a Kept<'a>, asked: Asked<'a>, root: &str) -> Result<Self> {
        let way = PortForward::to(&lab.settings, &pod, HTTPS).await?;
        let held = Visitor::of(way.port, asked.name, root).await.with_context(|| pod.clone())?;
        let others = PortForward::to(&lab.settings, &pod, HTTPS).await?;
        let mut server = Self { pod, kept, asked, held, _way: way, others };
        server.shows_what_is_kept(lab, root).await?;
        Ok(server)
    }

    /// Waits until who comes now is shown the certificate that cert-manager keeps now; who has come before is answered all the time.
    async fn shows_what_is_kept(&mut self, lab: &Lab, root: &str) -> Result<()> {
        let (since, kept, mut answers) = (Instant::now(), der(&self.kept.entry("tls.crt").await?)?, 0);
        let (what, port, asked) = (format!("{} shows the new certificate", self.pod), self.others.port, self.asked);
        eventually(&what, PATIENCE, async || {
            if let Err(error) = self.held_answers().await {
                return Ok(Look::Found(Err(error))); // not once may it be dropped
            }
            answers += 1;
            let mut other = Visitor::of(port, asked.name, root).await?;
            other.get(asked.path).await?;
            Ok(if other.shown.first() == Some(&kept) { Look::Found(Ok(())) } else { Look::NotYet("the one before".to_owned()) })
        })
        .await??;
        eprintln!("{}: {what} after {:.1} s, {answers} answers over one connection", lab.test, since.elapsed().as_secs_f64());
        Ok(())
    }

    async fn held_answers(&mut self) -> Result<()> {
        let answer = self.held.get(self.asked.path).await.with_context(|| self.pod.clone())?;
        ensure!(answer == self.asked.answer, "{} answers {answer}", self.pod);
        Ok(())
    }
}

/// Every certificate of the operator's is of this CA, which alone is trusted; who trusts the school's root trusts what a shard and the operator show.
async fn is_issued_by(lab: &Lab, given: &Kept<'_>, root: &str) -> Result<()> {
    let ca = given.entry("tls.crt").await?;
    ensure!(issuing(lab).await? == ca, "the operator issues by another CA");
    for secret in ["lectern-ingest-default-tls", "lectern-transcoder-default-tls", "lectern-origin-default-tls", "lectern-operator-tls"] {
        // A rotation ends with what the operator writes last: that the one before is trusted no more.
        eventually(&format!("{secret} is of the CA that is given, and trusts no other"), STEP, async || {
            let (chain, trusted) = (lab.entry(PLATFORM, secret, "tls.crt").await?, lab.entry(PLATFORM, secret, "ca.crt").await?);
            Ok(if chain.ends_with(&ca) && trusted == ca { Look::Found(()) } else { Look::NotYet(format!("{chain}\n{trusted}")) })
        })
        .await?;
    }
    let shard = lab.shards().await?.into_iter().next().context("a shard")?;
    let leader = lab.leaders().await?.pop().context("a leader")?.name_any();
    for (pod, port, name) in [(shard, 7000, "ingest.default.lectern.internal"), (leader, 7100, "operator.lectern.internal")] {
        eventually(&format!("{pod} shows a certificate of the CA"), PATIENCE, async || {
            // A way of its own each time: the server hangs up on who shows none.
            let way = PortForward::to(&lab.settings, &pod, port).await?;
            let chain = shown_to_strangers(way.port, name, root).await?;
            Ok(if chain.get(1) == Some(&der(&ca)?) { Look::Found(()) } else { Look::NotYet(format!("{} certificates", chain.len())) })
        })
        .await?;
    }
    Ok(())
}

/// A CA of the operator's own again: without the value the one that was given stays for the rest of its time.
async fn own_again(lab: &Lab, release: &Release, before: &str) -> Result<()> {
    release.upgrade(&[]).await?;
    let given = issuing(lab).await?;
    if given == before && step(lab).await? == Step::Steady {
        return Ok(());
    }
    ask(lab).await?;
    eventually("the operator's own CA issues", 3 * PATIENCE, async || {
        let (step, asked, own) = (step(lab).await?, is_asked(lab).await?, issuing(lab).await? != given);
        Ok(if step == Step::Steady && !asked && own {
            Look::Found(())
        } else {
            Look::NotYet(format!("{step:?}, asked: {asked}, own: {own}"))
        })
    })
    .await
}
