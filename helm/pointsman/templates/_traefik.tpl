{{/*
Where Traefik reaches etcd by way of the relay beside it; nothing if there is none. A single member leaves no choice. TLS goes
through the relay, so the members' certificates must be good for its address, which is to be said.
*/}}
{{- define "pointsman.etcdRelay" -}}
{{- $endpoints := include "pointsman.etcdEndpoints" . -}}
{{- $secure := hasPrefix "https://" $endpoints -}}
{{- with .Values.traefik.etcdRelay -}}
{{- if and .enabled (contains "," $endpoints) (or .throughTLS (not $secure)) -}}
127.0.0.1:2379
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.traefikEtcdUser" -}}
{{- with include "pointsman.etcdSecret" (dict "root" . "who" "traefik" "kind" "login") -}}
- name: TRAEFIK_ETCD_USER
  valueFrom: {secretKeyRef: {name: {{ . }}, key: username}}
{{- end -}}
{{- end -}}

{{/* How users come in. Only Traefik's configuration says it; Pointsman has no use for it, and doesn't get the key. */}}
{{- define "pointsman.publicSettings" -}}
{{- if eq .Values.tls.mode "secret" }}
- {name: POINTSMAN_PORT, value: "8443"}
- {name: POINTSMAN_SSL_CERT, value: /tls/tls.crt}
- {name: POINTSMAN_SSL_KEY, value: /tls/tls.key}
{{- if .Values.tls.redirect }}
- {name: POINTSMAN_REDIRECT_PORT, value: "8000"}
- {name: POINTSMAN_REDIRECT_TO, value: {{ .Values.traefik.service.httpsPort | quote }}}
{{- end }}
{{- else }}
- {name: POINTSMAN_PORT, value: "8000"}
{{- end }}
- {name: POINTSMAN_REQUEST_TIMEOUT, value: {{ mul .Values.traefik.requestSeconds 1000 | quote }}}
{{- with .Values.traefik.trustedIPs }}
- {name: POINTSMAN_TRUSTED_IPS, value: {{ join "," . | quote }}}
{{- end }}
{{- with .Values.traefik.proxyProtocolIPs }}
- {name: POINTSMAN_PROXY_PROTOCOL_IPS, value: {{ join "," . | quote }}}
{{- end }}
{{- if .Values.traefik.accessLog }}
- {name: POINTSMAN_ACCESS_LOG, value: "-"}
{{- end }}
{{- end -}}

{{/* How Traefik's configuration is written. Takes (dict "root" $ "certificates" …). */}}
{{- define "pointsman.traefikConfig" -}}
{{- $v := .root.Values -}}
- traefik-config
- --dir=/traefik
- --private-address=:8099
- --traefik-version={{ $v.traefik.version | default (trimPrefix "v" $v.traefik.image.tag) }}
- --accept-seconds={{ int $v.traefik.acceptSeconds }}
- --grace-seconds={{ int $v.traefik.drainSeconds }}
- --certificates={{ .certificates }}
{{- if $v.traefik.dynamicFiles }}
- --add-files=/own-files
{{- end }}
{{- with include "pointsman.etcdRelay" .root }}
- --etcd-relay={{ . }}
{{- end }}
{{- if include "pointsman.etcdSecret" (dict "root" .root "who" "traefik" "kind" "login") }}
- --traefik-etcd-user=$(TRAEFIK_ETCD_USER)
- --traefik-etcd-password-file=/etcd-login/password
{{- end }}
{{- end -}}

{{/* The rest of a container that writes it. */}}
{{- define "pointsman.traefikConfigContainer" -}}
env:
  {{- include "pointsman.settings" . | nindent 2 }}
  {{- include "pointsman.publicSettings" . | nindent 2 }}
  {{- with include "pointsman.traefikEtcdUser" . }}{{ . | nindent 2 }}{{ end }}
resources:
  requests: {cpu: 10m, memory: 16Mi}
  limits: {memory: 64Mi}
securityContext:
  {{- include "pointsman.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: traefik, mountPath: /traefik}
  {{- if eq .Values.tls.mode "secret" }}
  - {name: tls, mountPath: /tls, readOnly: true}
  {{- end }}
  {{- if .Values.traefik.dynamicFiles }}
  - {name: own-files, mountPath: /own-files, readOnly: true}
  {{- end }}
  {{- include "pointsman.etcdMounts" (dict "root" . "who" "traefik") | nindent 2 }}
{{- end -}}
