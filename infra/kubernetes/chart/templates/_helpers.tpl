{{- define "broker.image" -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- end -}}

{{- define "broker.labels" -}}
app.kubernetes.io/name: broker-{{ .service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: sandbox-broker
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "broker.selector" -}}
app.kubernetes.io/name: broker-{{ .service }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- end -}}

{{/* What follows from other values, by name; what is empty is not set. terminationGracePeriodSeconds of the pods is the sum of
     lame duck and drain, and some seconds more. The admin port is the service broker-api-admin: operators, Prometheus and probes. */}}
{{- define "broker.own" -}}
AWS_REGION: {{ .Values.aws.region | quote }}
BROKER_TABLE: {{ .Values.table | quote }}
BROKER_PREFIX: {{ .Values.prefix | quote }}
BROKER_LAME_DUCK_S: {{ .Values.shutdown.lameDuckS | quote }}
BROKER_DRAIN_S: {{ .Values.shutdown.drainS | quote }}
BROKER_LOG_FORMAT: json
BROKER_LISTEN: 0.0.0.0:8080
BROKER_ADMIN_LISTEN: 0.0.0.0:8081
BROKER_METRICS_LISTEN: 0.0.0.0:9090
BROKER_PROVIDER_RATE: {{ .Values.provider.rate | quote }}
BROKER_PROVIDER_URL: {{ .Values.provider.url | quote }}
BROKER_TRUSTED_PROXIES: {{ join "," .Values.trustedProxies | quote }}
{{- end -}}

{{/* A value of `settings` as the processes read it. Helm reads a number of a file as a float, and prints a million as 1e+06. */}}
{{- define "broker.text" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) -}}{{ int64 . }}{{- else -}}{{ . }}{{- end -}}
{{- end -}}

{{/* What the ConfigMap holds; a change of it replaces the pods. */}}
{{- define "broker.settings" -}}
{{- $settings := dict -}}
{{- range $name, $value := .Values.settings -}}
{{- $_ := set $settings $name (include "broker.text" $value) -}}
{{- end -}}
{{- range $name, $value := include "broker.own" . | fromYaml -}}
{{- if $value -}}{{- $_ := set $settings $name $value -}}{{- end -}}
{{- end -}}
{{- toYaml $settings -}}
{{- end -}}

{{/* The output `values` of infra/terraform/examples/eks has region, table and prefix among the settings: they must be the same. */}}
{{- define "broker.agreed" -}}
{{- range $name, $value := include "broker.own" . | fromYaml -}}
{{- if hasKey $.Values.settings $name -}}
{{- $said := include "broker.text" (get $.Values.settings $name) -}}
{{- if ne $said $value -}}
{{- fail (printf "settings.%s is %q, but %s is %q by another value: set that one" $name $said $name $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if lt (int .Values.api.maxReplicas) (int .Values.api.minReplicas) -}}{{- fail "api.maxReplicas is below api.minReplicas" -}}{{- end -}}
{{- if lt (int .Values.worker.maxReplicas) (int .Values.worker.minReplicas) -}}{{- fail "worker.maxReplicas is below worker.minReplicas" -}}{{- end -}}
{{- if and (eq .Values.identity "irsa") (or (not .Values.aws.roleArns.api) (not .Values.aws.roleArns.worker)) -}}{{- fail "identity irsa needs aws.roleArns.api and aws.roleArns.worker" -}}{{- end -}}
{{- if and .Values.ingress.enabled (or (not .Values.ingress.host) (not .Values.ingress.certificateArn)) -}}{{- fail "ingress needs host and certificateArn" -}}{{- end -}}
{{- end -}}

{{/* The part of a pod that API and worker have in common. */}}
{{- define "broker.pod" -}}
{{- $values := get .root.Values .service -}}
serviceAccountName: broker-{{ .service }}
automountServiceAccountToken: false
# Else every service of the namespace becomes an environment variable, and a service called broker would set BROKER_PORT and its like.
enableServiceLinks: false
# The process serves on until endpoints and load balancers know, then drains.
terminationGracePeriodSeconds: {{ add (int .root.Values.shutdown.lameDuckS) (int .root.Values.shutdown.drainS) 20 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  seccompProfile:
    type: RuntimeDefault
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "broker.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{- define "broker.container" -}}
{{- $values := get .root.Values .service -}}
name: {{ .service }}
image: {{ include "broker.image" .root }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
command: [/usr/local/bin/broker-{{ .service }}]
envFrom:
  - configMapRef:
      name: broker
ports:
  - name: {{ .port }}
    containerPort: {{ .number }}
  {{- with .admin }}
  - name: admin
    containerPort: {{ . }}
  {{- end }}
startupProbe:
  httpGet: {path: /healthz, port: {{ .probed | default .port }}}
  periodSeconds: 1
  failureThreshold: 30
# Liveness of the process only: an outage of AWS restarts nothing.
livenessProbe:
  httpGet: {path: /healthz, port: {{ .probed | default .port }}}
  periodSeconds: 10
  timeoutSeconds: 3
  failureThreshold: 3
readinessProbe:
  httpGet: {path: /readyz, port: {{ .probed | default .port }}}
  periodSeconds: 3
  timeoutSeconds: 2
  failureThreshold: 2
resources: {{- toYaml $values.resources | nindent 2 }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "broker.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: broker-{{ .service }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "broker.labels" . | nindent 4 }}
  {{- if eq .root.Values.identity "irsa" }}
  annotations:
    eks.amazonaws.com/role-arn: {{ get .root.Values.aws.roleArns .service | quote }}
  {{- end }}
automountServiceAccountToken: false
{{- end -}}

{{- define "broker.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: broker-{{ .service }}
  namespace: {{ .root.Release.Namespace }}
  labels: {{- include "broker.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels: {{- include "broker.selector" . | nindent 6 }}
{{- end -}}
