//! What the steps may touch: nothing that they have not made. They run on people's clusters too.

use serde_json::Value;

use crate::kubectl::{apply, helm, kubectl};

/// The label of the namespaces that the tests make, and take away again.
const MADE_BY: (&str, &str) = ("quorate.dev/made-by", "tests");
/// The description of releases that are the tests' or the demo's begins so.
const OURS: &str = "made by the ";
const CRD: &str = "raftclusters.quorate.dev";

/// The release that the tests install.
pub(crate) struct Release {
    pub(crate) name: &'static str,
    pub(crate) namespace: &'static str,
}

impl Release {
    /// Refuses a cluster where the tests would take over, or take away, what is somebody else's.
    pub(crate) fn refuse_what_is_anothers(&self, tests: &str) -> Result<(), String> {
        let Self { name, namespace } = self;
        let release = self.description()?;
        match &release {
            Some(description) if !description.starts_with(OURS) => {
                return Err(format!(
                    "the release {name} in {namespace} was installed by somebody else: uninstall it first, or use another cluster"
                ));
            }
            _ => {}
        }
        if label(tests)?.is_some_and(|made_by| made_by != MADE_BY.1) {
            return Err(format!(
                "there is a namespace {tests} that these tests have not made: delete it first, or use another cluster"
            ));
        }
        let own = release.is_some().then(|| format!("{namespace}/"));
        let operators = operators()?;
        if let Some(other) = operators.iter().find(|at| own.as_ref().is_none_or(|own| !at.starts_with(own))) {
            return Err(format!(
                "an operator that these tests have not installed runs as {other}: it would look after their clusters. Use another cluster"
            ));
        }
        match crd()? {
            Some(annotations) if !self.is_of(&annotations) => Err(format!(
                "the CRD {CRD} is not of the release {name} in {namespace}: these tests would change it. Use another cluster"
            )),
            _ => Ok(()),
        }
    }

    /// Makes the release's namespace, unless it is there.
    pub(crate) fn make_namespace(&self) -> Result<(), String> {
        if label(self.namespace)?.is_some() { Ok(()) } else { make_namespace(self.namespace) }
    }

    /// Takes away the namespaces that the tests have made.
    pub(crate) fn remove_namespaces(&self, tests: &str, timeout: &str) -> Result<(), String> {
        for namespace in [tests, self.namespace] {
            if label(namespace)?.is_some_and(|made_by| made_by == MADE_BY.1) {
                kubectl(&["delete", "namespace", namespace, "--timeout", timeout])?;
            }
        }
        Ok(())
    }

    /// What Helm says of the release: it is asked for all, since a release that is not there is an error like any other.
    fn description(&self) -> Result<Option<String>, String> {
        let filter = format!("^{}$", self.name);
        // Helm 3 shows some states only when it is asked for them, and Helm 4 has no word for all.
        let states =
            ["--deployed", "--failed", "--pending", "--superseded", "--uninstalled", "--uninstalling"];
        let list = ["list", "--namespace", self.namespace, "--filter", &filter, "--output", "json"];
        let releases = read(&helm(&[&list[..], &states].concat())?)?;
        if releases.as_array().is_none_or(Vec::is_empty) {
            return Ok(None);
        }
        let release =
            read(&helm(&["status", self.name, "--namespace", self.namespace, "--output", "json"])?)?;
        Ok(Some(release["info"]["description"].as_str().unwrap_or_default().to_owned()))
    }

    fn is_of(&self, annotations: &Value) -> bool {
        annotations["meta.helm.sh/release-name"] == self.name
            && annotations["meta.helm.sh/release-namespace"] == self.namespace
    }
}

/// A namespace with restricted pod security that the tests may take away again.
pub(crate) fn make_namespace(name: &str) -> Result<(), String> {
    let (key, value) = MADE_BY;
    apply(&format!(
        "{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}, labels: \
         {{{key}: {value}, pod-security.kubernetes.io/enforce: restricted}}}}}}"
    ))
    .map(drop)
}

/// Whether the CRD is there before the tests begin: then it stays when they end.
pub(crate) fn crd_is_there() -> Result<bool, String> {
    Ok(crd()?.is_some())
}

/// Takes the CRD away that the tests have brought, unless somebody has made a cluster by it meanwhile.
pub(crate) fn remove_crd(timeout: &str) -> Result<(), String> {
    let clusters = kubectl(&["get", "raftclusters", "--all-namespaces", "--output", "name"])?;
    if clusters.is_empty() {
        return kubectl(&["delete", "crd", CRD, "--timeout", timeout]).map(drop);
    }
    Err(format!("the CRD stays: there are clusters that these tests have not made: {clusters}"))
}

/// The mark of a namespace, empty where it has none; none where there is no such namespace.
fn label(namespace: &str) -> Result<Option<String>, String> {
    let found = kubectl(&["get", "namespace", namespace, "--ignore-not-found", "--output", "json"])?;
    if found.is_empty() {
        return Ok(None);
    }
    Ok(Some(read(&found)?["metadata"]["labels"][MADE_BY.0].as_str().unwrap_or_default().to_owned()))
}

/// The operators that are installed, as NAMESPACE/NAME.
fn operators() -> Result<Vec<String>, String> {
    let selector = ["--selector", "app.kubernetes.io/name=quorate-operator"];
    let mut get = vec!["get", "deployments", "--all-namespaces", "--output", "json"];
    get.extend(selector);
    let found = read(&kubectl(&get)?)?;
    let name = |object: &Value| {
        let metadata = &object["metadata"];
        Some(format!("{}/{}", metadata["namespace"].as_str()?, metadata["name"].as_str()?))
    };
    Ok(found["items"].as_array().into_iter().flatten().filter_map(name).collect())
}

/// The annotations of the CRD, if that is there.
fn crd() -> Result<Option<Value>, String> {
    let found = kubectl(&["get", "crd", CRD, "--ignore-not-found", "--output", "json"])?;
    if found.is_empty() { Ok(None) } else { Ok(Some(read(&found)?["metadata"]["annotations"].clone())) }
}

fn read(json: &str) -> Result<Value, String> {
    serde_json::from_str(json).map_err(|error| format!("{error} in {json}"))
}
