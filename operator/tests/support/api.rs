//! As much of an API server as the operator uses: get, list by label, create, apply, merge, delete.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};

/// Requests that change something, and calls of nodes, in order.
pub(crate) type Log = Arc<Mutex<Vec<String>>>;

pub(crate) struct Api {
    objects: Mutex<BTreeMap<String, Value>>,
    last: Mutex<u64>,
    /// Requests whose line begins so are refused with this code.
    refusals: Mutex<Vec<(String, u16)>>,
    log: Log,
}

impl Api {
    pub(crate) fn new(log: Log) -> Self {
        Self { objects: Mutex::default(), last: Mutex::default(), refusals: Mutex::default(), log }
    }

    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        });
        Client::new(service, "ns")
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.objects.lock().get(path).cloned()
    }

    /// The objects whose path begins so.
    pub(crate) fn under(&self, path: &str) -> Vec<Value> {
        self.objects
            .lock()
            .iter()
            .filter(|(key, _)| key.starts_with(path))
            .map(|(_, object)| object.clone())
            .collect()
    }

    pub(crate) fn put(&self, path: &str, mut object: Value) {
        let version = self.next();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{version}").into();
        }
        object["metadata"]["resourceVersion"] = version.to_string().into();
        self.objects.lock().insert(path.to_owned(), object);
    }

    pub(crate) fn edit(&self, path: &str, edit: impl FnOnce(&mut Value)) {
        let mut object = self.get(path).expect("the object exists");
        edit(&mut object);
        self.put(path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.objects.lock().remove(path);
    }

    pub(crate) fn refuse(&self, line: &str, code: u16) {
        self.refusals.lock().push((line.to_owned(), code));
    }

    pub(crate) fn allow_all(&self) {
        self.refusals.lock().clear();
    }

    /// What was done so far, and forgets it.
    pub(crate) fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock())
    }

    fn next(&self) -> u64 {
        let mut last = self.last.lock();
        *last += 1;
        *last
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let bytes = body.collect().await.expect("a body in memory").to_bytes();
        let path = parts.uri.path().to_owned();
        let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if parts.method != Method::GET && !path.contains("events.k8s.io") {
            self.log.lock().push(format!("{} {path}", parts.method));
        }
        let line = format!("{} {path}", parts.method);
        let refusal =
            self.refusals.lock().iter().find(|(prefix, _)| line.starts_with(prefix)).map(|(_, code)| *code);
        if let Some(code) = refusal {
            return failure(code, "refused by the test");
        }
        match parts.method {
            Method::GET => self.read(&path, parts.uri.query().unwrap_or_default()),
            Method::POST if path.ends_with("/eviction") => self.evict(&path, &body),
            Method::POST => self.create(&path, body),
            Method::PATCH => {
                let kind = parts
                    .headers
                    .get("content-type")
                    .and_then(|value| value.to_str().ok())
                    .unwrap_or_default();
                self.patch(&path, body, kind.contains("apply-patch"))
            }
            Method::PUT => self.replace(&path, body),
            Method::DELETE => self.delete(&path, &body),
            _ => failure(405, "not that method"),
        }
    }

    fn read(&self, path: &str, query: &str) -> Response<Body> {
        if let Some(object) = self.get(path) {
            return success(&object);
        }
        let is_collection =
            ["pods", "persistentvolumeclaims", "events"].iter().any(|kind| path.ends_with(kind));
        if !is_collection {
            return failure(404, "there is no such object");
        }
        let selector = query.split('&').find_map(|part| part.strip_prefix("labelSelector="));
        let selector = selector.map(|text| text.replace("%2F", "/").replace("%3D", "=").replace("%2C", ","));
        assert_eq!(selector.is_none(), path.ends_with("events"), "nothing of others is read: {query}");
        let labelled = |object: &Value| {
            let mut terms = selector.iter().flat_map(|terms| terms.split(','));
            let labels = &object["metadata"]["labels"];
            terms.all(|term| term.split_once('=').is_some_and(|(key, value)| labels[key] == value))
        };
        // Events are selected by what they are about.
        let about = |object: &Value| {
            let regarding = &object["regarding"];
            ["kind", "name"].iter().all(|field| {
                let selector =
                    format!("regarding.{field}%3D{}", regarding[field].as_str().unwrap_or_default());
                regarding.is_null() || query.contains(&selector)
            })
        };
        let objects = self.objects.lock();
        let items: Vec<_> = objects
            .iter()
            .filter(|(key, object)| key.starts_with(&format!("{path}/")) && about(object) && labelled(object))
            .map(|(_, object)| object)
            .collect();
        success(
            &json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": items}),
        )
    }

    fn create(&self, path: &str, object: Value) -> Response<Body> {
        let name = object["metadata"]["name"].as_str().expect("a name").to_owned();
        let path = format!("{path}/{name}");
        if self.get(&path).is_some() {
            return failure(409, "it exists already");
        }
        self.put(&path, object);
        success(&self.get(&path).expect("just put"))
    }

    fn replace(&self, path: &str, object: Value) -> Response<Body> {
        let Some(current) = self.get(path) else { return failure(404, "there is no such object") };
        if object["metadata"]["resourceVersion"] != current["metadata"]["resourceVersion"] {
            return failure(409, "the object has been modified");
        }
        self.put(path, object);
        success(&self.get(path).expect("just put"))
    }

    fn patch(&self, path: &str, patch: Value, apply: bool) -> Response<Body> {
        let (target, status_only) =
            path.strip_suffix("/status").map_or((path, false), |target| (target, true));
        let current = self.get(target);
        if current.is_none() && (status_only || !apply) {
            return failure(404, "there is no such object");
        }
        let mut object = current.unwrap_or_default();
        let expected = &patch["metadata"]["resourceVersion"];
        if !expected.is_null() && *expected != object["metadata"]["resourceVersion"] {
            return failure(409, "the object has been modified");
        }
        if status_only {
            object["status"] = patch["status"].clone();
        } else if apply {
            let before = std::mem::replace(&mut object, patch);
            object["status"] = before["status"].clone();
            object["metadata"]["uid"] = before["metadata"]["uid"].clone();
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
            object["metadata"]["generation"] =
                (generation + u64::from(object["spec"] != before["spec"])).into();
        } else {
            merge(&mut object, &patch);
        }
        self.put(target, object);
        success(&self.get(target).expect("just put"))
    }

    /// Kubernetes asks the budget first; a test that wants a refusal says so.
    fn evict(&self, path: &str, eviction: &Value) -> Response<Body> {
        assert_eq!(eviction["kind"], "Eviction");
        let pod = path.strip_suffix("/eviction").unwrap_or(path);
        self.delete(pod, &eviction["deleteOptions"])
    }

    fn delete(&self, path: &str, options: &Value) -> Response<Body> {
        let Some(object) = self.get(path) else { return failure(404, "there is no such object") };
        for precondition in ["uid", "resourceVersion"] {
            let expected = &options["preconditions"][precondition];
            if !expected.is_null() && *expected != object["metadata"][precondition] {
                return failure(409, "another object of that name, or another version of it");
            }
        }
        self.remove(path);
        success(&object)
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *object = patch.clone();
        return;
    };
    for (key, change) in changes {
        match (change, object.as_object_mut()) {
            (Value::Null, Some(fields)) => drop(fields.remove(key)),
            _ => merge(&mut object[key.as_str()], change),
        }
    }
}

fn success(object: &Value) -> Response<Body> {
    Response::new(Body::from(serde_json::to_vec(object).expect("JSON")))
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": if code == 404 { "NotFound" } else { "Test" }, "code": code});
    let mut response = success(&status);
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response
}
