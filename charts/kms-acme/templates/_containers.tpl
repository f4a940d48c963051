{{/* The two containers. The server uses only the token that the operator gives it. */}}

{{/* The names of the metrics ports of the server's workers, as a list. */}}
{{- define "kms-acme.metricsPorts" -}}
{{- $ports := list "metrics" }}
{{- range $number := untilStep 1 (int .Values.server.workers) 1 }}
{{- $ports = append $ports (printf "metrics-%d" $number) }}
{{- end }}
{{- toYaml $ports }}
{{- end }}

{{/* Options of both programs. */}}
{{- define "kms-acme.sharedArgs" -}}
- --external-url={{ include "kms-acme.externalURL" . }}
- --namespace={{ .Release.Namespace }}
{{- range .Values.watchNamespaces }}
- --watch-namespace={{ . }}
{{- end }}
- --service-name={{ include "kms-acme.fullname" . }}
- --serving-secret={{ include "kms-acme.servingSecret" . }}
- --deletion-retention={{ .Values.deletionRetention }}
{{- range .Values.pkcs11Modules }}
- --pkcs11-module={{ . }}
{{- end }}
- --log-format={{ .Values.logging.format }}
- --log-level={{ .Values.logging.level }}
{{- end }}

{{- define "kms-acme.server" -}}
name: server
image: {{ include "kms-acme.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - server
  {{- include "kms-acme.sharedArgs" . | nindent 2 }}
  - --listen=:8443
  - --http-listen=:8080
  - --http-url={{ include "kms-acme.httpURL" . }}
  - --metrics-listen=:9090
  {{- if gt (int .Values.server.workers) 1 }}
  - --workers={{ int .Values.server.workers }}
  {{- end }}
  - --maximum-orders={{ .Values.server.maximumOrders | int }}
  - --maximum-order-bytes={{ .Values.server.maximumOrderBytes | int64 }}
  - --maximum-accounts={{ .Values.server.maximumAccounts | int }}
  - --maximum-connections={{ .Values.server.connections.maximum | int }}
  - --maximum-connections-per-address={{ .Values.server.connections.perAddress | int }}
  {{- range .Values.server.connections.proxyNetworks }}
  - --proxy-network={{ . }}
  {{- end }}
  - --namespace-share={{ .Values.server.namespaceShare | int }}
  - --account-share={{ .Values.server.accountShare | int }}
  - --list-profiles={{ .Values.server.listProfiles }}
  {{- with .Values.logging.audit }}
  - --audit-log={{ . }}
  {{- end }}
  - --peer-service={{ include "kms-acme.fullname" . }}-peers
  - --token-directory=/var/run/secrets/kms-acme/server
  {{- if include "kms-acme.suppliesTLS" . }}
  - --tls-certificate=/etc/kms-acme/tls/tls.crt
  - --tls-private-key=/etc/kms-acme/tls/tls.key
  {{- end }}
  {{- range .Values.server.validation.dnsServers }}
  - --dns-server={{ . }}
  {{- end }}
  {{- range .Values.server.validation.allow }}
  - --validation-allow={{ . }}
  {{- end }}
  {{- range concat .Values.server.validation.clusterNetworks .Values.server.validation.deny }}
  - --validation-deny={{ . }}
  {{- end }}
  {{- with .Values.server.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.server.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: https, containerPort: 8443}
  - {name: http, containerPort: 8080}
  - {name: metrics, containerPort: 9090}
  {{- range $number := untilStep 1 (int .Values.server.workers) 1 }}
  - {name: metrics-{{ $number }}, containerPort: {{ add 9090 (mul 10 $number) }}}
  {{- end }}
startupProbe:
  httpGet: {path: /healthz, port: metrics}
  {{- toYaml .Values.server.startupProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: metrics}
  {{- toYaml .Values.server.livenessProbe | nindent 2 }}
readinessProbe:
  httpGet: {path: /readyz, port: metrics}
  {{- toYaml .Values.server.readinessProbe | nindent 2 }}
{{- if .Values.drainSeconds }}
lifecycle:
  preStop:
    sleep:
      seconds: {{ .Values.drainSeconds }}
{{- end }}
resources:
  {{- toYaml .Values.server.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.server.securityContext | nindent 2 }}
volumeMounts:
  - {name: server-identity, mountPath: /var/run/secrets/kms-acme/server, readOnly: true}
  {{- if include "kms-acme.suppliesTLS" . }}
  - {name: tls, mountPath: /etc/kms-acme/tls, readOnly: true}
  {{- end }}
  {{- with .Values.server.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "kms-acme.operator" -}}
name: operator
image: {{ include "kms-acme.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args:
  - operator
  {{- include "kms-acme.sharedArgs" . | nindent 2 }}
  - --http-url={{ include "kms-acme.httpURL" . }}
  - --metrics-listen=:9091
  - --server-service-account={{ include "kms-acme.serviceAccount.server" . }}
  - --server-token-directory=/var/run/secrets/kms-acme/server
  - --cert-manager-namespace={{ .Values.certManager.namespace }}
  {{- range .Values.certManager.clusterIssuersFrom }}
  - --cluster-issuers-from={{ . }}
  {{- end }}
  {{- range .Values.operator.openProfilesFrom }}
  - --open-profiles-from={{ . }}
  {{- end }}
  {{- range .Values.operator.notificationsFrom }}
  - --notifications-from={{ . }}
  {{- end }}
  {{- range .Values.operator.trustFrom }}
  - --trust-from={{ . }}
  {{- end }}
  {{- range .Values.externalAuthorities.from }}
  - --external-authorities-from={{ . }}
  {{- end }}
  - --maximum-profiles-per-namespace={{ int .Values.operator.maximumProfilesPerNamespace }}
  - --maximum-secrets={{ int .Values.operator.maximumSecrets }}
  - --maximum-secrets-per-namespace={{ int .Values.operator.maximumSecretsPerNamespace }}
  {{- with .Values.operator.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .Values.operator.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: operator, containerPort: 9091}
# No readiness probe: a busy operator must not make the server unready. The startup probe delays rollouts.
startupProbe:
  httpGet: {path: /readyz, port: operator}
  {{- toYaml .Values.operator.startupProbe | nindent 2 }}
livenessProbe:
  httpGet: {path: /healthz, port: operator}
  {{- toYaml .Values.operator.livenessProbe | nindent 2 }}
resources:
  {{- toYaml .Values.operator.resources | nindent 2 }}
securityContext:
  {{- toYaml .Values.operator.securityContext | nindent 2 }}
volumeMounts:
  - {name: operator-identity, mountPath: /var/run/secrets/kubernetes.io/serviceaccount, readOnly: true}
  - {name: server-identity, mountPath: /var/run/secrets/kms-acme/server}
  {{- with .Values.operator.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- define "kms-acme.volumes" -}}
# The token of the pod's ServiceAccount, mounted into the operator's container only.
- name: operator-identity
  projected:
    sources:
      - serviceAccountToken: {path: token, expirationSeconds: 3600}
      - configMap: {name: kube-root-ca.crt, items: [{key: ca.crt, path: ca.crt}]}
      - downwardAPI: {items: [{path: namespace, fieldRef: {apiVersion: v1, fieldPath: metadata.namespace}}]}
# Tokens of the server's ServiceAccount, written by the operator. In memory only.
- name: server-identity
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- if include "kms-acme.suppliesTLS" . }}
- name: tls
  secret: {secretName: {{ include "kms-acme.servingSecret" . }}}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Spread over zones and nodes where possible, unless the values say otherwise. */}}
{{- define "kms-acme.topologySpread" -}}
{{- $selector := dict "matchLabels" (include "kms-acme.selector" . | fromYaml) }}
{{- $constraints := .Values.topologySpreadConstraints }}
{{- if not $constraints }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
{{- $constraints = append $constraints (dict "topologyKey" . "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway" "matchLabelKeys" (list "pod-template-hash")) }}
{{- end }}
{{- end }}
{{- range $constraints }}
- {{ toYaml (merge (dict) . (dict "labelSelector" $selector)) | nindent 2 | trim }}
{{- end }}
{{- end }}
