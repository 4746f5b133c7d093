package daprapi

import (
	"context"
	"net/http"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
)

func (s *Server) checkSecretStore(name string) error {
	found, any := s.component(components.SecretBlock, name)
	switch {
	case !any:
		return plain(http.StatusInternalServerError, codes.FailedPrecondition, "ERR_SECRET_STORES_NOT_CONFIGURED", "secret store is not configured")
	case !found:
		return plain(http.StatusUnauthorized, codes.InvalidArgument, "ERR_SECRET_STORE_NOT_FOUND", "failed finding secret store with key %s", name)
	}
	return nil
}

// environment is the store that, as Dapr has it, gives out an empty text for a variable that is not set or is kept back.
const environment = "secretstores.local.env"

func (a *api) GetSecret(ctx context.Context, in *runtimev1.GetSecretRequest) (*runtimev1.GetSecretResponse, error) {
	store, key := in.GetStoreName(), in.GetKey()
	if err := a.s.checkSecretStore(store); err != nil {
		return nil, err
	}
	began := time.Now()
	parts, err := a.s.o.Blocks.Secrets.Get(ctx, store, key, in.GetMetadata())
	reason := fault.ReasonOf(err)
	if reason == fault.SecretNotFound && a.s.typeOf(store) == environment {
		parts, err = map[string]string{key: ""}, nil
	}
	if reason == fault.SecretDenied {
		return nil, plain(http.StatusForbidden, codes.PermissionDenied, "ERR_PERMISSION_DENIED", "access denied by policy to get %q from %q", key, store)
	}
	a.s.o.Metrics.SecretDone(store, "get", began, err)
	switch {
	case err == nil:
		return &runtimev1.GetSecretResponse{Data: parts}, nil
	case reason == fault.SecretNotFound:
		return nil, secretProblem("failed getting secret with key %s from secret store %s: secret %s not found", key, store, key)
	}
	return nil, secretProblem("failed getting secret with key %s from secret store %s: %v", key, store, err).of(err)
}

func secretProblem(format string, args ...any) *problem {
	return plain(http.StatusInternalServerError, codes.Internal, "ERR_SECRET_GET", format, args...)
}

func (a *api) GetBulkSecret(ctx context.Context, in *runtimev1.GetBulkSecretRequest) (*runtimev1.GetBulkSecretResponse, error) {
	store := in.GetStoreName()
	if err := a.s.checkSecretStore(store); err != nil {
		return nil, err
	}
	began := time.Now()
	all, err := a.s.o.Blocks.Secrets.All(ctx, store, in.GetMetadata())
	a.s.o.Metrics.SecretDone(store, "bulk_get", began, err)
	if err != nil {
		return nil, secretProblem("failed getting secrets from secret store %s: %v", store, err).of(err)
	}
	out := &runtimev1.GetBulkSecretResponse{Data: make(map[string]*runtimev1.SecretResponse, len(all))}
	for name, parts := range all {
		out.Data[name] = &runtimev1.SecretResponse{Secrets: parts}
	}
	return out, nil
}

func (s *Server) getSecret(w http.ResponseWriter, r *http.Request, p params) error {
	in := &runtimev1.GetSecretRequest{}
	if err := s.message(r, in); err != nil {
		return err
	}
	in.StoreName, in.Key, in.Metadata = p["secretStoreName"], p["key"], queryMetadata(r)
	out, err := (&api{s: s}).GetSecret(r.Context(), in)
	if err != nil {
		return err
	}
	answerJSON(w, http.StatusOK, out.GetData())
	return nil
}

func (s *Server) bulkGetSecret(w http.ResponseWriter, r *http.Request, p params) error {
	in := &runtimev1.GetBulkSecretRequest{}
	if err := s.message(r, in); err != nil {
		return err
	}
	in.StoreName, in.Metadata = p["secretStoreName"], queryMetadata(r)
	out, err := (&api{s: s}).GetBulkSecret(r.Context(), in)
	if err != nil {
		return err
	}
	all := make(map[string]map[string]string, len(out.GetData()))
	for name, parts := range out.GetData() {
		all[name] = parts.GetSecrets()
	}
	answerJSON(w, http.StatusOK, all)
	return nil
}
