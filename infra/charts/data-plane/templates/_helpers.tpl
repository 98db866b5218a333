{{- define "plane.labels" -}}
app.kubernetes.io/name: cytoplane
app.kubernetes.io/part-of: cytoplane
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* An image: (list . "agent"), with a third item in place of the tag that all others have. */}}
{{- define "plane.image" -}}
{{- $root := index . 0 -}}
{{- $tag := "" -}}
{{- if gt (len .) 2 }}{{ $tag = index . 2 }}{{ end -}}
{{ $root.Values.image.repository }}/{{ index . 1 }}:{{ $tag | default $root.Values.image.tag | default $root.Chart.AppVersion }}
{{- end }}

{{/* The agents' and the code's own idea of where the platform's objects are. */}}
{{- define "plane.namespace" -}}
{{- if ne .Release.Namespace "cytoplane" -}}
{{- fail "install this chart into the namespace `cytoplane`: agents find each other there" -}}
{{- end -}}
cytoplane
{{- end }}

{{/* In a container that isn't root's: no right at all. */}}
{{- define "plane.nothing" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* What programs of the platform on a node are told, by environment variables. */}}
{{- define "plane.environment" -}}
envFrom:
  - configMapRef: {name: node}
env:
  - name: CYTOPLANE_NODE_NAME
    valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- end }}

{{/* The service account's token, only in containers that ask the cluster something. */}}
{{- define "plane.account" -}}
- name: account
  mountPath: /var/run/secrets/kubernetes.io/serviceaccount
  readOnly: true
{{- end }}

{{- define "plane.accountVolume" -}}
- name: account
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3607}
      - configMap:
          name: kube-root-ca.crt
          items: [{key: ca.crt, path: ca.crt}]
      - downwardAPI:
          items: [{path: namespace, fieldRef: {fieldPath: metadata.namespace}}]
{{- end }}

{{/* policy/v1 came with 1.21. */}}
{{- define "plane.disruptionVersion" -}}
{{- if semverCompare ">=1.21.0-0" .Capabilities.KubeVersion.Version -}}policy/v1{{- else -}}policy/v1beta1{{- end -}}
{{- end }}
