//! Events: what the operator did, told where `kubectl describe` shows it.
//!
//! What is said again in the same words is counted on the first event. Other words are another event: that a second leader
//! was elected is not a repeat of the first one's.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use parking_lot::Mutex;
use tokio::time::Instant;

/// The API server refuses notes of more than 1024 bytes.
const NOTE_LIMIT: usize = 1000;
/// What is said again later than this is a new event.
const REPEAT: Duration = Duration::from_mins(6);
/// Events that may be repeated. With more, all are new.
const REMEMBERED: usize = 1024;

/// Publishes events.
#[derive(Clone)]
pub struct Events {
    client: Client,
    instance: String,
    recent: Arc<Mutex<HashMap<Words, Said>>>,
}

/// What makes two events the same.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Words {
    about: Option<String>,
    kind: &'static str,
    reason: String,
    note: String,
}

/// An event that was published.
#[derive(Clone, Debug)]
struct Said {
    name: String,
    times: i32,
    last: Instant,
}

impl Events {
    /// Events from this operator; `instance` is its pod's name.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let instance = instance.unwrap_or_else(|| "quorate-operator".to_owned());
        Self { client, instance, recent: Arc::default() }
    }

    /// Something was done.
    pub async fn normal(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish("Normal", about, reason, note).await;
    }

    /// Something needs attention.
    pub async fn warning(&self, about: &ObjectReference, reason: &str, note: &str) {
        self.publish("Warning", about, reason, note).await;
    }

    async fn publish(&self, kind: &'static str, about: &ObjectReference, reason: &str, note: &str) {
        let words = Words { about: about.uid.clone(), kind, reason: reason.to_owned(), note: shorten(note) };
        let now = Instant::now();
        let before = {
            let mut recent = self.recent.lock();
            recent.retain(|_, said| now.duration_since(said.last) < REPEAT);
            recent.get(&words).cloned()
        };
        let said = match &before {
            Some(said) => self.repeat(about, said).await,
            None => self.say(about, &words).await,
        };
        match said {
            Ok(said) => {
                let mut recent = self.recent.lock();
                if recent.len() < REMEMBERED || before.is_some() {
                    recent.insert(words, said);
                }
            }
            // An event is a courtesy: losing one must not hold up the work.
            Err(error) => tracing::debug!(%error, reason, "cannot publish an event"),
        }
    }

    async fn say(&self, about: &ObjectReference, words: &Words) -> Result<Said, kube::Error> {
        let now = Timestamp::now();
        let name = format!("{}.{:x}", about.name.as_deref().unwrap_or_default(), now.as_nanosecond());
        let event = Event {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: about.namespace.clone(),
                ..ObjectMeta::default()
            },
            event_time: Some(MicroTime(now)),
            type_: Some(words.kind.to_owned()),
            reason: Some(words.reason.clone()),
            note: Some(words.note.clone()),
            action: Some("Reconcile".to_owned()),
            regarding: Some(about.clone()),
            reporting_controller: Some("quorate.dev/operator".to_owned()),
            reporting_instance: Some(self.instance.clone()),
            ..Event::default()
        };
        self.api(about).create(&PostParams::default(), &event).await?;
        Ok(Said { name, times: 1, last: Instant::now() })
    }

    async fn repeat(&self, about: &ObjectReference, said: &Said) -> Result<Said, kube::Error> {
        let times = said.times.saturating_add(1);
        let series = EventSeries { count: times, last_observed_time: MicroTime(Timestamp::now()) };
        let patch = serde_json::json!({ "series": series });
        self.api(about).patch(&said.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(Said { name: said.name.clone(), times, last: Instant::now() })
    }

    fn api(&self, about: &ObjectReference) -> Api<Event> {
        Api::namespaced(self.client.clone(), about.namespace.as_deref().unwrap_or("default"))
    }
}

fn shorten(note: &str) -> String {
    let end = (0..=note.len().min(NOTE_LIMIT)).rev().find(|&end| note.is_char_boundary(end)).unwrap_or(0);
    note.get(..end).unwrap_or_default().to_owned()
}
