package daprapi

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

// checkLock validates what TryLock and Unlock have in common.
func (s *Server) checkLock(in interface {
	GetStoreName() string
	GetResourceId() string
	GetLockOwner() string
}) error {
	store := in.GetStoreName()
	invalid := func(format string) error {
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", format, store)
	}
	found, any := s.component(components.LockBlock, store)
	switch {
	case !any:
		return plain(http.StatusInternalServerError, codes.FailedPrecondition, "ERR_LOCK_STORE_NOT_CONFIGURED", "lock store is not configured")
	case in.GetResourceId() == "":
		return invalid("ResourceId is empty in lock store %s")
	case in.GetLockOwner() == "":
		return invalid("LockOwner is empty in lock store %s")
	case !found:
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_LOCK_STORE_NOT_FOUND", "lock store %s not found", store)
	}
	return nil
}

func (a *api) TryLockAlpha1(ctx context.Context, in *runtimev1.TryLockRequest) (*runtimev1.TryLockResponse, error) {
	if in.GetExpiryInSeconds() <= 0 {
		return nil, plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", "ExpiryInSeconds is not positive in lock store %s", in.GetStoreName())
	}
	if err := a.s.checkLock(in); err != nil {
		return nil, err
	}
	if strings.Contains(in.GetResourceId(), prefixEnd) {
		return nil, plain(http.StatusInternalServerError, codes.Internal, "ERR_TRY_LOCK", "failed to try acquiring lock: %s", illegalKey(in.GetResourceId()))
	}
	_, err := a.s.o.Blocks.Lock.Acquire(ctx, blocks.LockRequest{
		Component: in.GetStoreName(), Name: in.GetResourceId(), Owner: in.GetLockOwner(),
		TTL: time.Duration(in.GetExpiryInSeconds()) * time.Second, PerApp: true,
	})
	switch {
	case fault.ReasonOf(err) == fault.LockHeld:
		return &runtimev1.TryLockResponse{}, nil
	case err != nil:
		return nil, plain(http.StatusInternalServerError, codes.Internal, "ERR_TRY_LOCK", "failed to try acquiring lock: %s", err).of(err)
	}
	return &runtimev1.TryLockResponse{Success: true}, nil
}

func (a *api) UnlockAlpha1(ctx context.Context, in *runtimev1.UnlockRequest) (*runtimev1.UnlockResponse, error) {
	if err := a.s.checkLock(in); err != nil {
		return nil, err
	}
	if strings.Contains(in.GetResourceId(), prefixEnd) {
		return nil, plain(http.StatusInternalServerError, codes.Internal, "ERR_UNLOCK", "failed to release lock: %s", illegalKey(in.GetResourceId()))
	}
	holder, err := a.s.o.Blocks.Lock.ReleaseOf(ctx, blocks.LockRequest{
		Component: in.GetStoreName(), Name: in.GetResourceId(), Owner: in.GetLockOwner(), PerApp: true,
	})
	switch {
	case err == nil:
		return &runtimev1.UnlockResponse{Status: runtimev1.UnlockResponse_SUCCESS}, nil
	case fault.ReasonOf(err) != fault.LockLost:
		return nil, plain(http.StatusInternalServerError, codes.Internal, "ERR_UNLOCK", "failed to release lock: %s", err).of(err)
	case holder == nil:
		return &runtimev1.UnlockResponse{Status: runtimev1.UnlockResponse_LOCK_DOES_NOT_EXIST}, nil
	}
	return &runtimev1.UnlockResponse{Status: runtimev1.UnlockResponse_LOCK_BELONGS_TO_OTHERS}, nil
}

// universal answers an HTTP request by the method of the gRPC API: body in as JSON, message out as JSON.
func universal[I, O proto.Message](s *Server, w http.ResponseWriter, r *http.Request, in I, complete func(), call func(context.Context, I) (O, error), out protojson.MarshalOptions) error {
	if err := s.message(r, in); err != nil {
		return err
	}
	complete()
	answer, err := call(r.Context(), in)
	if err != nil {
		return err
	}
	data, err := out.Marshal(answer)
	if err != nil {
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_INTERNAL", "failed to encode response as JSON: %v", errors.Unwrap(err))
	}
	answerData(w, http.StatusOK, data)
	return nil
}

// message reads the body, if there is one, into a message of the gRPC API.
func (s *Server) message(r *http.Request, in proto.Message) error {
	body, err := s.whole(r)
	if err != nil {
		return unreadable(err)
	}
	if len(body) > 0 {
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true, AllowPartial: true}).Unmarshal(body, in); err != nil {
			return malformed(err)
		}
	}
	return nil
}

func (s *Server) tryLock(w http.ResponseWriter, r *http.Request, p params) error {
	in := &runtimev1.TryLockRequest{}
	return universal(s, w, r, in, func() { in.StoreName = p["storeName"] }, (&api{s: s}).TryLockAlpha1, protojson.MarshalOptions{EmitUnpopulated: true})
}

func (s *Server) unlock(w http.ResponseWriter, r *http.Request, p params) error {
	in := &runtimev1.UnlockRequest{}
	return universal(s, w, r, in, func() { in.StoreName = p["storeName"] }, (&api{s: s}).UnlockAlpha1,
		protojson.MarshalOptions{EmitUnpopulated: true, UseEnumNumbers: true}) // a number, as it has always been
}
