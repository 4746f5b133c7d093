package catalogue

func flags() Area {
	const sizes, ports = "compat.TestSizesOfRequests", "compat.TestDaprdStartsAndEndsAsDaprdDoes, compat.TestBadFlags"
	return Area{ID: "flags", Title: "Flags of daprd", What: "Flag", Intro: "Of `sidecast daprd`, or of the binary under the name `daprd`. One dash is as good as two. Malformed values are told in daprd's words.", Rows: []Row{
		differs("--app-id", "compat.TestBadFlags", "At most 63 letters, digits, `-` and `_`. Rename longer ones."),
		works("--app-port", "compat.TestBadFlags, compat.TestInvocationFromHTTPToHTTP"),
		works("--app-protocol, --app-ssl", "compat.TestAppProtocols, compat.TestBadFlags", "http, https, h2c, grpc and grpcs; certificates are not checked."),
		works("--app-channel-address", "compat.TestWhereTheAppAndTheFilesAre"),
		differs("--app-max-concurrency", "blocks.TestAppNeverSeesMoreThanItsConcurrency, compat.TestBulksAreNoLargerThanWhatTheAppTakesAtOnce", "Left out or -1 it is 1024; more wait. Set a number for another bound."),
		works("--dapr-http-port, --dapr-grpc-port", ports),
		differs("--dapr-listen-addresses", "compat.TestListenAddresses", "Left out it is loopback, not all interfaces: in a pod nothing changes. Set `0.0.0.0` to be reached from elsewhere."),
		works("--dapr-public-port, --dapr-public-listen-address", "compat.TestMetadata"),
		works("--unix-domain-socket", "compat.TestUnixSockets"),
		works("--resources-path, --components-path", "compat.TestWhereTheAppAndTheFilesAre, compat.TestFilesAreReadAgain"),
		differs("--config", "compat.TestComponentsFeaturesAndMetricsOfAConfiguration, compat.TestAConfigurationWithAMistakeIsToldWithItsLine, compat.TestPoliciesGuardInvocation",
			"Several files are laid over each other; what each key does is above. Resources of other kinds in the file apply as well, Resiliency among them. A mistake keeps the sidecar from starting."),
		differs("--mode", "compat.TestBadFlags", "Only `standalone`. On Kubernetes run the sidecar as a container with its files mounted."),
		differs("--allowed-origins", "compat.TestCORS", "Spaces after the commas are none of an origin's, as they are in daprd."),
		works("--max-body-size, --dapr-http-max-request-size", sizes),
		works("--read-buffer-size, --dapr-http-read-buffer-size", "compat.TestSizesOfHeaders"),
		works("--dapr-graceful-shutdown-seconds", "compat.TestSignalsDrain"),
		differs("--dapr-block-shutdown-duration", "compat.TestBlockedShutdown",
			"Meanwhile `/v1.0/healthz` answers 204, because all but events is served. Of daprd it is 500, `dapr is not ready: [security-provider]`."),
		works("--enable-app-health-check, --app-health-check-path, --app-health-probe-interval, --app-health-probe-timeout, --app-health-threshold",
			"compat.TestAnUnhealthyAppGetsNothing, compat.TestMetadata, compat.TestHealthFlagsOfZeroMeanTheDefaults"),
		works("--app-binding-options-timeout", "compat.TestAppsMayTakeTheirTimeToSayWhatTheyWant"),
		works("--disable-init-endpoints", "compat.TestDisabledInitEndpoints, compat.TestBadFlags"),
		works("--enable-metrics, --metrics-port", "compat.TestMetricsCanBeOff"),
		differs("--metrics-listen-address", "compat.TestMetricsCanBeOff", "Left out it is 127.0.0.1. Set `0.0.0.0` where Prometheus comes from elsewhere."),
		works("--enable-profiling, --profile-port", "compat.TestProfiles"),
		works("--enable-api-logging, --log-file, --log-as-json, --log-level", "compat.TestLogs", "Lines have daprd's fields time, level, msg, app_id, scope, type and ver; messages are Sidecast's."),
		works("--version, --build-info", "compat.TestBadFlags"),
		works("--wait", "compat.TestWaitReturnsWhenTheSidecarCanBeUsed"),
		differs("--dapr-internal-grpc-port, --dapr-internal-grpc-listen-address, --control-plane-address, --sentry-address, --control-plane-trust-domain, "+
			"--control-plane-namespace, --sentry-request-jwt-audiences, --enable-mtls, --placement-host-address, --scheduler-host-address, --scheduler-job-streams, "+
			"--actors-service, --reminders-service, --actors-disseminate-timeout, --hot-reload-reconcile-interval, --disable-builtin-k8s-secret-store",
			"compat.TestDaprdStartsAndEndsAsDaprdDoes, compat.TestBadFlags", "Accepted and without effect: the fabric needs no control plane. One line of the log names those that were given. Leave them."),
	}}
}

func environment() Area {
	const otel = "telemetry.TestSpansReachTheCollectorAndHeadersNameThem, telemetry.TestWithoutTheVariablesThereIsNoTracerAndHeadersPass"
	return Area{ID: "environment", Title: "Environment", What: "Variable", Intro: "None is needed. Those of the control plane, such as DAPR_TRUST_ANCHORS, are not looked at.", Rows: []Row{
		works("NAMESPACE, DAPR_HOST_IP", "compat.TestNamespaceAndHost"),
		works("DAPR_API_TOKEN, APP_API_TOKEN", "compat.TestTokensAreAskedForAndSent"),
		works("OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, OTEL_TRACES_EXPORTER, OTEL_SDK_DISABLED", otel,
			"And the others of OpenTelemetry's exporter."),
		works("variables that envRef and secretKeyRef name", "components.TestSecretReferences"),
		works("DAPR_COMPONENTS_SOCKETS_FOLDER", "compat.TestPluggableComponents, pluggable.TestWhereItLooks", "`sidecast run` knows it, too. [Pluggable components](concepts/pluggable-components.md)."),
		works("SIDECAST_DATA_DIR", "compat.TestGroupsOnOneMachineAreApart, rundir.TestDefaultDataDir", "Sidecast's: the folder for all that is kept. Sidecars with another are a group of their own."),
		works("HOME, XDG_STATE_HOME, LocalAppData, USERNAME", "rundir.TestDefaultDataDir, compat.TestDaprdStartsAndEndsAsDaprdDoes", "Say where that folder is when SIDECAST_DATA_DIR does not; none is needed."),
		works("SIDECAST_FABRIC, SIDECAST_FABRIC_CREDS", "compat.TestFabricOfTheEnvironment", "Sidecast's: URLs of a NATS cluster that joins machines, and its credentials file."),
		differs("SIDECAST_API_TOKEN", "compat.TestTokensAreAskedForAndSent", "Is that of `sidecast run`: under daprd DAPR_API_TOKEN counts."),
		works("GOGC", "runtime.TestTheUserPacesTheCollector", "How much garbage may gather; the sidecar sets its own pace when it is not set."),
		works("GOMEMLIMIT", "runtime.TestMemoryLimit", "Taken from the container's limit when it is not set."),
	}}
}
