package daprapi

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/components"
)

func (s *Server) healthz(w http.ResponseWriter, r *http.Request, _ params) error {
	if err := s.o.Ready(); err != nil {
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_HEALTH_NOT_READY", "dapr is not ready: %v", []string{err.Error()})
	}
	if query := r.URL.Query(); query.Has("appid") && query.Get("appid") != s.o.AppID {
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_HEALTH_APPID_NOT_MATCH", "dapr app-id does not match")
	}
	answerEmpty(w)
	return nil
}

func (s *Server) healthzOutbound(w http.ResponseWriter, _ *http.Request, _ params) error {
	if s.o.Usable() != nil {
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_OUTBOUND_HEALTH_NOT_READY", "dapr outbound is not ready")
	}
	answerEmpty(w)
	return nil
}

// forceKey asks for an end without a drain, as a header or metadata.
const forceKey = "dapr-force-shutdown"

// forceDelay lets the answer to a forced shutdown reach its caller.
const forceDelay = 100 * time.Millisecond

func (s *Server) shutdown(w http.ResponseWriter, r *http.Request, _ params) error {
	s.end(strings.EqualFold(r.Header.Get(forceKey), "true"))
	answerEmpty(w)
	return nil
}

func (a *api) Shutdown(ctx context.Context, _ *runtimev1.ShutdownRequest) (*emptypb.Empty, error) {
	force := false
	for _, value := range metadata.ValueFromIncomingContext(ctx, forceKey) {
		force = force || strings.EqualFold(value, "true")
	}
	a.s.end(force)
	return &emptypb.Empty{}, nil
}

// warningsKey is the entry of the extended metadata that tells what is wrong with the sidecar and keeps no call from being
// served; it is there as long as that is so.
const warningsKey = "sidecastWarnings"

// noPlacement is what daprd says of actors that have no placement service.
const noPlacement = "placement: disconnected"

func (s *Server) end(force bool) {
	if force {
		s.o.Log.Warn("Force shutdown requested, exiting immediately without graceful shutdown")
		time.AfterFunc(forceDelay, s.o.Abort)
		return
	}
	s.o.Log.Info("Shutdown requested via API")
	s.o.Blocks.Runtime.Shutdown()
}

// subtleFeature is what a daprd that is built with the subtle API for crypto tells of itself.
const subtleFeature = "_SubtleCrypto"

func (a *api) GetMetadata(context.Context, *runtimev1.GetMetadataRequest) (*runtimev1.GetMetadataResponse, error) {
	s := a.s
	description := s.o.Blocks.Runtime.Describe()
	out := &runtimev1.GetMetadataResponse{
		Id: s.o.AppID, RuntimeVersion: Version, EnabledFeatures: append(slices.Clone(s.now.Load().Features), subtleFeature), ExtendedMetadata: map[string]string{},
		ActorRuntime: &runtimev1.ActorRuntime{RuntimeStatus: runtimev1.ActorRuntime_DISABLED, Placement: noPlacement},
		AppConnectionProperties: &runtimev1.AppConnectionProperties{
			Port: int32(s.o.App.Port), Protocol: s.o.App.Protocol, ChannelAddress: s.o.App.Address, MaxConcurrency: int32(s.o.App.MaxConcurrency),
		},
	}
	s.mu.Lock()
	for key, value := range s.extended {
		out.ExtendedMetadata[key] = value
	}
	s.mu.Unlock()
	out.ExtendedMetadata["daprRuntimeVersion"] = Version
	if len(description.Warnings) > 0 {
		out.ExtendedMetadata[warningsKey] = toValidUTF8(strings.Join(description.Warnings, "\n"))
	}
	if app := s.o.App; app.HealthInterval > 0 {
		health := &runtimev1.AppConnectionHealthProperties{
			HealthProbeInterval: app.HealthInterval.String(), HealthProbeTimeout: app.HealthTimeout.String(), HealthThreshold: int32(app.HealthThreshold),
		}
		if !strings.HasPrefix(app.Protocol, "grpc") {
			health.HealthCheckPath = app.HealthPath
		}
		out.AppConnectionProperties.Health = health
	}
	for _, c := range description.Components {
		out.RegisteredComponents = append(out.RegisteredComponents, &runtimev1.RegisteredComponents{
			Name: c.Name, Type: c.Type, Version: c.Version, Capabilities: s.capabilities(c),
		})
	}
	for _, name := range s.o.Blocks.Invocation.Endpoints() {
		out.HttpEndpoints = append(out.HttpEndpoints, &runtimev1.MetadataHTTPEndpoint{Name: name})
	}
	for _, name := range slices.Sorted(maps.Keys(s.o.Blocks.Rules().Documents())) {
		out.Resiliencies = append(out.Resiliencies, &runtimev1.MetadataResiliency{Name: name})
	}
	for _, sub := range description.Subscriptions {
		out.Subscriptions = append(out.Subscriptions, subscriptionOf(sub))
	}
	return out, nil
}

// capabilities are what a component can do, in Dapr's words. Locks have none with daprd.
func (s *Server) capabilities(c components.Status) []string {
	all := []string{}
	switch b, found := s.o.Blocks.Bindings.Find(c.Name); {
	case found:
		if b.Input {
			all = append(all, "INPUT_BINDING")
		}
		if b.Output {
			all = append(all, "OUTPUT_BINDING")
		}
	case strings.HasPrefix(c.Type, "state."):
		return storeAbilities(c, s.o.Blocks.Runtime.HasPlainValues(c.Name))
	case c.Capabilities != nil:
		return c.Capabilities
	default:
		all = append(all, brokerAbilities[c.Type]...)
	}
	return all
}

// brokerAbilities are what Dapr says that a broker can do, by its type.
var brokerAbilities = map[string][]string{
	"pubsub.in-memory":               {"SUBSCRIBE_WILDCARDS"},
	"pubsub.rabbitmq":                {messageTTL},
	"pubsub.kafka":                   {"BULK_PUBSUB"},
	"pubsub.mqtt3":                   {"SUBSCRIBE_WILDCARDS"},
	"pubsub.mqtt":                    {"SUBSCRIBE_WILDCARDS"},
	"pubsub.azure.eventhubs":         {"BULK_PUBSUB"},
	"pubsub.azure.servicebus":        {messageTTL, "BULK_PUBSUB"},
	"pubsub.azure.servicebus.queues": {messageTTL, "BULK_PUBSUB"},
	"pubsub.azure.servicebus.topics": {messageTTL, "BULK_PUBSUB"},
	"pubsub.azure.servicebusqueues":  {messageTTL, "BULK_PUBSUB"},
	"pubsub.solace.amqp":             {"SUBSCRIBE_WILDCARDS", messageTTL},
}

// messageTTL is the ability of a broker that is told how long a message is to be kept, and drops it then.
const messageTTL = "MESSAGE_TTL"

// storeAbilities are those of a state store: what it tells, or what every store can do that tells nothing. As with daprd, one
// that has ETags and transactions could keep the state of actors.
func storeAbilities(c components.Status, plain bool) []string {
	all := slices.Clone(c.Capabilities)
	switch {
	case all != nil:
	case plain:
		return []string{"TTL"}
	case c.Type == "state.in-memory":
		all = []string{"ETAG", "TRANSACTIONAL", "TTL", "DELETE_WITH_PREFIX", "KEYS_LIKE"}
	default:
		all = []string{"ETAG", "TRANSACTIONAL", "TTL"}
	}
	if slices.Contains(all, "ETAG") && slices.Contains(all, "TRANSACTIONAL") && !slices.Contains(all, "ACTOR") {
		all = append(all, "ACTOR")
	}
	return all
}

func (a *api) SetMetadata(_ context.Context, in *runtimev1.SetMetadataRequest) (*emptypb.Empty, error) {
	return &emptypb.Empty{}, a.s.setMetadata(in.GetKey(), in.GetValue())
}

// Bounds of the metadata that the app sets: an answer with all of it must fit what clients of gRPC take, 4 MiB.
const (
	maxExtended      = 256     // entries
	maxExtendedBytes = 1 << 20 // of keys and values
)

// setMetadata keeps what the app wants to be read with the sidecar's own metadata. No key is no entry, as with daprd.
func (s *Server) setMetadata(key, value string) error {
	if key == "" {
		return nil
	}
	key, value = toValidUTF8(key), toValidUTF8(value)
	s.mu.Lock()
	defer s.mu.Unlock()
	old, known := s.extended[key]
	size := s.extendedBytes + len(value) - len(old)
	if !known {
		size += len(key)
	}
	switch {
	case !known && len(s.extended) >= maxExtended:
		return plain(http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "ERR_METADATA_SET",
			"the sidecar keeps %d entries of metadata already; set one of them again, or none", maxExtended)
	case size > maxExtendedBytes && len(value) >= len(old):
		return plain(http.StatusRequestEntityTooLarge, codes.ResourceExhausted, "ERR_METADATA_SET",
			"with this value of %d bytes the metadata would have %d bytes; at most %d are kept", len(value), size, maxExtendedBytes)
	}
	s.extended[key], s.extendedBytes = value, size
	return nil
}

func (s *Server) putMetadata(w http.ResponseWriter, r *http.Request, p params) error {
	body, err := s.whole(r)
	if err != nil {
		return unreadable(err)
	}
	if err := s.setMetadata(p["key"], string(body)); err != nil {
		return err
	}
	answerEmpty(w)
	return nil
}
