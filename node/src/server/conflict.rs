//! What was seen that cannot be, as people are shown it: a second process that runs as a member, or a second leader of one term.
//!
//! Whoever sees a second process sees it again and again for as long as it tries. So what was seen is shown until it has not been seen for [`SHOWN`]: by then
//! the copy is gone, or the member has been repaired.

use std::time::{Duration, Instant};

use quorate_raft::Contradiction;

/// For how long it is shown after it was seen last: some times as long as it takes to be seen again ([`crate::peer::SEEN_EVERY`]).
const SHOWN: Duration = Duration::from_secs(30);

/// What was seen last.
#[derive(Debug, Default)]
pub(crate) struct Conflict {
    seen: Option<(String, Instant)>,
    /// The protocol says for ever what it has met.
    contradiction: Option<Contradiction>,
}

impl Conflict {
    /// It was seen at `now`. Whether it is another than the one that is shown.
    pub(crate) fn see(&mut self, what: String, now: Instant) -> bool {
        let is_news = self.shown(now).is_none_or(|shown| shown != what);
        self.seen = Some((what, now));
        is_news
    }

    /// The protocol has met this. Whether it says so for the first time.
    pub(crate) fn meet(&mut self, contradiction: Contradiction, now: Instant) -> bool {
        let is_news = self.contradiction.replace(contradiction) != Some(contradiction);
        is_news && self.see(contradiction.to_string(), now)
    }

    /// What is shown at `now`.
    pub(crate) fn shown(&self, now: Instant) -> Option<&str> {
        let (what, seen) = self.seen.as_ref()?;
        (now.saturating_duration_since(*seen) < SHOWN).then_some(what)
    }
}

#[cfg(test)]
mod tests {
    use quorate_raft::MemberId;

    use super::*;

    #[test]
    fn what_is_not_seen_again_is_not_shown_for_long() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut conflict = Conflict::default();
        assert_eq!(conflict.shown(at(0)), None);
        assert!(conflict.see("a copy".into(), at(0)));
        assert!(!conflict.see("a copy".into(), at(20)), "it is the same one");
        assert_eq!((conflict.shown(at(49)), conflict.shown(at(50))), (Some("a copy"), None));
        assert!(conflict.see("a copy".into(), at(60)), "it has come back");
    }

    #[test]
    fn what_the_protocol_has_met_is_news_once() {
        let start = Instant::now();
        let met = |term| Contradiction::TwoLeaders { term, leaders: (MemberId(1), MemberId(2)) };
        let mut conflict = Conflict::default();
        assert!(conflict.meet(met(5), start) && !conflict.meet(met(5), start + SHOWN));
        assert_eq!(conflict.shown(start + SHOWN), None);
        assert!(conflict.meet(met(6), start + SHOWN));
    }
}
