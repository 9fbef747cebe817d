# shellcheck shell=bash
# The cluster's own authority, and a certificate for each component under the name that RBAC knows it by.

make_authority() {
  mkdir -p "$STATE/pki" "$STATE/log"
  run_logged "$STATE/log/openssl.log" "making the service accounts' key" \
    openssl genrsa -out "$STATE/pki/service-accounts.key" 2048
  run_logged "$STATE/log/openssl.log" "making the cluster's authority" \
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 -subj "/CN=$ID" \
    -keyout "$STATE/pki/ca.key" -out "$STATE/pki/ca.crt"
}

# certificate NAME SUBJECT [ALTERNATIVE NAMES]. Serial numbers are random: nodes make their certificates side by side.
certificate() {
  local path=$STATE/pki/$1 log=$STATE/log/openssl-$1.log
  printf 'extendedKeyUsage=clientAuth,serverAuth\n%s\n' "${3:+subjectAltName=$3}" >"$path.extensions"
  run_logged "$log" "the request for the certificate $1" \
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$path.key" -subj "$2" -out "$path.csr"
  run_logged "$log" "signing the certificate $1" \
    openssl x509 -req -in "$path.csr" -CA "$STATE/pki/ca.crt" -CAkey "$STATE/pki/ca.key" \
    -set_serial "0x$(openssl rand -hex 8)" -days 365 -extfile "$path.extensions" -out "$path.crt"
}

# kubeconfig NAME SERVER: for the certificate NAME, on standard output.
kubeconfig() {
  local path=$STATE/pki/$1
  cat <<YAML
apiVersion: v1
kind: Config
current-context: quorate-local
contexts:
- name: quorate-local
  context: {cluster: quorate-local, user: $1}
clusters:
- name: quorate-local
  cluster: {server: "$2", certificate-authority-data: $(base64 -w0 "$STATE/pki/ca.crt")}
users:
- name: $1
  user: {client-certificate-data: $(base64 -w0 "$path.crt"), client-key-data: $(base64 -w0 "$path.key")}
YAML
}
