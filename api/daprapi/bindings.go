package daprapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"go.opentelemetry.io/otel/baggage"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/sidecast/sidecast/binding"
	"github.com/sidecast/sidecast/call"
)

// errNoOperation is told before anything else.
var errNoOperation = errors.New("operation field is missing from request")

// callBinding has a binding do an operation.
func (s *Server) callBinding(ctx context.Context, name string, r binding.Request, traced call.Header) (*binding.Response, error) {
	if r.Operation == "" {
		return nil, bindingProblem(name, errNoOperation)
	}
	if b, found := s.o.Blocks.Bindings.Find(name); !found || !b.Output {
		return nil, bindingProblem(name, fmt.Errorf("couldn't find output binding %s", name))
	}
	response, err := s.o.Blocks.Bindings.Invoke(ctx, name, r, traced)
	if err != nil {
		err = bindingProblem(name, err)
	}
	return response, err
}

// bindingProblem is the problem of an operation that failed, in the words of whoever knows best: the system's client, or the lane.
func bindingProblem(name string, err error) error {
	return basic(http.StatusInternalServerError, codes.Internal, "ERR_INVOKE_OUTPUT_BINDING", "error invoking output binding %s: %s", name, ownWords(err)).of(err)
}

func (s *Server) invokeBinding(w http.ResponseWriter, r *http.Request, p params) error {
	type OutputBindingRequest struct { // the name is part of what the decoder says of a wrong one
		Metadata  map[string]string `json:"metadata"`
		Data      json.RawMessage   `json:"data"`
		Operation string            `json:"operation"`
	}
	var in OutputBindingRequest
	if err := s.decode(r, &in); err != nil {
		return malformed(err)
	}
	traced := traceOf(r.Header.Get)
	if fields := r.Header.Values("baggage"); len(fields) > 0 {
		whole := strings.Join(fields, ",")
		if _, err := baggage.Parse(whole); err != nil {
			return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", "invalid baggage header: %v", err)
		}
		traced.Set("baggage", whole)
	}
	response, err := s.callBinding(r.Context(), p["name"], binding.Request{
		Operation: in.Operation, Data: compact(in.Data), Metadata: in.Metadata,
	}, underMetadata(traced, in.Metadata))
	if response != nil {
		for key, value := range response.Metadata {
			w.Header().Add("metadata."+key, value)
		}
	}
	switch {
	case err != nil:
		return err
	case response == nil:
		answerEmpty(w)
	default:
		answerData(w, http.StatusOK, response.Data)
	}
	return nil
}

// underMetadata is the trace that a request comes with: where its header names none, that of its metadata.
func underMetadata(traced call.Header, metadata map[string]string) call.Header {
	if traced.Get("traceparent") != "" {
		return traced
	}
	for _, key := range []string{"traceparent", "tracestate"} {
		if value := metadata[key]; value != "" {
			traced.Set(key, value)
		}
	}
	return traced
}

func (a *api) InvokeBinding(ctx context.Context, in *runtimev1.InvokeBindingRequest) (*runtimev1.InvokeBindingResponse, error) {
	all := make(map[string]string, len(in.GetMetadata()))
	for key, value := range in.GetMetadata() {
		all[key] = value
	}
	traced := grpcTrace(ctx)
	if whole := traced.Get("baggage"); whole != "" {
		if _, err := baggage.Parse(whole); err != nil {
			return nil, err
		}
	}
	incoming, _ := metadata.FromIncomingContext(ctx)
	for key, values := range incoming {
		switch {
		case key == tokenHeader, len(values) == 0:
			continue
		case strings.HasPrefix(key, ":"):
			key = "dapr-" + key[1:]
		case strings.HasPrefix(key, "grpc-"):
			key = "dapr-" + key
		}
		if _, own := all[key]; !own {
			all[key] = values[0]
		}
	}
	response, err := a.s.callBinding(ctx, in.GetName(), binding.Request{
		Operation: in.GetOperation(), Data: in.GetData(), Metadata: all,
	}, underMetadata(traced, in.GetMetadata()))
	if response != nil {
		for key, value := range response.Metadata {
			_ = grpc.SetHeader(ctx, metadata.Pairs("metadata."+key, value)) // what gRPC cannot carry is in the message alone
		}
	}
	if err != nil {
		return nil, err
	}
	out := &runtimev1.InvokeBindingResponse{}
	if response != nil {
		out.Data, out.Metadata = response.Data, response.Metadata
	}
	return out, nil
}
