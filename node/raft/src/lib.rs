//! The Raft protocol as a pure state machine.
//!
//! Inputs are messages, ticks, proposals and completions of writes; outputs are data ([`Output`]). There is no async, clock,
//! socket, disk or global random source in here: the same inputs give the same outputs. "Raft paper" is Ongaro and
//! Ousterhout, *In Search of an Understandable Consensus Algorithm* (extended version); "dissertation" is Ongaro,
//! *Consensus: Bridging Theory and Practice*.
//!
//! # How it is driven
//!
//! The caller owns a [`Raft`], gives it inputs ([`Raft::tick`], [`Raft::step`], [`Raft::propose`], ...) in any order, as many
//! as it likes, and then takes an [`Output`] and acts on it: hands the [`Write`] to the disk, sends the messages, applies what
//! is committed. It waits for none of that. When a write is durable it says so with [`Raft::persisted`], which is an input
//! like any other; many writes can be under way. [`Raft::has_output`] says whether another call of [`Raft::output`] would
//! bring more.
//!
//! A [`Raft`] can be cloned and compared: those who explore all that can happen go on from a copy ([`Raft::canonical`]).
//!
//! # The protocol
//!
//! **Elections.** A follower that hears no leader for one to two election timeouts asks whether the others would vote for it
//! (pre-vote; dissertation, 9.6). Those who hear a leader would not, and neither enter a candidate's term: so nobody who was
//! cut off or removed deposes a leader that works. With a majority of pre-votes it enters the next term, votes for itself and
//! asks for votes. A leader that no quorum answers for an election timeout steps down (check-quorum; 6.2), and so does one whose disk
//! completes no write in time: it tells the voter that is furthest to campaign, and is not elected again while that lasts. When a
//! leader's connections close, its followers need not wait: see [`Raft::disconnected`]. Nor need a process that begins: when all
//! begin at once nobody leads, and if somebody does those who hear it refuse ([`Config::start_ticks`]).
//! A learner asks too, if somebody with an older log asked it while it heard no leader: who counts by a configuration in
//! which it votes may not win without it, and perhaps nobody else has its log. It does not count itself, and hands over as soon
//! as its log is committed.
//! Requests for votes are answered whatever the local configuration says of the sender. Of other messages the later term counts
//! if it comes from one who leads or campaigns in it, or from a member that could not follow otherwise: late answers, and those
//! of members that were removed, change nothing.
//!
//! **Replication.** For each follower the leader keeps what is known to match and what goes next. While it does not know where
//! the logs agree it probes, one message at a time; a rejection's hint skips a whole term. Then messages follow one another
//! without waiting, within limits in bytes. A follower cuts its log only where an entry conflicts. The leader's own disk works
//! while the followers' do, and counts like one of theirs. What is lost is noticed by a gap or by a heartbeat's answer, and
//! sent again.
//!
//! **Commitment.** An entry is committed when a quorum has it durably and it is of the leader's own term (Raft paper, 5.4.2).
//! A member hands out what is committed once it is durable on its own disk as well.
//!
//! **Durability.** What a message claims about its sender has to survive the sender's crash: a vote, an accepted entry, a term.
//! Such a message is a promise, and there is no way from a promise to a message but through the proof that the write is
//! durable, which only a reported completion makes (`outbox.rs`, `writes.rs`). A leader's term has been durable since before
//! its election, so what a leader sends waits for nothing.
//!
//! **Snapshots.** The caller makes a snapshot of its state when it likes, and then the log up to it may go ([`Raft::compact`]);
//! what is kept serves members that are a little behind. To a follower that needs more the leader offers its newest snapshot,
//! by identity alone. The follower's caller fetches the contents, from anyone who has them, makes them durable, and says so;
//! unless the log holds the snapshot's last entry it goes as a whole, and begins anew after that (Raft paper, figure 13). The
//! leader never forgets a follower over it.
//!
//! **Damage.** A member whose disk has lost a part of the log that was durable starts with what is left, follows, and takes no
//! part in elections until it has again what it may have acknowledged ([`Restored::lost`]). The leader fills its log. So does one whose disk
//! went back to an earlier state, as soon as somebody who remembers more of it is heard; if nobody is, nobody can tell.
//!
//! **Membership.** The configuration is derived from the log, counts from the moment that it is appended, and goes back with
//! the log. A change of voters, of as many as one likes, passes through a joint configuration in which both majorities are
//! needed (Raft paper, section 6); a change of learners alone needs none. A change names the configuration that it starts from. Leaving
//! the joint configuration is the leader's duty, any leader's, once the joint configuration is committed. New voters have to be
//! learners that have caught up. A leader that is removed leads until `C_new` is committed, does not count itself, and hands
//! over as it steps down.
//!
//! **Reads.** A leader confirms by a round of heartbeats that it leads, and until then its commit index answers nobody
//! (ReadIndex; dissertation, 6.4). Followers ask the leader for an index and serve the read themselves. Reads wait until the
//! leader has committed an entry of its term. With [`Config::lease`] the members promise, when they answer a heartbeat, to vote
//! for nobody for a while, and meanwhile the leader confirms nothing: see [`Lease`] for what that asks of the clocks.
//!
//! **Transfer.** A leader that hands over takes no proposals, waits until the target has all, and tells it to campaign at once.
//! A leader does so by itself when a voter with a higher [`Config::priority`] has kept up for some election timeouts.
//!
//! # Caveats
//!
//! - The log that was not compacted is in memory.
//! - Snapshots have to be canonical: made from the same entry they are the same, whoever made them. How many are kept, and how
//!   much of the log, is the caller's choice: too little, and a follower that installs one needs the next by then.
//! - Without leases stickiness ends with a restart: a member that comes up knows no leader, and votes at once. With leases it
//!   votes for nobody for an election timeout, and the closing of a leader's connections makes an election no earlier than that.
//! - Reads by lease are stale if the clocks do not keep what [`Lease`] asks. ReadIndex needs no clock.
//! - A transfer that was begun and failed after its target was told to campaign ends the leader's leases for its term: the
//!   target may still hear of it. Reads go on by ReadIndex.
//! - When so many members are damaged at the same time that the others are no quorum, nothing is lost, but nobody is elected
//!   any more. A leader that there is then goes on, and repairs them.
//! - A member whose disk was lost must not come back under its old ID: it has forgotten what it promised. Give it another.
//! - A removed member learns of it if it is up while the leader that removed it leads. One that was away longer asks for
//!   pre-votes for ever, in vain; whoever removed it has to end it. While nobody leads it makes those campaign as well who voted in
//!   its days and are learners now: that may cost an election.
//! - How many proposals and reads are under way is for the caller to bound.
//! - Members are trusted to follow the protocol, and to keep what they promise. What only one could cause that does not is refused, and told
//!   ([`Contradiction`]): a second leader of a term is not followed; an entry that contradicts a committed one is not taken, and the
//!   process is to end: going on would lose data.

mod candidate;
mod change;
mod common;
mod config;
mod entry;
mod error;
mod follower;
mod leader;
mod lease;
mod log;
mod membership;
mod message;
mod outbox;
mod output;
mod priority;
mod progress;
mod quorum;
mod raft;
mod reads;
mod repair;
mod snapshot;
mod timer;
mod transfer;
mod writes;

pub use config::{Config, Restored};
pub use entry::{Configuration, Entry, Index, LogId, MemberId, Payload, Term};
pub use error::{ChangeError, ProposeError, TransferError};
pub use lease::Lease;
pub use message::{Body, Message};
pub use output::{Contradiction, HardState, Output, ReadDone, Role, Status, Write, WriteId};
pub use raft::{Progress, Raft};
pub use snapshot::Snapshot;
