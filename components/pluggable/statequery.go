package pluggable

import (
	"bytes"
	"context"
	"encoding/json"

	"github.com/dapr/components-contrib/state/query"
	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Query implements state.Querier. A filter that Dapr has not is refused; others go as daprd sends them: for each key the value's
// JSON, in an Any that has no type.
func (s *store) Query(ctx context.Context, q state.Query) (state.Found, error) {
	const op = "query"
	if !s.query {
		return state.Found{}, fault.New(s.typ+": "+op, fault.NotSupported, "the plug-in at %s cannot be queried", s.socket)
	}
	asked, err := parseQuery(q)
	if err != nil {
		return state.Found{}, fault.New(s.typ+": "+op, fault.QueryInvalid, "failed to parse JSON query body: %w", err)
	}
	got, err := call(ctx, s.link, op, func(ctx context.Context, conn *grpc.ClientConn) (*proto.QueryResponse, error) {
		return proto.NewQueriableStateStoreClient(conn).Query(ctx, &proto.QueryRequest{Query: asked, Metadata: q.Metadata})
	})
	if err != nil {
		return state.Found{}, err
	}
	found := state.Found{Token: got.GetToken(), Looked: len(got.GetItems())}
	for _, item := range got.GetItems() {
		if text := item.GetError(); text != "" {
			return state.Found{}, s.scrub(fault.New(s.typ+": "+op, fault.BackendFailed, "the plug-in at %s: key %q: %s", s.socket, item.GetKey(), text))
		}
		found.Items = append(found.Items, state.Item{Key: contrib.KeyOf(item.GetKey()), Value: item.GetData(), ETag: item.GetEtag().GetValue()})
	}
	return found, nil
}

func parseQuery(q state.Query) (*proto.Query, error) {
	var fields struct {
		Filter map[string]json.RawMessage `json:"filter"`
		Sort   []struct {
			Key   string `json:"key"`
			Order string `json:"order"`
		} `json:"sort"`
		Page struct {
			Limit int64  `json:"limit"`
			Token string `json:"token"`
		} `json:"page"`
	}
	var known query.Query // has the filters that there are
	if err := json.Unmarshal(q.Text, &known); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(q.Text, &fields); err != nil {
		return nil, err
	}
	asked := &proto.Query{Pagination: &proto.Pagination{Limit: fields.Page.Limit, Token: fields.Page.Token}}
	if q.Token != "" {
		asked.Pagination.Token = q.Token
	}
	for key, value := range fields.Filter {
		var compact bytes.Buffer
		if err := json.Compact(&compact, value); err != nil {
			return nil, err
		}
		if asked.Filter == nil {
			asked.Filter = make(map[string]*anypb.Any, len(fields.Filter))
		}
		asked.Filter[key] = &anypb.Any{Value: compact.Bytes()}
	}
	for _, by := range fields.Sort {
		asked.Sort = append(asked.Sort, &proto.Sorting{Key: by.Key, Order: proto.Sorting_Order(proto.Sorting_Order_value[by.Order])})
	}
	return asked, nil
}
