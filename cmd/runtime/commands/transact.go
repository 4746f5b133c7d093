package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// operation is one step of a transaction as the user writes it.
type operation struct {
	Set *struct {
		Key        string          `json:"key"`
		Value      json.RawMessage `json:"value"`
		ETag       string          `json:"etag"`
		FirstWrite bool            `json:"firstWrite"`
		TTL        string          `json:"ttl"`
	} `json:"set"`
	Delete *version `json:"delete"`
	Expect *version `json:"expect"`
}

type version struct {
	Key  string `json:"key"`
	ETag string `json:"etag"`
}

func (s *stateOptions) transact() *cobra.Command {
	var body input
	cmd := &cobra.Command{
		Use:   "transact",
		Short: "Apply several writes and deletes, all or none",
		Long: `Applies operations, all or none, and prints the new ETag of each item that was set. The body is a
JSON list:

  [
    {"set":    {"key": "stock-A1", "value": 41, "etag": "7", "ttl": "1h", "firstWrite": false}},
    {"delete": {"key": "reserved-A1", "etag": ""}},
    {"expect": {"key": "closed", "etag": ""}}
  ]

A value that is a JSON string is stored as its text, any other value as JSON. "expect" requires that
an item still is that version, or with an empty etag that it does not exist, and changes nothing.
Exit code 4 says that one was not as expected; then nothing was written.`,
		Example: examples(
			`sidecast state transact --data-file move.json --app-id warehouse`,
			`sidecast state transact -d '[{"set":{"key":"a","value":1}},{"delete":{"key":"b"}}]'`,
		),
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.call(cmd, func(ctx context.Context, client sidecastv1.StateClient) error {
				text, err := body.read(ctx, cmd)
				if err != nil {
					return err
				}
				ops, keys, err := parseOperations(text)
				if err != nil {
					return err
				}
				answer, err := client.Transact(ctx, &sidecastv1.TransactRequest{StoreName: s.store, Operations: ops})
				if err != nil {
					return err
				}
				return s.printETags(cmd, keys, answer.Etags)
			})
		},
	}
	body.flags(cmd)
	return cmd
}

// parseOperations reads the list of operations and the key of each.
func parseOperations(text []byte) (ops []*sidecastv1.Operation, keys []string, err error) {
	const op = "state transact"
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, nil, fault.New(op, fault.FlagInvalid, "there is no list of operations: give it with --data, --data-file or on standard input")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	var list []operation
	if err := decoder.Decode(&list); err != nil {
		return nil, nil, fault.New(op, fault.FlagInvalid, "the body is not a list of operations: %w", inJSON(err))
	}
	for i, o := range list {
		parsed, key, err := o.parse()
		if err != nil {
			return nil, nil, fault.New(op, fault.FlagInvalid, "operation %d: %w", i+1, err)
		}
		ops, keys = append(ops, parsed), append(keys, key)
	}
	return ops, keys, nil
}

// inJSON says what is wrong with JSON without the names of Go types.
func inJSON(err error) error {
	var mismatch *json.UnmarshalTypeError
	if !errors.As(err, &mismatch) {
		return err
	}
	where := mismatch.Field
	if where == "" {
		where = "the whole"
	}
	return fmt.Errorf("at byte %d: %s must not be of type %s", mismatch.Offset, where, mismatch.Value)
}

func (o operation) parse() (parsed *sidecastv1.Operation, key string, err error) {
	kinds := 0
	for _, there := range []bool{o.Set != nil, o.Delete != nil, o.Expect != nil} {
		if there {
			kinds++
		}
	}
	if kinds != 1 {
		return nil, "", fmt.Errorf("must be one of set, delete and expect")
	}
	switch {
	case o.Delete != nil:
		removal := &sidecastv1.Removal{Key: o.Delete.Key, Etag: o.Delete.ETag}
		return &sidecastv1.Operation{Op: &sidecastv1.Operation_Delete{Delete: removal}}, removal.Key, nil
	case o.Expect != nil:
		expectation := &sidecastv1.Expectation{Key: o.Expect.Key, Etag: o.Expect.ETag}
		return &sidecastv1.Operation{Op: &sidecastv1.Operation_Expect{Expect: expectation}}, expectation.Key, nil
	}
	write := &sidecastv1.Write{Key: o.Set.Key, Value: o.Set.Value, Etag: o.Set.ETag}
	var value string
	if json.Unmarshal(o.Set.Value, &value) == nil && string(o.Set.Value) != "null" {
		write.Value = []byte(value)
	}
	if o.Set.FirstWrite {
		write.Concurrency = sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE
	}
	if o.Set.TTL != "" {
		life, err := time.ParseDuration(o.Set.TTL)
		if err != nil {
			return nil, "", err
		}
		write.Ttl = optional(life)
	}
	return &sidecastv1.Operation{Op: &sidecastv1.Operation_Set{Set: write}}, write.Key, nil
}
