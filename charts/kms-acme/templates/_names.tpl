{{/* Names. Kubernetes allows 63 characters; the longest suffix is "-operator-<hash>". */}}

{{- define "kms-acme.name" -}}
{{ default .Chart.Name .Values.nameOverride }}
{{- end }}

{{/* Shortens a name that is too long and appends a digest, so that names stay distinct. */}}
{{- define "kms-acme.fullname" -}}
{{- $full := .Values.fullnameOverride }}
{{- if not $full }}
{{- $name := include "kms-acme.name" . }}
{{- $full = ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- end }}
{{- if gt (len $full) 50 }}
{{- $full = printf "%s-%s" ($full | trunc 41 | trimSuffix "-") ($full | sha256sum | trunc 8) }}
{{- end }}
{{- $full }}
{{- end }}

{{- define "kms-acme.serviceAccount.server" -}}
{{ default (printf "%s-server" (include "kms-acme.fullname" .)) .Values.serviceAccount.server.name }}
{{- end }}

{{- define "kms-acme.serviceAccount.operator" -}}
{{ default (printf "%s-operator" (include "kms-acme.fullname" .)) .Values.serviceAccount.operator.name }}
{{- end }}

{{/* The Secret with the serving certificate: an existing one, or the one that the operator creates. */}}
{{- define "kms-acme.servingSecret" -}}
{{- if .Values.tls.existingSecret }}
{{- .Values.tls.existingSecret }}
{{- else if .Values.tls.certManager.enabled }}
{{- include "kms-acme.fullname" . }}-tls
{{- else }}
{{- include "kms-acme.fullname" . }}-serving
{{- end }}
{{- end }}

{{- define "kms-acme.suppliesTLS" -}}
{{- if or .Values.tls.existingSecret .Values.tls.certManager.enabled }}true{{ end }}
{{- end }}

{{/* URLs and hosts. */}}

{{- define "kms-acme.serviceHost" -}}
{{ include "kms-acme.fullname" . }}.{{ .Release.Namespace }}.svc
{{- end }}

{{- define "kms-acme.externalURL" -}}
{{- $port := ternary "" (printf ":%d" (int .Values.service.port)) (eq (int .Values.service.port) 443) }}
{{- default (printf "https://%s%s" (include "kms-acme.serviceHost" .) $port) .Values.externalURL }}
{{- end }}

{{/* The host of a URL, without its port. */}}
{{- define "kms-acme.hostOf" -}}
{{ get (urlParse .) "hostname" }}
{{- end }}

{{- define "kms-acme.host" -}}
{{ include "kms-acme.hostOf" (include "kms-acme.externalURL" .) }}
{{- end }}

{{/* The base URL of revocation lists and CA certificates, as written into certificates. */}}
{{- define "kms-acme.httpURL" -}}
{{- $port := ternary "" (printf ":%d" (int .Values.http.port)) (eq (int .Values.http.port) 80) }}
{{- default (printf "http://%s%s" (include "kms-acme.host" .) $port) .Values.http.url }}
{{- end }}

{{- define "kms-acme.image" -}}
{{- $registry := default .Values.image.registry .Values.global.imageRegistry }}
{{- $name := ternary (printf "%s/%s" $registry .Values.image.repository) .Values.image.repository (ne $registry "") }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $name .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $name (default .Chart.AppVersion .Values.image.tag) }}
{{- end }}
{{- end }}
