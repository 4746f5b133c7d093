package contrib

import (
	"bytes"
	"context"
	numbers "encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linkedin/goavro/v2"
)

// schemaRegistry turns JSON into Avro and back, by the schemas of a Confluent registry. A value begins with a zero byte and
// the number of its schema, in four bytes, the highest first.
type schemaRegistry struct {
	url, user, password string
	avroJSON, caching   bool
	keep                time.Duration
	web                 *http.Client

	mu     sync.Mutex
	byID   map[uint32]*avroSchema
	latest map[string]latestSchema // by subject
}

// avroSchema turns values of one schema.
type avroSchema struct {
	codec *goavro.Codec
	shape *avroShape
}

type latestSchema struct {
	*avroSchema
	id    uint32
	until time.Time
}

func newSchemaRegistry(values map[string]string, keep time.Duration) *schemaRegistry {
	if values["schemaRegistryURL"] == "" {
		return nil
	}
	return &schemaRegistry{
		url: strings.TrimSuffix(values["schemaRegistryURL"], "/"), user: values["schemaRegistryAPIKey"], password: values["schemaRegistryAPISecret"],
		avroJSON: values["useAvroJSON"] == "true", caching: values["schemaCachingEnabled"] != "false", keep: keep,
		web:  &http.Client{Timeout: 3 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}},
		byID: map[uint32]*avroSchema{}, latest: map[string]latestSchema{},
	}
}

var errNoRegistry = errors.New("values in Avro need the setting schemaRegistryURL")

// unreadableError is of bytes that are no more readable later.
type unreadableError struct{ error }

func (e unreadableError) Unwrap() error { return e.error }

const avroHead = 5

// encode is data, which is JSON, in Avro by the latest schema of topic.
func (r *schemaRegistry) encode(ctx context.Context, topic string, data []byte) ([]byte, error) {
	if r == nil {
		return nil, errNoRegistry
	}
	if tooDeep(data) {
		return nil, fmt.Errorf("the JSON is nested more than %d levels deep", deepest)
	}
	schema, err := r.latestOf(ctx, topic+"-value")
	if err != nil {
		return nil, err
	}
	native, _, err := schema.codec.NativeFromTextual(data)
	if err != nil {
		return nil, err
	}
	head := numbers.BigEndian.AppendUint32([]byte{0}, schema.id)
	return schema.codec.BinaryFromNative(head, native)
}

// decode is the JSON of a value. Its error is an unreadableError unless the registry may answer another time.
func (r *schemaRegistry) decode(ctx context.Context, value []byte) ([]byte, error) {
	switch {
	case r == nil:
		return nil, errNoRegistry
	case len(value) < avroHead || value[0] != 0:
		return nil, unreadableError{errors.New("the value is not Avro with the number of a schema before it")}
	}
	schema, err := r.schemaOf(ctx, numbers.BigEndian.Uint32(value[1:]))
	if err != nil {
		return nil, err
	}
	if err := schema.shape.check(value[avroHead:]); err != nil {
		return nil, unreadableError{err}
	}
	native, _, err := schema.codec.NativeFromBinary(value[avroHead:])
	if err != nil {
		return nil, unreadableError{err}
	}
	data, err := schema.codec.TextualFromNative(nil, native)
	if err != nil {
		return nil, unreadableError{err}
	}
	return data, nil
}

func (r *schemaRegistry) latestOf(ctx context.Context, subject string) (latestSchema, error) {
	r.mu.Lock()
	known := r.latest[subject]
	r.mu.Unlock()
	if time.Now().Before(known.until) {
		return known, nil
	}
	id, schema, err := r.get(ctx, "/subjects/"+url.PathEscape(subject)+"/versions/latest")
	if err != nil {
		return latestSchema{}, err
	}
	known = latestSchema{avroSchema: schema, id: id, until: time.Now().Add(r.keep)}
	if r.caching {
		r.mu.Lock()
		r.latest[subject] = known
		r.mu.Unlock()
	}
	return known, nil
}

func (r *schemaRegistry) schemaOf(ctx context.Context, id uint32) (*avroSchema, error) {
	r.mu.Lock()
	schema := r.byID[id]
	r.mu.Unlock()
	if schema != nil {
		return schema, nil
	}
	_, schema, err := r.get(ctx, "/schemas/ids/"+strconv.FormatUint(uint64(id), 10))
	if err == nil && r.caching { // a schema never changes
		r.mu.Lock()
		r.byID[id] = schema
		r.mu.Unlock()
	}
	return schema, err
}

func (r *schemaRegistry) get(ctx context.Context, path string) (id uint32, schema *avroSchema, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, r.url+path, nil)
	if err != nil {
		return 0, nil, err
	}
	if r.user != "" {
		request.SetBasicAuth(r.user, r.password)
	}
	response, err := r.web.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("the schema registry: %w", err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 4<<20))
	if err != nil {
		return 0, nil, fmt.Errorf("the schema registry: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return 0, nil, refusedSchema(response.StatusCode, path, body)
	}
	var answer struct {
		ID     uint32 `json:"id"`
		Schema string `json:"schema"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return 0, nil, fmt.Errorf("the schema registry: %w", err)
	}
	schema, err = r.parse(answer.Schema)
	if err != nil {
		return 0, nil, unreadableError{fmt.Errorf("the schema of %s: %w", path, err)}
	}
	return answer.ID, schema, nil
}

func (r *schemaRegistry) parse(text string) (*avroSchema, error) {
	if tooDeep([]byte(text)) {
		return nil, fmt.Errorf("it is nested more than %d levels deep", deepest)
	}
	read := goavro.NewCodecForStandardJSONFull
	if r.avroJSON {
		read = goavro.NewCodec
	}
	codec, err := read(text)
	if err != nil {
		return nil, err
	}
	shape, err := newShape(text)
	return &avroSchema{codec: codec, shape: shape}, err
}

// noSchema is what a registry says, with status 404, when it has no schema of a number: Confluent's API reference, GET /schemas/ids.
// A 404 without it may be another server's.
const noSchema = 40403

func refusedSchema(status int, path string, body []byte) error {
	err := fmt.Errorf("the schema registry answers %d for %s: %s", status, path, bytes.TrimSpace(body[:min(len(body), 200)]))
	var said struct {
		Code int `json:"error_code"`
	}
	if status == http.StatusNotFound && json.Unmarshal(body, &said) == nil && said.Code == noSchema {
		return unreadableError{err}
	}
	return err
}
