{{/* Ports of the container; Services may have others. */}}
{{- define "onnxd.port.grpc" -}}8001{{- end }}
{{- define "onnxd.port.http" -}}8000{{- end }}
{{- define "onnxd.port.admin" -}}8002{{- end }}

{{- define "onnxd.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 letters: "-headless" and the like must fit into 63. */}}
{{- define "onnxd.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* What selectors are made of. They can never be changed, so nothing that users set is among them. */}}
{{- define "onnxd.identity" -}}
app.kubernetes.io/name: {{ include "onnxd.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "onnxd.selector" -}}
{{ include "onnxd.identity" . }}
app.kubernetes.io/component: server
{{- end }}

{{/*
Labels of an object: (dict "root" $ "component" NAME "more" LABELS "pod" BOOL). Those of pods do not name
the chart: another chart alone starts no pod anew.
*/}}
{{- define "onnxd.labels" -}}
{{- $own := include "onnxd.identity" .root | fromYaml }}
{{- if not .pod }}
{{- $_ := set $own "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-") }}
{{- $_ := set $own "app.kubernetes.io/managed-by" .root.Release.Service }}
{{- end }}
{{- $_ := set $own "app.kubernetes.io/version" .root.Chart.AppVersion }}
{{- with .component }}{{ $_ := set $own "app.kubernetes.io/component" . }}{{ end }}
{{- mergeOverwrite (deepCopy .root.Values.commonLabels) (deepCopy (default (dict) .more)) $own | toYaml }}
{{- end }}

{{/* Labels and annotations of an object: (dict "root" $ "component" NAME "labels" … "annotations" … "pod" BOOL) */}}
{{- define "onnxd.metadata" -}}
labels:
  {{- include "onnxd.labels" (dict "root" .root "component" .component "more" .labels "pod" .pod) | nindent 2 }}
{{- with mergeOverwrite (deepCopy .root.Values.commonAnnotations) (deepCopy (default (dict) .annotations)) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "onnxd.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ default .Chart.AppVersion $image.tag }}{{ if .Values.gpu.enabled }}{{ .Values.gpu.imageTagSuffix }}{{ end }}
{{- end }}
{{- end }}

{{- define "onnxd.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "onnxd.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* Name of the Secret with the server's certificate; empty for clear text. */}}
{{- define "onnxd.tlsSecret" -}}
{{- if .Values.tls.secretName -}}
{{ .Values.tls.secretName }}
{{- else if .Values.tls.certManager.enabled -}}
{{ include "onnxd.fullname" . }}-tls
{{- end }}
{{- end }}

{{/* Name of the Secret with the access file; empty where everybody may do everything. */}}
{{- define "onnxd.accessSecret" -}}
{{- if .Values.access.existingSecret -}}
{{ .Values.access.existingSecret }}
{{- else if .Values.access.files -}}
{{ include "onnxd.fullname" . }}-access
{{- end }}
{{- end }}

{{- define "onnxd.repositoryPath" -}}
{{- $below := trimAll "/" .Values.models.subPath }}
{{- if $below }}{{ trimSuffix "/" .Values.models.path }}/{{ $below }}{{ else }}{{ .Values.models.path }}{{ end }}
{{- end }}

{{/* Settings that no port depends on, so that a KServe runtime has them too. */}}
{{- define "onnxd.commonArgs" -}}
{{- if .Values.config }}
- --config=/etc/onnxd/onnxd.toml
{{- end }}
- --log={{ .Values.server.log }}
- --log-format={{ .Values.server.logFormat }}
- --reflection={{ .Values.server.reflection }}
- --strict={{ or .Values.server.strict .Values.gpu.enabled }}
- --max-connection-age-ms={{ mul .Values.server.connection.maxAgeSeconds 1000 }}
- --max-connection-age-grace-ms={{ mul .Values.server.connection.maxAgeGraceSeconds 1000 }}
- --drain-pause-ms={{ mul .Values.server.drain.pauseSeconds 1000 }}
- --drain-grace-ms={{ mul .Values.server.drain.graceSeconds 1000 }}
{{- if .Values.metrics.tritonNames }}
- --metrics-compat=triton
{{- end }}
{{- with .Values.tracing.otlpEndpoint }}
- --otlp-endpoint={{ . }}
- --trace-sample-ratio={{ $.Values.tracing.sampleRatio }}
{{- end }}
{{- if .Values.gpu.enabled }}
- --providers={{ .Values.gpu.provider }}
- --device-ids={{ untilStep 0 (int .Values.gpu.count) 1 | join "," }}
{{- end }}
{{- end }}

{{/* The image's own environment would say otherwise, so the chart says each of these as a flag. */}}
{{- define "onnxd.args" -}}
{{- $address := .Values.server.bindAddress }}
{{- $delicate := or (include "onnxd.accessSecret" .) (eq .Values.models.control "explicit") }}
- serve
- {{ include "onnxd.repositoryPath" . }}
- --grpc-addr={{ $address }}:{{ include "onnxd.port.grpc" . }}
- --http-addr={{ $address }}:{{ include "onnxd.port.http" . }}
- --admin-addr={{ $address }}:{{ include "onnxd.port.admin" . }}
- --clear-text={{ if and (include "onnxd.tlsSecret" .) (not $delicate) }}loopback{{ else }}anywhere{{ end }}
{{- if include "onnxd.tlsSecret" . }}
- --tls-cert=/etc/onnxd/tls/tls.crt
- --tls-key=/etc/onnxd/tls/tls.key
{{- if .Values.tls.clientCaSecret }}
- --tls-client-ca=/etc/onnxd/client-ca/ca.crt
{{- end }}
{{- with .Values.tls.clientAuth }}
- --tls-client-auth={{ . }}
{{- end }}
{{- end }}
{{- if include "onnxd.accessSecret" . }}
- --access-file=/etc/onnxd/access/access.toml
{{- end }}
- --model-control={{ .Values.models.control }}
{{- if eq .Values.models.control "poll" }}
- --poll-ms={{ mul .Values.models.pollSeconds 1000 }}
{{- end }}
{{- if and (eq .Values.models.control "explicit") .Values.models.load }}
- --load-models={{ join "," .Values.models.load }}
{{- end }}
{{ include "onnxd.commonArgs" . | trim }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "onnxd.env" -}}
- name: ORT_DISABLE_TELEMETRY
  value: "1"
{{- if .Values.gpu.enabled }}
# Compiled kernels are kept here; the home folder cannot be written.
- name: CUDA_CACHE_PATH
  value: /tmp/cuda
{{- end }}
{{- with .Values.extraEnv }}
{{ tpl (toYaml .) $ }}
{{- end }}
{{- end }}

{{/* Requests and limits: those of the GPU, then what resources says. */}}
{{- define "onnxd.resources" -}}
{{- $gpu := dict }}
{{- if .Values.gpu.enabled }}
{{- $gpu = dict .Values.gpu.resourceName (toString .Values.gpu.count) }}
{{- end }}
{{- $own := dict "requests" $gpu "limits" (deepCopy $gpu) }}
{{- mergeOverwrite $own (deepCopy .Values.resources) | toYaml }}
{{- end }}

{{- define "onnxd.podSecurityContext" -}}
{{- $context := deepCopy .Values.podSecurityContext }}
{{- if not $context.supplementalGroups }}{{ $context = omit $context "supplementalGroups" }}{{ end }}
{{- toYaml $context }}
{{- end }}

{{/* Shut down: pause, then grace, then what a pod needs to end, and a preStop sleep before. */}}
{{- define "onnxd.terminationGracePeriodSeconds" -}}
{{- $sleep := dig "preStop" "sleep" "seconds" 0 .Values.lifecycle }}
{{- add .Values.server.drain.pauseSeconds .Values.server.drain.graceSeconds .Values.server.drain.marginSeconds $sleep }}
{{- end }}

{{- define "onnxd.startupFailureThreshold" -}}
{{- $startup := .Values.probes.startup }}
{{- max 1 (div (add $startup.budgetSeconds $startup.periodSeconds -1) $startup.periodSeconds) }}
{{- end }}

{{/* Label matchers of this release's series. */}}
{{- define "onnxd.seriesSelector" -}}
{{- default (printf "namespace=%q,job=%q" .Release.Namespace (include "onnxd.fullname" .)) .Values.metrics.selector }}
{{- end }}

{{/* Which question a probe asks: (dict "root" $ "path" "/readyz") */}}
{{- define "onnxd.probe" -}}
{{- if eq .root.Values.probes.mode "grpc" }}
grpc:
  port: {{ include "onnxd.port.grpc" .root }}
{{- else }}
httpGet:
  path: /readyz
  port: admin
{{- end }}
{{- end }}

{{/* What cannot be right together is refused before anything is installed. */}}
{{- define "onnxd.validate" -}}
{{- $v := .Values }}
{{- if and (eq $v.probes.mode "grpc") (include "onnxd.tlsSecret" .) }}
{{- fail "probes.mode is grpc, but the kubelet's gRPC probes speak no TLS: use http" }}
{{- end }}
{{- range $key := list "grpc_addr" "http_addr" "admin_addr" "clear_text" "tls_cert" "tls_key" "tls_client_ca" "tls_client_auth" "access_file" "model_control" "poll_ms" "load_models" "log" "log_format" "reflection" "strict" "max_connection_age_ms" "max_connection_age_grace_ms" "drain_pause_ms" "drain_grace_ms" "metrics_compat" "otlp_endpoint" "trace_sample_ratio" }}
{{- if regexMatch (printf "(?m)^[ \\t]*\"?%s\"?[ \\t]*=" $key) $v.config }}
{{- fail (printf "config sets %s, which the chart says by a value of its own (server, models, tls, access, metrics, tracing): set that one" $key) }}
{{- end }}
{{- end }}
{{- if and $v.gpu.enabled (regexMatch "(?m)^[ \\t]*\"?(providers|device_ids)\"?[ \\t]*=" $v.config) }}
{{- fail "config sets providers or device_ids, which gpu.enabled decides" }}
{{- end }}
{{- if and $v.tls.clientCaSecret (not (include "onnxd.tlsSecret" .)) }}
{{- fail "tls.clientCaSecret has a meaning only with tls.secretName or tls.certManager.enabled" }}
{{- end }}
{{- if and $v.tls.clientAuth (not $v.tls.clientCaSecret) }}
{{- fail "tls.clientAuth has a meaning only with tls.clientCaSecret" }}
{{- end }}
{{- if and $v.tls.certManager.enabled (not $v.tls.certManager.issuerRef.name) }}
{{- fail "tls.certManager.enabled needs tls.certManager.issuerRef.name" }}
{{- end }}
{{- if and $v.access.files $v.access.existingSecret }}
{{- fail "access.files and access.existingSecret exclude each other" }}
{{- end }}
{{- if and $v.access.files (not (hasKey $v.access.files "access.toml")) }}
{{- fail "access.files needs a file access.toml" }}
{{- end }}
{{- $source := $v.models.source }}
{{- if and (eq $source.type "pvc") (not $source.pvc.existingClaim) }}
{{- fail "models.source.type pvc needs models.source.pvc.existingClaim" }}
{{- end }}
{{- if and (eq $source.type "image") (not $source.image.reference) }}
{{- fail "models.source.type image needs models.source.image.reference" }}
{{- end }}
{{- if and (eq $source.type "initContainer") (not $source.initContainer.image) }}
{{- fail "models.source.type initContainer needs models.source.initContainer.image" }}
{{- end }}
{{- $scaling := $v.autoscaling }}
{{- if ne $scaling.type "none" }}
{{- if gt (int $scaling.minReplicas) (int $scaling.maxReplicas) }}
{{- fail "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- if not (or $scaling.targets.queueMilliseconds $scaling.targets.busyPercent $scaling.targets.cpuPercent) }}
{{- fail "autoscaling needs at least one of autoscaling.targets" }}
{{- end }}
{{- end }}
{{- if and (eq $scaling.type "keda") (or $scaling.targets.queueMilliseconds $scaling.targets.busyPercent) (not $scaling.keda.prometheusAddress) }}
{{- fail "autoscaling.type keda needs autoscaling.keda.prometheusAddress" }}
{{- end }}
{{- if and $v.gateway.grpcRoute.enabled (not $v.gateway.grpcRoute.parentRefs) }}
{{- fail "gateway.grpcRoute.enabled needs gateway.grpcRoute.parentRefs" }}
{{- end }}
{{- if and $v.kserve.inferenceService.enabled (not $v.kserve.inferenceService.storageUri) }}
{{- fail "kserve.inferenceService.enabled needs kserve.inferenceService.storageUri" }}
{{- end }}
{{- if and $v.metrics.serviceMonitor.enabled $v.metrics.podMonitor.enabled }}
{{- fail "metrics.serviceMonitor and metrics.podMonitor would count everything twice: enable one" }}
{{- end }}
{{- end }}

{{- define "onnxd.runtimeName" -}}
{{ default (include "onnxd.fullname" .) .Values.kserve.servingRuntime.name }}
{{- end }}

{{/* The admin port has no name there: Knative allows one port with a name of its own choice. */}}
{{- define "onnxd.kserveProbe" -}}
httpGet:
  path: {{ . }}
  port: 8002
{{- end }}
