//! cert-manager's resources: issuers, and certificates that it keeps (`e2e/cluster/cert-manager/up`).

use crate::lab::{Elsewhere, Lab, STEP};
use crate::wait::{self, Look, eventually};
use anyhow::{Context as _, Result};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use serde_json::{Value, json};

const API: &str = "cert-manager.io/v1";

/// A Certificate: cert-manager makes it, and keeps it in a Secret of the same namespace.
pub struct Kept<'a> {
    lab: &'a Lab,
    api: Api<DynamicObject>,
    name: String,
    namespace: String,
    secret: String,
}

impl Lab {
    /// Applies a ClusterIssuer, which is deleted with the test.
    pub async fn apply_issuer(&self, name: &str, spec: Value) -> Result<()> {
        let kind = kind("ClusterIssuer");
        self.goes_with_the_test(Elsewhere::Resource { kind: kind.clone(), namespace: None, name: name.to_owned() });
        let object = json!({"apiVersion": API, "kind": "ClusterIssuer", "metadata": {"name": name}, "spec": spec});
        applied(&Api::all_with(self.client.clone(), &kind), name, &object).await
    }

    /// Applies a Certificate and waits until it is issued. It is deleted with the test, and so is its Secret.
    pub async fn apply_kept(&self, manifest: &Value) -> Result<Kept<'_>> {
        let text = |pointer: &str| {
            let found = manifest.pointer(pointer).and_then(Value::as_str);
            found.map(str::to_owned).with_context(|| format!("a Certificate has no {pointer}: {manifest}"))
        };
        let (name, namespace, secret) = (text("/metadata/name")?, text("/metadata/namespace")?, text("/spec/secretName")?);
        // The Secret last: cert-manager would make it anew.
        for (kind, name) in [(kind("Certificate"), &name), (ApiResource::erase::<Secret>(&()), &secret)] {
            self.goes_with_the_test(Elsewhere::Resource { kind, namespace: Some(namespace.clone()), name: name.clone() });
        }
        let api = Api::namespaced_with(self.client.clone(), &namespace, &kind("Certificate"));
        applied(&api, &name, manifest).await?;
        let kept = Kept { lab: self, api, name, namespace, secret };
        kept.is_issued().await?;
        Ok(kept)
    }
}

impl Kept<'_> {
    /// An entry of its Secret.
    pub async fn entry(&self, name: &str) -> Result<String> {
        self.lab.entry(&self.namespace, &self.secret, name).await
    }

    /// What `cmctl renew` does; waits until there is another certificate.
    pub async fn renew(&self) -> Result<()> {
        let before = self.entry("tls.crt").await?;
        eventually(&format!("{} is marked", self.name), STEP, async || {
            let mut now = self.api.get(&self.name).await?;
            let conditions = now.data.pointer_mut("/status/conditions").and_then(Value::as_array_mut).context("status.conditions")?;
            conditions.push(json!({
                "type": "Issuing", "status": "True", "reason": "ManuallyTriggered",
                "message": "Certificate re-issuance manually triggered", "lastTransitionTime": Timestamp::now().to_string(),
            }));
            self.api.replace_status(&self.name, &PostParams::default(), &now).await?;
            Ok(Look::Found(()))
        })
        .await?;
        eventually(&format!("another certificate in {}", self.secret), STEP, async || {
            Ok(if self.entry("tls.crt").await? == before { Look::NotYet("the same".to_owned()) } else { Look::Found(()) })
        })
        .await?;
        self.is_issued().await
    }

    async fn is_issued(&self) -> Result<()> {
        let has = |object: &DynamicObject, kind: &str| {
            let conditions = object.data.pointer("/status/conditions").and_then(Value::as_array);
            conditions.is_some_and(|list| list.iter().any(|one| one["type"] == kind && one["status"] == "True"))
        };
        let issued = |object: &DynamicObject| has(object, "Ready") && !has(object, "Issuing");
        let tell = |object: &DynamicObject| object.data["status"].to_string();
        wait::watch(self.api.clone(), &self.name, "is issued", STEP, issued, tell).await.map(drop)
    }
}

async fn applied(api: &Api<DynamicObject>, name: &str, object: &Value) -> Result<()> {
    let apply = api.patch(name, &PatchParams::apply("lectern-e2e").force(), &Patch::Apply(object)).await;
    apply.map(drop).with_context(|| format!("{name} of cert-manager, which `make cert-manager` brings up"))
}

fn kind(name: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", name))
}
