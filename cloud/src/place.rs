//! Where a bucket and a queue are.

use std::fmt;

/// A bucket: its name and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BucketAt {
    /// The bucket's name.
    pub name: String,
    /// The AWS region; any word where the endpoint is not AWS.
    pub region: String,
    /// The server's URL; `None` for AWS itself. With an endpoint, the bucket is addressed in the path.
    pub endpoint: Option<String>,
}

/// A queue: its name and who serves it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct QueueAt {
    /// The queue's name.
    pub name: String,
    /// The AWS region; any word where the endpoint is not AWS.
    pub region: String,
    /// The server's URL; `None` for AWS itself.
    pub endpoint: Option<String>,
}

impl BucketAt {
    /// A bucket by name, region and endpoint. An empty endpoint means AWS: charts write what is unset as empty.
    pub fn new(name: impl Into<String>, region: impl Into<String>, endpoint: Option<String>) -> Self {
        Self { name: name.into(), region: region.into(), endpoint: given(endpoint) }
    }
}

impl QueueAt {
    /// A queue by name, region and endpoint. An empty endpoint means AWS: charts write what is unset as empty.
    pub fn new(name: impl Into<String>, region: impl Into<String>, endpoint: Option<String>) -> Self {
        Self { name: name.into(), region: region.into(), endpoint: given(endpoint) }
    }

    /// The queue beside this one, of what has time until a slot is idle.
    #[must_use]
    pub fn archive(&self) -> Self {
        Self { name: format!("{}-archive", self.name), ..self.clone() }
    }
}

impl fmt::Display for BucketAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, "bucket", &self.name, &self.region, self.endpoint.as_deref())
    }
}

impl fmt::Display for QueueAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_place(f, "queue", &self.name, &self.region, self.endpoint.as_deref())
    }
}

fn write_place(f: &mut fmt::Formatter<'_>, what: &str, name: &str, region: &str, endpoint: Option<&str>) -> fmt::Result {
    match endpoint {
        Some(endpoint) => write!(f, "{what} {name} at {endpoint}"),
        None => write!(f, "{what} {name} in {region}"),
    }
}

fn given(endpoint: Option<String>) -> Option<String> {
    endpoint.map(|url| url.trim().to_owned()).filter(|url| !url.is_empty())
}

/// An access key given outright. Pods have none: they get theirs from the SDK's default chain (environment, IRSA, Pod
/// Identity); this is for servers started by tests.
#[derive(Clone, PartialEq, Eq)]
pub struct Keys {
    /// The access key's id.
    pub id: String,
    /// The secret.
    pub secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, …)", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_endpoint_is_aws() {
        assert_eq!(BucketAt::new("b", "eu-west-1", Some(" ".into())).endpoint, None);
        assert_eq!(QueueAt::new("q", "eu-west-1", Some(String::new())).endpoint, None);
    }
}
