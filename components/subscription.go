package components

import (
	"reflect"
	"time"

	"github.com/sidecast/sidecast/fault"
)

// subscriptionKeys is what a Subscription may say under spec.metadata.
type subscriptionKeys struct {
	Group         string        `meta:"group" doc:"Consumer group; the app id when left out."`
	MaxDeliveries int           `meta:"maxDeliveries" min:"0" doc:"Deliveries before an event goes to the dead-letter topic."`
	AckWait       time.Duration `meta:"ackWait" min:"1s" doc:"How long a delivery may go unanswered once its handler is gone."`
	RawPayload    bool          `meta:"rawPayload" doc:"Deliver payloads as they are stored, not as CloudEvents."`
	OnlyNew       bool          `meta:"onlyNew" doc:"Start a new group at what is published from now on."`
}

var subscriptionSchema = schemaOf[subscriptionKeys]("a Subscription")

func (r *reader) subscription(d *document, o *object, source Source, version string) {
	s := SubscriptionManifest{Source: source}
	s.Name, s.Namespace = identity(o)
	s.Scopes = o.strs("scopes")

	spec := o.child("spec")
	s.PubSub = spec.need("pubsubname", "the pub/sub component")
	s.Topic = spec.need("topic", "the topic")
	s.DeadLetterTopic = spec.str("deadLetterTopic")
	s.Route = route(spec, version)
	bulk := spec.child("bulkSubscribe")
	if bulk.flag("enabled") {
		d.add(Finding{
			Line: bulk.line("enabled"), Key: bulk.at("enabled"), Severity: Error, reason: fault.NotSupported,
			Message: "bulk subscriptions are not supported yet: events come one by one, several at a time",
		})
	}
	bulk.ignored = []string{"maxMessagesCount", "maxAwaitDurationMs"}
	bulk.done()

	var keys subscriptionKeys
	for _, f := range subscriptionSchema.decode(plainMetadata(d, spec), reflect.ValueOf(&keys).Elem()) {
		d.add(f)
	}
	s.Group, s.MaxDeliveries, s.AckWait, s.Raw, s.OnlyNew = keys.Group, keys.MaxDeliveries, keys.AckWait, keys.RawPayload, keys.OnlyNew
	spec.done()
	o.done()
	r.docs.Subscriptions = append(r.docs.Subscriptions, s)
}

// route reads where events go: spec.route in v1alpha1, spec.routes.default in v2alpha1, either in Sidecast's own version.
func route(spec *object, version string) string {
	switch {
	case version == daprV1Alpha1, version == sidecastV1 && spec.node.get("routes") == nil:
		return spec.need("route", "the path or handler that takes the events")
	case version == sidecastV1 && spec.node.get("route") != nil:
		spec.doc.fail(spec.line("route"), spec.at("route"), "contradicts routes: write one of them")
		spec.valid = append(spec.valid, "route")
	}
	routes := spec.child("routes")
	defer routes.done()
	if rules := routes.list("rules"); len(rules) > 0 {
		spec.doc.add(Finding{
			Line: rules[0].line, Key: routes.at("rules"), Severity: Error, reason: fault.NotSupported,
			Message: "routing rules are not supported yet: write routes.default, and choose in the handler",
		})
	}
	return routes.need("default", "the path or handler that takes the events")
}

// plainMetadata reads a Subscription's metadata, which is a mapping of keys to values.
func plainMetadata(d *document, spec *object) metadata {
	o := spec.child("metadata")
	md := metadata{at: Source{d.file, spec.node.line}, values: make(map[string]value, len(o.node.pairs))}
	for _, p := range o.node.pairs {
		if v, ok := o.scalar(p.key); ok {
			at := Source{d.file, p.line}
			md.values[foldKey(p.key)] = value{key: p.key, at: at, valueAt: at, text: v.value.text}
		}
	}
	return md
}

// other keeps documents of the kinds that this package does not read.
func (r *reader) other(d *document, o *object, raw Raw) {
	m := o.child("metadata")
	raw.Name, raw.Namespace = m.need("name", "what it is called"), m.str("namespace")
	d.add(Finding{Line: o.line("kind"), Severity: Warning, Message: "kind " + raw.Kind + " is not applied yet"})
	if raw.Kind == "Resiliency" {
		r.docs.Resiliency = append(r.docs.Resiliency, raw)
	}
}
