{{- define "quorate.name" -}}
{{- if hasSuffix "-operator" .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-operator" (.Release.Name | trunc 54 | trimSuffix "-") }}{{ end }}
{{- end }}

{{- define "quorate.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "quorate.name" .) }}
{{- else }}{{ required "serviceAccount.name: name the service account that exists, or set serviceAccount.create" .Values.serviceAccount.name }}{{ end }}
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
  verbs: [get, list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, watch, patch, delete]
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
