{{/* Names, labels, and what every pod has in common. */}}

{{- define "cytoplane.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select the pods of a part. Takes (dict "root" $ "part" "web"). */}}
{{- define "cytoplane.selector" -}}
app.kubernetes.io/name: cytoplane
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .part }}
{{- end }}

{{- define "cytoplane.labels" -}}
{{ include "cytoplane.selector" . }}
app.kubernetes.io/part-of: cytoplane
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{- define "cytoplane.keys" -}}
{{- .Values.keys.existingSecret | default (printf "%s-keys" (include "cytoplane.name" .)) -}}
{{- end }}

{{- define "cytoplane.registryKeys" -}}
{{ include "cytoplane.name" . }}-registry-keys
{{- end }}

{{- define "cytoplane.claim" -}}
{{- .Values.repositories.existingClaim | default (printf "%s-repositories" (include "cytoplane.name" .)) -}}
{{- end }}

{{/* What can't be said in the schema: values that contradict each other. */}}
{{- define "cytoplane.check" -}}
{{- $host := (urlParse .Values.portal.url).hostname | lower -}}
{{- $domain := .Values.applications.domain -}}
{{- if or (eq $host $domain) (hasSuffix (printf ".%s" $domain) $host) (hasSuffix (printf ".%s" $host) $domain) -}}
{{- fail (printf "applications under %s could set cookies for the portal at %s: choose domains of which neither is a part of the other" $domain $host) -}}
{{- end -}}
{{- if and .Values.registry.enabled (not .Values.images.registry) -}}
{{- fail "images.registry is needed while registry.enabled is true" -}}
{{- end -}}
{{- if and .Values.admin.email (not .Values.admin.existingSecret) -}}
{{- fail "admin.existingSecret is needed with admin.email" -}}
{{- end -}}
{{- end }}

{{/* Pod-level settings: unprivileged, without a token, spread. Takes root, part, user. */}}
{{- define "cytoplane.pod" -}}
serviceAccountName: {{ include "cytoplane.name" .root }}
automountServiceAccountToken: false
enableServiceLinks: false
securityContext:
  {{- include "cytoplane.podSecurity" (dict "user" .user) | nindent 2 }}
{{- include "cytoplane.placement" .root }}
{{- if ne .root.Values.repositories.accessMode "ReadWriteMany" }}
{{- if has .part (list "web" "worker") }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      # One node alone can mount the repositories.
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
            cytoplane.dev/repositories: "yes"
{{- end }}
{{- else }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "cytoplane.selector" . | nindent 8 }}
{{- end }}
{{- end }}

{{- define "cytoplane.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .user }}
runAsGroup: {{ .user }}
fsGroup: {{ .user }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "cytoplane.placement" }}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.hostAliases }}
hostAliases:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{- define "cytoplane.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Settings of the platform's own processes; passwords come from the Secrets that the values name. */}}
{{- define "cytoplane.environment" -}}
{{- $portal := urlParse .Values.portal.url -}}
- { name: DJANGO_SETTINGS_MODULE, value: controlplane.settings }
- { name: CYTOPLANE_HOME, value: /var/lib/cytoplane }
- { name: CYTOPLANE_STATIC, value: /usr/lib/cytoplane/static }
- { name: CYTOPLANE_SHARED_DIR, value: /var/lib/cytoplane/shared }
- { name: CYTOPLANE_NET, value: {{ .Values.net | quote }} }
- { name: CYTOPLANE_PORTAL_HOST, value: {{ $portal.hostname | quote }} }
- { name: CYTOPLANE_PORTAL_ORIGIN, value: {{ .Values.portal.url | quote }} }
- { name: CYTOPLANE_PORTAL_BIND, value: "0.0.0.0,::" }
- { name: CYTOPLANE_PORTAL_PORT, value: "8000" }
- { name: CYTOPLANE_AGENTS_NAMES, value: {{ join "," .Values.agents.names | quote }} }
- { name: CYTOPLANE_AGENTS_PORT, value: {{ .Values.agents.port | quote }} }
- { name: CYTOPLANE_APPS_DOMAIN, value: {{ .Values.applications.domain | quote }} }
- { name: CYTOPLANE_APPS_PORT, value: {{ .Values.applications.port | quote }} }
- { name: CYTOPLANE_OPEN_NETWORKS, value: {{ join "," .Values.openNetworks | quote }} }
- { name: CYTOPLANE_DATABASE, value: {{ .Values.database.name | quote }} }
- { name: CYTOPLANE_DATABASE_HOST, value: {{ .Values.database.host | quote }} }
- { name: CYTOPLANE_DATABASE_PORT, value: {{ .Values.database.port | quote }} }
- { name: CYTOPLANE_DATABASE_USER, value: {{ .Values.database.user | quote }} }
- { name: CYTOPLANE_DATABASE_TLS, value: {{ .Values.database.tls.mode }} }
{{- if .Values.database.tls.caSecret }}
- { name: CYTOPLANE_DATABASE_CA, value: /etc/cytoplane/database/ca.crt }
{{- end }}
- name: CYTOPLANE_DATABASE_PASSWORD
  valueFrom:
    secretKeyRef: { name: {{ .Values.database.existingSecret }}, key: {{ .Values.database.passwordKey }} }
{{- include "cytoplane.redis" . }}
{{- end }}

{{- define "cytoplane.redis" }}
- { name: CYTOPLANE_REDIS_HOST, value: {{ .Values.redis.host | quote }} }
- { name: CYTOPLANE_REDIS_PORT, value: {{ .Values.redis.port | quote }} }
- { name: CYTOPLANE_REDIS_DB, value: {{ .Values.redis.database | quote }} }
- { name: CYTOPLANE_REDIS_USER, value: {{ .Values.redis.user | quote }} }
- { name: CYTOPLANE_REDIS_TLS, value: {{ ternary "verify-full" "disable" .Values.redis.tls.enabled }} }
{{- if .Values.redis.tls.caSecret }}
- { name: CYTOPLANE_REDIS_CA, value: /etc/cytoplane/redis/ca.crt }
{{- end }}
{{- with .Values.redis.existingSecret }}
- name: CYTOPLANE_REDIS_PASSWORD
  valueFrom:
    secretKeyRef: { name: {{ . }}, key: {{ $.Values.redis.passwordKey }} }
{{- end }}
{{- end }}

{{/* Authorities of database and Redis, where they have ones of their own. */}}
{{- define "cytoplane.authorityMounts" -}}
{{- if .Values.database.tls.caSecret }}
- { name: database-ca, mountPath: /etc/cytoplane/database, readOnly: true }
{{- end }}
{{- if .Values.redis.tls.caSecret }}
- { name: redis-ca, mountPath: /etc/cytoplane/redis, readOnly: true }
{{- end }}
{{- end }}

{{- define "cytoplane.authorityVolumes" -}}
{{- with .Values.database.tls }}
{{- if .caSecret }}
- name: database-ca
  secret: { secretName: {{ .caSecret }}, items: [{ key: {{ .caKey }}, path: ca.crt }] }
{{- end }}
{{- end }}
{{- with .Values.redis.tls }}
{{- if .caSecret }}
- name: redis-ca
  secret: { secretName: {{ .caSecret }}, items: [{ key: {{ .caKey }}, path: ca.crt }] }
{{- end }}
{{- end }}
{{- end }}

{{/* A probe of a part's heartbeat file: fresh within so many seconds. */}}
{{- define "cytoplane.fresh" -}}
exec:
  command:
    - sh
    - -c
    - >-
      last=$(stat -c %Y /var/lib/cytoplane/run/web/{{ .part }}.alive 2>/dev/null || echo 0);
      test $(( $(date +%s) - last )) -lt {{ .seconds }} ||
      { echo "nothing was heard of it for {{ .seconds }} s"; exit 1; }
{{- end }}

{{- define "cytoplane.image" -}}
image: {{ .Values.images.controlPlane }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
{{- end }}
