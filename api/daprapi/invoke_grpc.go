package daprapi

import (
	"context"
	"encoding/base64"
	"errors"
	"net/url"
	"strconv"
	"strings"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// InvokeService calls an app in either protocol.
func (a *api) InvokeService(ctx context.Context, in *runtimev1.InvokeServiceRequest) (*commonv1.InvokeResponse, error) {
	s, message := a.s, in.GetMessage()
	if message == nil {
		return nil, s.direct(in.GetId(), errors.New("message is nil"))
	}
	req, err := s.request(in.GetId(), message.GetMethod())
	if err != nil {
		return nil, s.direct(in.GetId(), err)
	}
	req.Query, req.ContentType, req.Body = message.GetHttpExtension().GetQuerystring(), message.GetContentType(), message.GetData().GetValue()
	if verb := message.GetHttpExtension().GetVerb(); verb != commonv1.HTTPExtension_NONE {
		req.Verb = verb.String()
	}
	req.Header = s.forwarder(incomingHeader(ctx), req.App, req.Namespace)
	if kind := message.GetData().GetTypeUrl(); kind != "" {
		req.Header.Set(appchannel.TypeURL, kind)
	}
	resp, err := s.o.Blocks.Invocation.Invoke(ctx, req)
	if err != nil {
		if given := appStatus(err); given != nil {
			fields, trailer := appFields(err)
			head := metadataOf(fields, plainKey)
			invokedTrace(ctx, head)
			_ = grpc.SetHeader(ctx, head)
			_ = grpc.SetTrailer(ctx, metadataOf(trailer, plainKey))
			return nil, status.ErrorProto(given)
		}
		return nil, s.direct(in.GetId(), err)
	}
	key := plainKey
	if resp.Status != 0 {
		key = grpcKey
	}
	head := metadataOf(resp.Header, key)
	invokedTrace(ctx, head)
	if resp.Status != 0 {
		head.Set("dapr-http-status", strconv.Itoa(resp.Status))
		if resp.ContentType != "" {
			head.Set("dapr-content-type", resp.ContentType)
		}
	}
	_ = grpc.SetHeader(ctx, head)
	_ = grpc.SetTrailer(ctx, metadataOf(resp.Trailer, plainKey))
	if resp.Status != 0 {
		if err := fromHTTPStatus(resp.Status, string(resp.Body)); err != nil {
			return nil, err
		}
	}
	return &commonv1.InvokeResponse{
		ContentType: resp.ContentType, Data: &anypb.Any{TypeUrl: resp.Header.Get(appchannel.TypeURL), Value: resp.Body},
	}, nil
}

// appFields is what came with the status that a gRPC app answered with.
func appFields(err error) (head, trailer call.Header) {
	var e *fault.Error
	if !errors.As(err, &e) {
		return nil, nil
	}
	fields := func(text string) (all call.Header) {
		values, _ := url.ParseQuery(text) // what can be read of it
		for key, list := range values {
			for _, value := range list {
				all.Add(key, value)
			}
		}
		return all
	}
	return fields(e.Meta[appchannel.GRPCHeader]), fields(e.Meta[appchannel.GRPCTrailer])
}

// metadataOf is what an answer brought beside its body, as metadata under names that key gives.
func metadataOf(fields call.Header, key func(string) string) metadata.MD {
	md := metadata.MD{}
	for _, f := range fields {
		switch {
		case f.Key == appchannel.TypeURL, f.Key == "trailer":
		case strings.HasSuffix(f.Key, "-bin"):
			if plain, err := base64.StdEncoding.DecodeString(f.Value); err == nil {
				md.Append(f.Key, string(plain))
			}
		default:
			md.Append(key(f.Key), f.Value)
		}
	}
	return md
}

func plainKey(key string) string { return key }

// grpcKey is the name in metadata of a header field that came over HTTP: HTTP's own get a prefix, because gRPC has its own.
func grpcKey(key string) string {
	switch key {
	case "accept", "accept-charset", "accept-language", "accept-ranges", "connection", "keep-alive", "proxy-connection",
		"transfer-encoding", "upgrade", "cache-control", "content-type", "content-length", "cookie", "date", "expect", "from", "host",
		"if-match", "if-modified-since", "if-none-match", "if-schedule-tag-match", "if-unmodified-since", "max-forwards", "origin",
		"pragma", "referer", "via", "warning":
		return "dapr-" + key
	}
	return key
}

// incomingHeader is the metadata of a call as the header of another. Binary values go in base64, but that of a trace, which
// becomes a traceparent.
func incomingHeader(ctx context.Context) call.Header {
	md, _ := metadata.FromIncomingContext(ctx)
	header := make(call.Header, 0, len(md))
	parent := ""
	if values := md[call.TraceBin]; len(values) > 0 {
		parent, _ = call.TraceParent(values[0])
	}
	for key, values := range md {
		switch {
		case key == "content-type", key == "te", key == tokenHeader, key == call.TraceBin, strings.HasPrefix(key, "sidecast-"):
			continue
		case key == "traceparent" && parent != "":
			continue
		case strings.HasPrefix(key, ":"):
			key = "dapr-" + key[1:]
		case strings.HasPrefix(key, "grpc-"):
			key = "dapr-" + key
		}
		for _, value := range values {
			if strings.HasSuffix(key, "-bin") {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			header.Add(key, value)
		}
	}
	if parent != "" {
		header.Add("traceparent", parent)
	}
	return header
}
