package components

import (
	"cmp"
	"reflect"
	"slices"
	"time"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/routing"
)

// BuiltIn is the File of the Source of a component that no manifest names.
const BuiltIn = "built in"

// Manifest is a Component as a user wrote it.
type Manifest struct {
	// Name is unique over all blocks. A manifest with a Namespace is for sidecars of that namespace alone.
	Name, Namespace string
	// Type is the Component's: state.badger. Version is that of the type; "" means v1.
	Type, Version string
	Source        Source
	// Required makes the sidecar fail to start when the component cannot. All others are retried and reported.
	Required bool
	// IgnoreErrors passes a middleware over that cannot be opened; without it such a one lets no request through. The others
	// are as with it.
	IgnoreErrors bool
	// InitTimeout is how long a first user waits for the component to open; 0 means 5 s.
	InitTimeout time.Duration
	// SecretStore names the component that looks secretKeyRefs up; "" means the environment.
	SecretStore string
	// Scopes lists the apps that may use the component; empty means all.
	Scopes []string
	// Metadata is what the user wrote under spec.metadata, in order.
	Metadata []Entry
}

// Entry is one key of spec.metadata: it has a Value, or a reference that is resolved when the component is opened.
type Entry struct {
	Key   string
	Value string
	// Secret is set for a secretKeyRef, Env for an envRef.
	Secret *SecretRef
	Env    string
	Line   int

	valueLine int    // where it differs from Line
	section   string // where the manifest has it; "" is spec.metadata
}

// path is where the entry stands in its manifest.
func (e Entry) path() string { return cmp.Or(e.section, "spec.metadata") + "." + e.Key }

// SecretRef names a secret, and the part of it that is meant; Key is Name for secrets with a single value.
type SecretRef struct{ Name, Key string }

// String names the key and never shows the value: it may be a password.
func (e Entry) String() string { return e.Key }

// GoString is String, so that no verb of fmt shows the value.
func (e Entry) GoString() string { return e.Key }

// MarshalText is String, so that no log handler shows the value.
func (e Entry) MarshalText() ([]byte, error) { return []byte(e.Key), nil }

// admits says whether app is in the scopes.
func admits(scopes []string, app string) bool {
	return len(scopes) == 0 || slices.Contains(scopes, app)
}

// same says whether a backend opened for m serves o as well: they differ in their places alone.
func (m Manifest) same(o Manifest) bool {
	bare := func(m Manifest) Manifest {
		m.Source, m.Metadata = Source{File: m.Source.File}, slices.Clone(m.Metadata)
		for i := range m.Metadata {
			m.Metadata[i].Line, m.Metadata[i].valueLine = 0, 0
		}
		return m
	}
	return reflect.DeepEqual(bare(m), bare(o))
}

// metadata is the manifest's metadata with its references unresolved.
func (m Manifest) metadata() metadata {
	md := metadata{at: m.Source, values: make(map[string]value, len(m.Metadata))}
	for _, e := range m.Metadata {
		md.values[manifest.FoldKey(e.Key)] = value{
			key: e.Key, at: Source{File: m.Source.File, Line: e.Line}, valueAt: Source{File: m.Source.File, Line: cmp.Or(e.valueLine, e.Line)},
			text: e.Value, pending: e.Secret != nil || e.Env != "",
		}
	}
	return md
}

// SubscriptionManifest is a Subscription as a user wrote it: an event that the app wants without asking for it itself.
type SubscriptionManifest struct {
	Name, Namespace string
	Source          Source
	// PubSub is the component, Topic the topic, Group the consumer group ("" means the app id), Route the path or handler.
	PubSub, Topic, Group, Route string
	// Routes are the rules that lead events elsewhere than to Route, in order.
	Routes []routing.Route
	// Metadata is what the user wrote under spec.metadata.
	Metadata map[string]string
	// Bulk asks for several events at once; nil for one at a time.
	Bulk *Bulk
	// DeadLetterTopic takes what was dropped or delivered MaxDeliveries times in vain; "" means none.
	DeadLetterTopic string
	// MaxDeliveries is 0 for the default: 5 with a dead-letter topic, no limit without.
	MaxDeliveries int
	// AckWait is how long a delivery may go unanswered once its handler is gone; 0 means 10 s.
	AckWait time.Duration
	// Raw delivers payloads as they are stored; OnlyNew starts a new group at what comes from now on.
	Raw, OnlyNew bool
	// Scopes lists the apps that have the subscription; empty means all.
	Scopes []string
}

// Bulk bounds what is delivered at once: at most Most events, 0 for the default, waiting for them at most Wait.
type Bulk struct {
	Most int
	Wait time.Duration
}

// For says whether the subscription is meant for app in namespace.
func (s SubscriptionManifest) For(namespace, app string) bool {
	return inNamespace(s.Namespace, namespace) && admits(s.Scopes, app)
}

// inNamespace says whether something written for the namespace wanted is seen from the namespace own.
func inNamespace(wanted, own string) bool {
	return wanted == "" || own == "" || wanted == own
}

// Documents is what a set of folders holds: all of it is valid.
type Documents struct {
	Components    []Manifest
	Subscriptions []SubscriptionManifest
	// Endpoints are HTTP servers outside the fabric.
	Endpoints []EndpointManifest
	// Policies are the documents about resiliency, which package governance reads.
	Policies []Raw
	// Configurations are the documents that package configuration reads.
	Configurations []Raw
	// Warnings is what the user should know though nothing is wrong.
	Warnings []Finding
}

// Deny takes out the components of types that may not be used, each written as type or type/version, and returns their names.
func (d *Documents) Deny(types []string) (names []string) {
	if len(types) == 0 {
		return nil
	}
	d.Components = slices.DeleteFunc(d.Components, func(m Manifest) bool {
		denied := slices.Contains(types, m.Type) || slices.Contains(types, m.Type+"/"+cmp.Or(m.Version, "v1"))
		if denied {
			names = append(names, m.Name)
		}
		return denied
	})
	return names
}
