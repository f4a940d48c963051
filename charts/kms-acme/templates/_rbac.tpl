{{/* Bindings. In all namespaces by one ClusterRoleBinding; in chosen ones by a RoleBinding each. */}}

{{/* Takes root, program, namespaces, those in which the ClusterRole of the program holds (none: all), and role, the
ClusterRole if not the one that is called like the program. */}}
{{- define "kms-acme.clusterRoleBindings" -}}
{{- $name := printf "%s-%s" (include "kms-acme.fullname" .root) (default .program .role) }}
{{- if not .namespaces }}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  {{- include "kms-acme.metadata" (dict "root" .root "component" .program) | nindent 2 }}
{{ include "kms-acme.roleRef" (dict "root" .root "program" .program "kind" "ClusterRole" "name" $name) }}
{{- end }}
{{- range .namespaces }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  # Different from the Role in the release namespace.
  name: {{ $name }}-resources
  namespace: {{ . }}
  {{- include "kms-acme.metadata" (dict "root" $.root "component" $.program) | nindent 2 }}
{{ include "kms-acme.roleRef" (dict "root" $.root "program" $.program "kind" "ClusterRole" "name" $name) }}
{{ end }}
{{- end }}

{{- define "kms-acme.roleRef" -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ .kind }}
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ include (printf "kms-acme.serviceAccount.%s" .program) .root }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}

{{/* The Role of a program in the release namespace is bound to it alone. */}}
{{- define "kms-acme.roleBinding" -}}
{{- $name := printf "%s-%s" (include "kms-acme.fullname" .root) .program -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ $name }}
  namespace: {{ .root.Release.Namespace }}
  {{- include "kms-acme.metadata" (dict "root" .root "component" .program) | nindent 2 }}
{{ include "kms-acme.roleRef" (dict "root" .root "program" .program "kind" "Role" "name" $name) }}
{{- end }}
