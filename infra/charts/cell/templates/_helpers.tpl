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
