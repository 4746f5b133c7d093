package daprapi

import (
	"encoding/json"
	"errors"
	"strings"
)

// The names of these types and of their fields are daprd's: what is wrong with a body is said with them.
type (
	// BulkGetRequest is the body of a bulk read.
	BulkGetRequest struct {
		Metadata    map[string]string `json:"metadata"`
		Keys        []string          `json:"keys"`
		Parallelism int               `json:"parallelism"` // checked; what is read in one piece has none
	}
	stateTransactionRequestBody struct {
		Operations []stateTransactionRequestBodyOperation `json:"operations"`
		Metadata   map[string]string                      `json:"metadata"`
	}
	stateTransactionRequestBodyOperation struct {
		Operation string          `json:"operation"`
		Request   json.RawMessage `json:"request"`
	}
	bulkPublishMessageEntry struct {
		EntryID     string            `json:"entryId"`
		Event       json.RawMessage   `json:"event"`
		ContentType string            `json:"contentType"`
		Metadata    map[string]string `json:"metadata"`
	}
)

// inDaprsWords gives an error of decoding daprd's text where it names a type of this package.
func inDaprsWords(err error) error {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) || wrong.Type == nil {
		return err
	}
	return errors.New(strings.NewReplacer("daprapi.SetRequest", "state.SetRequest", "daprapi.SetStateOption", "state.SetStateOption", "map[string]json.RawMessage", "map[string]interface {}", "daprapi.", "http.").Replace(err.Error()))
}
