package plugintest

import (
	"context"
	"encoding/json"
	"strconv"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type input struct {
	proto.UnimplementedInputBindingServer
	p *Program
}

func (i input) Init(ctx context.Context, r *proto.InputBindingInitRequest) (*proto.InputBindingInitResponse, error) {
	return &proto.InputBindingInitResponse{}, i.p.init(ctx, "input", r.GetMetadata())
}

func (input) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

// Read hands over what the output binding was given, and remembers what the app answered.
func (i input) Read(stream proto.InputBinding_ReadServer) error {
	if _, err := i.p.ready(stream.Context(), "input"); err != nil {
		return err
	}
	return i.p.hand(stream.Context(), "event ",
		func() []message { return i.p.kept.Events },
		func(all []message) { i.p.kept.Events = all },
		func(m message) error {
			return stream.Send(&proto.ReadResponse{Data: m.Data, Metadata: m.Metadata, MessageId: m.ID, ContentType: "application/json"})
		},
		func() (string, string, error) {
			r, err := stream.Recv()
			if err == nil && r.GetResponseError() == nil {
				err = i.p.change(func() error {
					i.p.kept.Answers = append(i.p.kept.Answers, string(r.GetResponseData()))
					return nil
				})
			}
			return r.GetMessageId(), r.GetResponseError().GetMessage(), err
		})
}

type output struct {
	proto.UnimplementedOutputBindingServer
	p *Program
}

func (o output) Init(ctx context.Context, r *proto.OutputBindingInitRequest) (*proto.OutputBindingInitResponse, error) {
	return &proto.OutputBindingInitResponse{}, o.p.init(ctx, "output", r.GetMetadata())
}

func (output) ListOperations(context.Context, *proto.ListOperationsRequest) (*proto.ListOperationsResponse, error) {
	return &proto.ListOperationsResponse{Operations: []string{"create", "answers", "settings", "hang"}}, nil
}

func (output) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

// Invoke makes an event of its data, or tells the answers there were, or the settings; hang waits for the caller to go.
func (o output) Invoke(ctx context.Context, r *proto.InvokeRequest) (*proto.InvokeResponse, error) {
	settings, err := o.p.ready(ctx, "output")
	if err != nil {
		return nil, err
	}
	switch r.GetOperation() {
	case "create":
		return &proto.InvokeResponse{Metadata: map[string]string{"made": "yes"}}, o.p.change(func() error {
			o.p.kept.Events = append(o.p.kept.Events, message{ID: strconv.Itoa(o.p.number()), Data: r.GetData(), Metadata: r.GetMetadata()})
			return nil
		})
	case "answers", "settings":
		o.p.mu.Lock()
		defer o.p.mu.Unlock()
		var told any = o.p.kept.Answers
		if r.GetOperation() == "settings" {
			told = settings
		}
		data, err := json.Marshal(told)
		return &proto.InvokeResponse{Data: data, ContentType: "application/json"}, err
	case "hang":
		if o.p.Hung != nil {
			o.p.Hung <- struct{}{}
		}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, status.Error(codes.InvalidArgument, "there is no such operation")
}

type vault struct {
	proto.UnimplementedSecretStoreServer
	p *Program
}

func (v vault) Init(ctx context.Context, r *proto.SecretStoreInitRequest) (*proto.SecretStoreInitResponse, error) {
	return &proto.SecretStoreInitResponse{}, v.p.init(ctx, "secrets", r.GetMetadata())
}

func (vault) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	return &proto.FeaturesResponse{}, nil
}

func (vault) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

// secrets are those that it keeps. There is one more, said: the metadata of the read.
var secrets = map[string]map[string]string{"db": {"user": "me", "password": "from-the-plug-in"}, "token": {"token": "t0k3n"}}

func (v vault) Get(ctx context.Context, r *proto.GetSecretRequest) (*proto.GetSecretResponse, error) {
	if _, err := v.p.ready(ctx, "secrets"); err != nil {
		return nil, err
	}
	parts, ok := secrets[r.GetKey()]
	if r.GetKey() == "said" {
		parts, ok = r.GetMetadata(), true
	}
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no secret %s", r.GetKey())
	}
	return &proto.GetSecretResponse{Data: parts}, nil
}

func (v vault) BulkGet(ctx context.Context, r *proto.BulkGetSecretRequest) (*proto.BulkGetSecretResponse, error) {
	if _, err := v.p.ready(ctx, "secrets"); err != nil {
		return nil, err
	}
	all := map[string]*proto.SecretResponse{}
	for name, parts := range secrets {
		all[name] = &proto.SecretResponse{Secrets: parts}
	}
	if len(r.GetMetadata()) > 0 {
		all["said"] = &proto.SecretResponse{Secrets: r.GetMetadata()}
	}
	return &proto.BulkGetSecretResponse{Data: all}, nil
}
