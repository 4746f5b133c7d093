package daprapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	commonv1 "github.com/dapr/dapr/pkg/proto/common/v1"
	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// maxTransaction is the most operations of a transaction.
const maxTransaction = blocks.MaxStateKeys

func tooMany(err error) bool { return fault.ReasonOf(err) == fault.TransactionBig }

// stateItemOf takes an item of a request over.
func stateItemOf(in *commonv1.StateItem) stateItem {
	i := stateItem{key: in.GetKey(), value: in.GetValue(), metadata: in.GetMetadata()}
	i.options(in.GetEtag(), in.GetOptions())
	return i
}

func (i *stateItem) options(etag *commonv1.Etag, options *commonv1.StateOptions) {
	if etag != nil {
		i.etag = &etag.Value
	}
	switch options.GetConcurrency() {
	case commonv1.StateOptions_CONCURRENCY_FIRST_WRITE:
		i.concurrency = "first-write"
	case commonv1.StateOptions_CONCURRENCY_LAST_WRITE:
		i.concurrency = "last-write"
	}
}

func (a *api) GetState(ctx context.Context, in *runtimev1.GetStateRequest) (*runtimev1.GetStateResponse, error) {
	if err := a.s.checkStore(in.GetStoreName()); err != nil {
		return nil, err
	}
	if err := checkStateKey(in.GetStoreName(), in.GetKey()); err != nil {
		return nil, err
	}
	began := time.Now()
	found, err := a.s.read(ctx, in.GetStoreName(), []string{in.GetKey()}, in.GetMetadata())
	a.s.o.Metrics.StateDone(in.GetStoreName(), "get", began, err)
	if err != nil {
		return nil, stateProblem(err, "ERR_STATE_GET", "fail to get %s from state store %s: %s", in.GetKey(), in.GetStoreName())
	}
	item := found[in.GetKey()]
	return &runtimev1.GetStateResponse{Data: item.Value, Etag: item.ETag, Metadata: itemMetadata(item)}, nil
}

func (a *api) GetBulkState(ctx context.Context, in *runtimev1.GetBulkStateRequest) (*runtimev1.GetBulkStateResponse, error) {
	if err := a.s.checkStore(in.GetStoreName()); err != nil {
		return nil, err
	}
	for _, key := range in.GetKeys() {
		if err := checkStateKey(in.GetStoreName(), key); err != nil {
			return nil, err
		}
	}
	began := time.Now()
	found, sealed, err := a.s.readBulk(ctx, in.GetStoreName(), in.GetKeys(), in.GetMetadata())
	a.s.o.Metrics.StateDone(in.GetStoreName(), "bulk_get", began, err)
	if err != nil {
		return nil, plain(http.StatusInternalServerError, codes.Unknown, "", "%s", err).of(err).as(err, "%s")
	}
	out := &runtimev1.GetBulkStateResponse{}
	for _, key := range in.GetKeys() {
		if err := sealed[key]; err != nil {
			out.Items = append(out.Items, &runtimev1.BulkStateItem{Key: key, Error: err.Error()})
			continue
		}
		item := found[key]
		out.Items = append(out.Items, &runtimev1.BulkStateItem{Key: key, Data: item.Value, Etag: item.ETag, Metadata: itemMetadata(item)})
	}
	return out, nil
}

func (a *api) SaveState(ctx context.Context, in *runtimev1.SaveStateRequest) (*emptypb.Empty, error) {
	store := in.GetStoreName()
	if err := a.s.checkStore(store); err != nil {
		return nil, err
	}
	items := make([]stateItem, len(in.GetStates()))
	for i, given := range in.GetStates() {
		if given.GetKey() == "" {
			return nil, basic(http.StatusBadRequest, codes.InvalidArgument, "ERR_STATE_SAVE", "state key cannot be empty")
		}
		if err := checkStateKey(store, given.GetKey()); err != nil {
			return nil, err
		}
		items[i] = stateItemOf(given)
		if given.GetMetadata()["contentType"] == "application/json" {
			if err := json.Unmarshal(given.GetValue(), new(json.RawMessage)); err != nil {
				return nil, status.Error(codes.Unknown, err.Error())
			}
			items[i].value, items[i].fromJSON = compact(given.GetValue()), true
		}
	}
	if err := a.s.applyEach(ctx, "set", store, items); err != nil {
		return nil, stateProblem(err, "ERR_STATE_SAVE", "failed saving state in state store %s: %s", store)
	}
	return &emptypb.Empty{}, nil
}

func (a *api) DeleteState(ctx context.Context, in *runtimev1.DeleteStateRequest) (*emptypb.Empty, error) {
	store := in.GetStoreName()
	if err := a.s.checkStore(store); err != nil {
		return nil, err
	}
	if err := checkStateKey(store, in.GetKey()); err != nil {
		return nil, err
	}
	item := stateItem{remove: true, key: in.GetKey(), metadata: in.GetMetadata()}
	item.options(in.GetEtag(), in.GetOptions())
	if err := a.s.applyEach(ctx, "delete", store, []stateItem{item}); err != nil {
		return nil, stateProblem(err, "ERR_STATE_DELETE", "failed deleting state with key %s: %s", in.GetKey())
	}
	return &emptypb.Empty{}, nil
}

func (a *api) DeleteBulkState(ctx context.Context, in *runtimev1.DeleteBulkStateRequest) (*emptypb.Empty, error) {
	store := in.GetStoreName()
	if err := a.s.checkStore(store); err != nil {
		return nil, err
	}
	items := make([]stateItem, len(in.GetStates()))
	for i, given := range in.GetStates() {
		if err := checkStateKey(store, given.GetKey()); err != nil {
			return nil, err
		}
		items[i] = stateItemOf(given)
		items[i].remove = true
	}
	if err := a.s.applyEach(ctx, "bulk_delete", store, items); err != nil {
		return nil, stateProblem(err, "ERR_STATE_BULK_DELETE", "failed deleting state in state store %s: %s", store)
	}
	return &emptypb.Empty{}, nil
}

func (a *api) ExecuteStateTransaction(ctx context.Context, in *runtimev1.ExecuteStateTransactionRequest) (*emptypb.Empty, error) {
	store := in.GetStoreName()
	if err := a.s.checkStore(store); err != nil {
		return nil, err
	}
	if err := a.s.checkTransactions(ctx, store); err != nil {
		return nil, err
	}
	items := make([]stateItem, len(in.GetOperations()))
	for i, o := range in.GetOperations() {
		if err := checkStateKey(store, o.GetRequest().GetKey()); err != nil {
			return nil, err
		}
		if kind := o.GetOperationType(); kind != "upsert" && kind != "delete" {
			return nil, notTransactable(http.StatusInternalServerError, kind)
		}
		items[i] = stateItemOf(o.GetRequest())
		items[i].remove = o.GetOperationType() == "delete"
	}
	if err := a.s.transact(ctx, store, items, in.GetMetadata(), grpcTrace(ctx)); err != nil {
		return nil, transactionProblem(store, len(items), err)
	}
	return &emptypb.Empty{}, nil
}

func (a *api) QueryStateAlpha1(ctx context.Context, in *runtimev1.QueryStateRequest) (*runtimev1.QueryStateResponse, error) {
	if err := a.s.checkStore(in.GetStoreName()); err != nil {
		return nil, err
	}
	found, err := a.s.query(ctx, in.GetStoreName(), state.Query{Text: []byte(in.GetQuery()), Metadata: in.GetMetadata()})
	if err != nil {
		return nil, err
	}
	out := &runtimev1.QueryStateResponse{}
	for _, item := range found.Items {
		out.Token = found.Token
		out.Results = append(out.Results, &runtimev1.QueryStateItem{Key: item.Key, Data: item.Value, Etag: item.ETag})
	}
	return out, nil
}
