//! The way from one authority to the next: a pure function of what is written and of what the nodes say.
//!
//! ```text
//!               written by the operator for itself   published for the nodes            goes on when
//! at rest       A signs                              trust A,    leaf of A               a new one is due
//! introduced    A signs, B is next                   trust A, B, leaf of A               every node trusts A, B
//! promoted      B signs, A is retired                trust B, A, leaf of B               every node trusts B, A
//! at rest       B signs                              trust B,    leaf of B
//! ```
//!
//! Who is asked trusts both authorities from before the first leaf of the new one is made until after the last leaf of the old one has gone, so
//! there is no moment at which two nodes distrust each other. No phase ends by time. A node reads the authorities before its leaf, so one that
//! trusts `B, A`, in this order, has a leaf of B. Each effect is one write, and the next step is found from what is written: it does not matter
//! after which of them the operator is killed.
//!
//! Where the key of the authority that has signed the leaf is lost, that authority is adopted: it is trusted, signs nothing, and another one is
//! introduced beside it.

/// Names an authority: the SHA-256 of its certificate, in hexadecimal, as nodes tell it.
pub type AuthorityId = String;

/// The authorities that the operator knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorities {
    /// The one that signs.
    pub signing: AuthorityId,
    /// Whether its key is there.
    pub can_sign: bool,
    /// The one that signs next. It is trusted already.
    pub next: Option<AuthorityId>,
    /// Those that have signed before, and are trusted still.
    pub retired: Vec<AuthorityId>,
}

impl Authorities {
    /// What is to be trusted, in the order that says which phase it is.
    pub fn bundle(&self) -> Vec<AuthorityId> {
        let rest = self.next.iter().chain(&self.retired);
        std::iter::once(&self.signing).chain(rest).cloned().collect()
    }
}

/// What is published: authorities that are trusted, and a leaf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What is trusted, in its order.
    pub trusts: Vec<AuthorityId>,
    /// Who of them has signed the leaf. None where it is nobody of them, or there is no leaf.
    pub signed_by: Option<AuthorityId>,
    /// The leaf has the names that it needs, and time left.
    pub serves: bool,
    /// Labels, annotations and owner are as they should be.
    pub intact: bool,
}

/// Whether those who read what is published have come far enough, or what they have not done yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readers {
    /// For the next authority to sign.
    pub promote: Result<(), String>,
    /// For those that are retired to be trusted no more.
    pub retire: Result<(), String>,
}

/// One write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A first authority is made.
    Found,
    /// The authority of the leaf is taken for the one that signs, and the known one, or a new one, is next.
    Adopt,
    /// What is trusted is published.
    Publish {
        /// With a new leaf. Without it the leaf that is there stays.
        leaf: bool,
    },
    /// A new authority is next.
    Introduce,
    /// The next authority signs.
    Promote,
    /// Those that are retired are trusted no more.
    Retire,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    Rest,
    /// This.
    Act(Effect),
    /// Nothing before this has happened.
    Wait(String),
}

/// The next step. `due` asks for another authority.
pub fn next(
    known: Option<&Authorities>,
    published: Option<&Published>,
    readers: &Readers,
    due: bool,
) -> Next {
    let Some(known) = known else {
        let has_leaf = published.is_some_and(|published| published.signed_by.is_some());
        return Next::Act(if has_leaf { Effect::Adopt } else { Effect::Found });
    };
    match publication(known, published) {
        Some(effect) => Next::Act(effect),
        None => onward(known, readers, due),
    }
}

/// Brings what is published to what is known.
fn publication(known: &Authorities, published: Option<&Published>) -> Option<Effect> {
    let Some(published) = published else {
        // Without its key it makes no leaf, and nodes that start wait for one.
        return Some(if known.can_sign { Effect::Publish { leaf: true } } else { Effect::Promote });
    };
    let trusted = |id: &AuthorityId| published.trusts.contains(id);
    match &published.signed_by {
        // The nodes may trust nobody but its authority: a leaf of another one comes only when they do.
        Some(signer) if *signer != known.signing && !(knows(known, signer) && trusted(&known.signing)) => {
            return Some(Effect::Adopt);
        }
        _ => {}
    }
    let good_leaf = published.signed_by.as_ref() == Some(&known.signing) && published.serves;
    let leaf = known.can_sign && !good_leaf;
    let same = published.trusts == known.bundle() && published.intact;
    (leaf || !same).then_some(Effect::Publish { leaf })
}

fn knows(known: &Authorities, id: &AuthorityId) -> bool {
    known.bundle().contains(id)
}

/// All is published: what comes after it.
fn onward(known: &Authorities, readers: &Readers, due: bool) -> Next {
    let step = |come: &Result<(), String>, effect| match come {
        Ok(()) => Next::Act(effect),
        Err(lacking) => Next::Wait(lacking.clone()),
    };
    if known.next.is_some() {
        step(&readers.promote, Effect::Promote)
    } else if !known.retired.is_empty() {
        step(&readers.retire, Effect::Retire)
    } else if due {
        Next::Act(Effect::Introduce)
    } else {
        Next::Rest
    }
}

#[cfg(test)]
#[path = "rotation_tests.rs"]
mod tests;
