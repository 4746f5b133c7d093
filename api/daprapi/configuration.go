package daprapi

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/configstore"
)

// checkConfigurationStore has a status for a store that is not there, which is another over gRPC.
func (s *Server) checkConfigurationStore(name string, absent int) error {
	found, any := s.component(components.ConfigurationBlock, name)
	switch {
	case !any:
		return basic(http.StatusInternalServerError, codes.FailedPrecondition, "ERR_CONFIGURATION_STORE_NOT_CONFIGURED", "configuration stores not configured")
	case !found:
		return basic(absent, codes.InvalidArgument, "ERR_CONFIGURATION_STORE_NOT_FOUND", "configuration store %s not found", name)
	}
	return nil
}

func (s *Server) readConfiguration(ctx context.Context, r blocks.ConfigurationRequest) (map[string]configstore.Item, error) {
	began := time.Now()
	items, err := s.o.Blocks.Configuration.Get(ctx, r)
	s.o.Metrics.ConfigurationDone(r.Component, "get", began, err)
	if err != nil {
		return nil, basic(http.StatusInternalServerError, codes.Internal, "ERR_CONFIGURATION_GET",
			"failed to get %s from Configuration store %s: %v", r.Keys, r.Component, ownWords(err)).of(err)
	}
	return items, nil
}

func unsubscribable(r blocks.ConfigurationRequest, err error) error {
	return basic(http.StatusInternalServerError, codes.InvalidArgument, "ERR_CONFIGURATION_SUBSCRIBE",
		"failed to subscribe %s from Configuration store %s: %v", r.Keys, r.Component, ownWords(err)).of(err)
}

func configurationItems(items map[string]configstore.Item) map[string]*commonv1.ConfigurationItem {
	out := make(map[string]*commonv1.ConfigurationItem, len(items))
	for key, item := range items {
		out[key] = &commonv1.ConfigurationItem{Value: item.Value, Version: item.Version, Metadata: item.Metadata}
	}
	return out
}

func (a *api) GetConfiguration(ctx context.Context, in *runtimev1.GetConfigurationRequest) (*runtimev1.GetConfigurationResponse, error) {
	if err := a.s.checkConfigurationStore(in.GetStoreName(), http.StatusInternalServerError); err != nil {
		return nil, err
	}
	items, err := a.s.readConfiguration(ctx, blocks.ConfigurationRequest{Component: in.GetStoreName(), Keys: in.GetKeys(), Metadata: in.GetMetadata()})
	if err != nil {
		return nil, err
	}
	return &runtimev1.GetConfigurationResponse{Items: configurationItems(items)}, nil
}

func (a *api) GetConfigurationAlpha1(ctx context.Context, in *runtimev1.GetConfigurationRequest) (*runtimev1.GetConfigurationResponse, error) {
	return a.GetConfiguration(ctx, in)
}

// SubscribeConfiguration sends the id of the subscription, then each change, until the client goes or unsubscribes.
func (a *api) SubscribeConfiguration(in *runtimev1.SubscribeConfigurationRequest, stream runtimev1.Dapr_SubscribeConfigurationServer) error {
	store := in.GetStoreName()
	if err := a.s.checkConfigurationStore(store, http.StatusInternalServerError); err != nil {
		return err
	}
	keys := slices.Clone(in.GetKeys())
	slices.Sort(keys)
	r := blocks.ConfigurationRequest{Component: store, Keys: keys, Metadata: in.GetMetadata()}
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	defer context.AfterFunc(a.s.drained, cancel)()
	began, begun := time.Now(), false
	err := a.s.o.Blocks.Configuration.Subscribe(ctx, r, func(id string, items map[string]configstore.Item) error {
		if !begun {
			begun = true
			a.s.o.Metrics.ConfigurationDone(store, "subscribe", began, nil)
		}
		return stream.Send(&runtimev1.SubscribeConfigurationResponse{Id: id, Items: configurationItems(items)})
	})
	switch {
	case begun:
		a.s.o.Metrics.ConfigurationDone(store, "unsubscribe", time.Now(), nil)
		return err
	case err != nil:
		a.s.o.Metrics.ConfigurationDone(store, "subscribe", began, err)
		return unsubscribable(r, err)
	}
	return nil
}

func (a *api) SubscribeConfigurationAlpha1(in *runtimev1.SubscribeConfigurationRequest, stream runtimev1.Dapr_SubscribeConfigurationAlpha1Server) error {
	return a.SubscribeConfiguration(in, stream)
}

func notSubscribed(id, why string) string {
	return fmt.Sprintf("failed to unsubscribe to configuration request %s: %s", id, why)
}

func (a *api) UnsubscribeConfiguration(_ context.Context, in *runtimev1.UnsubscribeConfigurationRequest) (*runtimev1.UnsubscribeConfigurationResponse, error) {
	if a.s.o.Blocks.Configuration.Unsubscribe("", in.GetId()) {
		return &runtimev1.UnsubscribeConfigurationResponse{Ok: true}, nil
	}
	return &runtimev1.UnsubscribeConfigurationResponse{Message: notSubscribed(in.GetId(), "subscription does not exist")}, nil
}

func (a *api) UnsubscribeConfigurationAlpha1(ctx context.Context, in *runtimev1.UnsubscribeConfigurationRequest) (*runtimev1.UnsubscribeConfigurationResponse, error) {
	return a.UnsubscribeConfiguration(ctx, in)
}

// settingBody is an item in the JSON of the HTTP API.
type settingBody struct {
	Value    string            `json:"value,omitempty"`
	Version  string            `json:"version,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
}

func configurationRequest(r *http.Request, p params) blocks.ConfigurationRequest {
	return blocks.ConfigurationRequest{Component: p["storeName"], Keys: r.URL.Query()["key"], Metadata: queryMetadata(r)}
}

func (s *Server) getConfiguration(w http.ResponseWriter, r *http.Request, p params) error {
	if err := s.checkConfigurationStore(p["storeName"], http.StatusBadRequest); err != nil {
		return err
	}
	items, err := s.readConfiguration(r.Context(), configurationRequest(r, p))
	if err != nil {
		return err
	}
	if len(items) == 0 {
		answerEmpty(w)
		return nil
	}
	out := make(map[string]settingBody, len(items))
	for key, item := range items {
		out[key] = settingBody(item)
	}
	answerJSON(w, http.StatusOK, out)
	return nil
}

// subscribeConfiguration has the app told of changes by POST /configuration/{storeName}/{key}.
func (s *Server) subscribeConfiguration(w http.ResponseWriter, r *http.Request, p params) error {
	store := p["storeName"]
	if err := s.checkConfigurationStore(store, http.StatusBadRequest); err != nil {
		return err
	}
	if s.o.App.Port == 0 {
		return plain(http.StatusInternalServerError, codes.Internal, "ERR_APP_CHANNEL_NIL", "app channel is not initialized. cannot subscribe to configuration updates")
	}
	began, request := time.Now(), configurationRequest(r, p)
	id, err := s.o.Blocks.Configuration.Deliver(r.Context(), request, func(id, key string, item configstore.Item) *call.Request {
		var body bytes.Buffer
		_ = json.NewEncoder(&body).Encode(map[string]any{"id": id, "items": map[string]settingBody{key: settingBody(item)}}) // texts only
		return &call.Request{
			App: s.o.AppID, Caller: s.o.AppID, Method: (&url.URL{Path: "configuration/" + store + "/" + key}).EscapedPath(), Verb: http.MethodPost,
			ContentType: "application/json", Body: body.Bytes(),
		}
	})
	s.o.Metrics.ConfigurationDone(store, "subscribe", began, err)
	if err != nil {
		return unsubscribable(request, err)
	}
	answerJSON(w, http.StatusOK, map[string]string{"id": id})
	return nil
}

func (s *Server) unsubscribeConfiguration(w http.ResponseWriter, _ *http.Request, p params) error {
	store, id := p["storeName"], p["configurationSubscribeID"]
	if err := s.checkConfigurationStore(store, http.StatusBadRequest); err != nil {
		return err
	}
	var err error
	if !s.o.Blocks.Configuration.Unsubscribe(store, id) {
		err = fmt.Errorf("subscription with id %s does not exist", id)
	}
	s.o.Metrics.ConfigurationDone(store, "unsubscribe", time.Now(), err)
	if err != nil {
		answerJSON(w, http.StatusInternalServerError, map[string]string{"message": notSubscribed(id, err.Error())})
		return nil
	}
	answerJSON(w, http.StatusOK, map[string]bool{"ok": true})
	return nil
}
