//! Which certificates may do what: the names that a flag allows.

use std::fmt;
use std::sync::Arc;

use super::caller::Caller;

/// The names that callers must have one of in their certificate. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct AllowedNames {
    /// None: whoever the authority has issued a certificate to may call; without TLS anybody.
    names: Option<Arc<[String]>>,
    /// The flag that sets them.
    flag: &'static str,
}

/// A caller has none of the names that are asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the caller's certificate names {has}, and none of those that {flag} of this node allows")]
pub(crate) struct NotAllowed {
    has: String,
    flag: &'static str,
}

impl AllowedNames {
    /// Those of `flag`. Without any, nobody is refused.
    pub(crate) fn of(flag: &'static str, names: &[String]) -> Self {
        AllowedNames { names: (!names.is_empty()).then(|| names.into()), flag }
    }

    /// These and those of `others`, unless nobody is refused by these.
    #[must_use]
    pub(crate) fn or(&self, others: &Self) -> Self {
        let all = |names: &Arc<[String]>| {
            names.iter().chain(others.names.iter().flat_map(|o| o.iter())).cloned().collect()
        };
        AllowedNames { names: self.names.as_ref().map(all), flag: self.flag }
    }

    /// Whether the caller, as a request's extensions have it, may go on. One whose certificate is not known may not.
    pub(crate) fn check(&self, caller: Option<&Caller>) -> Result<(), NotAllowed> {
        let Some(allowed) = &self.names else { return Ok(()) };
        let names = caller.and_then(Caller::names).unwrap_or_default();
        if names.iter().any(|name| allowed.contains(name)) {
            return Ok(());
        }
        Err(NotAllowed { has: List(names).to_string(), flag: self.flag })
    }
}

/// Names, for people.
struct List<'a>(&'a [String]);

impl fmt::Display for List<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => f.write_str("nothing"),
            names => f.write_str(&names.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    fn caller(common: &str, alternative: &str) -> Caller {
        let mut params = CertificateParams::new([alternative.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Caller::new(None, Some(certificate.der()))
    }

    #[test]
    fn one_allowed_name_is_enough_and_without_any_nobody_is_refused() {
        let caller = caller("member", "n1.example");
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(ToString::to_string).collect();
            AllowedNames::of("--flag", &names)
        };
        assert!(of(&["n1.example"]).check(Some(&caller)).is_ok());
        assert!(of(&["other", "member"]).check(Some(&caller)).is_ok());
        assert!(of(&[]).check(None).is_ok());
        // Names are compared as they are: neither by their beginning nor by their end.
        let error = of(&["n1", "example", "memb"]).check(Some(&caller)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the caller's certificate names member, n1.example, and none of those that --flag of this node allows"
        );
        assert!(of(&["member"]).check(Some(&Caller::new(None, None))).is_err());
        assert!(of(&["member"]).check(None).is_err());
        assert!(of(&["admin"]).or(&of(&["member"])).check(Some(&caller)).is_ok());
        assert!(of(&[]).or(&of(&["other"])).check(Some(&caller)).is_ok());
    }
}
