package contrib

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	postgresql "github.com/dapr/components-contrib/common/component/postgresql/v1"
	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/components-contrib/state/query"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var _ state.Querier = (*queryStore)(nil)

// queryStore is a store whose library can be queried: PostgreSQL's of version 1.
type queryStore struct {
	*store
	querier contribstate.Querier
}

// Query implements state.Querier. The library returns items that have expired, and bytes in base64: each item is read again, and
// is what it is now if no one wrote it meanwhile.
func (s *queryStore) Query(ctx context.Context, q state.Query) (state.Found, error) {
	op := s.name + ": query"
	request, err := parseQuery(op, q)
	if err != nil {
		return state.Found{}, err
	}
	calling, leave, err := s.life.enter(ctx, op)
	if err != nil {
		return state.Found{}, err
	}
	defer leave()
	answer, err := s.querier.Query(calling, request)
	if err != nil {
		return state.Found{}, s.life.failure(ctx, op, err)
	}
	keys := make([]string, len(answer.Results))
	for i, r := range answer.Results {
		keys[i] = original(r.Key)
	}
	now, err := s.read(calling, keys)
	if err != nil {
		return state.Found{}, s.life.failure(ctx, op, err)
	}
	found := state.Found{Token: answer.Token, Looked: len(keys)}
	for i, r := range answer.Results {
		item, exists := now[keys[i]]
		if !exists {
			continue
		}
		if r.ETag != nil && *r.ETag != item.ETag {
			item.Value, item.ETag = r.Data, *r.ETag
		}
		found.Items = append(found.Items, item)
	}
	return found, nil
}

// parseQuery reads a query and refuses what cannot be one, before the server is asked.
func parseQuery(op string, q state.Query) (*contribstate.QueryRequest, error) {
	r := &contribstate.QueryRequest{Metadata: q.Metadata}
	if err := json.Unmarshal(q.Text, &r.Query); err != nil {
		return nil, fault.New(op, fault.QueryInvalid, "failed to parse JSON query body: %w", err)
	}
	if q.Token != "" {
		r.Query.Page.Token = q.Token
	}
	err := checkFilter(r.Query.Filter)
	for i := 0; i < len(r.Query.Sort) && err == nil; i++ {
		err = checkSort(r.Query.Sort[i])
	}
	if err == nil {
		err = query.NewQueryBuilder(&postgresql.Query{}).BuildQuery(&r.Query)
	}
	if err != nil {
		return nil, fault.E(op, fault.None, fault.QueryInvalid, err)
	}
	return r, nil
}

// checkField refuses the names that end the text in which the library puts them into its SQL.
func checkField(name string) error {
	if name == "" || strings.ContainsAny(name, "'\x00") {
		return fmt.Errorf("%q is no name of a field: it must not be empty or hold an apostrophe", name)
	}
	return nil
}

func checkSort(s query.Sorting) error {
	if order := strings.ToUpper(s.Order); order != "" && order != query.ASC && order != query.DESC {
		return fmt.Errorf("%q is no order: write %s or %s", s.Order, query.ASC, query.DESC)
	}
	return checkField(s.Key)
}

func checkFilter(f query.Filter) error {
	var parts []query.Filter
	switch f := f.(type) {
	case nil:
		return nil
	case *query.EQ:
		return checkField(f.Key)
	case *query.NEQ:
		return checkField(f.Key)
	case *query.GT:
		return checkField(f.Key)
	case *query.GTE:
		return checkField(f.Key)
	case *query.LT:
		return checkField(f.Key)
	case *query.LTE:
		return checkField(f.Key)
	case *query.IN:
		return checkField(f.Key)
	case *query.AND:
		parts = f.Filters
	case *query.OR:
		parts = f.Filters
	default:
		return fmt.Errorf("unsupported filter type %T", f)
	}
	if len(parts) == 0 {
		return errors.New("an AND or OR filter needs conditions")
	}
	for _, part := range parts {
		if err := checkFilter(part); err != nil {
			return err
		}
	}
	return nil
}

// original is the key whose name in the store is name.
func original(name string) string {
	if digits, ok := strings.CutPrefix(name, escaped); ok {
		if key, err := hex.DecodeString(digits); err == nil {
			return string(key)
		}
	}
	return name
}
