package daprapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/protoadapt"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
)

// outboxProjection marks an item of a transaction that is published in the place of the one that is stored under its key.
const outboxProjection = "outbox.projection"

func (i *stateItem) projection() bool {
	return !i.remove && isTruthy(i.metadata[outboxProjection])
}

// isTruthy knows the words that Dapr takes for true.
func isTruthy(text string) bool {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "y", "yes", "true", "t", "on", "1":
		return true
	}
	return false
}

// projections takes the items apart that are only published. One without an item that is stored is a mistake of which the
// app would never hear.
func projections(items []stateItem) (stored []stateItem, published map[string]*stateItem, err error) {
	published = map[string]*stateItem{}
	for i := range items {
		if items[i].projection() {
			published[items[i].key] = &items[i]
		} else {
			stored = append(stored, items[i])
		}
	}
	for key := range published {
		found := false
		for i := range stored {
			found = found || stored[i].key == key && !stored[i].remove
		}
		if !found {
			return nil, nil, fmt.Errorf("the outbox projection of key %s belongs to no upsert of the transaction", key)
		}
	}
	return stored, published, nil
}

// told are the events that Dapr makes of a transaction: one of each upsert, and none of a deletion.
func (s *Server) told(stored []stateItem, published map[string]*stateItem, trace call.Header) func(components.Outbox) ([]blocks.Draft, error) {
	return func(box components.Outbox) ([]blocks.Draft, error) {
		var drafts []blocks.Draft
		for i := range stored {
			item := &stored[i]
			if item.remove {
				continue
			}
			shown := item
			if other := published[item.key]; other != nil {
				shown = other
			}
			drafts = append(drafts, blocks.Draft{
				Header: append(call.Header(nil), trace...), Key: item.metadata["partitionKey"], Judged: asGRPC.judged,
				Wrap: func(header call.Header) (string, []byte, error) { return s.outboxEnvelope(box, item, shown, header) },
			})
		}
		return drafts, nil
	}
}

// outboxEnvelope is the CloudEvent of an item, with the data of the one that is shown in its place. All its metadata are
// attributes, under their own names; those called cloudevent.x set x as well, as they do when an app publishes.
func (s *Server) outboxEnvelope(box components.Outbox, item, shown *stateItem, header call.Header) (id string, envelope []byte, err error) {
	contentType := shown.contentType
	if contentType == "" {
		contentType = shown.metadata["contentType"]
	}
	e, _ := s.newEnvelope(box.PubSub, box.Topic, contentType, shown.payload(contentType), nil, header.Get("traceparent"), header.Get("tracestate"))
	e["id"] = "outbox-" + uuid.NewString()
	for key, value := range item.metadata {
		if key != "data" && key != "id" {
			e[key] = value
		}
	}
	for key, value := range item.metadata {
		switch name, ok := strings.CutPrefix(strings.ToLower(key), "cloudevent."); {
		case !ok, name == "", name == "data", name == "data_base64", name == "specversion":
		default:
			e[name] = value
		}
	}
	e["topic"], e["pubsubname"] = box.Topic, box.PubSub
	id, _ = e["id"].(string)
	envelope, err = writeEnvelope(e, len(shown.value))
	return id, envelope, err
}

// payload is the value as an event's data: what came in JSON and is not said to be JSON is the text that it stands for.
func (i *stateItem) payload(contentType string) []byte {
	if !i.fromJSON || strings.EqualFold(contentType, "application/json") {
		return i.value
	}
	var text string
	if json.Unmarshal(i.value, &text) == nil && string(i.value) != "null" {
		return []byte(text)
	}
	return i.value
}

// outboxProblem is the problem of a transaction whose events cannot be published.
func (s *Server) outboxProblem(err error) error {
	return &problem{
		http: http.StatusInternalServerError, grpc: codes.Internal, tag: "ERR_PUBLISH_OUTBOX",
		message: fmt.Sprintf("error while publishing outbox message: %s", err),
		details: []protoadapt.MessageV1{errorInfo("DAPR_PUBSUB_OUTBOX", map[string]string{"appID": s.o.AppID, "error": toValidUTF8(err.Error())})},
	}
}
