//! Runs one sequence on both sides, and shortens it where the answers differ.

use bytes::Bytes;
use quorate_api::etcdserverpb as pb;
use quorate_node::kv::Store;

use crate::etcd::Etcd;
use crate::ours;
use crate::request::{Answer, Request};

/// Runs a sequence. If answers differ, leaves out what is not needed for that, and tells the rest.
pub(crate) fn shortest_difference(etcd: &mut Etcd, mut sequence: Vec<Request>) -> Option<String> {
    let mut difference = run(etcd, &sequence)?;
    sequence.truncate(difference.at + 1);
    let mut at = sequence.len();
    while at > 0 {
        at -= 1;
        let mut shorter = sequence.clone();
        shorter.remove(at);
        if let Some(still) = run(etcd, &shorter) {
            shorter.truncate(still.at + 1);
            at = at.min(shorter.len());
            (sequence, difference) = (shorter, still);
        }
    }
    let before: Vec<_> = sequence[..difference.at].iter().map(|request| format!("{request:?}\n")).collect();
    Some(format!(
        "{}then {:?}\netcd: {:?}\nours: {:?}",
        before.concat(),
        sequence[difference.at],
        difference.theirs,
        difference.ours
    ))
}

/// Answers that differ.
struct Difference {
    /// To which request of the sequence.
    at: usize,
    theirs: Answer,
    ours: Answer,
}

/// Runs a sequence on an empty store and on an emptied etcd, whose revisions are ahead by some number.
fn run(etcd: &mut Etcd, sequence: &[Request]) -> Option<Difference> {
    let mut store = Store::new();
    let start = store.revision();
    let ahead = empty(etcd) - start;
    ours::ask(&mut store, &compaction(start));
    sequence.iter().enumerate().find_map(|(at, request)| {
        let theirs = etcd.ask(request.shifted(ahead)).shifted(-ahead);
        let ours = ours::ask(&mut store, request);
        (theirs != ours).then_some(Difference { at, theirs, ours })
    })
}

/// Deletes all keys and their history, and returns the revision after that.
fn empty(etcd: &mut Etcd) -> i64 {
    let key = Bytes::from_static(b"\0");
    // There is something to delete: so this revision has not been compacted before.
    etcd.ask(Request::Put(pb::PutRequest { key: key.clone(), ..pb::PutRequest::default() }));
    let everything = pb::DeleteRangeRequest { key: key.clone(), range_end: key, prev_kv: false };
    let answer = etcd.ask(Request::DeleteRange(everything));
    let revision = answer.revision().expect("etcd deletes what there is");
    let compacted = etcd.ask(compaction(revision));
    assert_eq!(compacted.revision(), Some(revision), "{compacted:?}");
    revision
}

/// As of a sequence's start, all history is compacted: what earlier sequences have compacted does not show.
fn compaction(revision: i64) -> Request {
    Request::Compact(pb::CompactionRequest { revision, physical: false })
}
