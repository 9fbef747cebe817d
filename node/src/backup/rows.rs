//! What stands in the file, from its first bucket to its last.
//!
//! | bucket | what it holds |
//! |---|---|
//! | `alarm` | the alarms that are raised: the message of each, as the key |
//! | `auth`, `authRoles`, `authUsers` | nothing yet |
//! | `cluster` | the version of etcd that it is like |
//! | `key` | the versions of all keys ([`crate::kv::etcd`]), as the last compaction has left them |
//! | `lease` | the leases |
//! | `members`, `members_removed` | the members, each as JSON by its ID |
//! | `meta` | up to where the log is applied, the configuration, the last compaction, the version of the storage |

use std::collections::{BTreeMap, VecDeque};

use parking_lot::RwLock;
use prost::Message as _;
use quorate_api::mvccpb::KeyValue;
use serde_json::json;

use super::schema::{
    ALARM, AUTH, AUTH_ROLES, AUTH_USERS, CLUSTER, CLUSTER_VERSION, CONF_STATE, CONSISTENT_INDEX,
    FINISHED_COMPACT, KEY, LEASE, MEMBERS, MEMBERS_REMOVED, META, SCHEDULED_COMPACT, STORAGE,
    STORAGE_VERSION, TERM,
};
use crate::kv::{Contents, KvError, Store, etcd};

/// Bytes of versions that are read under one hold of the state's lock, and so what is held of them.
pub(super) const BYTES_AT_ONCE: usize = 256 << 10;

/// The cluster that the state is of.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    /// Its members, with learners.
    pub members: Vec<Member>,
    /// Who votes.
    pub voters: Vec<u64>,
    /// While the configuration is joint, the voters of the old one.
    pub outgoing: Vec<u64>,
    /// Who does not vote.
    pub learners: Vec<u64>,
}

/// A member.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Its ID.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where the others reach it.
    pub peer_urls: Vec<String>,
    /// Where clients do.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Row {
    /// A bucket begins.
    Begin(&'static [u8]),
    /// A key of it, and its value.
    Bytes(Vec<u8>, Vec<u8>),
    /// A key of it, and its value: it is shared with the state.
    Version(Vec<u8>, KeyValue),
    /// It ends.
    End(&'static [u8]),
}

type Pairs = BTreeMap<Vec<u8>, Vec<u8>>;

/// All rows, of the state at one point. Can be gone through more than once, and are the same each time.
#[derive(Debug)]
pub(super) struct Rows {
    contents: Contents,
    /// All other buckets. They are small.
    buckets: Vec<(&'static [u8], Pairs)>,
    /// The bucket that is next or under way, and whether it was begun.
    at: (usize, bool),
}

impl Rows {
    /// Of `store` as it is now.
    pub(super) fn new(store: &Store, cluster: &Cluster) -> Self {
        let alarms = store.alarms().into_iter().map(|alarm| (alarm.encode_to_vec(), Vec::new()));
        let version = (CLUSTER_VERSION.to_vec(), STORAGE_VERSION.into());
        let buckets = vec![
            (ALARM, alarms.collect()),
            (AUTH, Pairs::new()),
            (AUTH_ROLES, Pairs::new()),
            (AUTH_USERS, Pairs::new()),
            (CLUSTER, Pairs::from([version])),
            (KEY, Pairs::new()),
            (LEASE, leases(store)),
            (MEMBERS, members(cluster)),
            (MEMBERS_REMOVED, Pairs::new()),
            (META, meta(store, cluster)),
        ];
        Self { contents: store.contents(), buckets, at: (0, false) }
    }

    /// The revision that they are of.
    pub(super) fn revision(&self) -> i64 {
        self.contents.revision()
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.contents.rewind();
        self.at = (0, false);
    }

    /// Some rows, under one hold of the lock. None at the end.
    pub(super) fn next(&mut self, store: &RwLock<Store>) -> Result<Option<VecDeque<Row>>, KvError> {
        let (at, is_begun) = &mut self.at;
        let Some((name, pairs)) = self.buckets.get(*at) else { return Ok(None) };
        let mut rows = VecDeque::new();
        if !*is_begun {
            rows.push_back(Row::Begin(name));
            *is_begun = true;
        }
        rows.extend(pairs.iter().map(|(key, value)| Row::Bytes(key.clone(), value.clone())));
        if *name == KEY {
            let versions = self.contents.read(&store.read(), BYTES_AT_ONCE)?;
            let row = |version| Row::Version(etcd::revision_key(&version), etcd::stored(&version));
            rows.extend(versions.into_iter().map(row));
            if !self.contents.is_read() {
                return Ok(Some(rows));
            }
        }
        rows.push_back(Row::End(name));
        self.at = (*at + 1, false);
        Ok(Some(rows))
    }
}

/// The leases: the ID of each in 8 bytes, the most significant first, and its message. The state has none.
fn leases(_: &Store) -> Pairs {
    Pairs::new()
}

fn members(cluster: &Cluster) -> Pairs {
    let pair = |member: &Member| {
        let Member { id, name, peer_urls, client_urls, is_learner } = member;
        let mut value = json!({ "id": id, "peerURLs": peer_urls, "name": name, "clientURLs": client_urls });
        if *is_learner {
            value["isLearner"] = true.into();
        }
        (format!("{id:x}").into_bytes(), value.to_string().into_bytes())
    };
    cluster.members.iter().map(pair).collect()
}

fn meta(store: &Store, cluster: &Cluster) -> Pairs {
    let (applied, compacted) = (store.applied(), store.compacted());
    let mut configuration = json!({ "voters": cluster.voters, "auto_leave": !cluster.outgoing.is_empty() });
    for (name, ids) in [("learners", &cluster.learners), ("voters_outgoing", &cluster.outgoing)] {
        if !ids.is_empty() {
            configuration[name] = json!(ids);
        }
    }
    let number = |number: u64| number.to_be_bytes().to_vec();
    let mut pairs = vec![
        (CONF_STATE, configuration.to_string().into_bytes()),
        (CONSISTENT_INDEX, number(applied.index)),
        (TERM, number(applied.term)),
        (STORAGE, STORAGE_VERSION.into()),
    ];
    if compacted >= 0 {
        pairs.push((SCHEDULED_COMPACT, etcd::revision_value(compacted)));
        pairs.push((FINISHED_COMPACT, etcd::revision_value(compacted)));
    }
    pairs.into_iter().map(|(key, value)| (key.to_vec(), value)).collect()
}
