//! Members and configurations, as the operator sees them. The gRPC types stop in `nodes`.

use std::collections::{BTreeMap, BTreeSet};

/// A member's ID: random, made with its data directory, and kept on its volume.
pub type MemberId = u64;

/// The number in the name of a pod of a `StatefulSet`.
pub type Ordinal = u32;

/// A configuration's name: where it stands in the log. Two configurations never share one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConfigurationId {
    /// The term of its entry.
    pub term: u64,
    /// The index of its entry.
    pub index: u64,
}

/// Where a member is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The pod's name.
    pub name: String,
    /// `host:port` of its peer listener.
    pub peer_address: String,
    /// URLs of its client listener.
    pub client_urls: Vec<String>,
}

/// Who takes part in elections and commitment. It is joint while `outgoing` holds members (dissertation, section 4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    /// Voters; while joint, those of `C_new`.
    pub voters: BTreeSet<MemberId>,
    /// While joint, the voters of `C_old`.
    pub outgoing: BTreeSet<MemberId>,
    /// Members that receive the log and do not vote.
    pub learners: BTreeSet<MemberId>,
    /// Every member that is named above.
    pub members: BTreeMap<MemberId, Member>,
}

impl Configuration {
    /// Whether a change is between `C_old` and `C_new`.
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the configuration names this member.
    pub fn contains(&self, id: MemberId) -> bool {
        self.voters.contains(&id) || self.outgoing.contains(&id) || self.learners.contains(&id)
    }

    /// Everyone whom the configuration names, once.
    pub fn ids(&self) -> BTreeSet<MemberId> {
        self.voters.iter().chain(&self.outgoing).chain(&self.learners).copied().collect()
    }

    /// Whether those who are well hold a majority, of both halves while joint.
    pub fn has_quorum(&self, well: impl Fn(MemberId) -> bool) -> bool {
        has_majority(&self.voters, &well) && (!self.is_joint() || has_majority(&self.outgoing, &well))
    }

    /// The ordinal of the pod that a member was added for.
    pub fn ordinal(&self, cluster: &str, id: MemberId) -> Option<Ordinal> {
        ordinal_of(cluster, &self.members.get(&id)?.name)
    }

    /// The highest ordinal that a member was added for.
    pub fn highest_ordinal(&self, cluster: &str) -> Option<Ordinal> {
        self.ids().into_iter().filter_map(|id| self.ordinal(cluster, id)).max()
    }

    /// Forgets the addresses of those who are no longer named.
    pub fn forget_strangers(&mut self) {
        let named = self.ids();
        self.members.retain(|id, _| named.contains(id));
    }
}

/// More than half. Nobody has a majority of nothing.
pub fn has_majority(of: &BTreeSet<MemberId>, well: impl Fn(MemberId) -> bool) -> bool {
    let count = of.iter().filter(|id| well(**id)).count();
    count >= majority(of.len())
}

/// The least number that is more than half.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many of so many voters may fail.
pub fn tolerance(voters: usize) -> usize {
    voters.saturating_sub(majority(voters))
}

/// The ordinal in the name of a pod or a volume claim: `NAME-N`.
pub fn ordinal_of(prefix: &str, name: &str) -> Option<Ordinal> {
    let digits = name.strip_prefix(prefix)?.strip_prefix('-')?;
    let canonical = digits == "0" || !digits.starts_with('0');
    (canonical && digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinals_are_read_strictly() {
        assert_eq!(ordinal_of("demo", "demo-0"), Some(0));
        assert_eq!(ordinal_of("demo", "demo-12"), Some(12));
        for name in
            ["demo", "demo-", "demo-x", "demo-01", "demo-+1", "demo-2-1", "other-1", "demo-99999999999"]
        {
            assert_eq!(ordinal_of("demo", name), None, "{name}");
        }
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let joint = Configuration {
            voters: [1, 2, 3].into(),
            outgoing: [3, 4, 5].into(),
            ..Configuration::default()
        };
        assert!(joint.has_quorum(|id| [1, 3, 4].contains(&id)));
        assert!(!joint.has_quorum(|id| [1, 2, 3].contains(&id)));
        assert!(!joint.has_quorum(|id| [3, 4, 5].contains(&id)));
        assert!(!Configuration::default().has_quorum(|_| true));
    }
}
