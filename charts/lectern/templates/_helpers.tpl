{{- /* Names are fixed and not made of the release's: the operator gives its pods these ServiceAccounts by name, and
       cluster-wide roles exist once. */ -}}

{{- define "lectern.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: lectern
{{ include "lectern.selector" . }}
{{- end }}

{{- define "lectern.selector" -}}
app.kubernetes.io/name: lectern
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "lectern.image" -}}
{{- $image := .root.Values.image -}}
{{- $path := printf "%s/%s:%s" $image.repository .component $image.tag -}}
{{- if $image.registry }}{{ $image.registry }}/{{ end }}{{ $path }}
{{- end }}

{{- define "lectern.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "lectern.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "lectern.spread" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "lectern.selector" . | nindent 12 }}
{{- end }}

{{- define "lectern.probes" -}}
startupProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 1
  failureThreshold: 60
livenessProbe:
  httpGet: {path: /healthz, port: health}
  periodSeconds: 10
  timeoutSeconds: 3
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 3
  timeoutSeconds: 3
{{- end }}

{{- define "lectern.podEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: POD_IP
  valueFrom: {fieldRef: {fieldPath: status.podIP}}
- name: LECTERN_LOG
  value: {{ .root.Values.log.filter | quote }}
- name: LECTERN_LOG_FORMAT
  value: {{ .root.Values.log.format }}
{{- end }}

{{- define "lectern.scheduling" -}}
{{- $wanted := dict }}
{{- with .nodeSelector }}{{ $_ := set $wanted "nodeSelector" . }}{{ end }}
{{- with .tolerations }}{{ $_ := set $wanted "tolerations" . }}{{ end }}
{{- with $wanted }}{{ toYaml . }}{{ end }}
{{- end }}

{{- /* Whether this release may write an object that it shares with people: not there yet, or made by this release. */ -}}
{{- define "lectern.mayWrite" -}}
{{- $annotations := dig "metadata" "annotations" dict .found -}}
{{- if or (not .found) (eq (get $annotations "meta.helm.sh/release-name") .root.Release.Name) }}yes{{ end }}
{{- end }}

{{- /* What the gateway's certificate is for: its Service, a port-forward, and what people add. The first is the common name. */ -}}
{{- define "lectern.gatewayNames" -}}
{{- $service := printf "lectern-gateway.%s.svc" .Release.Namespace -}}
{{- $names := list $service (printf "%s.cluster.local" $service) "lectern-gateway" "localhost" "127.0.0.1" -}}
{{- join "," (concat $names .Values.gateway.tls.hosts | uniq) -}}
{{- end }}

{{- /* A hook leaves nothing but what it printed, which Helm shows (from 3.18 on; `helm test --logs` does not find the pod any more). */ -}}
{{- define "lectern.hook" -}}
helm.sh/hook: {{ .hook }}
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- if eq .weight "0" }}
helm.sh/hook-output-log-policy: hook-succeeded,hook-failed
{{- end }}
{{- end }}

{{- /* A hook's words are for people: no log but what went wrong. */ -}}
{{- define "lectern.hookEnv" -}}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: POD_NAMESPACE
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- {name: LECTERN_LOG, value: warn}
- {name: LECTERN_LOG_FORMAT, value: text}
{{- end }}
