//! `Maintenance.Downgrade`.
//!
//! etcd goes back by one minor version, when it is told to. Here a cluster can go back to the version that it came from as long as its level was not
//! raised, without asking for it, and never after that (`ARCHITECTURE.md`, "How a format is changed"). So what etcd refuses is refused in its
//! words, and the one version that it would go back to is refused as well, with the reason.

use quorate_api::etcdserverpb as pb;
use quorate_api::etcdserverpb::downgrade_request::DowngradeAction;
use tonic::Status;

use super::error;

/// The cluster's version, as etcd writes it.
const CLUSTER: &str = "3.7";

const NO_WAY_BACK: &str = "the level of a cluster never falls: until it is raised, start the members with the older version one by one; after that, \
                           take a snapshot and restore it there";

/// Answers a request, without the header.
pub(super) fn downgrade(request: &pb::DowngradeRequest) -> Result<pb::DowngradeResponse, Status> {
    match DowngradeAction::try_from(request.action) {
        Ok(DowngradeAction::Validate | DowngradeAction::Enable) => Err(refusal(&request.version)),
        // etcd answers the same whether or not there was one.
        Ok(DowngradeAction::Cancel) => {
            Ok(pb::DowngradeResponse { header: None, version: CLUSTER.to_owned() })
        }
        Err(_) => Err(error::unknown_method()),
    }
}

fn refusal(version: &str) -> Status {
    match parsed(version).or_else(|| parsed(&format!("{version}.0"))) {
        None => error::wrong_version_format(),
        Some((3, 6)) => error::invalid_downgrade(Some(NO_WAY_BACK)),
        Some(_) => error::invalid_downgrade(None),
    }
}

/// The first two numbers of a semantic version.
fn parsed(version: &str) -> Option<(u64, u64)> {
    let (version, metadata) = version.split_once('+').map_or((version, None), |(v, m)| (v, Some(m)));
    let (version, release) = version.split_once('-').map_or((version, None), |(v, r)| (v, Some(r)));
    let is_word = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_named = |name: &str| name.is_empty() || name.split('.').all(is_word);
    if ![metadata, release].into_iter().flatten().all(is_named) {
        return None;
    }
    let numbers: Vec<u64> = version.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [major, minor, _] = numbers[..] else { return None };
    Some((major, minor))
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn said(action: DowngradeAction, version: &str) -> Result<String, (Code, String)> {
        let request = pb::DowngradeRequest { action: action.into(), version: version.to_owned() };
        let answer = downgrade(&request).map(|answer| answer.version);
        answer.map_err(|status| (status.code(), status.message().to_owned()))
    }

    #[test]
    fn no_version_can_be_gone_back_to() {
        for action in [DowngradeAction::Validate, DowngradeAction::Enable] {
            for wrong in ["", "x", "3", "3.6.0.0", "3.-6", "3.6.0+a..b", "3.6.0-_"] {
                let (_, text) = said(action, wrong).unwrap_err();
                assert_eq!(text, "etcdserver: wrong downgrade target version format", "{wrong}");
            }
            for version in ["3.6", "3.6.2", "3.6.0+", "3.5", "3.7.0", "4.0.0-rc.1"] {
                let refused = (Code::InvalidArgument, "etcdserver: invalid downgrade target version".into());
                assert_eq!(said(action, version), Err(refused), "{version}");
            }
        }
        let request = pb::DowngradeRequest { action: 0, version: "3.6.0".into() };
        assert!(downgrade(&request).unwrap_err().metadata().contains_key("quorate-reason"));
        assert_eq!(said(DowngradeAction::Cancel, ""), Ok("3.7".to_owned()));
    }
}
