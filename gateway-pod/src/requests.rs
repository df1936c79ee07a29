//! What callers send, checked.

use crate::refusal::Refusal;
use lectern_crds::{Latency, Viewing};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// The largest body, in bytes.
pub const MAX_BODY: usize = 16 * 1024;
const MAX_USER: usize = 128;
const MAX_NAME: usize = 200;
const MAX_RESOURCE: usize = 253;

/// The body of StartStream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// Who holds the lecture; 1 to 128 characters.
    pub user_id: String,
    /// What it is called; 1 to 200 characters. Students read it above the picture.
    pub name: String,
    /// The StreamPool; `default` unless given.
    pub pool_name: Option<String>,
    /// The EncodingLadder; `light` unless given.
    pub ladder: Option<String>,
    /// `Low` unless given.
    #[serde(default)]
    pub latency: Latency,
    /// Who may watch: `Public` unless given.
    #[serde(default)]
    pub viewing: Viewing,
}

/// The body of EndStream.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct End {
    /// As it was given to StartStream.
    pub user_id: String,
    /// As it was given to StartStream.
    pub name: String,
}

impl Start {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let start: Self = json(body)?;
        user_and_name(&start.user_id, &start.name)?;
        for (field, value) in [("poolName", &start.pool_name), ("ladder", &start.ladder)] {
            if let Some(value) = value {
                text(field, value, MAX_RESOURCE)?;
            }
        }
        Ok(start)
    }
}

impl End {
    /// Reads and checks a body.
    pub fn parse(body: &[u8]) -> Result<Self, Refusal> {
        let end: Self = json(body)?;
        user_and_name(&end.user_id, &end.name)?;
        Ok(end)
    }
}

fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    serde_json::from_slice(body).map_err(|error| Refusal::BadRequest(format!("the body is not what this call takes: {error}")))
}

fn user_and_name(user_id: &str, name: &str) -> Result<(), Refusal> {
    text("userId", user_id, MAX_USER)?;
    text("name", name, MAX_NAME)
}

/// 1 to `max` characters, none of them a control character, not only white space.
fn text(field: &str, value: &str, max: usize) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::BadRequest(format!("{field} {why}")));
    let length = value.chars().count();
    if value.trim().is_empty() {
        return refuse("is empty; give 1 character or more".into());
    }
    if length > max {
        return refuse(format!("has {length} characters; at most {max} are taken"));
    }
    if value.chars().any(char::is_control) {
        return refuse("holds a control character (a line break, say); leave it out".into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(parsed: Result<T, Refusal>) -> String {
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn the_shortest_start_gets_the_defaults() {
        let start = Start::parse(br#"{"userId": "ada", "name": "Algebra"}"#).unwrap();
        assert_eq!((start.pool_name, start.ladder, start.latency, start.viewing), (None, None, Latency::Low, Viewing::Public));
    }

    #[test]
    fn a_field_that_nobody_knows_is_named() {
        assert!(message(Start::parse(br#"{"userId": "ada", "name": "Algebra", "pool": "x"}"#)).contains("`pool`"));
    }

    #[test]
    fn lengths_are_counted_in_characters_and_ends_are_taken() {
        let with = |user: String, name: String| Start::parse(serde_json::json!({ "userId": user, "name": name }).to_string().as_bytes());
        assert!(with("ä".repeat(128), "代".repeat(200)).is_ok());
        assert!(message(with("ä".repeat(129), "x".into())).contains("userId has 129"));
        assert!(message(with("x".into(), "代".repeat(201))).contains("name has 201"));
        assert!(message(with(" ".into(), "x".into())).contains("userId is empty"));
        assert!(message(with("x".into(), "a\nb".into())).contains("control character"));
    }

    #[test]
    fn a_latency_that_does_not_exist_is_refused_with_those_that_do() {
        let said = message(Start::parse(br#"{"userId": "a", "name": "b", "latency": "Ultra"}"#));
        assert!(said.contains("Low") && said.contains("Standard"), "{said}");
    }
}
