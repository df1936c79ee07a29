//! An API server that is asked one thing after the other, as a script says, and holds what it is given.

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tower_test::mock::{Handle, SendResponse, pair};

/// One request that has to come, `PATCH livestreams/algebra/status`, and what becomes of it.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    asks: &'static str,
    answer: Answer,
}

#[derive(Debug, Clone, Copy)]
enum Answer {
    AsItIs,
    Fails(u16),
    Never,
}

/// It is answered by what the server holds.
pub fn ok(asks: &'static str) -> Step {
    Step { asks, answer: Answer::AsItIs }
}

/// It is refused with this status, and nothing changes.
pub fn fails(asks: &'static str, status: u16) -> Step {
    Step { asks, answer: Answer::Fails(status) }
}

/// It is never answered.
pub fn never(asks: &'static str) -> Step {
    Step { asks, answer: Answer::Never }
}

/// What was asked, in order, of this server and of a queue beside it.
pub type Log = Arc<Mutex<Vec<String>>>;

/// A request that has come.
pub type Asked = (Request<Body>, SendResponse<Response<Body>>);

/// LiveStreams and Secrets of the namespace `school`.
pub struct Server {
    handle: Handle<Request<Body>, Response<Body>>,
    /// By kind and name: `livestreams/algebra`.
    objects: BTreeMap<String, Value>,
    version: u64,
    pub log: Log,
    /// What will never be answered.
    open: Vec<SendResponse<Response<Body>>>,
}

impl Server {
    pub fn new() -> (Self, Client) {
        let (service, handle) = pair();
        let server = Self { handle, objects: BTreeMap::new(), version: 0, log: Log::default(), open: Vec::new() };
        (server, Client::new(service, "school"))
    }

    /// Holds `object` at `kind/name` in a version of its own, whatever was there.
    pub fn hold(&mut self, at: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let is_let_go = !object["metadata"]["deletionTimestamp"].is_null() && object["metadata"]["finalizers"] == json!([]);
        if is_let_go {
            self.objects.remove(at);
        } else {
            self.objects.insert(at.to_owned(), object.clone());
        }
        object
    }

    pub fn get(&self, at: &str) -> Option<&Value> {
        self.objects.get(at)
    }

    /// The kinds and names of all that there is.
    pub fn all(&self) -> Vec<&str> {
        self.objects.keys().map(String::as_str).collect()
    }

    /// Somebody else writes to the object.
    pub fn touch(&mut self, at: &str, path: &str, value: Value) {
        let mut object = self.objects[at].clone();
        *object.pointer_mut(path).unwrap() = value;
        self.hold(at, object);
    }

    pub async fn asked(&mut self) -> Asked {
        self.handle.next_request().await.unwrap()
    }

    /// Answers as `expected` says; the request's body.
    pub async fn answer(&mut self, (request, respond): Asked, expected: Option<Step>) -> Value {
        let (head, body) = request.into_parts();
        let body = serde_json::from_slice(&body.collect_bytes().await.unwrap()).unwrap_or_default();
        let path = head.uri.path().rsplit_once("/namespaces/school/").unwrap().1;
        let line = format!("{} {path}", head.method);
        assert_eq!(Some(line.as_str()), expected.map(|step| step.asks), "asked out of turn: {body:#}");
        self.log.lock().unwrap().push(line);
        match expected.unwrap().answer {
            Answer::AsItIs => send(respond, self.take(&head.method, path, &body)),
            Answer::Fails(status) => send(respond, Err(StatusCode::from_u16(status).unwrap())),
            Answer::Never => self.open.push(respond),
        }
        body
    }

    fn take(&mut self, method: &Method, path: &str, body: &Value) -> Result<Value, StatusCode> {
        let (at, is_status) = path.strip_suffix("/status").map_or((path, false), |at| (at, true));
        let there = self.objects.get(at).cloned();
        match (method, there) {
            (&Method::GET, there) => there.ok_or(StatusCode::NOT_FOUND),
            (&Method::POST, _) => {
                let at = format!("{path}/{}", body["metadata"]["name"].as_str().unwrap());
                if self.objects.contains_key(&at) { Err(StatusCode::CONFLICT) } else { Ok(self.hold(&at, body.clone())) }
            }
            (&Method::PATCH, None) => Err(StatusCode::NOT_FOUND),
            (&Method::PATCH, Some(mut there)) if is_status => {
                // Who names no version writes over whatever there is.
                let known = &body["metadata"]["resourceVersion"];
                if !known.is_null() && *known != there["metadata"]["resourceVersion"] {
                    return Err(StatusCode::CONFLICT);
                }
                there["status"] = body["status"].clone();
                Ok(self.hold(at, there))
            }
            (&Method::PATCH, Some(mut there)) => {
                let is_done = body.as_array().unwrap().iter().all(|step| patched(&mut there, step));
                if is_done { Ok(self.hold(at, there)) } else { Err(StatusCode::UNPROCESSABLE_ENTITY) }
            }
            _ => Err(StatusCode::METHOD_NOT_ALLOWED),
        }
    }
}

/// One operation of RFC 6902, as far as the operator uses them. False where a test fails.
fn patched(object: &mut Value, step: &Value) -> bool {
    let path = step["path"].as_str().unwrap();
    let (parent, last) = path.rsplit_once('/').unwrap();
    match step["op"].as_str().unwrap() {
        "test" => return object.pointer(path) == Some(&step["value"]),
        "add" => object.pointer_mut(parent).unwrap()[last] = step["value"].clone(),
        "remove" => drop(object.pointer_mut(parent).unwrap().as_array_mut().unwrap().remove(last.parse().unwrap())),
        other => panic!("the server does not know {other:?}"),
    }
    true
}

fn send(respond: SendResponse<Response<Body>>, answer: Result<Value, StatusCode>) {
    let (status, body) = match answer {
        Ok(object) => (StatusCode::OK, object),
        Err(status) => (
            status,
            json!({
                "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": status.as_u16(),
                "reason": status.canonical_reason(), "message": "as the script says",
            }),
        ),
    };
    respond.send_response(Response::builder().status(status).body(Body::from(body.to_string().into_bytes())).unwrap());
}
