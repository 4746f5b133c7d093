package natspubsub

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/sidecast/sidecast/fault"
)

// jsFault turns an error of the client library or of JetStream into a fault.
func jsFault(ctx context.Context, op string, err error) error {
	var api *jetstream.APIError
	var known *fault.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(context.Cause(ctx), nats.ErrDisconnected), errors.Is(context.Cause(ctx), nats.ErrConnectionClosed):
		return fault.E(op, fault.None, fault.BackendDown, fmt.Errorf("the connection broke before JetStream answered: %w", context.Cause(ctx)))
	case ctx.Err() != nil:
		return fault.FromContext(op, ctx, "JetStream")
	case errors.As(err, &api):
		return apiFault(op, int(api.Code), int(api.ErrorCode), api.Description)
	case errors.Is(err, nats.ErrMaxPayload):
		return fault.E(op, fault.None, fault.BodyTooLarge, err)
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, jetstream.ErrJetStreamNotEnabled), errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount):
		return fault.New(op, fault.JetStreamRefused, "JetStream does not answer: %w", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, nats.ErrTimeout):
		return fault.E(op, fault.Unavailable, fault.JetStreamRefused, fmt.Errorf("JetStream did not answer in time: %w", err))
	}
	return fault.E(op, fault.None, fault.FabricDown, err)
}

// JetStream's own error codes (errors.json of the server) that mean a full account, stream or disk.
var exhausted = map[int]bool{
	10002: true, // resource limits exceeded for account
	10023: true, // insufficient resources
	10026: true, // maximum consumers limit reached
	10028: true, // insufficient memory resources
	10047: true, // insufficient storage resources
}

const (
	tooLargeForStream = 10054
	storeRefused      = 10077 // the one code whose cause, a limit or a broken disk, is only in its text
)

func apiFault(op string, code, errCode int, text string) error {
	cause := fmt.Errorf("JetStream: %s (%d)", text, errCode)
	switch {
	case exhausted[errCode], code == 429, errCode == storeRefused && strings.HasPrefix(text, "maximum "):
		return fault.E(op, fault.None, fault.JetStreamExhausted, cause)
	case errCode == tooLargeForStream:
		return fault.E(op, fault.None, fault.BodyTooLarge, cause)
	}
	return fault.E(op, fault.None, fault.JetStreamRefused, cause)
}
