//! etcd and kube-apiserver alone, of the binary that the test cluster's nodes run, on ports of the loopback network.

use crate::audit::{Audit, Log};
use anyhow::{Context as _, Result, anyhow};
use lectern_e2e::process::cpu_seconds;
use lectern_e2e::settings::{self, free_port};
use lectern_e2e::wait::{Look, asking_every};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Who the operator is to the API server: the ServiceAccount of the chart, so that it is queued as that would be.
const OPERATOR: (&str, &str) = ("system:serviceaccount:lectern:lectern-operator", "system:serviceaccounts");
/// Who creates and watches; never queued.
const ADMIN: (&str, &str) = ("bench", "system:masters");
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// Requests of the operator that write, with when and what, and nothing else.
const AUDIT_POLICY: &str = "apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - {level: Metadata, users: ['system:serviceaccount:lectern:lectern-operator'], verbs: [create, update, patch, delete]}
  - {level: None}
";

/// A running API server with its etcd. Dropping it ends both.
pub struct ControlPlane {
    /// Everything of it.
    pub folder: PathBuf,
    processes: Vec<Child>,
    audit: Mutex<Log>,
}

impl ControlPlane {
    /// Starts both in `folder`.
    pub async fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let (port, etcd, peer) = (free_port()?, free_port()?, free_port()?);
        certificates(folder, port)?;
        std::fs::write(folder.join("audit.yaml"), AUDIT_POLICY)?;
        let mut plane = Self { folder: folder.to_owned(), processes: Vec::new(), audit: Mutex::new(Log::at(&folder.join("audit.log"))) };
        let at = |file: &str| folder.join(file).display().to_string();
        let (client_url, peer_url) = (format!("http://127.0.0.1:{etcd}"), format!("http://127.0.0.1:{peer}"));
        plane.spawn(
            "etcd",
            &[
                format!("--data-dir={}", at("etcd")),
                format!("--listen-client-urls={client_url}"),
                format!("--advertise-client-urls={client_url}"),
                format!("--listen-peer-urls={peer_url}"),
                format!("--initial-advertise-peer-urls={peer_url}"),
                format!("--initial-cluster=default={peer_url}"),
            ],
        )?;
        plane.spawn(
            "kube-apiserver",
            &[
                format!("--etcd-servers={client_url}"),
                "--bind-address=127.0.0.1".into(),
                "--advertise-address=127.0.0.1".into(),
                format!("--secure-port={port}"),
                format!("--tls-cert-file={}", at("server.crt")),
                format!("--tls-private-key-file={}", at("server.key")),
                format!("--client-ca-file={}", at("ca.crt")),
                format!("--service-account-key-file={}", at("server.crt")),
                format!("--service-account-signing-key-file={}", at("server.key")),
                "--service-account-issuer=https://kubernetes.default.svc".into(),
                "--service-cluster-ip-range=10.96.0.0/16".into(),
                "--authorization-mode=RBAC".into(),
                // Nobody makes the default ServiceAccount that a pod needs otherwise: there is no controller manager.
                "--disable-admission-plugins=ServiceAccount".into(),
                format!("--audit-policy-file={}", at("audit.yaml")),
                format!("--audit-log-path={}", at("audit.log")),
            ],
        )?;
        plane.is_ready(port).await?;
        Ok(plane)
    }

    fn spawn(&mut self, component: &str, arguments: &[String]) -> Result<()> {
        let binary = settings::cache()?.join("cluster/kube");
        let log = std::fs::File::create(self.folder.join(format!("{component}.log")))?;
        let mut command = Command::new(&binary);
        // The binary is every component; which one, its name says.
        command.arg0(component).args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child =
            command.spawn().with_context(|| format!("{} cannot be started; e2e/cluster/node/binary kube makes it", binary.display()))?;
        self.processes.push(child);
        Ok(())
    }

    async fn is_ready(&mut self, port: u16) -> Result<()> {
        let client = self.client().await?;
        asking_every(Duration::from_millis(200), &format!("the API server at port {port}"), STARTS_WITHIN, async || {
            for process in &mut self.processes {
                if let Some(status) = process.try_wait()? {
                    return Ok(Look::Found(Err(anyhow!("etcd or the API server has ended: {status}"))));
                }
            }
            let said = client.request_text(http::Request::get("/readyz").body(Vec::new())?).await?;
            Ok(if said == "ok" { Look::Found(Ok(())) } else { Look::NotYet(said) })
        })
        .await?
    }

    /// The operator's way in.
    pub fn operators_kubeconfig(&self) -> PathBuf {
        self.folder.join("operator.kubeconfig")
    }

    /// A client that may do everything.
    pub async fn client(&self) -> Result<kube::Client> {
        let kubeconfig = kube::config::Kubeconfig::read_from(self.folder.join("admin.kubeconfig"))?;
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?;
        Ok(kube::Client::try_from(config)?)
    }

    /// CPU seconds of etcd and of the API server so far.
    pub fn cpu_seconds(&self) -> Result<[f64; 2]> {
        let of = |at: usize| cpu_seconds(self.processes.get(at).context("it was not started")?.id());
        Ok([of(0)?, of(1)?])
    }

    /// What the operator has written so far.
    pub fn audit(&self) -> Result<Audit> {
        self.audit.lock().unwrap_or_else(PoisonError::into_inner).read()
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The API server first: without etcd it would only complain.
        for process in self.processes.iter_mut().rev() {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// A CA, the server's certificate, and two kubeconfigs.
fn certificates(folder: &Path, port: u16) -> Result<()> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name.push(DnType::CommonName, "bench");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    let key = KeyPair::generate()?;
    let ca = params.self_signed(&key)?.pem();
    let issuer = Issuer::new(params, key);
    std::fs::write(folder.join("ca.crt"), &ca)?;

    let mut server = CertificateParams::new(vec!["localhost".to_owned(), "kubernetes.default.svc".to_owned()])?;
    server.subject_alt_names.push(rcgen::SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate()?;
    std::fs::write(folder.join("server.crt"), server.signed_by(&key, &issuer)?.pem())?;
    std::fs::write(folder.join("server.key"), key.serialize_pem())?;

    for (file, (user, group)) in [("admin", ADMIN), ("operator", OPERATOR)] {
        let mut client = CertificateParams::new(Vec::new())?;
        client.distinguished_name = rcgen::DistinguishedName::new();
        client.distinguished_name.push(DnType::CommonName, user);
        client.distinguished_name.push(DnType::OrganizationName, group);
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let (crt, pem) = (folder.join(format!("{file}.crt")), folder.join(format!("{file}.key")));
        std::fs::write(&crt, client.signed_by(&key, &issuer)?.pem())?;
        std::fs::write(&pem, key.serialize_pem())?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "bench",
            "clusters": [{"name": "bench", "cluster": {"server": format!("https://127.0.0.1:{port}"), "certificate-authority": folder.join("ca.crt")}}],
            "users": [{"name": "bench", "user": {"client-certificate": crt, "client-key": pem}}],
            "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
        });
        std::fs::write(folder.join(format!("{file}.kubeconfig")), kubeconfig.to_string())?;
    }
    Ok(())
}
