// Package components is the component model: backends that describe themselves, manifests that name them, and the Set
// that opens them when an app first asks.
//
// A backend is one package with one value:
//
//	type Config struct {
//		Dir  string `meta:"dir,required" doc:"Directory that holds the data."`
//		Sync bool   `meta:"sync" default:"true" doc:"Fsync before a write is acknowledged."`
//	}
//
//	var Component = components.State("badger", "Durable store in a local directory.", open)
//
// A manifest is a Dapr Component in YAML. Load reads folders of them strictly: what cannot be right is an error that
// names the file, the line, the key and the nearest valid one, and a folder with errors changes nothing. A Set hands out
// backends by name, opens each on first use, keeps trying those that cannot start, and swaps those whose manifest
// changed without closing one that is in use:
//
//	docs, err := components.Load(ctx, []string{"./components"}, standard.All())
//	set := components.NewSet(components.Options{Host: host, Known: standard.All(), BuiltIn: standard.Defaults(), Documents: docs})
//	use, err := set.State(ctx, "statestore")
//	if err != nil { … }
//	defer use.Release()
//	items, err := use.Backend.Get(ctx, []string{use.KeyPrefix + "cart"})
//
// The package moves no data: retries, breakers and limits of calls are the lanes', key layout is the State block's.
package components

import (
	"cmp"
	"context"
	"log/slog"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/configstore"
	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/pipeline"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

// Host is what a backend may use of the sidecar it runs in.
type Host struct {
	Log                        *slog.Logger
	AppID, Namespace, Instance string
	// Component is the name that the manifest gives the component. It is part of the default of whatever a backend names
	// (directory, bucket, stream): components of different names share nothing unless they are told to, and a component that
	// several apps of a namespace have under one name is the same one on the fabric.
	Component string
	// DataDir is the root of this machine's data. A backend keeps its own below it.
	DataDir string
	// NATS gives the fabric's connection. It is shared: a backend never closes it.
	NATS func(ctx context.Context) (*nats.Conn, error)
	// Replicas is how many copies JetStream things have; 0 means 1.
	Replicas int
	// Local says that the fabric is embedded: one machine, one clock.
	Local bool
	// Binding is what the manifest of a binding says of it.
	Binding Binding
	// Scrub takes the component's secrets out of an error that is told after it was opened: what open itself returns, and what
	// goes to Log, is seen to. Nil leaves errors as they are.
	Scrub func(error) error
}

// Block is the building block that a component serves; it is the first part of the component's type.
type Block string

// The blocks.
const (
	StateBlock  Block = "state"
	PubSubBlock Block = "pubsub"
	LockBlock   Block = "lock"
	SecretBlock Block = "secretstores"

	ConfigurationBlock Block = "configuration"
	MiddlewareBlock    Block = "middleware"
	CryptoBlock        Block = "crypto"
	ConversationBlock  Block = "conversation"
	// BindingBlock has backends that are a binding.Output, a binding.Input or both.
	BindingBlock Block = "bindings"
)

// Backend is what every backend has in common. Close returns when nothing of it is running any more.
type Backend interface {
	Close(ctx context.Context) error
}

// SecretStore looks secrets up for manifests. All methods may be called concurrently. No error of it holds a value.
type SecretStore interface {
	Backend
	// Secret returns the parts of the secret called name; a secret with a single value has it under its own name. It
	// fails with reason SECRET_NOT_FOUND when there is none of that name. Metadata is what the reader says beside the name, in
	// the store's own words: "version_id", "namespace". A store takes no notice of words that it does not know, and keeps no
	// metadata.
	Secret(ctx context.Context, name string, metadata map[string]string) (map[string]string, error)
	// Secrets returns the parts of all secrets there are, by name. Metadata is as for Secret.
	Secrets(ctx context.Context, metadata map[string]string) (map[string]map[string]string, error)
}

// SecretWatcher is a SecretStore that can tell of changes.
type SecretWatcher interface {
	// Watch calls changed after each change since the store was opened, one call at a time, until ctx ends; then it returns nil.
	Watch(ctx context.Context, changed func()) error
}

// Component is a kind of backend: its type, its documentation, its keys and how it is opened. Build one with State,
// PubSub, Lock, Secrets or Configuration; the zero Component is of no use.
type Component struct {
	block        Block
	product, doc string
	version      string // of the type, where it has more than v1; "" means v1
	// input and output are the directions of a binding.
	input, output bool
	// plain says that a state store has values alone: see state.Plain.
	plain     bool
	able      func() []string // what its backends can do, in Dapr's words; nil for those that tell nothing
	option    option          // what they can do where a manifest says so
	when      string          // the key that makes a manifest mean this component and not another of its type; "" means none
	place     string          // of the program that brings it; "" for those of this one
	about     func() string   // the documentation, where it is not kept in doc
	notLinked string          // why the program does not have it
	awaited   Awaited         // of a component that stands for those that nobody brings; nil for all others
	schema    schema
	open      func(ctx context.Context, host Host, m metadata) (Backend, error)
}

// State makes a state store known under the type "state.<product>". open returns a ready store or an error, and leaks
// nothing. C is a struct whose fields carry the tags that Describe documents; a wrong tag panics here.
func State[C any](product, doc string, open func(context.Context, Host, C) (state.Store, error)) Component {
	return build(StateBlock, product, doc, open)
}

// PubSub makes a broker known under the type "pubsub.<product>". See State.
func PubSub[C any](product, doc string, open func(context.Context, Host, C) (pubsub.Broker, error)) Component {
	return build(PubSubBlock, product, doc, open)
}

// Lock makes a locker known under the type "lock.<product>". See State.
func Lock[C any](product, doc string, open func(context.Context, Host, C) (lock.Locker, error)) Component {
	return build(LockBlock, product, doc, open)
}

// Secrets makes a secret store known under the type "secretstores.<product>". See State.
func Secrets[C any](product, doc string, open func(context.Context, Host, C) (SecretStore, error)) Component {
	return build(SecretBlock, product, doc, open)
}

// Configuration makes a configuration store known under the type "configuration.<product>". See State.
func Configuration[C any](product, doc string, open func(context.Context, Host, C) (configstore.Store, error)) Component {
	return build(ConfigurationBlock, product, doc, open)
}

// Middleware makes HTTP middleware known under the type "middleware.http.<product>". See State.
func Middleware[C any](product, doc string, open func(context.Context, Host, C) (pipeline.Middleware, error)) Component {
	return build(MiddlewareBlock, "http."+product, doc, open)
}

func build[C any, B Backend](block Block, product, doc string, open func(context.Context, Host, C) (B, error)) Component {
	c := Component{block: block, product: product, doc: doc, schema: schemaOf[C](string(block)+"."+product, commonFields[block]...)}
	c.open = func(ctx context.Context, host Host, m metadata) (Backend, error) {
		var config C
		if err := manifest.AsError(c.schema.decode(m, reflect.ValueOf(&config).Elem())); err != nil {
			return nil, err
		}
		b, err := open(ctx, host, config)
		if err != nil {
			return nil, err // not b: an interface that holds a nil pointer is not nil
		}
		return b, nil
	}
	return c
}

// Type is what a manifest says under spec.type: "state.badger".
func (c Component) Type() string { return string(c.block) + "." + c.product }

// Version is what a manifest says under spec.version: "v1" unless the type has several.
func (c Component) Version() string { return cmp.Or(c.version, "v1") }

// Versioned is c under another version of its type.
func (c Component) Versioned(version string) Component {
	c.version = version
	return c
}

// When is c as it is meant by those manifests of its type that give key: the others mean another component of the type.
func (c Component) When(key string) Component {
	c.when = key
	return c
}

// Able is c, whose backends can do what able says, in Dapr's words: ETAG, TRANSACTIONAL, … One that is open, and is Capable,
// says so itself.
func (c Component) Able(able func() []string) Component {
	c.able = able
	return c
}

// option is what backends can do, in Dapr's words, whose manifest has key: true.
type option struct{ key, ability string }

// AbleIf is c, whose backends can do ability, in Dapr's words, where key is true.
func (c Component) AbleIf(key, ability string) Component {
	c.option = option{key, ability}
	return c
}

// in says whether those entries have it.
func (o option) in(entries []Entry) bool {
	return slices.ContainsFunc(entries, func(e Entry) bool {
		said, _ := strconv.ParseBool(e.Value)
		return o.key != "" && e.Key == o.key && said
	})
}

// As is the component under another product name: Dapr's, where it has one for the same thing.
func (c Component) As(product string) Component {
	c.product = product
	c.schema.subject = c.Type()
	return c
}

// choose finds the component that m means. Without one it returns the versions that its type has; none for a type that is
// not known. The type of what another program brings knows no case, as with Dapr. What this program does not have itself,
// another one may bring later.
func choose(known []Component, m Manifest) (found Component, ok bool, versions []string) {
	own, without := false, ""
	for _, c := range known {
		if c.awaited != nil || c.Type() != m.Type && (c.place == "" || !strings.EqualFold(c.Type(), m.Type)) {
			continue
		}
		versions = append(versions, c.Version())
		own, without = own || c.notLinked == "", c.notLinked
		given := slices.ContainsFunc(m.Metadata, func(e Entry) bool { return manifest.FoldKey(e.Key) == manifest.FoldKey(c.when) })
		if c.Version() == cmp.Or(m.Version, "v1") && (given || c.when == "" && !ok) {
			found, ok = c, true
		}
	}
	if !own {
		if c, awaited := await(known, m, without); awaited {
			return c, true, versions
		}
	}
	return found, ok, versions
}

// Block is the block the component serves.
func (c Component) Block() Block { return c.block }

// Doc says in a sentence what the backend is.
func (c Component) Doc() string {
	if c.about != nil {
		return c.about()
	}
	return c.doc
}

// NotLinked says why this program does not have the component, though it is known: "is built without …". It is empty for one
// that can be opened.
func (c Component) NotLinked() string { return c.notLinked }

// Open opens a backend of its own with the metadata given, checked as a manifest's would be. The caller closes it.
func (c Component) Open(ctx context.Context, host Host, settings map[string]string) (Backend, error) {
	m := metadata{values: make(map[string]value, len(settings))}
	for key, text := range settings {
		m.values[manifest.FoldKey(key)] = value{key: key, text: text}
	}
	return c.open(ctx, host, m)
}
