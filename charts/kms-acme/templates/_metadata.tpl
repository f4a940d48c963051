{{/* Labels and annotations of every object. */}}

{{- define "kms-acme.selector" -}}
app.kubernetes.io/name: {{ include "kms-acme.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: acme
{{- end }}

{{- define "kms-acme.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "kms-acme.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Labels and annotations of an object. Takes root, component, and further labels and annotations. */}}
{{- define "kms-acme.metadata" -}}
{{- $labels := include "kms-acme.labels" .root | fromYaml }}
{{- with .component }}{{ $_ := set $labels "app.kubernetes.io/component" . }}{{ end -}}
labels:
  {{- toYaml (merge (dict) (default (dict) .labels) $labels) | nindent 2 }}
{{- with merge (dict) (default (dict) .annotations) .root.Values.commonAnnotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Whether to render an object of this kind; empty if not. Takes root, api, kind, and the value that enables it. */}}
{{- define "kms-acme.serves" -}}
{{- if .root.Capabilities.APIVersions.Has (printf "%s/%s" .api .kind) }}true
{{- else if eq .root.Values.metrics.whenMissing "Render" }}true
{{- else if eq .root.Values.metrics.whenMissing "Fail" }}
{{- fail (printf "%s: this cluster does not serve %s of %s. Install its CustomResourceDefinition, or set metrics.whenMissing to Skip or Render" .value .kind .api) }}
{{- end }}
{{- end }}
