//! A world of nodes that read what is published when they like, and an operator that may be killed after each of its writes.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::trust::held::{Circle, Held};
use crate::trust::x509::{self, Pair, Request};

const NOW: Duration = Duration::from_hours(500_000);
const NODES: usize = 3;

/// What nodes mount.
#[derive(Clone, Debug)]
struct Mounted {
    bundle: String,
    leaf: Pair,
}

#[derive(Clone, Debug)]
struct Node {
    /// The version of what is published that it has read.
    reads: usize,
    answers: bool,
}

#[derive(Debug, Default)]
struct World {
    vault: Option<Held>,
    /// All that was ever published.
    versions: Vec<Mounted>,
    /// Whether the newest version is there.
    is_there: bool,
    nodes: Vec<Option<Node>>,
    asked: bool,
}

fn ids(bundle: &str) -> Vec<AuthorityId> {
    let read = |one: &String| x509::first(one.as_bytes()).map(|read| read.fingerprint);
    x509::split(bundle.as_bytes()).iter().filter_map(read).collect()
}

fn trusts(bundle: &str, leaf: &Pair) -> bool {
    let leaf = x509::first(leaf.certificate.as_bytes()).expect("a leaf");
    x509::split(bundle.as_bytes())
        .iter()
        .any(|one| x509::first(one.as_bytes()).is_some_and(|authority| leaf.is_signed_by(&authority)))
}

fn leaf(by: &Pair) -> Pair {
    let request =
        Request { common_name: "demo nodes".into(), names: vec!["a".into()], server: true, client: true };
    x509::leaf(&request, by, NOW, Duration::from_hours(1)).expect("a leaf")
}

impl World {
    fn new() -> Self {
        let mut world = Self { nodes: vec![None; NODES], ..Self::default() };
        while world.step() {}
        for ordinal in 0..NODES {
            world.start(ordinal);
        }
        world
    }

    fn newest(&self) -> Option<&Mounted> {
        self.versions.last().filter(|_| self.is_there)
    }

    fn readers(&self, bundle: &[AuthorityId]) -> Readers {
        let lags = |node: &Node| !node.answers || ids(&self.versions[node.reads].bundle) != bundle;
        let lag = self.nodes.iter().flatten().any(lags);
        let verdict = if lag { Err("a node".to_owned()) } else { Ok(()) };
        Readers { promote: verdict.clone(), retire: verdict }
    }

    /// One write of the operator's, which knows nothing but what is written. Whether there was anything to do.
    fn step(&mut self) -> bool {
        let authorities = self.vault.as_ref().map(Held::authorities);
        let published = self.newest().map(|mounted| {
            let signs = |one: &String| trusts(one, &mounted.leaf);
            let signer = x509::split(mounted.bundle.as_bytes()).into_iter().find(signs);
            Published {
                trusts: ids(&mounted.bundle),
                signed_by: signer.and_then(|one| ids(&one).pop()),
                serves: true,
                intact: true,
            }
        });
        let bundle = authorities.as_ref().map(Authorities::bundle).unwrap_or_default();
        let Next::Act(effect) =
            next(authorities.as_ref(), published.as_ref(), &self.readers(&bundle), self.asked)
        else {
            return false;
        };
        if let (Effect::Publish { leaf: anew }, Some(known)) = (effect, &self.vault) {
            let made = match known.signer().filter(|_| anew) {
                Some(by) => leaf(&by),
                None => self.newest().expect("a leaf that stays").leaf.clone(),
            };
            self.versions.push(Mounted { bundle: known.bundle(), leaf: made });
            self.is_there = true;
            return true;
        }
        let mounted = self.newest();
        let text = mounted.map(|mounted| (mounted.bundle.as_bytes(), mounted.leaf.certificate.as_bytes()));
        let after =
            Held::after(self.vault.as_ref(), effect, Circle::Peers, "demo", text.unwrap_or_default(), NOW);
        self.vault = after.expect("an authority");
        self.asked &= effect != Effect::Introduce;
        true
    }

    fn start(&mut self, ordinal: usize) {
        if self.is_there {
            self.nodes[ordinal] = Some(Node { reads: self.versions.len() - 1, answers: true });
        }
    }

    fn happens(&mut self, event: u8, ordinal: usize) {
        let newest = self.versions.len() - 1;
        match event {
            0..=2 => {
                self.step();
            }
            3 => {
                let node = self.nodes[ordinal].as_mut().filter(|_| self.is_there);
                if let Some(node) = node {
                    node.reads = (node.reads + 1).min(newest);
                }
            }
            4 => {
                if let Some(node) = &mut self.nodes[ordinal] {
                    node.answers = !node.answers;
                }
            }
            5 => self.nodes[ordinal] = None,
            6 => self.start(ordinal),
            7 => self.asked = true,
            // Both at once are no longer known to anybody.
            8 if self.is_there => self.vault = None,
            9 if self.vault.as_ref().is_some_and(|vault| vault.signer().is_some()) => self.is_there = false,
            _ => {}
        }
    }

    /// What the operator shows, and what it trusts.
    fn operator(&self) -> (String, Option<Pair>) {
        let held = self.vault.as_ref();
        let published = self.newest();
        let bundle = published.map(|mounted| mounted.bundle.clone()).unwrap_or_default()
            + &held.map(Held::bundle).unwrap_or_default();
        let own = held.and_then(Held::signer).map(|by| leaf(&by));
        let own = own.filter(|own| published.is_none_or(|mounted| trusts(&mounted.bundle, own)));
        (bundle, own.or_else(|| published.map(|mounted| mounted.leaf.clone())))
    }

    fn check(&self) {
        let all: Vec<_> = self.nodes.iter().flatten().map(|node| &self.versions[node.reads]).collect();
        let (bundle, own) = self.operator();
        for one in &all {
            assert!(
                all.iter().all(|other| trusts(&one.bundle, &other.leaf)),
                "two nodes distrust each other"
            );
            assert!(trusts(&bundle, &one.leaf), "the operator distrusts a node");
            assert!(own.as_ref().is_none_or(|own| trusts(&one.bundle, own)), "a node distrusts the operator");
        }
    }
}

fn calm(mut world: World) {
    for _ in 0..40 {
        world.step();
        for ordinal in 0..NODES {
            world.start(ordinal);
        }
        world.check();
    }
    assert!(!world.step(), "there is always something to do");
    let vault = world.vault.expect("authorities");
    assert_eq!((vault.authorities().bundle().len(), vault.signer().is_some()), (1, true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nobody_distrusts_anybody_whatever_happens_between_two_writes(
        events in proptest::collection::vec((0u8..10, 0..NODES), 1..60)
    ) {
        let mut world = World::new();
        for (event, ordinal) in events {
            world.happens(event, ordinal);
            world.check();
        }
        calm(world);
    }
}

fn effects(world: &World) -> (usize, bool, usize) {
    let known = world.vault.as_ref().expect("authorities").authorities();
    (world.versions.len(), known.next.is_some(), known.retired.len())
}

#[test]
fn an_authority_is_replaced_phase_by_phase_and_each_waits_for_every_node() {
    let mut world = World::new();
    let first = world.vault.as_ref().expect("authorities").authorities().signing;
    assert!(!world.step(), "at rest");
    world.asked = true;
    let mut seen = vec![effects(&world)];
    for phase in 0..3 {
        while world.step() {
            seen.push(effects(&world));
        }
        for ordinal in 0..NODES {
            assert!(!world.step(), "phase {phase} goes on while node {ordinal} has not read");
            world.happens(3, ordinal);
        }
    }
    // Introduced and published, promoted and published, retired and published.
    let expected = [
        (1, false, 0),
        (1, true, 0),
        (2, true, 0),
        (2, false, 1),
        (3, false, 1),
        (3, false, 0),
        (4, false, 0),
    ];
    assert_eq!(seen, expected);
    assert_ne!(world.vault.expect("authorities").authorities().signing, first);
}

#[test]
fn a_node_that_does_not_answer_holds_the_old_authority() {
    let mut world = World::new();
    world.asked = true;
    world.happens(4, 2);
    for _ in 0..20 {
        world.step();
        (0..NODES).for_each(|ordinal| world.happens(3, ordinal));
    }
    assert_eq!(effects(&world), (2, true, 0), "introduced, and no further");
}

#[test]
fn a_lost_key_is_replaced_without_a_new_leaf_before_all_trust_it() {
    let mut world = World::new();
    let leaf = world.newest().expect("a leaf").leaf.clone();
    world.happens(8, 0);
    while world.step() {}
    let mounted = world.newest().expect("what is mounted");
    assert_eq!((mounted.leaf.certificate == leaf.certificate, ids(&mounted.bundle).len()), (true, 2));
    world.check();
    calm(world);
}
