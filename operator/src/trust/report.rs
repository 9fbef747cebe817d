//! What is said of a cluster's certificates: a condition, metrics, events. Pure.

use k8s_openapi::jiff::Timestamp;

/// One that ends within this was not replaced in time: certificates are made anew when a third of their time is left.
const SOON_SECONDS: i64 = 30 * 24 * 3600;

/// What was found and done in a round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What is in use, and how long it is good.
    pub terms: Vec<Term>,
    /// What is wrong, and what to do: a reason for programs, and words for people.
    pub problem: Option<(&'static str, String)>,
    /// What the change to another authority waits for.
    pub waits_for: Option<String>,
    /// It waits for nodes, which takes a minute or two.
    pub nodes_are_awaited: bool,
    /// What was done, for events: a reason, and words.
    pub done: Vec<(&'static str, String)>,
}

/// What certificates are for.
pub const TERMS: [&str; 4] = ["peer", "peer-authority", "client", "client-authority"];

/// How long something is good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    /// What it is: one of [`TERMS`].
    pub what: &'static str,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Seconds since 1970.
    pub not_after: i64,
}

/// A condition's status, reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether all certificates can be used for a while.
    pub current: bool,
    /// For programs.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl Report {
    /// What the condition says at a time, in seconds since 1970.
    pub fn judge(&self, now: i64) -> Judgement {
        let judgement = |current, reason, message| Judgement { current, reason, message };
        let first = self.terms.iter().min_by_key(|term| term.not_after);
        if let Some(term) = self.terms.iter().find(|term| term.not_after <= now) {
            let (what, when) = (term.what, date(term.not_after));
            return judgement(
                false,
                "Expired",
                format!("the {what} certificate ended on {when}: {}", cure(term.what)),
            );
        }
        if let Some((reason, message)) = &self.problem {
            return judgement(false, reason, message.clone());
        }
        if let Some(term) = self.terms.iter().find(|term| term.ends_soon(now)) {
            let (what, when) = (term.what, date(term.not_after));
            return judgement(
                false,
                "ExpiresSoon",
                format!("the {what} certificate ends on {when}: {}", cure(term.what)),
            );
        }
        let until = first.map_or_else(String::new, |term| {
            format!("the first of them, {}, ends on {}", term.what, date(term.not_after))
        });
        match &self.waits_for {
            Some(waits_for) => judgement(
                true,
                "Rotating",
                format!("another authority comes into use; waits for {waits_for}; {until}"),
            ),
            None => {
                judgement(true, "Current", format!("all certificates are renewed before they end; {until}"))
            }
        }
    }
}

impl Term {
    /// A short one has a sixth of its time for this.
    fn ends_soon(&self, now: i64) -> bool {
        self.not_after - now < SOON_SECONDS.min((self.not_after - self.not_before) / 6)
    }
}

fn cure(what: &str) -> &'static str {
    if what == "client" {
        "renew the certificate in the Secret that spec.tls.client names; without one there, see the operator's log"
    } else {
        "see the operator's log and the condition Reconciled for what keeps it from being renewed"
    }
}

fn date(seconds: i64) -> String {
    Timestamp::from_second(seconds).map(|time| time.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 24 * 3600;

    fn term(what: &'static str, days: i64, left: i64) -> Term {
        Term { what, not_before: (left - days) * DAY, not_after: left * DAY }
    }

    #[test]
    fn a_certificate_that_was_not_renewed_in_time_is_said_before_it_ends_and_when_it_has() {
        let reason = |terms: &[Term]| {
            let report = Report { terms: terms.to_vec(), ..Report::default() };
            let judgement = report.judge(0);
            (judgement.current, judgement.reason)
        };
        assert_eq!(reason(&[term("peer", 365, 200), term("client", 365, 31)]), (true, "Current"));
        assert_eq!(reason(&[term("peer", 365, 200), term("client", 365, 29)]), (false, "ExpiresSoon"));
        assert_eq!(reason(&[term("client", 12, 3)]), (true, "Current"), "a short one is renewed late");
        assert_eq!(reason(&[term("client", 12, 1)]), (false, "ExpiresSoon"));
        assert_eq!(reason(&[term("peer-authority", 365, 0), term("client", 365, 29)]), (false, "Expired"));
    }

    #[test]
    fn what_is_wrong_is_said_before_what_is_waited_for() {
        let mut report = Report { waits_for: Some("demo-1 to answer".to_owned()), ..Report::default() };
        let waiting = report.judge(0);
        assert_eq!((waiting.current, waiting.reason), (true, "Rotating"));
        assert!(waiting.message.contains("waits for demo-1 to answer"), "{}", waiting.message);
        report.problem = Some(("SecretMissing", "there is no Secret store".to_owned()));
        assert_eq!(report.judge(0).reason, "SecretMissing");
    }
}
