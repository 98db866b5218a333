{{/* The labels that say whose an object is. Everything of a cell carries them. */}}
{{- define "cell.labels" -}}
cytoplane.dev/cell: {{ .Values.cell.number | int64 | toString | quote }}
cytoplane.dev/tenant: {{ .Values.cell.tenant | quote }}
cytoplane.dev/project: {{ .Values.cell.project | quote }}
cytoplane.dev/environment: {{ .Values.cell.environment | quote }}
app.kubernetes.io/part-of: cytoplane
{{- end }}

{{/* The policies' API. A cluster without them can't hold a cell: there would be no second layer. */}}
{{- define "cell.networkPolicyVersion" -}}
{{- if .Capabilities.APIVersions.Has "networking.k8s.io/v1/NetworkPolicy" -}}
networking.k8s.io/v1
{{- else if .Capabilities.APIVersions.Has "networking.k8s.io/v1" -}}
networking.k8s.io/v1
{{- else -}}
{{- fail "this cluster doesn't offer NetworkPolicy (networking.k8s.io/v1)" -}}
{{- end -}}
{{- end }}

{{/* Whether pods are held to the Pod Security standards by labels of their namespace (1.23 and newer). */}}
{{- define "cell.podSecurity" -}}
{{- if semverCompare ">=1.23.0-0" .Capabilities.KubeVersion.Version -}}yes{{- end -}}
{{- end }}


{{/* A replica's labels: `list $ workload`. */}}
{{- define "cell.workloadLabels" -}}
{{- $root := index . 0 }}{{ $workload := index . 1 -}}
{{ include "cell.labels" $root }}
cytoplane.dev/replica: {{ $workload.name }}
cytoplane.dev/component: {{ $workload.component }}
cytoplane.dev/release: {{ $workload.release | int64 | toString | quote }}
{{- end }}

{{/* What holds for every container of a pod: `list $ workload`. */}}
{{- define "cell.podSecurityContext" -}}
{{- $root := index . 0 }}{{ $workload := index . 1 -}}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ $workload.user | int64 }}
  runAsGroup: {{ $workload.user | int64 }}
  fsGroup: {{ $workload.user | int64 }}
  seccompProfile:
    type: RuntimeDefault
{{- if and $root.Values.userNamespaces (semverCompare ">=1.30.0-0" $root.Capabilities.KubeVersion.Version) }}
hostUsers: false
{{- end }}
{{- end }}

{{/* What a container can do: nothing that its user couldn't. Given whether its root is read-only. */}}
{{- define "cell.containerSecurityContext" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: {{ . }}
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* How often is asked. One answer is enough to be ready, three must fail. */}}
{{- define "cell.probe" -}}
periodSeconds: {{ .interval | int64 }}
timeoutSeconds: {{ .timeout | int64 }}
successThreshold: 1
failureThreshold: 3
{{- end }}

{{/* The API of disruption budgets: from 1.21 on policy/v1, the only one from 1.25 on. */}}
{{- define "cell.disruptionVersion" -}}
{{- if .Capabilities.APIVersions.Has "policy/v1/PodDisruptionBudget" -}}
policy/v1
{{- else if semverCompare ">=1.21.0-0" .Capabilities.KubeVersion.Version -}}
policy/v1
{{- else -}}
policy/v1beta1
{{- end -}}
{{- end }}


{{/* Cells, and the platform's own addresses. */}}
{{- define "cell.insiders" -}}
- namespaceSelector:
    matchLabels:
      app.kubernetes.io/part-of: cytoplane
{{- range .Values.reach.platform }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}
{{- end }}
