//! What etcd answers on its own HTTP paths, for programs that know etcd.

use http::StatusCode;
use serde_json::json;

use super::answer::{Answer, JSON};
use crate::doors::health::Health;
use crate::doors::view::{ETCD_STORAGE_VERSION, ETCD_VERSION, NodeView, Unready, VERSION};

/// `/health`: as etcd judges, with its words where it has some.
pub(super) fn health(health: &Health) -> Answer {
    let reason = match health.view().map(NodeView::status) {
        None => Some("STARTING".to_owned()),
        Some(_) if health.stands_still() => Some("LOOP STANDS STILL".to_owned()),
        Some(status) => match status.unready {
            Some(Unready::NoLeader) => Some("RAFT NO LEADER".to_owned()),
            Some(Unready::Corrupt | Unready::Divided) => Some("ALARM CORRUPT".to_owned()),
            Some(why) => Some(why.to_string().to_uppercase()),
            None => (status.over_quota || status.short_of_room.contains(&status.member_id))
                .then(|| "ALARM NOSPACE".to_owned()),
        },
    };
    let code = if reason.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let healthy = if reason.is_none() { "true" } else { "false" };
    let body = json!({ "health": healthy, "reason": reason.unwrap_or_default() });
    Answer::new(code, JSON, body.to_string())
}

/// `/version`.
pub(super) fn version() -> Answer {
    let body = json!({
        "etcdserver": ETCD_VERSION,
        "etcdcluster": ETCD_STORAGE_VERSION,
        "storage": ETCD_STORAGE_VERSION,
        "quorate": VERSION,
    });
    Answer::new(StatusCode::OK, JSON, body.to_string())
}
