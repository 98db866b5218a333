{{/* What a pod of a cell is, in a Deployment or by itself: `list $ workload`. */}}
{{- define "cell.pod" -}}
{{- $root := index . 0 }}{{ $workload := index . 1 -}}
{{- with $workload }}
{{- include "cell.podSecurityContext" (list $root .) }}
serviceAccountName: workload
automountServiceAccountToken: false
enableServiceLinks: false
{{- if $root.Values.pull }}
imagePullSecrets:
  - name: pull
{{- end }}
{{- with $root.Values.priorityClass }}
priorityClassName: {{ . }}
{{- end }}
hostname: {{ printf "%s-%s" .component .name }}
# Names are answered by the platform's resolver, which knows who asks; the cluster's knows nothing of
# what a cell may reach.
dnsPolicy: {{ if $root.Values.dns.servers }}None{{ else }}Default{{ end }}
{{- if $root.Values.dns.servers }}
dnsConfig:
  nameservers:
    {{- range $root.Values.dns.servers }}
    - {{ . | quote }}
    {{- end }}
  searches:
    - cy.internal
  options:
    - {name: timeout, value: "2"}
    - {name: attempts, value: "2"}
{{- end }}
{{- if .once }}
restartPolicy: Never
# The platform ends what takes too long; the node does where nobody else can any more.
activeDeadlineSeconds: {{ .once.deadline | int64 }}
{{- else }}
restartPolicy: Always
{{- end }}
terminationGracePeriodSeconds: {{ .grace | int64 }}
{{- if not .once }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        cytoplane.dev/component: {{ .component }}
        cytoplane.dev/release: {{ .release | int64 | toString | quote }}
{{- end }}
# A replica on a node that went away is started elsewhere after half a minute, not after five.
tolerations:
  - {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
  - {key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- if $root.Values.check.image }}
initContainers:
  # Sees one allowed and one denied probe in each direction, or nothing of the replica starts.
  - name: check
    image: {{ $root.Values.check.image | quote }}
    imagePullPolicy: IfNotPresent
    env:
      # Who would answer if nothing stood between.
      - name: CYTOPLANE_NODE
        valueFrom: {fieldRef: {fieldPath: status.hostIP}}
    {{- with $root.Values.check.arguments }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "cell.containerSecurityContext" true | nindent 6 }}
    resources:
      requests: {cpu: 10m, memory: 16Mi}
      limits: {cpu: 100m, memory: 16Mi}
    terminationMessagePolicy: FallbackToLogsOnError
{{- end }}
containers:
  - name: app
    image: {{ .image | quote }}
    imagePullPolicy: IfNotPresent
    {{- with .command }}
    command:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    envFrom:
      - secretRef:
          name: {{ .environment }}
    {{- if eq .probe.type "http" }}
    readinessProbe:
      httpGet:
        path: {{ .probe.path | quote }}
        port: {{ .probe.port | int64 }}
        scheme: HTTP
      {{- include "cell.probe" .probe | nindent 6 }}
    {{- else if eq .probe.type "tcp" }}
    readinessProbe:
      tcpSocket:
        port: {{ .probe.port | int64 }}
      {{- include "cell.probe" .probe | nindent 6 }}
    {{- end }}
    securityContext:
      {{- include "cell.containerSecurityContext" .readOnly | nindent 6 }}
    resources:
      requests:
        cpu: {{ printf "%dm" (.requests.cpu | int64) | quote }}
        memory: {{ printf "%dMi" (.requests.memory | int64) | quote }}
      limits:
        cpu: {{ printf "%dm" (.limits.cpu | int64) | quote }}
        memory: {{ printf "%dMi" (.limits.memory | int64) | quote }}
    {{- if .readOnly }}
    volumeMounts:
      - {name: tmp, mountPath: /tmp}
      - {name: run, mountPath: /run}
      - {name: var-tmp, mountPath: /var/tmp}
    {{- end }}
{{- if .readOnly }}
volumes:
  # In memory, and counted as the replica's.
  - {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: run, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
  - {name: var-tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
{{- end }}
{{- end }}
{{- end }}
