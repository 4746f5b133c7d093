package daprapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	runtimev1 "github.com/dapr/dapr/pkg/proto/runtime/v1"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
)

// bulkEntry is one event of a batch.
type bulkEntry struct {
	id, contentType string
	data            []byte
	metadata        map[string]string
}

// failedEntry is one that was not stored.
type failedEntry struct {
	EntryID string `json:"entryId"`
	Error   string `json:"error,omitempty"`
}

// publishAll stores a batch. It returns the entries that failed, and why the first did.
func (s *Server) publishAll(ctx context.Context, pubsub, topic string, entries []bulkEntry, md map[string]string, trace call.Header, raw bool, as protocol) ([]failedEntry, error) {
	seen := make(map[string]bool, len(entries))
	drafts := make([]blocks.Draft, len(entries))
	kind := s.typeOf(pubsub)
	takesBatches := kind == "pubsub.kafka" || strings.HasPrefix(kind, "pubsub.azure.") // these daprd also tells what the batch says
	for i, e := range entries {
		if e.id == "" || seen[e.id] {
			err := errors.New("entryId is duplicated or not present for entry")
			return nil, s.entriesProblem(pubsub, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_EVENTS",
				fmt.Sprintf("error marshaling events to bytes for topic %s pubsub %s. error: %s", topic, pubsub, err), err)
		}
		seen[e.id] = true
		merged := maps.Clone(md)
		if merged == nil {
			merged = map[string]string{}
		}
		maps.Copy(merged, e.metadata)
		own := merged
		if e.metadata == nil { // what the batch says is then not said of the event
			own = nil
		}
		if isCloudEvent(e.contentType) && !raw { // the whole batch is refused before any of it is stored
			if _, _, err := s.envelope(pubsub, topic, e.contentType, e.data, own, nil); err != nil {
				return nil, err
			}
		}
		drafts[i] = s.draft(pubsub, topic, e.contentType, e.data, own, append(call.Header(nil), trace...), raw, as)
		drafts[i].Key = merged["partitionKey"]
		if takesBatches {
			drafts[i].Metadata = merged
		}
	}
	if len(drafts) == 0 { // also of nothing it is told that it must not be
		_, err := s.o.Blocks.PubSub.PublishBatch(ctx, pubsub, topic, nil)
		if fault.ReasonOf(err) == fault.TopicDenied {
			return nil, s.publishProblem(pubsub, topic, err)
		}
		return nil, nil
	}
	var failed []failedEntry
	var first error
	defer func(began time.Time) { s.o.Metrics.Published(pubsub, topic, true, began, first) }(time.Now())
	for at := 0; at < len(drafts); at += blocks.MaxBatch {
		some := drafts[at:min(at+blocks.MaxBatch, len(drafts))]
		results, err := s.o.Blocks.PubSub.PublishBatch(ctx, pubsub, topic, some)
		for i := range some {
			cause := err
			if err == nil {
				cause = results[i].Err
			}
			if cause != nil {
				failed = append(failed, failedEntry{entries[at+i].id, cause.Error()})
				if first == nil {
					first = cause
				}
			}
		}
	}
	return failed, first
}

func (s *Server) bulkPublish(w http.ResponseWriter, r *http.Request, p params) error {
	pubsub, topic, md := p["pubsubname"], p["*"], queryMetadata(r)
	raw, err := s.checkTopic(pubsub, topic, md)
	if err != nil {
		return err
	}
	var given []bulkPublishMessageEntry
	if err := s.decode(r, &given); err != nil {
		return s.entriesProblem(pubsub, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_UNMARSHAL_EVENTS",
			fmt.Sprintf("error when unmarshaling the request for topic %s pubsub %s: %s", topic, pubsub, err), nil).of(err)
	}
	entries := make([]bulkEntry, len(given))
	for i, g := range given {
		data, err := entryData(g.Event, g.ContentType)
		if err != nil {
			return s.entriesProblem(pubsub, "ERR_PUBSUB_EVENTS_SER", "DAPR_PUBSUB_MARSHAL_ENVELOPE",
				fmt.Sprintf("error when marshalling cloud event envelope for topic %s pubsub %s: %s", topic, pubsub, err), err)
		}
		entries[i] = bulkEntry{g.EntryID, g.ContentType, data, g.Metadata}
	}
	failed, err := s.publishAll(r.Context(), pubsub, topic, entries, md, traceOf(r.Header.Get), raw, asHTTP)
	if len(failed) == 0 {
		if err == nil {
			answerEmpty(w)
		}
		return err
	}
	if fault.ReasonOf(err) == fault.TopicDenied {
		return s.publishProblem(pubsub, topic, err)
	}
	body, _ := json.Marshal(struct { // strings only
		FailedEntries []failedEntry `json:"failedEntries"`
		ErrorCode     string        `json:"errorCode"`
	}{failed, "ERR_PUBSUB_PUBLISH_MESSAGE"})
	err = s.publishProblem(pubsub, topic, err)
	s.count(err)
	w.Header().Set("metadata.responseData", string(body))
	w.Header().Set("metadata.error", err.Error())
	answerData(w, http.StatusInternalServerError, body)
	return nil
}

var errEntryType = errors.New("error: mismatch between contentType and event")

// entryData is the payload of an event in a JSON batch: as JSON, as text, or in base64 when it is binary.
func entryData(event json.RawMessage, contentType string) ([]byte, error) {
	kind := strings.ToLower(contentType)
	var text string
	isText := json.Unmarshal(event, &text) == nil
	switch {
	case strings.HasPrefix(kind, "application/octet-stream"):
		if !isText {
			return nil, errEntryType
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("error: unable to decode base64 application/octect-stream data: %w", err)
		}
		return data, nil
	case strings.HasPrefix(kind, "text/"), strings.HasPrefix(kind, "application/xml"):
		if !isText {
			return nil, errEntryType
		}
		return []byte(text), nil
	case isJSON(kind), isCloudEvent(kind):
		return compact(event), nil
	}
	return nil, errEntryType
}

func (a *api) BulkPublishEvent(ctx context.Context, in *runtimev1.BulkPublishRequest) (*runtimev1.BulkPublishResponse, error) {
	pubsub, topic := in.GetPubsubName(), in.GetTopic()
	raw, err := a.s.checkTopic(pubsub, topic, in.GetMetadata())
	if err != nil {
		return nil, err
	}
	entries := make([]bulkEntry, len(in.GetEntries()))
	for i, e := range in.GetEntries() {
		entries[i] = bulkEntry{e.GetEntryId(), e.GetContentType(), e.GetEvent(), e.GetMetadata()}
	}
	failed, err := a.s.publishAll(ctx, pubsub, topic, entries, in.GetMetadata(), grpcTrace(ctx), raw, asGRPC)
	if err != nil {
		return nil, a.s.publishProblem(pubsub, topic, err)
	}
	out := &runtimev1.BulkPublishResponse{}
	for _, f := range failed {
		out.FailedEntries = append(out.FailedEntries, &runtimev1.BulkPublishResponseFailedEntry{EntryId: f.EntryID, Error: f.Error})
	}
	return out, nil
}

func (a *api) BulkPublishEventAlpha1(ctx context.Context, in *runtimev1.BulkPublishRequest) (*runtimev1.BulkPublishResponse, error) {
	return a.BulkPublishEvent(ctx, in)
}
