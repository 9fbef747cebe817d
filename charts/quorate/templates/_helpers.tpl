{{- define "quorate.name" -}}
{{- if hasSuffix "-operator" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-operator" (.Release.Name | trunc 54 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "quorate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "quorate.name" .) }}
{{- else }}{{ required "serviceAccount.name: name the service account that exists, or set serviceAccount.create" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- /* The namespaces that are watched, with commas between them. None: all. */ -}}
{{- define "quorate.namespaces" -}}
{{- concat .Values.watchNamespaces (list .Values.watchNamespace) | compact | uniq | join "," }}
{{- end }}

{{- define "quorate.operatorImage" -}}
{{ .Values.operator.image | default (printf "%s/quorate-operator:%s" .Values.imageRegistry .Chart.AppVersion) }}
{{- end }}

{{- define "quorate.nodeImage" -}}
{{ .Values.node.image | default (printf "%s/quorate-node:%s" .Values.imageRegistry .Chart.AppVersion) }}
{{- end }}

{{- /* The pods' network policies let the operator in by the label app.kubernetes.io/name. */ -}}
{{- define "quorate.selector" -}}
app.kubernetes.io/name: quorate-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "quorate.labels" -}}
{{ include "quorate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- /* What users add. A variable of the chart's own would win or lose by its place in the list, and nobody would see it. */ -}}
{{- define "quorate.env" -}}
{{- $set := list "POD_NAME" "POD_NAMESPACE" "QUORATE_LEASE" "QUORATE_NODE_IMAGE" "QUORATE_UPGRADES_AT_ONCE" "QUORATE_STOP_UPGRADES_AT_FAILURE" "QUORATE_WATCH_NAMESPACE" "QUORATE_LISTEN_HTTP" "QUORATE_CLUSTER_DOMAIN" "QUORATE_LOG" "QUORATE_LOG_FORMAT" }}
{{- range .Values.operator.env }}
{{- if has .name $set }}{{ fail (printf "operator.env must not hold %s: the chart sets it. Use node.image, upgrades, watchNamespace, clusterDomain, operator.log or operator.logFormat" .name) }}{{ end }}
{{- end }}
{{- with .Values.operator.env }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* What the operator does, and no more. It reads Secrets by name: the API server cannot narrow names that are not known before. */ -}}
{{- define "quorate.rules" -}}
- apiGroups: [quorate.dev]
  resources: [raftclusters]
  verbs: [get, list, watch, patch]
- apiGroups: [quorate.dev]
  resources: [raftclusters/status]
  verbs: [patch]
- apiGroups: [quorate.dev]
  resources: [raftclusters/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [pods/eviction]
  verbs: [create]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, patch, delete]
{{- if .Values.secretsOf }}
- apiGroups: [""]
  resources: [secrets]
  resourceNames:
  {{- range $cluster := .Values.secretsOf }}
  {{- range $secret := list "peer-tls" "client-tls" "connection" }}
  - {{ $cluster }}-{{ $secret }}
  {{- end }}
  {{- end }}
  verbs: [get, update]
# The API server does not know the name of what is created before it is there.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
{{- else }}
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, update]
{{- end }}
# Whether another installation, which looks after a cluster, is still there.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get]
# To tell people; and what Kubernetes says of pods and volumes that it does not make.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch, list]
{{- end }}

{{- define "quorate.viewRules" -}}
- {apiGroups: [quorate.dev], resources: [raftclusters, raftclusters/status], verbs: [get, list, watch]}
{{- end }}

{{- define "quorate.editRules" -}}
- {apiGroups: [quorate.dev], resources: [raftclusters], verbs: [create, update, patch, delete, deletecollection]}
- {apiGroups: [quorate.dev], resources: [raftclusters/scale], verbs: [get, update, patch]}
{{- end }}
