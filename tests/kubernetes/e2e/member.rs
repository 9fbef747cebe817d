//! What a pod is, and what the member that runs in it says of itself: not what the operator makes of it.

use serde_json::Value;

use crate::kubectl::{etcdctl, kubectl};
use crate::traffic::WayIn;

/// The pod at one moment.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Pod {
    /// Of this pod: one that is made anew has another.
    pub(crate) uid: String,
    /// Whether Kubernetes takes it for ready.
    pub(crate) ready: bool,
}

/// The pod `name`. An error if there is none.
pub(crate) fn pod(namespace: &str, name: &str) -> Result<Pod, String> {
    let pod = json(&kubectl(&["get", "pod", name, "--namespace", namespace, "--output", "json"])?)?;
    let uid = pod["metadata"]["uid"].as_str().ok_or_else(|| format!("{name} has no UID"))?;
    let conditions = pod["status"]["conditions"].as_array().map_or(&[][..], Vec::as_slice);
    let ready = conditions.iter().any(|one| one["type"] == "Ready" && one["status"] == "True");
    Ok(Pod { uid: uid.to_owned(), ready })
}

/// What a member says of itself, asked directly.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) id: u64,
    pub(crate) term: u64,
    /// Whom it follows, itself if it leads; 0 for nobody.
    pub(crate) leader: u64,
}

/// The member in `pod`.
pub(crate) fn member(namespace: &str, pod: &str) -> Result<Member, String> {
    let way_in = WayIn::open(namespace, pod);
    let answer = json(&etcdctl(way_in.address, &["endpoint", "status", "--write-out", "json"], "")?)?;
    let status = &answer[0]["Status"];
    let number =
        |value: &Value| value.as_u64().ok_or_else(|| format!("{pod} does not say all of it: {answer}"));
    Ok(Member {
        id: number(&status["header"]["member_id"])?,
        term: number(&status["raftTerm"])?,
        leader: number(&status["leader"])?,
    })
}

fn json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{error} in {text}"))
}
