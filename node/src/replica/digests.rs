//! Members compare what they hold: whether this member's state is that of the others.
//!
//! A snapshot is the same bytes on every member, and due at the same entries. So each member tells all others the digests of its newest ones: when it has one more,
//! when it hears of a leader, and now and then; a process that starts tells those of its files. Each judges for itself, by the newest
//! configuration.
//!
//! - A member that holds another digest than a quorum of the voters does at one entry is *corrupt*, and knows by itself. It is told durably on its
//!   volume. It serves nothing, leads nothing and gives its snapshots to nobody; its log is as good as any, so it votes and acknowledges as
//!   before, and the others go on.
//! - Where voters differ and no digest can get a quorum any more, or none has got it for [`OPEN_FOR`], nobody can tell who is right: the members are *divided*.
//!   All of them refuse writes and linearizable reads. Serializable reads go on: by them people see what each holds. When a member is removed
//!   whose state is not to be kept, what is left has its quorum again. What a quorum holds at a newer entry ends it: that is decided, whatever was held
//!   before.
//!
//! What a corrupt member holds counts for nothing in this. With another's snapshot a member takes its state, and what it held before is none of its
//! own any more. A digest is that of one level, and only those of the same level are compared. A snapshot
//! that comes from another member is refused if what others hold contradicts it: else those that differ could become the majority. Where nobody can tell
//! that ends after [`OPEN_FOR`]: then the leader's is taken, for without it a member that lacks both could not even help to remove one of those that differ.

use std::collections::{BTreeMap, BTreeSet};

use quorate_raft::{Configuration, Index, MemberId, Term};

use super::{Message, Replica};
use crate::level::Level;
use crate::snapshots::{Corrupt, Digest, Hash, Manifest};

/// How many digests of each member are compared: its newest.
pub(crate) const KEPT: usize = 4;

/// How often, in ticks, a member tells its own: 10 s.
pub(super) const TELLS_EVERY: u64 = 500;

/// For how long, in ticks, two voters may differ while a third has not said what it holds: a minute. It may have its snapshot only later, and then tells
/// who is right.
const OPEN_FOR: u64 = 3000;

/// Whether a member's state is that of the others, as far as it knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Agreement {
    /// Nothing speaks against it.
    #[default]
    Whole,
    /// At this entry voters hold different states, and no quorum the same.
    Divided(Index),
    /// This member differs from a quorum.
    Corrupt(Corrupt),
}

/// What members hold.
#[derive(Debug, Default)]
pub(super) struct Digests {
    /// This member's own, oldest first.
    own: Vec<Digest>,
    told: BTreeMap<MemberId, Told>,
    agreement: Agreement,
    /// Those that are known to be corrupt, or of those that are divided.
    suspects: BTreeSet<MemberId>,
    /// Since when voters differ of whom it is not decided who is right.
    open_since: Option<u64>,
    /// Since when snapshots of others were refused, of which nobody can tell which one is right.
    refused_since: Option<u64>,
    /// Something has come since it was judged last.
    is_news: bool,
    /// By which configuration that was.
    judged_by: Configuration,
    /// The others have not been told the newest.
    is_untold: bool,
    /// The leader that was known when they were, and its term.
    leader: Option<(Term, MemberId)>,
}

/// How what members hold speaks of another's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// Nothing speaks against it.
    Fits,
    /// Some hold another, and nobody can tell who is right.
    Open,
    /// A quorum holds another.
    Wrong,
}

/// What another member has told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    digests: Vec<Digest>,
    is_corrupt: bool,
}

/// Who holds what at one entry, in one level.
type Claims = BTreeMap<MemberId, Hash>;

impl Digests {
    /// Of a member whose volume is marked, or is not.
    pub(super) fn new(corrupt: Option<Corrupt>) -> Self {
        Digests { agreement: corrupt.map_or(Agreement::Whole, Agreement::Corrupt), ..Self::default() }
    }

    /// This member holds one more.
    fn hold(&mut self, digest: Digest) {
        self.own.retain(|known| (known.id.index, known.level) != (digest.id.index, digest.level));
        self.own.push(digest);
        self.own.sort_unstable_by_key(|digest| digest.id.index);
        self.own.drain(..self.own.len().saturating_sub(KEPT));
        (self.is_news, self.is_untold) = (true, true);
    }

    /// The state has become that of another's snapshot, which is held from now on.
    fn replace(&mut self, digest: Digest) {
        self.own.clear();
        self.hold(digest);
        self.refused_since = None;
    }

    fn told(&mut self, from: MemberId, mut digests: Vec<Digest>, is_corrupt: bool) {
        digests.truncate(KEPT);
        let told = Told { digests, is_corrupt };
        // What it says of itself is new: it may be one that has just started, and is told in turn.
        self.is_untold |= self.told.get(&from) != Some(&told);
        self.told.insert(from, told);
        self.is_news = true;
    }

    fn is_corrupt(&self) -> bool {
        matches!(self.agreement, Agreement::Corrupt(_))
    }

    /// Who holds what, at each entry.
    fn claims(&self, me: MemberId) -> BTreeMap<(Index, Level), Claims> {
        let mut claims: BTreeMap<_, Claims> = BTreeMap::new();
        let others = self.told.iter().map(|(id, told)| (*id, &told.digests));
        for (id, digests) in others.chain([(me, &self.own)]) {
            for digest in digests {
                claims.entry((digest.id.index, digest.level)).or_default().insert(id, digest.hash);
            }
        }
        claims
    }

    /// How what is known to be held speaks of `digest`, which another member's snapshot has.
    fn verdict(&self, me: MemberId, digest: &Digest, configuration: &Configuration) -> Verdict {
        let all = self.claims(me);
        let Some(claims) = all.get(&(digest.id.index, digest.level)) else { return Verdict::Fits };
        if let Some(agreed) = agreed(claims, configuration) {
            return if agreed == digest.hash { Verdict::Fits } else { Verdict::Wrong };
        }
        let counts = |id: &MemberId| {
            configuration.is_voter(*id) && !self.told.get(id).is_some_and(|told| told.is_corrupt)
        };
        let contradicts = claims.iter().any(|(id, hash)| counts(id) && *hash != digest.hash);
        if contradicts { Verdict::Open } else { Verdict::Fits }
    }

    /// Judges what is known. Whether anything has changed by it.
    fn judge(&mut self, me: MemberId, configuration: &Configuration, now: u64) -> bool {
        let all = self.claims(me);
        let mut corrupt: BTreeSet<MemberId> =
            self.told.iter().filter(|(_, told)| told.is_corrupt).map(|(id, _)| *id).collect();
        corrupt.extend(self.is_corrupt().then_some(me));
        let (mut own, mut decided) = (None, None);
        for (at, claims) in &all {
            let Some(agreed) = agreed(claims, configuration) else { continue };
            decided = Some(at);
            corrupt.extend(claims.iter().filter(|(_, hash)| **hash != agreed).map(|(id, _)| *id));
            own = own.or_else(|| self.differs(*at, agreed));
        }
        let (mut divided, mut open) = (None, None);
        for (at @ (index, _), claims) in &all {
            if Some(at) < decided {
                continue;
            }
            match split(claims, configuration, &corrupt) {
                Split::None => {}
                Split::Open => open = open.or(Some((*index, claims))),
                Split::Final => divided = divided.or(Some((*index, claims))),
            }
        }
        self.open_since = open.map(|_| self.open_since.unwrap_or(now));
        let is_late = self.open_since.is_some_and(|since| now >= since + OPEN_FOR);
        let divided = divided.or(open.filter(|_| is_late));
        let voters = divided.iter().flat_map(|(_, claims)| claims.keys());
        let voters = voters.filter(|id| configuration.is_voter(**id)).copied();
        let suspects = corrupt.into_iter().chain(voters).collect();
        let agreement = match (self.agreement, own, divided) {
            (Agreement::Corrupt(known), ..) => Agreement::Corrupt(known),
            (_, Some(own), _) => Agreement::Corrupt(own),
            (_, None, Some((index, _))) => Agreement::Divided(index),
            (_, None, None) => Agreement::Whole,
        };
        self.is_news = false;
        if self.judged_by != *configuration {
            self.judged_by = configuration.clone();
        }
        let before = (
            std::mem::replace(&mut self.agreement, agreement),
            std::mem::replace(&mut self.suspects, suspects),
        );
        (before.0, &before.1) != (self.agreement, &self.suspects)
    }

    /// Whether it may be judged otherwise than it was.
    fn is_to_be_judged(&self, configuration: &Configuration, now: u64) -> bool {
        let is_late_now = self.open_since.is_some_and(|since| now == since + OPEN_FOR);
        self.is_news || is_late_now || self.judged_by != *configuration
    }

    /// Where this member's own differs from what a quorum has agreed upon.
    fn differs(&self, (index, level): (Index, Level), agreed: Hash) -> Option<Corrupt> {
        let own = self.own.iter().find(|digest| (digest.id.index, digest.level) == (index, level))?;
        (own.hash != agreed).then_some(Corrupt { id: own.id, own: own.hash, majority: agreed })
    }
}

/// What a quorum holds.
fn agreed(claims: &Claims, configuration: &Configuration) -> Option<Hash> {
    let holds = |hash: &Hash| configuration.quorum(|id| claims.get(&id) == Some(hash));
    claims.values().copied().find(holds)
}

/// Whether voters differ that are not corrupt.
enum Split {
    None,
    /// Those that have not said what they hold may decide it.
    Open,
    Final,
}

fn split(claims: &Claims, configuration: &Configuration, corrupt: &BTreeSet<MemberId>) -> Split {
    let counts = |id: &MemberId| configuration.is_voter(*id) && !corrupt.contains(id);
    let held: BTreeSet<Hash> = claims.iter().filter(|(id, _)| counts(id)).map(|(_, hash)| *hash).collect();
    if held.len() < 2 {
        return Split::None;
    }
    let may_hold = |id, hash| !corrupt.contains(&id) && claims.get(&id).is_none_or(|held| *held == hash);
    let is_open = held.iter().any(|hash| configuration.quorum(|id| may_hold(id, *hash)));
    if is_open { Split::Open } else { Split::Final }
}

impl Replica {
    /// Whether this member's state is that of the others, as far as it knows.
    pub fn agreement(&self) -> Agreement {
        self.digests.agreement
    }

    /// The members that are known to be corrupt, and where the members are divided the voters among whom they are.
    pub fn suspects(&self) -> Vec<MemberId> {
        self.digests.suspects.iter().copied().collect()
    }

    /// This member holds these snapshots: what a process finds when it starts.
    pub fn holds<'m>(&mut self, manifests: impl IntoIterator<Item = &'m Manifest>) {
        manifests.into_iter().for_each(|manifest| self.digests.hold(Digest::of(manifest)));
    }

    /// This member has one snapshot more.
    pub(super) fn hold(&mut self, manifest: &Manifest) {
        self.digests.hold(Digest::of(manifest));
        self.compare();
    }

    /// This member's state is that of another's snapshot from now on.
    pub(super) fn hold_another(&mut self, manifest: &Manifest) {
        self.digests.replace(Digest::of(manifest));
        self.compare();
    }

    /// Another member has told what it holds.
    pub(super) fn told_digests(&mut self, from: MemberId, digests: Vec<Digest>, is_corrupt: bool) {
        if self.status.configuration.is_member(from) && from != self.id {
            self.digests.told(from, digests, is_corrupt);
            self.compare();
        }
    }

    /// Whether a snapshot of another member is not to be taken: others hold something else.
    pub(super) fn is_contradicted(&mut self, from: MemberId, manifest: &Manifest) -> bool {
        let verdict = self.digests.verdict(self.id, &Digest::of(manifest), &self.status.configuration);
        let since = match verdict {
            Verdict::Fits => return false,
            Verdict::Wrong => return true,
            Verdict::Open => *self.digests.refused_since.get_or_insert(self.now),
        };
        self.now < since + OPEN_FOR || self.raft.leadership().1 != Some(from)
    }

    /// Whether all of these are known to be corrupt.
    pub(super) fn are_corrupt(&self, members: &BTreeSet<MemberId>) -> bool {
        let Digests { agreement, suspects, .. } = &self.digests;
        !matches!(agreement, Agreement::Divided(_)) && !members.is_empty() && members.is_subset(suspects)
    }

    /// Whether it serves nothing.
    pub(super) fn is_corrupt(&self) -> bool {
        self.digests.is_corrupt()
    }

    /// Whether it takes no writes.
    pub(super) fn is_divided(&self) -> bool {
        self.digests.agreement != Agreement::Whole
    }

    /// Time passes.
    pub(super) fn tick_digests(&mut self) {
        let members = &self.status.configuration;
        self.digests.told.retain(|id, _| members.is_member(*id));
        if self.digests.is_to_be_judged(members, self.now) {
            self.compare();
        }
        let (term, leader) = self.raft.leadership();
        let leader = leader.map(|leader| (term, leader));
        let is_new = leader.is_some() && std::mem::replace(&mut self.digests.leader, leader) != leader;
        let is_due = is_new || self.digests.is_untold || self.now.is_multiple_of(TELLS_EVERY);
        if is_due && (!self.digests.own.is_empty() || self.is_corrupt()) {
            self.tell_digests();
        }
    }

    fn tell_digests(&mut self) {
        self.digests.is_untold = false;
        let is_corrupt = self.is_corrupt();
        for to in self.status.configuration.members().into_iter().filter(|id| *id != self.id) {
            let digests = if is_corrupt { Vec::new() } else { self.digests.own.clone() };
            self.messages.push(Message::Holds { from: self.id, to, digests, is_corrupt });
        }
    }

    fn compare(&mut self) {
        let was_corrupt = self.is_corrupt();
        if !self.status.configuration.is_member(self.id)
            || !self.digests.judge(self.id, &self.status.configuration, self.now)
        {
            return;
        }
        self.agreement_changed = true;
        if self.is_corrupt() && !was_corrupt {
            self.raft.bar();
            self.digests.is_untold = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::LogId;

    use super::*;

    const ME: MemberId = MemberId(1);

    fn digest(index: Index, byte: u8) -> Digest {
        Digest { id: LogId { term: 1, index }, level: 1, hash: Hash([byte; 32]) }
    }

    fn of(voters: &[u64]) -> Configuration {
        Configuration { voters: voters.iter().copied().map(MemberId).collect(), ..Configuration::default() }
    }

    /// Member 1, which holds `own` at entry 5, and has been told what others hold there.
    fn member(own: u8, others: &[(u64, u8)]) -> Digests {
        let mut digests = Digests::default();
        digests.hold(digest(5, own));
        for (id, byte) in others {
            digests.told(MemberId(*id), vec![digest(5, *byte)], false);
        }
        digests
    }

    /// What it makes of that, and whom it suspects.
    fn judged(digests: &mut Digests, voters: &[u64], now: u64) -> (Agreement, Vec<u64>) {
        digests.judge(ME, &of(voters), now);
        (digests.agreement, digests.suspects.iter().map(|id| id.0).collect())
    }

    #[test]
    fn who_differs_from_a_quorum_is_corrupt_and_each_knows_by_itself() {
        let corrupt =
            Corrupt { id: LogId { term: 1, index: 5 }, own: Hash([9; 32]), majority: Hash([7; 32]) };
        let mut differs = member(9, &[(2, 7), (3, 7)]);
        assert_eq!(judged(&mut differs, &[1, 2, 3], 0), (Agreement::Corrupt(corrupt), vec![1]));
        let mut agrees = member(7, &[(2, 7), (3, 9)]);
        assert_eq!(judged(&mut agrees, &[1, 2, 3], 0), (Agreement::Whole, vec![3]));
        // A learner judges and is judged by what voters hold; what it holds decides nothing.
        let mut learner = member(9, &[(2, 7), (3, 7)]);
        assert_eq!(judged(&mut learner, &[2, 3, 4], 0), (Agreement::Corrupt(corrupt), vec![1]));
        let mut beside = member(7, &[(2, 7), (8, 9)]);
        assert_eq!(judged(&mut beside, &[1, 2], 0), (Agreement::Whole, vec![8]));
        // Once corrupt it stays so, whatever it hears.
        differs.told(MemberId(2), vec![], false);
        assert_eq!(judged(&mut differs, &[1, 2, 3], 9).0, Agreement::Corrupt(corrupt));
    }

    #[test]
    fn without_a_quorum_members_are_divided_until_one_goes() {
        let mut two = member(9, &[(2, 7)]);
        assert_eq!(judged(&mut two, &[1, 2], 0), (Agreement::Divided(5), vec![1, 2]));
        assert_eq!(judged(&mut two, &[1], 0).0, Agreement::Whole, "the other one was removed");
        let mut three = member(9, &[(2, 7), (3, 8)]);
        assert_eq!(judged(&mut three, &[1, 2, 3], 0), (Agreement::Divided(5), vec![1, 2, 3]));
        let mut four = member(9, &[(2, 9), (3, 7), (4, 7)]);
        assert_eq!(judged(&mut four, &[1, 2, 3, 4], 0).0, Agreement::Divided(5));
    }

    #[test]
    fn third_member_may_decide_for_a_while() {
        let mut digests = member(9, &[(2, 7)]);
        assert_eq!(judged(&mut digests, &[1, 2, 3], 10), (Agreement::Whole, vec![]));
        assert_eq!(judged(&mut digests, &[1, 2, 3], 9 + OPEN_FOR), (Agreement::Whole, vec![]));
        assert_eq!(judged(&mut digests, &[1, 2, 3], 10 + OPEN_FOR), (Agreement::Divided(5), vec![1, 2]));
        digests.told(MemberId(3), vec![digest(5, 9)], false);
        assert_eq!(judged(&mut digests, &[1, 2, 3], 11 + OPEN_FOR), (Agreement::Whole, vec![2]));
    }

    #[test]
    fn what_a_quorum_holds_at_a_newer_entry_ends_a_division() {
        let mut digests = member(9, &[(2, 7)]);
        judged(&mut digests, &[1, 2, 3], 0);
        assert_eq!(judged(&mut digests, &[1, 2, 3], OPEN_FOR).0, Agreement::Divided(5));
        digests.hold(digest(6, 8));
        digests.told(MemberId(3), vec![digest(6, 8)], false);
        assert_eq!(judged(&mut digests, &[1, 2, 3], OPEN_FOR), (Agreement::Whole, vec![]));
        // What divides them behind it does.
        digests.hold(digest(7, 9));
        digests.told(MemberId(2), vec![digest(7, 6)], false);
        digests.told(MemberId(3), vec![digest(6, 8), digest(7, 5)], false);
        assert_eq!(judged(&mut digests, &[1, 2, 3], OPEN_FOR).0, Agreement::Divided(7));
    }

    #[test]
    fn with_another_s_snapshot_a_member_is_as_whole_as_that() {
        let mut digests = member(9, &[(2, 7)]);
        judged(&mut digests, &[1, 2, 3], 0);
        digests.replace(digest(8, 7));
        digests.told(MemberId(3), vec![digest(5, 7)], false);
        assert_eq!(judged(&mut digests, &[1, 2, 3], 0), (Agreement::Whole, vec![]));
        assert_eq!(digests.own, [digest(8, 7)]);
    }

    #[test]
    fn members_are_judged_anew_when_something_has_changed() {
        let mut digests = member(9, &[(2, 7)]);
        let three = of(&[1, 2, 3]);
        assert!(digests.is_to_be_judged(&three, 0), "they have said what they hold");
        digests.judge(ME, &three, 10);
        assert!((10..10 + OPEN_FOR).all(|now| !digests.is_to_be_judged(&three, now)));
        assert!(digests.is_to_be_judged(&three, 10 + OPEN_FOR), "a minute is over");
        assert!(digests.is_to_be_judged(&of(&[1, 2]), 11), "a voter was removed");
    }

    #[test]
    fn corrupt_member_does_not_divide_those_that_are_whole() {
        let mut digests = member(9, &[(2, 9), (3, 7)]);
        judged(&mut digests, &[1, 2, 3], 0);
        // 2 is off, and 3 holds something else still.
        digests.hold(digest(6, 9));
        digests.told(MemberId(3), vec![digest(6, 7)], true);
        assert_eq!(judged(&mut digests, &[1, 2, 3], 2 * OPEN_FOR), (Agreement::Whole, vec![3]));
    }

    #[test]
    fn only_snapshots_of_one_entry_and_level_are_compared() {
        let mut digests = member(9, &[]);
        digests.told(MemberId(2), vec![digest(6, 7)], false);
        digests.told(MemberId(3), vec![Digest { level: 2, ..digest(5, 7) }], false);
        assert_eq!(judged(&mut digests, &[1, 2, 3], 2 * OPEN_FOR), (Agreement::Whole, vec![]));
    }

    #[test]
    fn while_joint_both_majorities_decide() {
        let mut digests = member(9, &[(2, 7), (3, 7)]);
        let configuration = Configuration { outgoing: [MemberId(1)].into(), ..of(&[1, 2, 3]) };
        digests.judge(ME, &configuration, 0);
        assert_eq!(digests.agreement, Agreement::Divided(5));
    }

    #[test]
    fn snapshot_that_others_contradict_is_not_taken() {
        let verdict = |others: &[(u64, u8)], byte| {
            let mut digests = Digests::default();
            for (id, byte) in others {
                digests.told(MemberId(*id), vec![digest(5, *byte)], false);
            }
            digests.judge(ME, &of(&[1, 2, 3]), 0);
            digests.verdict(ME, &digest(5, byte), &of(&[1, 2, 3]))
        };
        assert_eq!(verdict(&[], 7), Verdict::Fits);
        assert_eq!(verdict(&[(2, 7)], 7), Verdict::Fits);
        assert_eq!(verdict(&[(2, 9)], 7), Verdict::Open);
        assert_eq!(verdict(&[(2, 9), (3, 7)], 7), Verdict::Open);
        assert_eq!(verdict(&[(2, 9), (3, 9)], 7), Verdict::Wrong);
        assert_eq!(verdict(&[(2, 7), (8, 9)], 7), Verdict::Fits, "a learner decides nothing");
    }

    #[test]
    fn newest_digests_are_kept() {
        let mut digests = Digests::default();
        (1..=9).rev().for_each(|index| digests.hold(digest(index, 1)));
        (5..=9).for_each(|index| digests.hold(digest(index, 2)));
        assert_eq!(digests.own, [6, 7, 8, 9].map(|index| digest(index, 2)));
    }
}
