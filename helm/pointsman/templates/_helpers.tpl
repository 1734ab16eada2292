{{- define "pointsman.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "pointsman.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What tells pods of one component from all others; never changes. Takes (dict "root" $ "component" …). */}}
{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ include "pointsman.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "pointsman.labels" -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: jupyterhub
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Takes (dict "root" $ "component" … "labels" … "annotations" …); the last two may be missing. */}}
{{- define "pointsman.meta" -}}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "pointsman.labels" . | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- $annotations := merge (dict) (.annotations | default dict) .root.Values.commonAnnotations }}
{{- with $annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* With recipe B z2jh's own Services lead to our pods. Never part of a selector of ours. */}}
{{- define "pointsman.adoptLabels" -}}
{{- if .Values.z2jh.adopt }}
component: proxy
app: {{ .Values.z2jh.nameOverride | default "jupyterhub" }}
release: {{ .Values.z2jh.release | default .Release.Name }}
{{- end }}
{{- end -}}

{{- define "pointsman.image" -}}
{{- $tag := .image.tag | default .default -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ $tag }}
{{- end -}}
{{- end -}}

{{- define "pointsman.etcdEndpoints" -}}
{{- if .Values.etcd.enabled -}}
{{- $name := printf "%s-etcd" (include "pointsman.fullname" .) -}}
{{- $list := list -}}
{{- range $i := until (int .Values.etcd.replicas) -}}
{{- $list = append $list (printf "http://%s-%d.%s.%s.svc:2379" $name $i $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $list -}}
{{- else -}}
{{- join "," .Values.etcd.external.endpoints -}}
{{- end -}}
{{- end -}}

{{/* Not every image names a user that isn't root, and Secrets are for the group of the volumes alone. OpenShift gives pods a
user of the namespace's range, and refuses any other. */}}
{{- define "pointsman.podSecurity" -}}
runAsNonRoot: true
seccompProfile: {type: RuntimeDefault}
{{- if not (or .Values.openshift (.Capabilities.APIVersions.Has "security.openshift.io/v1")) }}
runAsUser: {{ int64 .Values.runAs.user }}
runAsGroup: {{ int64 .Values.runAs.group }}
fsGroup: {{ int64 .Values.runAs.group }}
{{- end }}
{{- end -}}

{{- define "pointsman.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where pods go. Takes (dict "root" $ "component" … "values" …). */}}
{{- define "pointsman.placement" -}}
{{- with .values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if .values.topologySpreadConstraints }}
  {{- toYaml .values.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "pointsman.selector" $ | nindent 8 }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "pointsman.pullSecrets" -}}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "pointsman.tokenSecret" -}}
{{- if .Values.auth.token -}}{{ include "pointsman.fullname" . }}-token{{- else -}}{{ .Values.auth.existingSecret.name }}{{- end -}}
{{- end -}}

{{- define "pointsman.tokenKey" -}}
{{- if .Values.auth.token -}}token{{- else -}}{{ .Values.auth.existingSecret.key }}{{- end -}}
{{- end -}}

{{- define "pointsman.ipFamilies" -}}
{{- with .Values.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.ipFamilies }}
ipFamilies: {{ toJson . }}
{{- end }}
{{- end -}}

{{/* Where Pointsman asks each Traefik what it serves. */}}
{{- define "pointsman.traefikApi" -}}
{{- if .Values.traefik.enabled -}}
dns://{{ include "pointsman.fullname" . }}-traefik-pods.{{ .Release.Namespace }}.svc:8099
{{- else -}}
{{ join "," .Values.traefik.api }}
{{- end -}}
{{- end -}}

{{/* The ports of these APIs, for a policy. */}}
{{- define "pointsman.traefikApiPorts" -}}
{{- $ports := list -}}
{{- if .Values.traefik.enabled -}}{{- $ports = list (dict "port" "private") -}}{{- end -}}
{{- if include "pointsman.connections" . -}}{{- $ports = append $ports (dict "port" "connections") -}}{{- end -}}
{{- if not .Values.traefik.enabled -}}
{{- range .Values.traefik.api -}}{{- $ports = append $ports (dict "port" (splitList ":" . | last | int)) -}}{{- end -}}
{{- end -}}
{{ toJson (uniq $ports) }}
{{- end -}}

{{/* The pods that are Traefiks, for a policy. */}}
{{- define "pointsman.traefikPeers" -}}
{{- if .Values.traefik.enabled -}}
{{ include "pointsman.peer" (dict "root" . "component" "proxy") }}
{{- else -}}
{{ toYaml .Values.networkPolicy.traefikPeers }}
{{- end -}}
{{- end -}}

{{/* Settings that Pointsman and the program that writes Traefik's configuration share. */}}
{{- define "pointsman.settings" -}}
{{- $name := include "pointsman.fullname" . -}}
- name: CONFIGPROXY_AUTH_TOKEN
  valueFrom:
    secretKeyRef: {name: {{ include "pointsman.tokenSecret" . }}, key: {{ include "pointsman.tokenKey" . | quote }}}
- {name: POINTSMAN_API_IP, value: "*"}
- {name: POINTSMAN_API_PORT, value: "8001"}
- {name: POINTSMAN_PAGES_IP, value: "*"}
- {name: POINTSMAN_PAGES_PORT, value: "8002"}
- {name: POINTSMAN_PAGES_URL, value: "http://{{ $name }}-pages.{{ .Release.Namespace }}.svc:8002"}
- {name: POINTSMAN_INSTALLATION, value: {{ printf "%s/%s" .Release.Namespace .Release.Name | quote }}}
- {name: POINTSMAN_ETCD_ENDPOINTS, value: {{ include "pointsman.etcdEndpoints" . | quote }}}
- {name: POINTSMAN_ETCD_PREFIX, value: {{ .Values.etcd.prefix | quote }}}
- {name: POINTSMAN_TRAEFIK_ROOT_KEY, value: {{ .Values.etcd.rootKey | quote }}}
- {name: POINTSMAN_TRAEFIK_API, value: {{ include "pointsman.traefikApi" . | quote }}}
- {name: POINTSMAN_LOG_LEVEL, value: {{ .Values.pointsman.logLevel | quote }}}
- {name: POINTSMAN_LOG_FORMAT, value: {{ .Values.pointsman.logFormat | quote }}}
{{- if .Values.hub.hostRouting }}
- {name: POINTSMAN_HOST_ROUTING, value: "true"}
{{- end }}
{{- with .Values.traefik.middlewares }}
- {name: POINTSMAN_MIDDLEWARES, value: {{ join "," . | quote }}}
{{- end }}
{{- if not .Values.etcd.enabled }}
{{- if .Values.etcd.external.tls.existingSecret }}
- {name: POINTSMAN_ETCD_CA, value: /etcd-tls/ca.crt}
{{- if .Values.etcd.external.tls.clientCertificate }}
- {name: POINTSMAN_ETCD_CERT, value: /etcd-tls/tls.crt}
- {name: POINTSMAN_ETCD_KEY, value: /etcd-tls/tls.key}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{/* The Secrets with logins and certificates for an etcd of somebody else. Takes (dict "root" $ "who" "pointsman" or "traefik"). */}}
{{- define "pointsman.etcdSecret" -}}
{{- $external := .root.Values.etcd.external -}}
{{- if .root.Values.etcd.enabled -}}
{{- else if eq .kind "tls" -}}
{{- $own := "" -}}{{- if eq .who "traefik" -}}{{- $own = $external.tls.traefikExistingSecret -}}{{- end -}}
{{- $own | default $external.tls.existingSecret -}}
{{- else -}}
{{- $own := "" -}}{{- if eq .who "traefik" -}}{{- $own = $external.auth.traefikExistingSecret -}}{{- end -}}
{{- $own | default $external.auth.existingSecret -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.etcdMounts" -}}
{{- if include "pointsman.etcdSecret" (merge (dict "kind" "tls") .) }}
- {name: etcd-tls, mountPath: /etcd-tls, readOnly: true}
{{- end }}
{{- if include "pointsman.etcdSecret" (merge (dict "kind" "login") .) }}
- {name: etcd-login, mountPath: /etcd-login, readOnly: true}
{{- end }}
{{- end -}}

{{- define "pointsman.etcdVolumes" -}}
{{- with include "pointsman.etcdSecret" (merge (dict "kind" "tls") .) }}
- {name: etcd-tls, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- with include "pointsman.etcdSecret" (merge (dict "kind" "login") .) }}
- {name: etcd-login, secret: {secretName: {{ . }}, defaultMode: 0440}}
{{- end }}
{{- end -}}

{{- define "pointsman.peer" -}}
- podSelector:
    matchLabels:
      {{- include "pointsman.selector" . | nindent 6 }}
{{- end -}}
{{/* Names are looked up at port 53; the pods behind OpenShift's DNS listen at 5353. */}}
{{- define "pointsman.dns" -}}
- ports:
    - {port: 53, protocol: UDP}
    - {port: 53, protocol: TCP}
    - {port: 5353, protocol: UDP}
    - {port: 5353, protocol: TCP}
{{- end -}}

{{- define "pointsman.toEtcd" -}}
{{- if .root.Values.etcd.enabled }}
- to:
    {{- include "pointsman.peer" (dict "root" .root "component" "etcd") | nindent 4 }}
  ports: [{port: client}]
{{- else }}
{{- $ports := list -}}
{{- range .root.Values.etcd.external.endpoints }}{{ $ports = append $ports (. | splitList ":" | last) }}{{ end }}
- ports:
    {{- range uniq $ports }}
    - {port: {{ . }}}
    {{- end }}
{{- end }}
{{- end -}}

{{/* The hub, which writes error pages, and users' servers. */}}
{{- define "pointsman.toServers" -}}
- to:
    {{- toYaml (.Values.networkPolicy.serversTo | default (list (dict "podSelector" dict))) | nindent 4 }}
{{- end -}}

{{/* Who may scrape metrics; nothing means everybody. */}}
{{- define "pointsman.metricsFrom" -}}
- ports: [{port: metrics}]
  {{- with .Values.networkPolicy.metricsFrom }}
  from:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}
