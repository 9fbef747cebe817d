//! `kubectl raft recover`: which member holds most, what may be lost, and the request that the operator carries out.

use std::fmt::Write as _;
use std::io::{self, BufRead, Write as _};

use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt};
use quorate_crds::{RaftCluster, Recover, Remains};
use serde_json::{Value, json};

use super::{PluginError, show};

/// The member that is to become the new cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Choice {
    request: Recover,
    /// Members that are known to hold more, or may.
    better: Vec<String>,
}

/// Chooses the member that holds most, or the one that was named.
pub(super) fn choose(cluster: &RaftCluster, from: Option<&str>) -> Result<Choice, PluginError> {
    let name = cluster.name_any();
    let usage = |what: String| Err(PluginError::Usage(format!("nothing was changed: {what}")));
    let status = cluster.status.clone().unwrap_or_default();
    let quorate = status.conditions.iter().find(|found| found.type_ == "Quorate");
    if quorate.is_some_and(|found| found.status != "False") {
        return usage(format!("{name} has a leader, or may have: there is nothing to be recovered"));
    }
    let Some(id) = status.cluster_id.clone().filter(|_| status.bootstrapped) else {
        return usage(format!("{name} has never been founded"));
    };
    if let Some(begun) = status.recovery.as_ref().filter(|begun| begun.from == id && from.is_none()) {
        return usage(format!(
            "{} is being recovered already; see kubectl raft plan {name}. Another member is chosen with --from POD",
            begun.pod
        ));
    }
    let named = |one: &&Remains| from.is_none_or(|from| one.pod == from);
    // Of those that hold the same, the one that answers.
    let Some(chosen) = status.remains.iter().filter(named).max_by_key(|one| (holds(one), one.answers)) else {
        return usage(match from {
            Some(from) => {
                format!("nobody has heard what {from} holds: it has to run first, or choose another")
            }
            None => format!("nobody has heard what the members of {name} hold: one of them has to run first"),
        });
    };
    let more = status.remains.iter().filter(|one| holds(one) > holds(chosen)).map(|one| one.pod.clone());
    let unheard = status.members.iter().filter(|member| {
        member.id != chosen.member && !status.remains.iter().any(|one| one.member == member.id)
    });
    let better = more.chain(unheard.map(|member| member.pod.clone())).collect();
    let request = Recover { cluster: id, pod: chosen.pod.clone(), member: chosen.member.clone() };
    Ok(Choice { request, better })
}

/// Of two logs the one with the higher last term is newer, and of two with the same the longer one.
fn holds(one: &Remains) -> (i64, i64) {
    (one.last_term, one.last_index)
}

/// What each member holds, what is chosen, and what it means.
pub(super) fn consequences(cluster: &RaftCluster, choice: &Choice) -> String {
    let status = cluster.status.clone().unwrap_or_default();
    let row = |one: &Remains| {
        vec![
            one.pod.clone(),
            one.member.clone(),
            one.last_term.to_string(),
            one.last_index.to_string(),
            one.commit_index.to_string(),
            one.revision.to_string(),
            one.version.clone(),
            if one.answers { "yes" } else { "no, as it was heard last" }.to_owned(),
        ]
    };
    let head = ["POD", "MEMBER", "LAST TERM", "LAST ENTRY", "COMMITTED", "REVISION", "VERSION", "ANSWERS"];
    let mut text = show::table(&head, status.remains.iter().map(row).collect());
    let Recover { cluster: id, pod, .. } = &choice.request;
    let _ = write!(
        text,
        "\n{pod} becomes a new cluster, in the place of {id}, which ends:\n\
         - lost: every write that the other members acknowledged without {pod}\n\
         - kept: all that {pod} holds, entries too that are not known to be committed\n\
         - the volumes of the other members stay (Retain), without their claims, and are named in status.recovery\n\
         - revisions go up by far, and older ones count as compacted: watches begin anew\n"
    );
    if !choice.better.is_empty() {
        let _ = writeln!(
            text,
            "- WARNING: {} may hold more: bring it back, or choose it with --from, if it can be had",
            choice.better.join(", ")
        );
    }
    text
}

/// Whoever types the cluster's name has read what it means.
pub(super) fn confirm(name: &str, yes: Option<&str>, input: &mut impl BufRead) -> Result<(), PluginError> {
    let said = if let Some(yes) = yes {
        yes.to_owned()
    } else {
        let mut out = io::stdout();
        write!(out, "\nType the cluster's name ({name}) to go on: ")?;
        out.flush()?;
        let mut line = String::new();
        input.read_line(&mut line)?;
        line.trim().to_owned()
    };
    if said == name {
        return Ok(());
    }
    Err(PluginError::Usage(format!("nothing was changed: {said:?} is not the cluster's name, {name}")))
}

/// Writes the request over the very version that was shown.
pub(super) async fn ask(
    api: &Api<RaftCluster>,
    cluster: &RaftCluster,
    choice: &Choice,
) -> Result<(), PluginError> {
    let patch = Patch::Merge(patch(cluster, choice));
    api.patch(&cluster.name_any(), &PatchParams::default(), &patch).await?;
    Ok(())
}

fn patch(cluster: &RaftCluster, choice: &Choice) -> Value {
    json!({
        "metadata": {"uid": cluster.uid(), "resourceVersion": cluster.resource_version()},
        "spec": {"recover": choice.request},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    // As `json!` makes them.
    #[allow(clippy::needless_pass_by_value)]
    fn cluster(quorate: &str, remains: Value) -> RaftCluster {
        serde_json::from_value(json!({
            "apiVersion": "quorate.dev/v1alpha1", "kind": "RaftCluster",
            "metadata": {"name": "demo", "uid": "u", "resourceVersion": "7"}, "spec": {},
            "status": {
                "clusterID": "00000000000000a1", "bootstrapped": true, "remains": remains,
                "members": [
                    {"ordinal": 0, "id": "0a", "role": "Voter", "pod": "demo-0", "healthy": false},
                    {"ordinal": 2, "id": "0c", "role": "Voter", "pod": "demo-2", "healthy": false},
                ],
                "conditions": [{"type": "Quorate", "status": quorate, "reason": "x", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z"}],
            },
        }))
        .expect("a cluster")
    }

    fn one(pod: &str, member: &str, (term, index): (i64, i64), answers: bool) -> Value {
        json!({"pod": pod, "member": member, "lastTerm": term, "lastIndex": index, "commitIndex": 1, "revision": 9,
            "version": "0.1.0", "answers": answers})
    }

    #[test]
    fn the_member_with_the_newest_log_is_chosen_and_longer_ones_of_older_terms_are_not() {
        let found = cluster(
            "False",
            json!([one("demo-0", "0a", (3, 900), true), one("demo-1", "0b", (4, 40), true)]),
        );
        let choice = choose(&found, None).expect("a choice");
        assert_eq!(
            (choice.request.pod.as_str(), choice.better.as_slice()),
            ("demo-1", &["demo-2".to_owned()][..])
        );
        let text = consequences(&found, &choice);
        assert!(text.contains("WARNING: demo-2 may hold more") && text.contains("900"), "{text}");
        let patch = patch(&found, &choice);
        let recover = json!({"cluster": "00000000000000a1", "pod": "demo-1", "member": "0b"});
        assert_eq!(
            (&patch["spec"]["recover"], &patch["metadata"]["resourceVersion"]),
            (&recover, &json!("7"))
        );
        let other = choose(&found, Some("demo-0")).expect("it was named");
        assert_eq!(other.better, ["demo-1", "demo-2"], "it is said that others hold more");
    }

    #[test]
    fn nothing_is_asked_for_where_there_is_a_quorum_or_nobody_has_been_heard() {
        let heard = json!([one("demo-0", "0a", (3, 9), true)]);
        for (quorate, remains, part) in [
            ("True", heard.clone(), "has a leader"),
            ("Unknown", heard.clone(), "has a leader, or may have"),
            ("False", json!([]), "one of them has to run first"),
        ] {
            let error = choose(&cluster(quorate, remains), None).expect_err(part);
            assert!(error.to_string().contains(part) && error.code() == 2, "{error}");
        }
        choose(&cluster("False", heard), Some("demo-7")).expect_err("nobody has heard of it");
    }

    #[test]
    fn the_name_has_to_be_typed() {
        let typed = |text: &str| confirm("demo", None, &mut text.as_bytes());
        typed("demo\n").expect("it is the name");
        for wrong in ["", "y\n", "yes\n", "Demo\n"] {
            typed(wrong).expect_err("it is not the name");
        }
        confirm("demo", Some("demo"), &mut "".as_bytes()).expect("it is the name");
        confirm("demo", Some("other"), &mut "demo\n".as_bytes()).expect_err("a script means another");
    }
}
