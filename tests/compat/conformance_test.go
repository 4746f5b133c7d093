package compat

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dapr/components-contrib/metadata"
	"github.com/dapr/components-contrib/state"
	conformance "github.com/dapr/components-contrib/tests/conformance/state"
	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/tests/machine"
	"github.com/sidecast/sidecast/tests/servers"
)

// The conformance functions of components-contrib, which say what a state store has to do for Dapr, through a sidecar.
func TestStoresConform(t *testing.T) {
	t.Parallel()
	for _, store := range []struct {
		kind     string
		settings func(t *testing.T) []string
		plugged  bool   // it is a program's
		badTag   string // one that the store might have made, and has not
		queries  bool
		plain    bool // values alone: see state.Plain
		single   bool // no transactions here
	}{
		{kind: "state.in-memory", badTag: "00000000deadbeef"},
		{kind: "state.memory", badTag: "00000000deadbeef"},
		{kind: "state.badger", badTag: "00000000deadbeef"},
		{kind: "state.jetstream", badTag: "9999999"},
		{kind: "state.plugged", badTag: "9999999", plugged: true, queries: true},
		{kind: "state.sqlite", badTag: "e9b9e142-74b1-4a2e-8e90-3f4ffeea2e70", settings: func(t *testing.T) []string { return []string{"connectionString: " + t.TempDir() + "/data.db"} }},
		{kind: "state.redis", badTag: "9999999", settings: func(t *testing.T) []string { return []string{"redisHost: " + servers.Redis(t)} }},
		{kind: "state.postgresql", badTag: "9999999", queries: true, settings: func(t *testing.T) []string {
			return []string{"connectionString: " + servers.Postgres(t), "tableName: conforming", "metadataTableName: conforming_metadata"} // others use those of the defaults
		}},
		{kind: "state.mysql", badTag: "e9b9e142-74b1-4a2e-8e90-3f4ffeea2e70", settings: func(t *testing.T) []string {
			return []string{"connectionString: root@tcp(" + servers.MySQL(t) + ")/", "schemaName: conforming"}
		}},
		{kind: "state.etcd", badTag: "9999999", settings: func(t *testing.T) []string { return []string{"endpoints: " + servers.Etcd(t), "keyPrefixPath: v1"} }},
		{kind: "state.etcd/v2", badTag: "9999999", settings: func(t *testing.T) []string { return []string{"endpoints: " + servers.Etcd(t), "keyPrefixPath: v2"} }},
		{kind: "state.mongodb", badTag: "e9b9e142-74b1-4a2e-8e90-3f4ffeea2e70", single: true, settings: func(t *testing.T) []string {
			return []string{"host: " + servers.MongoDB(t), "params: ?directConnection=true"}
		}},
		{kind: "state.memcached", plain: true, settings: func(t *testing.T) []string { return []string{"hosts: " + servers.Memcached(t)} }},
	} {
		t.Run(store.kind, func(t *testing.T) {
			t.Parallel()
			var given []string
			if store.settings != nil {
				given = store.settings(t)
			}
			operations := []string{"transaction", "etag", "first-write", "ttl"}
			if store.plain {
				operations = nil
			}
			if store.single {
				operations = operations[1:]
			}
			if store.queries {
				operations = append(operations, "query")
			}
			kind, version, _ := strings.Cut(store.kind, "/")
			yaml := component(conforming, kind, given...)
			if version != "" {
				yaml = strings.Replace(yaml, "version: v1", "version: "+version, 1)
			}
			m := machine.New(t)
			if store.plugged {
				plugIn(t, m, "plugged")
			}
			d := startWith(t, m, yaml, "app")
			d.expect(204, "", "GET", "/v1.0/state/"+conforming+"/none", "") // once it is open it tells what it can do
			config, err := conformance.NewTestConfig(store.kind, operations, map[string]any{"badEtag": store.badTag})
			if err != nil {
				t.Fatal(err)
			}
			var remote state.Store = remoteStore{d.client()}
			switch {
			case store.plain:
				// The library has an item of two seconds gone within three, and memcached counts by whole ones.
				remote = lesser{remote, []state.Feature{state.FeatureTTL}}
			case store.single:
				remote = lesser{remote, []state.Feature{state.FeatureTransactional}}
			}
			conformance.ConformanceTests(t, nil, remote, config)
		})
	}
}

// remoteStore is a sidecar's store as one of the library.
type remoteStore struct{ dapr runtimev1.DaprClient }

const conforming = "conforming"

// lesser is a store that the library is not to ask for some of what it has.
type lesser struct {
	state.Store
	without []state.Feature
}

func (s lesser) Features() []state.Feature {
	return slices.DeleteFunc(s.Store.Features(), func(f state.Feature) bool { return slices.Contains(s.without, f) })
}

func (remoteStore) Init(context.Context, state.Metadata) error { return nil }
func (remoteStore) Close() error                               { return nil }

func (remoteStore) GetComponentMetadata() metadata.MetadataMap { return nil }

// Features are those that the sidecar's metadata names.
func (s remoteStore) Features() (all []state.Feature) {
	known, err := s.dapr.GetMetadata(context.Background(), &runtimev1.GetMetadataRequest{})
	if err != nil {
		return nil
	}
	for _, c := range known.GetRegisteredComponents() {
		for _, capability := range c.GetCapabilities() {
			if c.GetName() == conforming && capability != "DELETE_WITH_PREFIX" && capability != "KEYS_LIKE" { // they have no RPC
				all = append(all, state.Feature(capability))
			}
		}
	}
	return all
}

func (s remoteStore) Get(ctx context.Context, r *state.GetRequest) (*state.GetResponse, error) {
	got, err := s.dapr.GetState(ctx, &runtimev1.GetStateRequest{StoreName: conforming, Key: r.Key, Metadata: r.Metadata})
	if err != nil {
		return nil, err
	}
	return &state.GetResponse{Data: got.GetData(), ETag: tagOf(got.GetEtag()), Metadata: got.GetMetadata()}, nil
}

func tagOf(tag string) *string {
	if tag == "" {
		return nil
	}
	return &tag
}

func (s remoteStore) BulkGet(ctx context.Context, all []state.GetRequest, _ state.BulkGetOpts) ([]state.BulkGetResponse, error) {
	var keys []string
	for _, r := range all {
		keys = append(keys, r.Key)
	}
	got, err := s.dapr.GetBulkState(ctx, &runtimev1.GetBulkStateRequest{StoreName: conforming, Keys: keys})
	if err != nil {
		return nil, err
	}
	var items []state.BulkGetResponse
	for _, i := range got.GetItems() {
		items = append(items, state.BulkGetResponse{Key: i.GetKey(), Data: i.GetData(), ETag: tagOf(i.GetEtag()), Metadata: i.GetMetadata(), Error: i.GetError()})
	}
	return items, nil
}

func (s remoteStore) Set(ctx context.Context, r *state.SetRequest) error {
	return s.BulkSet(ctx, []state.SetRequest{*r}, state.BulkStoreOpts{})
}

// BulkSet saves those with ETags one by one: the library expects that each succeeds or fails by itself, where a sidecar saves
// all or none.
func (s remoteStore) BulkSet(ctx context.Context, all []state.SetRequest, _ state.BulkStoreOpts) error {
	if len(all) > 1 && all[0].HasETag() {
		var failed []error
		for _, r := range all {
			if err := s.Set(ctx, &r); err != nil {
				failed = append(failed, state.NewBulkStoreError(r.Key, err))
			}
		}
		return errors.Join(failed...)
	}
	save := &runtimev1.SaveStateRequest{StoreName: conforming}
	for _, r := range all {
		item, err := setOf(r)
		if err != nil {
			return err
		}
		save.States = append(save.States, item)
	}
	_, err := s.dapr.SaveState(ctx, save)
	return tagError(err)
}

func setOf(r state.SetRequest) (*commonv1.StateItem, error) {
	value, ok := r.Value.([]byte)
	if !ok {
		var err error
		if value, err = json.Marshal(r.Value); err != nil {
			return nil, err
		}
	}
	return &commonv1.StateItem{Key: r.Key, Value: value, Etag: etagOf(r.ETag), Metadata: r.Metadata, Options: optionsOf(r.Options.Concurrency)}, nil
}

func etagOf(tag *string) *commonv1.Etag {
	if tag == nil {
		return nil
	}
	return &commonv1.Etag{Value: *tag}
}

func optionsOf(concurrency string) *commonv1.StateOptions {
	o := &commonv1.StateOptions{}
	switch concurrency {
	case state.FirstWrite:
		o.Concurrency = commonv1.StateOptions_CONCURRENCY_FIRST_WRITE
	case state.LastWrite:
		o.Concurrency = commonv1.StateOptions_CONCURRENCY_LAST_WRITE
	}
	return o
}

func (s remoteStore) Delete(ctx context.Context, r *state.DeleteRequest) error {
	_, err := s.dapr.DeleteState(ctx, &runtimev1.DeleteStateRequest{
		StoreName: conforming, Key: r.Key, Etag: etagOf(r.ETag), Metadata: r.Metadata, Options: optionsOf(r.Options.Concurrency),
	})
	return tagError(err)
}

func (s remoteStore) BulkDelete(ctx context.Context, all []state.DeleteRequest, _ state.BulkStoreOpts) error {
	if len(all) > 1 && all[0].HasETag() {
		var failed []error
		for _, r := range all {
			if err := s.Delete(ctx, &r); err != nil {
				failed = append(failed, state.NewBulkStoreError(r.Key, err))
			}
		}
		return errors.Join(failed...)
	}
	bulk := &runtimev1.DeleteBulkStateRequest{StoreName: conforming}
	for _, r := range all {
		bulk.States = append(bulk.States, &commonv1.StateItem{Key: r.Key, Etag: etagOf(r.ETag), Metadata: r.Metadata})
	}
	_, err := s.dapr.DeleteBulkState(ctx, bulk)
	return tagError(err)
}

// Multi implements state.TransactionalStore.
func (s remoteStore) Multi(ctx context.Context, r *state.TransactionalStateRequest) error {
	all := &runtimev1.ExecuteStateTransactionRequest{StoreName: conforming, Metadata: r.Metadata}
	for _, op := range r.Operations {
		one := &runtimev1.TransactionalStateOperation{OperationType: string(op.Operation())}
		switch op := op.(type) {
		case state.SetRequest:
			var err error
			if one.Request, err = setOf(op); err != nil {
				return err
			}
		case state.DeleteRequest:
			one.Request = &commonv1.StateItem{Key: op.Key, Etag: etagOf(op.ETag), Metadata: op.Metadata}
		}
		all.Operations = append(all.Operations, one)
	}
	_, err := s.dapr.ExecuteStateTransaction(ctx, all)
	return tagError(err)
}

// tagError is err as the library tells that an ETag is not the one there is, or is none.
func tagError(err error) error {
	switch {
	case status.Code(err) == codes.Aborted:
		return state.NewETagError(state.ETagMismatch, err)
	case status.Code(err) == codes.InvalidArgument && strings.Contains(strings.ToLower(err.Error()), "etag"):
		return state.NewETagError(state.ETagInvalid, err)
	}
	return err
}

// Query implements state.Querier.
func (s remoteStore) Query(ctx context.Context, r *state.QueryRequest) (*state.QueryResponse, error) {
	text, err := json.Marshal(r.Query.QueryFields)
	if err != nil {
		return nil, err
	}
	got, err := s.dapr.QueryStateAlpha1(ctx, &runtimev1.QueryStateRequest{StoreName: conforming, Query: string(text), Metadata: r.Metadata})
	if err != nil {
		return nil, err
	}
	found := &state.QueryResponse{Token: got.GetToken(), Metadata: got.GetMetadata()}
	for _, i := range got.GetResults() {
		found.Results = append(found.Results, state.QueryItem{Key: i.GetKey(), Data: i.GetData(), ETag: tagOf(i.GetEtag()), Error: i.GetError()})
	}
	return found, nil
}
