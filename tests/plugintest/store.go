package plugintest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
)

// MostOps is how many operations a transaction may have, FewOps that of a program without Many.
const (
	MostOps = 1000
	FewOps  = 3
)

type store struct {
	proto.UnimplementedStateStoreServer
	proto.UnimplementedTransactionalStateStoreServer
	proto.UnimplementedTransactionalStoreMultiMaxSizeServer
	proto.UnimplementedQueriableStateStoreServer
	p *Program
}

func (s store) Init(ctx context.Context, r *proto.InitRequest) (*proto.InitResponse, error) {
	return &proto.InitResponse{}, s.p.init(ctx, "state", r.GetMetadata())
}

func (store) Features(context.Context, *proto.FeaturesRequest) (*proto.FeaturesResponse, error) {
	return &proto.FeaturesResponse{Features: []string{"ETAG", "TRANSACTIONAL", "QUERY_API", "TTL"}}, nil
}

func (store) Ping(context.Context, *proto.PingRequest) (*proto.PingResponse, error) {
	return &proto.PingResponse{}, nil
}

func (s store) MultiMaxSize(context.Context, *proto.MultiMaxSizeRequest) (*proto.MultiMaxSizeResponse, error) {
	if slices.Contains(s.p.Without, "Limit") {
		return nil, status.Error(codes.Unimplemented, "not told")
	}
	if slices.Contains(s.p.Without, "Many") {
		return &proto.MultiMaxSizeResponse{MaxSize: FewOps}, nil
	}
	return &proto.MultiMaxSizeResponse{MaxSize: MostOps}, nil
}

// find is an item that has not expired. p.mu is held.
func (s store) find(key string) (item, bool) {
	i, ok := s.p.kept.Items[key]
	return i, ok && (i.Expires == 0 || i.Expires > time.Now().UnixMilli())
}

// WordedKey is a key whose reading fails with an error that says how it is to be answered.
const WordedKey = "worded"

// CanceledKey is one whose error has the code of a call that was cut off.
const CanceledKey = "worded-canceled"

func (s store) Get(ctx context.Context, r *proto.GetRequest) (*proto.GetResponse, error) {
	if _, err := s.p.ready(ctx, "state"); err != nil {
		return nil, err
	}
	if r.GetMetadata()["refuse"] != "" {
		return nil, status.Error(codes.InvalidArgument, "the metadata says to refuse it")
	}
	worded := &errdetails.ErrorInfo{Reason: "QUOTA", Domain: "plugin.test", Metadata: map[string]string{"kit_error": "true", "http_code": "418", "tag": "ERR_QUOTA"}}
	switch key := r.GetKey(); {
	case strings.HasSuffix(key, WordedKey):
		return nil, detailed(codes.ResourceExhausted, "come back tomorrow", worded)
	case strings.HasSuffix(key, CanceledKey):
		return nil, detailed(codes.Canceled, "come back tomorrow", worded)
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	i, ok := s.find(r.GetKey())
	if !ok {
		return &proto.GetResponse{}, nil
	}
	return &proto.GetResponse{Data: i.Value, Etag: i.tag(), Metadata: i.metadata()}, nil
}

func (i item) tag() *proto.Etag { return &proto.Etag{Value: strconv.Itoa(i.Tag)} }

func (i item) metadata() map[string]string {
	if i.Expires == 0 {
		return nil
	}
	return map[string]string{"ttlExpireTime": time.UnixMilli(i.Expires).UTC().Format(time.RFC3339)}
}

func detailed(code codes.Code, text string, detail protoadapt.MessageV1) error {
	s, err := status.New(code, text).WithDetails(detail)
	if err != nil {
		return err
	}
	return s.Err()
}

func badTag(code codes.Code, text string) error {
	return detailed(code, text, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "etag", Description: text}}})
}

// check refuses a write that does not find what it expects. p.mu is held.
func (s store) check(key string, etag *proto.Etag, first bool) error {
	i, ok := s.find(key)
	switch n, err := strconv.Atoi(etag.GetValue()); {
	case etag == nil && first && ok:
		return badTag(codes.FailedPrecondition, "the item exists")
	case etag == nil:
		return nil
	case err != nil || n < 1 || strconv.Itoa(n) != etag.GetValue():
		return badTag(codes.InvalidArgument, "an ETag is a number")
	case !ok || n != i.Tag:
		return badTag(codes.FailedPrecondition, "the item has another ETag")
	}
	return nil
}

func (s store) checkSet(r *proto.SetRequest) error {
	return s.check(r.GetKey(), r.GetEtag(), r.GetOptions().GetConcurrency() == proto.StateOptions_CONCURRENCY_FIRST_WRITE)
}

// set stores. p.mu is held.
func (s store) set(r *proto.SetRequest) error {
	i := item{Value: r.GetValue(), Tag: s.p.number()}
	if text := r.GetMetadata()["ttlInSeconds"]; text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			return status.Error(codes.InvalidArgument, "ttlInSeconds is no number")
		}
		i.Expires = time.Now().Add(time.Duration(n) * time.Second).UnixMilli()
	}
	s.p.kept.Items[r.GetKey()] = i
	return nil
}

// do does all writes or none.
func (s store) do(ctx context.Context, ops ...*proto.TransactionalStateOperation) error {
	if _, err := s.p.ready(ctx, "state"); err != nil {
		return err
	}
	return s.p.change(func() error {
		for _, op := range ops {
			if op.GetSet().GetMetadata()["refuse"]+op.GetDelete().GetMetadata()["refuse"] != "" {
				return status.Error(codes.InvalidArgument, "the metadata says to refuse it")
			}
			err := s.check(op.GetDelete().GetKey(), op.GetDelete().GetEtag(), false)
			if op.GetSet() != nil {
				err = s.checkSet(op.GetSet())
			}
			if err != nil {
				return err
			}
		}
		for _, op := range ops {
			if op.GetSet() == nil {
				delete(s.p.kept.Items, op.GetDelete().GetKey())
			} else if err := s.set(op.GetSet()); err != nil {
				return err
			}
		}
		return nil
	})
}

func setOp(r *proto.SetRequest) *proto.TransactionalStateOperation {
	return &proto.TransactionalStateOperation{Request: &proto.TransactionalStateOperation_Set{Set: r}}
}

func deleteOp(r *proto.DeleteRequest) *proto.TransactionalStateOperation {
	return &proto.TransactionalStateOperation{Request: &proto.TransactionalStateOperation_Delete{Delete: r}}
}

func (s store) Set(ctx context.Context, r *proto.SetRequest) (*proto.SetResponse, error) {
	return &proto.SetResponse{}, s.do(ctx, setOp(r))
}

func (s store) Delete(ctx context.Context, r *proto.DeleteRequest) (*proto.DeleteResponse, error) {
	return &proto.DeleteResponse{}, s.do(ctx, deleteOp(r))
}

func (s store) Transact(ctx context.Context, r *proto.TransactionalStateRequest) (*proto.TransactionalStateResponse, error) {
	if r.GetMetadata()["refuse"] == "all" {
		return nil, status.Error(codes.InvalidArgument, "the metadata says to refuse it")
	}
	return &proto.TransactionalStateResponse{}, s.do(ctx, r.GetOperations()...)
}

// bulks refuses what is not there.
func (s store) bulks() error {
	if slices.Contains(s.p.Without, "Bulk") {
		return status.Error(codes.Unimplemented, "there are no bulks")
	}
	return nil
}

func (s store) BulkSet(ctx context.Context, r *proto.BulkSetRequest) (*proto.BulkSetResponse, error) {
	if err := s.bulks(); err != nil {
		return nil, err
	}
	for _, one := range r.GetItems() {
		if err := s.do(ctx, setOp(one)); err != nil {
			return nil, err
		}
	}
	return &proto.BulkSetResponse{}, nil
}

func (s store) BulkDelete(ctx context.Context, r *proto.BulkDeleteRequest) (*proto.BulkDeleteResponse, error) {
	if err := s.bulks(); err != nil {
		return nil, err
	}
	for _, one := range r.GetItems() {
		if err := s.do(ctx, deleteOp(one)); err != nil {
			return nil, err
		}
	}
	return &proto.BulkDeleteResponse{}, nil
}

func (s store) BulkGet(ctx context.Context, r *proto.BulkGetRequest) (*proto.BulkGetResponse, error) {
	if err := s.bulks(); err != nil {
		return nil, err
	}
	if _, err := s.p.ready(ctx, "state"); err != nil {
		return nil, err
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	answer := &proto.BulkGetResponse{}
	for _, one := range r.GetItems() {
		if one.GetMetadata()["refuse"] != "" {
			return nil, status.Error(codes.InvalidArgument, "the metadata says to refuse it")
		}
		if i, ok := s.find(one.GetKey()); ok {
			answer.Items = append(answer.Items, &proto.BulkStateItem{Key: one.GetKey(), Data: i.Value, Etag: i.tag(), Metadata: i.metadata()})
		}
	}
	return answer, nil
}

// Query knows the operations of Dapr's filters, sorts by text, and pages by number.
func (s store) Query(ctx context.Context, r *proto.QueryRequest) (*proto.QueryResponse, error) {
	if _, err := s.p.ready(ctx, "state"); err != nil {
		return nil, err
	}
	filter := map[string]any{}
	for name, value := range r.GetQuery().GetFilter() {
		var v any
		if err := json.Unmarshal(value.GetValue(), &v); err != nil {
			return nil, status.Error(codes.InvalidArgument, "the filter is no JSON")
		}
		filter[name] = v
	}
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	var found []*proto.QueryItem
	values := map[string]any{}
	for key := range s.p.kept.Items {
		i, ok := s.find(key)
		var v any
		if !ok || json.Unmarshal(i.Value, &v) != nil || !matches(filter, v) {
			continue
		}
		values[key] = v
		found = append(found, &proto.QueryItem{Key: key, Data: i.Value, Etag: i.tag()})
	}
	slices.SortFunc(found, func(a, b *proto.QueryItem) int { return cmp.Compare(a.GetKey(), b.GetKey()) })
	sort.SliceStable(found, func(a, b int) bool {
		for _, by := range r.GetQuery().GetSort() {
			x, y := text(values[found[a].GetKey()], by.GetKey()), text(values[found[b].GetKey()], by.GetKey())
			if x != y {
				return (x < y) == (by.GetOrder() == proto.Sorting_ASC)
			}
		}
		return false
	})
	page := r.GetQuery().GetPagination()
	from, _ := strconv.Atoi(page.GetToken())
	to, next := len(found), ""
	if n := from + int(page.GetLimit()); page.GetLimit() > 0 && n < to {
		to, next = n, strconv.Itoa(n)
	}
	return &proto.QueryResponse{Items: found[min(from, to):to], Token: next}, nil
}

func text(v any, path string) string {
	for part := range strings.SplitSeq(path, ".") {
		m, _ := v.(map[string]any)
		v = m[part]
	}
	return fmt.Sprint(v)
}

func matches(filter map[string]any, v any) bool {
	for name, arguments := range filter {
		switch a := arguments.(type) {
		case map[string]any: // of a value
			for path, wanted := range a {
				if !compares(name, text(v, path), wanted) {
					return false
				}
			}
		case []any: // AND and OR
			n := 0
			for _, one := range a {
				if inner, ok := one.(map[string]any); ok && matches(inner, v) {
					n++
				}
			}
			if n == 0 || name == "AND" && n < len(a) {
				return false
			}
		}
	}
	return true
}

func compares(name, have string, wanted any) bool {
	if all, ok := wanted.([]any); ok { // IN
		return slices.ContainsFunc(all, func(w any) bool { return fmt.Sprint(w) == have })
	}
	order := cmp.Compare(have, fmt.Sprint(wanted))
	x, err := strconv.ParseFloat(have, 64)
	if y, ok := wanted.(float64); ok && err == nil {
		order = cmp.Compare(x, y)
	}
	return map[string]bool{"EQ": order == 0, "NEQ": order != 0, "GT": order > 0, "GTE": order >= 0, "LT": order < 0, "LTE": order <= 0}[name]
}
