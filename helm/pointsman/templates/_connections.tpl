{{/* Whether Pointsman hears of open websockets from beside each Traefik. */}}
{{- define "pointsman.connections" -}}
{{- if and .Values.traefik.enabled .Values.traefik.connections.enabled -}}yes{{- end -}}
{{- end -}}

{{/* The container beside Traefik that sees its open connections, for which it needs no rights: they share a network. */}}
{{- define "pointsman.connectionsContainer" -}}
- name: connections
  image: {{ include "pointsman.image" (dict "image" .Values.pointsman.image "default" .Chart.AppVersion) }}
  imagePullPolicy: {{ .Values.pointsman.image.pullPolicy }}
  # Started before Traefik and ended after it: what drains is still seen.
  restartPolicy: Always
  args:
    - connections
    - --listen=:8098
    - --log-level={{ .Values.pointsman.logLevel }}
    - --log-format={{ .Values.pointsman.logFormat }}
  env:
    - name: CONFIGPROXY_AUTH_TOKEN
      valueFrom:
        secretKeyRef: {name: {{ include "pointsman.tokenSecret" . }}, key: {{ include "pointsman.tokenKey" . | quote }}}
  ports:
    - {name: connections, containerPort: 8098}
  # No probe for its start: Traefik must not wait for it.
  livenessProbe:
    httpGet: {path: /healthz, port: connections}
    periodSeconds: 10
    timeoutSeconds: 5
    failureThreshold: 3
  resources:
    {{- toYaml .Values.traefik.connections.resources | nindent 4 }}
  securityContext:
    {{- include "pointsman.containerSecurity" . | nindent 4 }}
{{- end -}}
