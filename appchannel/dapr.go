package appchannel

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	"github.com/sidecast/sidecast/routing"
)

// Facts of a fault that hold the status which a Dapr app's gRPC handler answered with, so that Dapr's own callers get it
// unchanged.
const (
	GRPCStatus  = fault.AppStatus
	GRPCMessage = "grpc-message"        // the message
	GRPCDetails = "grpc-status-details" // google.rpc.Status in binary and base64, when there are details
	GRPCHeader  = "grpc-header"         // header and trailer fields as a query string, when there are some
	GRPCTrailer = "grpc-trailer"
)

// TypeURL is the header field with the type of a body that is a google.protobuf.Any; only Dapr's protocol has such bodies.
const TypeURL = "sidecast-type-url"

// MediaType is the content type of a body as HTTP tells it: one whose header has a TypeURL is protobuf, whatever gRPC callers and
// apps say of it to each other.
func MediaType(header call.Header, given string) string {
	if header.Get(TypeURL) != "" {
		return "application/x-protobuf"
	}
	return given
}

// Dapr is the Channel to an app that implements dapr.proto.runtime.v1.AppCallback on a port. A stream whose content type is
// gRPC-Web is a gRPC call of any service of the app's own: it is made as it is.
type Dapr struct {
	*grpcPort
	app   runtimev1.AppCallbackClient
	alpha runtimev1.AppCallbackAlphaClient
	bulks bulks
}

var _ Channel = (*Dapr)(nil)

// OpenDapr starts to watch for the app. Close it.
func OpenDapr(c Callback) (*Dapr, error) {
	base, err := newGRPCPort(c)
	if err != nil {
		return nil, err
	}
	d := &Dapr{grpcPort: base, app: runtimev1.NewAppCallbackClient(base.calls), alpha: runtimev1.NewAppCallbackAlphaClient(base.calls)}
	base.start(d.healthy)
	return d, nil
}

// healthy is one health check: any answer but an error passes.
func (d *Dapr) healthy(ctx context.Context) error {
	_, err := runtimev1.NewAppCallbackHealthCheckClient(d.calls).HealthCheck(d.outgoing(ctx, nil), &emptypb.Empty{}, grpc.WaitForReady(true))
	return faultgrpc.From(err)
}

// outgoing is ctx with the metadata of an RPC to the app; own are fields of the sidecar's, which take the place of others.
func (d *Dapr) outgoing(ctx context.Context, header call.Header, own ...call.Field) context.Context {
	if d.port.Token != "" {
		own = append(own, call.Field{Key: "dapr-api-token", Value: d.port.Token})
	}
	ofHTTP := header.Get(authority) == ""
	binary, traced := call.TraceBinary(header.Get("traceparent")) // some clients know one form, some the other
	md, values := make(metadata.MD, len(header)+len(own)+1), make([]string, 0, len(header)+len(own)+1)
	set := func(key, value string) {
		values = append(values, value)
		md[key] = values[len(values)-1 : len(values) : len(values)]
	}
	for _, f := range header {
		if reserved(f.Key) || f.Key == TypeURL || traced && f.Key == call.TraceBin {
			continue
		}
		key, value := f.Key, f.Value
		switch {
		case strings.HasSuffix(key, "-bin"):
			plain, err := base64.StdEncoding.DecodeString(value)
			if err != nil {
				continue
			}
			value = string(plain)
		case ofHTTP && permanent[key]:
			key = "dapr-" + key
		}
		if key = strings.ToLower(key); md[key] != nil {
			md[key] = append(md[key], value)
			continue
		}
		set(key, value)
	}
	if traced {
		set(call.TraceBin, binary)
	}
	for _, f := range own {
		set(f.Key, f.Value)
	}
	return metadata.NewOutgoingContext(ctx, md)
}

// authority is a field that calls over Dapr's gRPC API have, and no others.
const authority = "dapr-authority"

// reserved are the keys that gRPC writes itself, that must not reach the app, or that are of the connection of a caller.
func reserved(key string) bool {
	switch key {
	case "content-type", "content-length", "te", "trailer", "user-agent", "dapr-api-token", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding",
		authority, "dapr-grpc-accept-encoding":
		return true
	}
	return strings.HasPrefix(key, ":") || strings.HasPrefix(key, "grpc-") && key != call.TraceBin
}

// permanent are HTTP's own fields, which Dapr gives a prefix in the metadata of a gRPC call when they came over HTTP.
var permanent = map[string]bool{
	"accept": true, "accept-charset": true, "accept-language": true, "accept-ranges": true, "connection": true, "keep-alive": true,
	"proxy-connection": true, "transfer-encoding": true, "upgrade": true, "cache-control": true, "cookie": true, "date": true,
	"expect": true, "from": true, "host": true, "if-match": true, "if-modified-since": true, "if-none-match": true,
	"if-schedule-tag-match": true, "if-unmodified-since": true, "max-forwards": true, "origin": true, "pragma": true,
	"referer": true, "via": true, "warning": true,
}

// caller tells the app who calls whom.
func (d *Dapr) caller(req *call.Request) []call.Field {
	if req.Caller == "" {
		return nil
	}
	fields := make([]call.Field, 0, 4)
	fields = append(fields, call.Field{Key: "dapr-caller-app-id", Value: req.Caller}, call.Field{Key: "dapr-callee-app-id", Value: req.App})
	if namespace := cmp.Or(req.CallerNamespace, d.port.Namespace); namespace != "" {
		fields = append(fields, call.Field{Key: "dapr-caller-namespace", Value: namespace})
	}
	return fields
}

// Invoke makes one OnInvoke. An error of the handler is a fault that carries its status.
func (d *Dapr) Invoke(ctx context.Context, req *call.Request) (*call.Response, error) {
	op := "invoke " + req.Method
	if err := d.port.begin(ctx, op); err != nil {
		return nil, err
	}
	defer d.port.end()
	var from peer.Peer
	var head, trail metadata.MD
	answer, err := d.app.OnInvoke(d.outgoing(ctx, req.Header, d.caller(req)...), &commonv1.InvokeRequest{
		Method: req.Method, ContentType: req.ContentType,
		Data:          &anypb.Any{TypeUrl: req.Header.Get(TypeURL), Value: req.Body},
		HttpExtension: extensionOf(req),
	}, grpc.Peer(&from), grpc.Header(&head), grpc.Trailer(&trail))
	if err != nil {
		return nil, withFields(d.answered(ctx, op, &from, len(head)+len(trail) > 0, err), head, trail)
	}
	resp := &call.Response{
		ContentType: answer.GetContentType(), Body: answer.GetData().GetValue(), Header: headerOf(head), Trailer: headerOf(trail),
	}
	if kind := answer.GetData().GetTypeUrl(); kind != "" {
		resp.Header.Set(TypeURL, kind)
	}
	return resp, nil
}

// extensionOf is what a call has of HTTP, in Dapr's protocol. A call without a verb and a query has nothing of it.
func extensionOf(req *call.Request) *commonv1.HTTPExtension {
	if req.Verb == "" && req.Query == "" {
		return nil
	}
	verb := commonv1.HTTPExtension_Verb_value[strings.ToUpper(req.Verb)] // NONE is 0
	return &commonv1.HTTPExtension{Verb: commonv1.HTTPExtension_Verb(verb), Querystring: req.Query}
}

// answered is the fault of an RPC that failed. A status that the app answered with is kept in it; heard says that something
// came from the app, by which its own UNAVAILABLE is told from that of a broken connection.
func (d *Dapr) answered(ctx context.Context, op string, from *peer.Peer, heard bool, err error) error {
	s, _ := status.FromError(err)
	if ctx.Err() != nil || s.Code() == codes.Unavailable && !heard {
		return away(d.failed(ctx, op, from, err))
	}
	e := fault.E(op, fault.KindFromGRPC(uint32(s.Code())), fault.AppFailed, errors.New(s.Message())).
		With(GRPCStatus, strconv.Itoa(int(s.Code()))).With(GRPCMessage, s.Message())
	if len(s.Proto().GetDetails()) > 0 {
		if encoded, err := proto.Marshal(s.Proto()); err == nil {
			e = e.With(GRPCDetails, base64.StdEncoding.EncodeToString(encoded))
		}
	}
	return e
}

// Ready implements Channel.
func (d *Dapr) Ready() error { return away(d.grpcPort.Ready()) }

// away keeps in the fault of a call to an app that is not there what gRPC says of that, which Dapr takes for the app's own status.
func away(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok && e.Reason == fault.AppUnreachable {
		return e.With(GRPCStatus, strconv.Itoa(int(codes.Unavailable))).With(GRPCMessage, e.Err.Error())
	}
	return err
}

// withFields keeps in the fault of a handler what came with its status.
func withFields(err error, head, trail metadata.MD) error {
	var e *fault.Error
	if !errors.As(err, &e) || e.Meta[GRPCStatus] == "" {
		return err
	}
	for key, md := range map[string]metadata.MD{GRPCHeader: head, GRPCTrailer: trail} {
		fields := url.Values{}
		for _, f := range headerOf(md) {
			fields.Add(f.Key, f.Value)
		}
		if text := fields.Encode(); text != "" && len(text) <= maxFacts {
			e = e.With(key, text)
		}
	}
	return e
}

// maxFacts bounds the header and the trailer of a failed call, in bytes each: faults are no place for more.
const maxFacts = 4 << 10

// headerOf takes metadata over that the app answered with.
func headerOf(md metadata.MD) call.Header {
	header := make(call.Header, 0, len(md))
	for key, values := range md {
		if reserved(key) {
			continue
		}
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			header.Add(key, value)
		}
	}
	return header
}

// Deliver makes one OnTopicEvent.
func (d *Dapr) Deliver(ctx context.Context, event *Event) (Outcome, error) {
	op := needOf(event).String()
	if event.Bulk != nil {
		return d.bulks.deliver(ctx, d.port.Meter, event, d.deliverBulk)
	}
	message, err := DaprTopicEvent(event)
	if err != nil {
		return unsayable(err), nil
	}
	if err := d.port.begin(ctx, op); err != nil {
		return Outcome{}, err
	}
	defer d.port.end()
	var from peer.Peer
	fields := append(traceOf(event.Header), call.Field{Key: "pubsubname", Value: event.PubSub})
	answer, err := d.app.OnTopicEvent(d.outgoing(ctx, append(fields, besideFields(event)...)), message, grpc.Peer(&from))
	switch {
	case status.Code(err) == codes.Unimplemented:
		return Outcome{Verdict: Drop, Reason: "the app does not implement OnTopicEvent"}, nil
	case err != nil:
		return Outcome{}, d.failed(ctx, op, &from, err)
	}
	return daprOutcome(answer.GetStatus()), nil
}

func daprOutcome(s runtimev1.TopicEventResponse_TopicEventResponseStatus) Outcome {
	return verdicts([]string{""}, map[string]string{"": s.String()})[0]
}

// DaprOutcome is what an app says of an event in Dapr's protocol.
func DaprOutcome(s runtimev1.TopicEventResponse_TopicEventResponseStatus) Outcome {
	return daprOutcome(s)
}

func (d *Dapr) deliverBulk(ctx context.Context, events []*Event) ([]Outcome, error) {
	op := needOf(events[0]).String()
	if err := d.port.begin(ctx, op); err != nil {
		return nil, err
	}
	defer d.port.end()
	ids := entryIDs(len(events))
	request, failed := bulkRequest(events, ids)
	if len(request.GetEntries()) == 0 {
		return withFailed(verdicts(ids, nil), failed), nil
	}
	var from peer.Peer
	ctx = d.outgoing(ctx, append(traceOfAll(events), call.Field{Key: "pubsubname", Value: events[0].PubSub}))
	answer, err := d.app.OnBulkTopicEvent(ctx, request, grpc.Peer(&from))
	if status.Code(err) == codes.Unimplemented {
		//lint:ignore SA1019 older apps have only this one
		answer, err = d.alpha.OnBulkTopicEventAlpha1(ctx, request, grpc.Peer(&from))
	}
	switch {
	case status.Code(err) == codes.Unimplemented:
		return withFailed(all(len(events), Outcome{Verdict: Drop, Reason: "the app does not implement OnBulkTopicEvent"}), failed), nil
	case err != nil:
		return nil, d.failed(ctx, op, &from, err)
	}
	said := make(map[string]string, len(events))
	for _, s := range answer.GetStatuses() {
		said[s.GetEntryId()] = s.GetStatus().String()
	}
	return withFailed(verdicts(ids, said), failed), nil
}

// traceOfAll is the trace of the first of several events that belongs to one.
func traceOfAll(events []*Event) call.Header {
	for _, e := range events {
		if e.Header.Get("traceparent") != "" {
			return traceOf(e.Header)
		}
	}
	return nil
}

// Subscriptions asks the app each time it becomes ready.
func (d *Dapr) Subscriptions(ctx context.Context, changed func([]Subscription)) error {
	if d.port.NoSubscribe {
		return d.port.unasked(ctx, changed)
	}
	return d.port.subscriptions(ctx, changed, func(ctx context.Context) ([]Subscription, error) {
		answer, err := d.app.ListTopicSubscriptions(d.outgoing(ctx, nil), &emptypb.Empty{}, grpc.WaitForReady(true))
		if status.Code(err) == codes.Unimplemented {
			return nil, nil
		}
		if err != nil {
			return nil, faultgrpc.From(err)
		}
		var list []Subscription
		for _, s := range answer.GetSubscriptions() {
			sub, err := daprSubscription(s)
			if err != nil {
				d.port.Log.Error("a subscription of the app is not valid and is ignored", "topic", s.GetTopic(), "error", err)
				continue
			}
			list = append(list, sub)
		}
		return list, nil
	})
}

func daprSubscription(s *runtimev1.TopicSubscription) (Subscription, error) {
	sub := Subscription{
		PubSub: s.GetPubsubName(), Topic: s.GetTopic(), Route: s.GetRoutes().GetDefault(), DeadLetterTopic: s.GetDeadLetterTopic(),
		Metadata: s.GetMetadata(),
	}
	if sub.Topic == "" {
		return sub, fault.New("app over grpc", fault.AppAnswer, "a subscription names no topic")
	}
	sub.Raw, _ = RawPayload(s.GetMetadata())
	for _, r := range s.GetRoutes().GetRules() {
		rule, err := routing.Compile(r.GetMatch())
		if err != nil {
			return sub, err
		}
		sub.Routes = append(sub.Routes, routing.Route{Rule: rule, Path: r.GetPath()})
	}
	if bulk := s.GetBulkSubscribe(); bulk.GetEnabled() {
		sub.Bulk = bulkOf(int64(bulk.GetMaxMessagesCount()), int64(bulk.GetMaxAwaitDurationMs()))
	}
	return sub, nil
}
