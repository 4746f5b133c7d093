package daprapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// SetRequest is a stateItem in JSON.
type SetRequest struct {
	Key      string            `json:"key"`
	Value    json.RawMessage   `json:"value"`
	ETag     *string           `json:"etag"`
	Metadata map[string]string `json:"metadata"`
	// ContentType is that of the event that an outbox makes of the item.
	ContentType string         `json:"contentType"`
	Options     SetStateOption `json:"options"`
}

// SetStateOption is how an item is to be written.
type SetStateOption struct {
	Concurrency string `json:"concurrency"`
	Consistency string `json:"consistency"`
}

// item merges the query's metadata, which wins, and gives the value as compact JSON.
func (b *SetRequest) item(query map[string]string) stateItem {
	i := stateItem{
		key: b.Key, etag: b.ETag, metadata: b.Metadata, concurrency: b.Options.Concurrency, consistency: b.Options.Consistency,
		contentType: b.ContentType, fromJSON: true,
	}
	if i.metadata == nil {
		i.metadata = query
	} else {
		maps.Copy(i.metadata, query)
	}
	i.value = compact(b.Value)
	return i
}

func (s *Server) getState(w http.ResponseWriter, r *http.Request, p params) error {
	store, key := p["storeName"], p["key"]
	if err := s.checkStore(store); err != nil {
		return err
	}
	if err := checkStateKey(store, key); err != nil {
		return overHTTP(err, true)
	}
	began := time.Now()
	found, err := s.read(r.Context(), store, []string{key}, queryMetadata(r))
	s.o.Metrics.StateDone(store, "get", began, err)
	if err != nil {
		return stateProblem(err, "ERR_STATE_GET", "fail to get %s from state store %s: %s", key, store)
	}
	item, ok := found[key]
	if !ok {
		answerEmpty(w)
		return nil
	}
	w.Header().Set("ETag", item.ETag)
	for name, value := range itemMetadata(item) {
		w.Header().Set("metadata."+name, value)
	}
	answerData(w, http.StatusOK, item.Value)
	return nil
}

func (s *Server) saveState(w http.ResponseWriter, r *http.Request, p params) error {
	store := p["storeName"]
	if err := s.checkStore(store); err != nil {
		return err
	}
	var bodies []SetRequest
	if err := s.decode(r, &bodies); err != nil {
		return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", "%v", err).of(err)
	}
	query := queryMetadata(r)
	items := make([]stateItem, len(bodies))
	for i := range bodies {
		if bodies[i].Key == "" {
			return plain(http.StatusBadRequest, codes.InvalidArgument, "ERR_MALFORMED_REQUEST", `"key" is a required field`)
		}
		if err := checkStateKey(store, bodies[i].Key); err != nil {
			return overHTTP(err, true)
		}
		items[i] = bodies[i].item(query)
	}
	if err := s.applyEach(r.Context(), "set", store, items); err != nil {
		return stateProblem(err, "ERR_STATE_SAVE", "failed saving state in state store %s: %s", store)
	}
	answerEmpty(w)
	return nil
}

func (s *Server) deleteState(w http.ResponseWriter, r *http.Request, p params) error {
	store, key := p["storeName"], p["key"]
	if err := s.checkStore(store); err != nil {
		return err
	}
	if err := checkStateKey(store, key); err != nil {
		return overHTTP(err, true)
	}
	query := r.URL.Query()
	item := stateItem{
		remove: true, key: key, metadata: queryMetadata(r),
		concurrency: query.Get("concurrency"), consistency: query.Get("consistency"),
	}
	if values := r.Header.Values("If-Match"); len(values) > 0 {
		item.etag = &values[0]
	}
	if err := s.applyEach(r.Context(), "delete", store, []stateItem{item}); err != nil {
		return stateProblem(err, "ERR_STATE_DELETE", "failed deleting state with key %s: %s", key)
	}
	answerEmpty(w)
	return nil
}

// bulkItem is one item of an answer to a bulk read.
type bulkItem struct {
	Key      string            `json:"key"`
	Data     json.RawMessage   `json:"data,omitempty"`
	ETag     *string           `json:"etag,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Error    string            `json:"error,omitempty"`
}

func (s *Server) bulkGetState(w http.ResponseWriter, r *http.Request, p params) error {
	store := p["storeName"]
	if err := s.checkStore(store); err != nil {
		return err
	}
	var body BulkGetRequest
	if err := s.decode(r, &body); err != nil {
		return malformed(err)
	}
	for _, key := range body.Keys {
		if err := checkStateKey(store, key); err != nil {
			return overHTTP(err, true)
		}
	}
	began := time.Now()
	found, sealed, err := s.readBulk(r.Context(), store, body.Keys, inherited(queryMetadata(r), body.Metadata))
	s.o.Metrics.StateDone(store, "bulk_get", began, err)
	if err != nil {
		return stateProblem(err, "ERR_STATE_BULK_GET", "%s")
	}
	items := make([]bulkItem, len(body.Keys))
	for i, key := range body.Keys {
		items[i].Key = key
		if err := sealed[key]; err != nil {
			items[i].Error = err.Error()
		} else if item, ok := found[key]; ok {
			items[i].Data, items[i].ETag, items[i].Metadata = asJSON(item.Value), &item.ETag, itemMetadata(item)
		}
	}
	answerJSON(w, http.StatusOK, items)
	return nil
}

func (s *Server) transactState(w http.ResponseWriter, r *http.Request, p params) error {
	store := p["storeName"]
	if err := s.checkStore(store); err != nil {
		return err
	}
	if err := s.checkTransactions(r.Context(), store); err != nil {
		return err
	}
	var body stateTransactionRequestBody
	if err := s.decode(r, &body); err != nil {
		return malformed(err)
	}
	if len(body.Operations) == 0 {
		answerEmpty(w)
		return nil
	}
	query := queryMetadata(r)
	items := make([]stateItem, len(body.Operations))
	for i, o := range body.Operations {
		if o.Operation != "upsert" && o.Operation != "delete" {
			return notTransactable(http.StatusBadRequest, o.Operation)
		}
		var request SetRequest
		if len(o.Request) > 0 {
			if kind := notObject(o.Request); kind != "" {
				return malformed(fmt.Errorf("'' expected a map, got '%s'", kind))
			}
			if err := json.Unmarshal(o.Request, &request); err != nil {
				return malformed(inDaprsWords(err))
			}
		}
		if err := checkStateKey(store, request.Key); err != nil {
			return overHTTP(err, false)
		}
		items[i] = request.item(query)
		items[i].remove = o.Operation == "delete"
	}
	if err := s.transact(r.Context(), store, items, body.Metadata, traceOf(r.Header.Get)); err != nil {
		return transactionProblem(store, len(items), err)
	}
	answerEmpty(w)
	return nil
}

// notObject is Go's kind of a JSON value that is neither an object nor null; "" for those.
func notObject(value json.RawMessage) string {
	switch value[0] {
	case '{', 'n':
		return ""
	case '[':
		return "slice"
	case '"':
		return "string"
	case 't', 'f':
		return "bool"
	}
	return "float64"
}

func notTransactable(status int, operation string) error {
	return basic(status, codes.Unimplemented, "ERR_NOT_SUPPORTED_STATE_OPERATION", "operation type %s not supported", operation)
}

// transactionProblem is the problem of a transaction: Dapr's clients get the same code whatever went wrong.
func transactionProblem(store string, count int, err error) error {
	if p := (*problem)(nil); errors.As(err, &p) {
		return p
	}
	if tooMany(err) {
		most := fmt.Sprint(maxTransaction)
		if known := (*fault.Error)(nil); errors.As(err, &known) && known.Meta["most"] != "" {
			most = known.Meta["most"] // what this store takes
		}
		return storeProblem(http.StatusBadRequest, codes.InvalidArgument, "ERR_STATE_STORE_TOO_MANY_TRANSACTIONS", "DAPR_STATE_TOO_MANY_TRANSACTIONS",
			store, fmt.Sprintf("the transaction contains %d operations, which is more than what the state store supports: %s", count, most),
			map[string]string{"currentOpsTransaction": fmt.Sprint(count), "maxOpsPerTransaction": most})
	}
	const format = "error while executing state transaction: %s"
	return basic(http.StatusInternalServerError, codes.Internal, "ERR_STATE_TRANSACTION", format, stateText(err)).of(err).as(err, format)
}

// queryItem is one item of an answer to a query.
type queryItem struct {
	Key  string          `json:"key"`
	Data json.RawMessage `json:"data"`
	ETag string          `json:"etag,omitempty"`
}

func (s *Server) queryState(w http.ResponseWriter, r *http.Request, p params) error {
	store := p["storeName"]
	if err := s.checkStore(store); err != nil {
		return problemOf(err).grpcWords // as over gRPC
	}
	text, err := s.whole(r)
	if err != nil {
		return unreadable(err)
	}
	found, err := s.query(r.Context(), store, state.Query{Text: text, Metadata: queryMetadata(r)})
	switch {
	case err != nil:
		return err
	case len(found.Items) == 0:
		answerEmpty(w)
		return nil
	}
	answer := struct {
		Results []queryItem `json:"results"`
		Token   string      `json:"token,omitempty"`
	}{Token: found.Token}
	for _, item := range found.Items {
		answer.Results = append(answer.Results, queryItem{Key: item.Key, Data: asJSON(item.Value), ETag: item.ETag})
	}
	answerJSON(w, http.StatusOK, answer)
	return nil
}
