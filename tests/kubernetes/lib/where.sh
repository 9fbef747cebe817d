# shellcheck shell=bash
# The cluster that is worked on: the local one, or the user's own where CONTEXT names it.

# Sets the commands; kubectl and helm become functions for them.
use_cluster() {
  if [[ -n ${CONTEXT:-} ]]; then
    build etcdctl   # kubectl and helm are the user's
    KUBECTL=("$(type -P kubectl)" --context "$CONTEXT")
    HELM=("$(type -P helm)" --kube-context "$CONTEXT")
  else
    KUBECTL=("$LOCAL/bin/kubectl" --kubeconfig "$LOCAL/kubeconfig")
    HELM=("$LOCAL/bin/helm" --kubeconfig "$LOCAL/kubeconfig")
  fi
}

kubectl() { "${KUBECTL[@]}" "$@"; }
helm() { "${HELM[@]}" "$@"; }
