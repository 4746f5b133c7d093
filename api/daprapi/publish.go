package daprapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/api/rpc"
	"github.com/sidecast/sidecast/appchannel"
	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/call/rawjson"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/telemetry"
)

// pubsubProblem is a problem of the newer family that concerns a broker.
func pubsubProblem(http int, grpc codes.Code, tag, reason, pubsub, message string, metadata map[string]string) *problem {
	return &problem{http: http, grpc: grpc, tag: tag, message: message, details: []protoadapt.MessageV1{
		&errdetails.ResourceInfo{ResourceType: "pubsub", ResourceName: pubsub, Description: message}, errorInfo(reason, metadata),
	}}
}

// noPubSub is the problem of a broker that there is not.
func noPubSub(pubsub string, md map[string]string) *problem {
	p := pubsubProblem(http.StatusNotFound, codes.InvalidArgument, "ERR_PUBSUB_NOT_FOUND", "DAPR_PUBSUB_NOT_FOUND", pubsub,
		fmt.Sprintf("pubsub %s is not found", pubsub), md)
	p.details = p.details[1:]
	unnamed := *p
	unnamed.details = []protoadapt.MessageV1{errorInfo("DAPR_PUBSUB_NOT_FOUND", nil)}
	p.grpcWords = &unnamed // the metadata of the request are told over HTTP alone
	return p
}

// checkTopic says whether there is a broker of that name, and a topic to publish to. It returns whether the payload is raw.
func (s *Server) checkTopic(pubsub, topic string, md map[string]string) (raw bool, err error) {
	found, _ := s.component(components.PubSubBlock, pubsub)
	switch {
	case pubsub == "":
		return false, pubsubProblem(http.StatusNotFound, codes.InvalidArgument, "ERR_PUBSUB_EMPTY", "DAPR_PUBSUB_NAME_EMPTY", pubsub, "pubsub name is empty", md)
	case !found:
		return false, noPubSub(pubsub, md)
	case topic == "":
		return false, pubsubProblem(http.StatusNotFound, codes.InvalidArgument, "ERR_TOPIC_NAME_EMPTY", "DAPR_PUBSUB_TOPIC_NAME_EMPTY", pubsub, "topic is empty in pubsub "+pubsub, md)
	}
	if raw, err = appchannel.RawPayload(md); err != nil {
		return false, pubsubProblem(http.StatusBadRequest, codes.InvalidArgument, "ERR_PUBSUB_REQUEST_METADATA",
			"DAPR_PUBSUB_METADATA_DESERIALIZATION", pubsub, fmt.Sprintf("failed deserializing metadata. Error: %s", err), md)
	}
	return raw, nil
}

// publishProblem is the problem of an event that was not stored.
func (s *Server) publishProblem(pubsub, topic string, err error) error {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	about := map[string]string{"topic": topic, "error": toValidUTF8(err.Error())}
	if fault.ReasonOf(err) == fault.TopicDenied {
		message := fmt.Sprintf("topic %s is not allowed for app id %s", topic, s.o.AppID)
		about["error"] = toValidUTF8(message)
		return pubsubProblem(http.StatusForbidden, codes.PermissionDenied, "ERR_PUBSUB_FORBIDDEN", "DAPR_PUBSUB_FORBIDDEN", pubsub, message, about)
	}
	return pubsubProblem(http.StatusInternalServerError, codes.Internal, "ERR_PUBSUB_PUBLISH_MESSAGE", "DAPR_PUBSUB_PUBLISH_MESSAGE", pubsub,
		fmt.Sprintf("error when publishing to topic %s in pubsub %s: %s", topic, pubsub, err), about).of(err)
}

// cloudEventProblem is the problem of a payload that says it is a CloudEvent and is not.
func (s *Server) cloudEventProblem(pubsub string, err error) error {
	return pubsubProblem(http.StatusInternalServerError, codes.InvalidArgument, "ERR_PUBSUB_CLOUD_EVENTS_SER", "DAPR_PUBSUB_CLOUD_EVENT_CREATION",
		pubsub, "cannot create cloudevent", map[string]string{"appID": s.o.AppID, "error": toValidUTF8(err.Error())})
}

// entriesProblem is the problem of a batch as a whole.
func (s *Server) entriesProblem(pubsub, tag, reason, message string, err error) *problem {
	about := map[string]string{"appID": s.o.AppID}
	if err != nil {
		about["error"] = toValidUTF8(err.Error())
	}
	return pubsubProblem(http.StatusBadRequest, codes.InvalidArgument, tag, reason, pubsub, message, about)
}

// draft makes an event to publish as Dapr makes it.
func (s *Server) draft(pubsub, topic, contentType string, data []byte, md map[string]string, trace call.Header, raw bool, as protocol) blocks.Draft {
	d := blocks.Draft{Data: data, ContentType: contentType, Header: trace, Raw: raw, Key: md["partitionKey"], Metadata: md, Judged: as.judged}
	if raw {
		for key, value := range md {
			if key != "rawPayload" {
				d.Header.Set(strings.ToLower(key), value)
			}
		}
		return d
	}
	d.Wrap = func(header call.Header) (string, []byte, error) {
		return s.envelope(pubsub, topic, contentType, data, md, header)
	}
	return d
}

// envelope is the CloudEvent that Dapr makes of a payload. One that is a CloudEvent already is completed.
func (s *Server) envelope(pubsub, topic, contentType string, data []byte, md map[string]string, header call.Header) (id string, envelope []byte, err error) {
	parent, state := header.Get("traceparent"), header.Get("tracestate")
	var e map[string]any
	if isCloudEvent(contentType) {
		var given map[string]json.RawMessage // numbers stay as they are written
		if err := json.NewDecoder(bytes.NewReader(data)).Decode(&given); err != nil || given == nil {
			if err == nil {
				err = errors.New("the payload is null")
			}
			return "", nil, s.cloudEventProblem(pubsub, inDaprsWords(err))
		}
		e = make(map[string]any, len(given)+8)
		for key, value := range given {
			e[key] = value
		}
		lacking := func(key, value string) {
			if raw, ok := e[key].(json.RawMessage); !ok || string(raw) == "null" {
				e[key] = value
			}
		}
		if _, ok := e["traceid"]; !ok {
			e["traceid"], e["traceparent"] = parent, parent
		}
		if _, ok := e["tracestate"]; !ok {
			e["tracestate"] = state
		}
		lacking("id", uuid.NewString())
		lacking("time", time.Now().Format(time.RFC3339))
		lacking("source", "Dapr")
		lacking("type", "com.dapr.event.sent")
		lacking("specversion", "1.0")
		e["topic"], e["pubsubname"] = topic, pubsub
		_ = json.Unmarshal(given["id"], &id)
	} else {
		e, id = s.newEnvelope(pubsub, topic, contentType, data, md, parent, state)
	}
	if ttl, ok := timeToLive(md); ok && !slices.Contains(brokerAbilities[s.typeOf(pubsub)], messageTTL) {
		e["expiration"] = time.Now().UTC().Add(ttl).Format(time.RFC3339)
	}
	if text, ok := e["id"].(string); ok {
		id = text
	}
	envelope, err = writeEnvelope(e, len(data))
	return id, envelope, err
}

// timeToLive is how long an event is to be of use: ttl or ttlInSeconds, in any case, as a duration or in seconds. What is none is
// passed over, as with daprd.
func timeToLive(md map[string]string) (ttl time.Duration, ok bool) {
	text, found := "", false
	for key, value := range md {
		if strings.EqualFold(key, "ttl") || !found && strings.EqualFold(key, "ttlInSeconds") {
			text, found = value, found || strings.EqualFold(key, "ttl")
		}
	}
	if ttl, err := time.ParseDuration(text); err == nil {
		return max(ttl, 0), true
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	if err != nil || seconds <= 0 {
		return 0, false
	}
	return time.Duration(min(seconds, math.MaxInt64/int64(time.Second))) * time.Second, true
}

// written is a value as it stands in an envelope.
type written []byte

// writeEnvelope is json.Marshal for an envelope whose payload has about so many bytes.
func writeEnvelope(e map[string]any, payload int) ([]byte, error) {
	var most [24]string
	names := most[:0]
	for name := range e {
		names = append(names, name)
	}
	slices.Sort(names)
	to := make([]byte, 0, payload+payload/8+768)
	for i, name := range names {
		if i == 0 {
			to = append(to, '{')
		} else {
			to = append(to, ',')
		}
		to = append(rawjson.AppendText(to, name), ':')
		switch value := e[name].(type) {
		case string:
			to = rawjson.AppendText(to, value)
		case written:
			to = append(to, value...)
		case json.RawMessage:
			to, _ = rawjson.AppendValue(to, value) // it was read as a part of JSON
		default:
			encoded, err := json.Marshal(value)
			if err != nil {
				return nil, err
			}
			to = append(to, encoded...)
		}
	}
	return append(to, '}'), nil
}

func (s *Server) newEnvelope(pubsub, topic, contentType string, data []byte, md map[string]string, parent, state string) (map[string]any, string) {
	var override map[string]string // attributes of the envelope that the publisher sets; their case is ignored
	for key, value := range md {
		if name, ok := strings.CutPrefix(strings.ToLower(key), "cloudevent."); ok {
			if override == nil {
				override = map[string]string{}
			}
			override[name] = value
		}
	}
	pick := func(name, fallback string) string {
		if value := override[name]; value != "" {
			return value
		}
		return fallback
	}
	if contentType == "" {
		contentType = "text/plain"
	}
	id := override["id"]
	if id == "" {
		id = uuid.NewString()
	}
	parent = pick("traceparent", pick("traceid", parent))
	e := map[string]any{
		"id": id, "specversion": "1.0", "datacontenttype": contentType, "source": pick("source", s.o.AppID),
		"type": pick("type", "com.dapr.event.sent"), "topic": topic, "pubsubname": pubsub,
		"traceid": parent, "traceparent": parent, "tracestate": pick("tracestate", state), "time": time.Now().Format(time.RFC3339),
	}
	if subject := override["subject"]; subject != "" {
		e["subject"] = subject
	}
	kind := strings.ToLower(contentType)
	if isJSON(kind) {
		if value, ok := rawjson.AppendValue(nil, data); ok {
			e["data"] = written(value)
			return e, id
		}
	}
	switch {
	case strings.HasPrefix(kind, "application/octet-stream"), strings.HasPrefix(kind, "application/cloudevents+protobuf"):
		e["data_base64"] = base64.StdEncoding.EncodeToString(data)
	default:
		e["data"] = string(data)
	}
	return e, id
}

func isCloudEvent(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "application/cloudevents+json")
}

func isJSON(contentType string) bool {
	return strings.HasPrefix(strings.ToLower(contentType), "application/json")
}

// traceOf is the trace context of a request, for what is not passed on with its header. What is no trace context goes nowhere, as W3C
// has it.
func traceOf(get func(string) string) call.Header {
	var header call.Header
	if parent, state := telemetry.TraceContext(get); parent != "" {
		header.Add("traceparent", parent)
		if state != "" {
			header.Add("tracestate", state)
		}
	}
	if value := get("baggage"); value != "" {
		header.Add("baggage", value)
	}
	return header
}

func (s *Server) publishOne(ctx context.Context, pubsub, topic string, draft blocks.Draft) error {
	began := time.Now()
	_, err := s.o.Blocks.PubSub.Publish(ctx, pubsub, topic, draft)
	s.o.Metrics.Published(pubsub, topic, false, began, err)
	return err
}

func (s *Server) publish(w http.ResponseWriter, r *http.Request, p params) error {
	pubsub, topic, md := p["pubsubname"], p["*"], queryMetadata(r)
	raw, err := s.checkTopic(pubsub, topic, md)
	if err != nil {
		return err
	}
	data, err := s.whole(r)
	if err != nil {
		return s.publishProblem(pubsub, topic, err)
	}
	draft := s.draft(pubsub, topic, r.Header.Get("Content-Type"), data, md, traceOf(r.Header.Get), raw, asHTTP)
	if err := s.publishOne(r.Context(), pubsub, topic, draft); err != nil {
		return s.publishProblem(pubsub, topic, err)
	}
	answerEmpty(w)
	return nil
}

func (a *api) PublishEvent(ctx context.Context, in *runtimev1.PublishEventRequest) (*emptypb.Empty, error) {
	pubsub, topic := in.GetPubsubName(), in.GetTopic()
	raw, err := a.s.checkTopic(pubsub, topic, in.GetMetadata())
	if err != nil {
		return nil, err
	}
	draft := a.s.draft(pubsub, topic, in.GetDataContentType(), in.GetData(), in.GetMetadata(), grpcTrace(ctx), raw, asGRPC)
	if err := a.s.publishOne(ctx, pubsub, topic, draft); err != nil {
		return nil, a.s.publishProblem(pubsub, topic, err)
	}
	return &emptypb.Empty{}, nil
}

func grpcTrace(ctx context.Context) call.Header {
	return traceOf(rpc.Lookup(ctx))
}
