package components

import (
	"reflect"
	"time"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/manifest"
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

func (r *reader) subscription(d *manifest.Document, o *manifest.Object, source Source, version string) {
	s := SubscriptionManifest{Source: source}
	s.Name, s.Namespace = manifest.Identity(o)
	s.Scopes = o.Strs("scopes")

	spec := o.Child("spec")
	s.PubSub = spec.Need("pubsubname", "the pub/sub component")
	s.Topic = spec.Need("topic", "the topic")
	s.DeadLetterTopic = spec.Str("deadLetterTopic")
	s.Route = route(spec, version)
	bulk := spec.Child("bulkSubscribe")
	if bulk.Flag("enabled") {
		d.Add(Finding{
			Line: bulk.Line("enabled"), Key: bulk.At("enabled"), Severity: Error, Reason: fault.NotSupported,
			Message: "bulk subscriptions are not supported yet: events come one by one, several at a time",
		})
	}
	bulk.Ignored = []string{"maxMessagesCount", "maxAwaitDurationMs"}
	bulk.Done()

	var keys subscriptionKeys
	for _, f := range subscriptionSchema.decode(plainMetadata(d, spec), reflect.ValueOf(&keys).Elem()) {
		d.Add(f)
	}
	s.Group, s.MaxDeliveries, s.AckWait, s.Raw, s.OnlyNew = keys.Group, keys.MaxDeliveries, keys.AckWait, keys.RawPayload, keys.OnlyNew
	spec.Done()
	o.Done()
	r.docs.Subscriptions = append(r.docs.Subscriptions, s)
}

// route reads where events go: spec.route in v1alpha1, spec.routes.default in v2alpha1, either in Sidecast's own version.
func route(spec *manifest.Object, version string) string {
	switch {
	case version == daprV1Alpha1, version == sidecastV1 && spec.Node.Get("routes") == nil:
		return spec.Need("route", "the path or handler that takes the events")
	case version == sidecastV1 && spec.Node.Get("route") != nil:
		spec.Doc.Fail(spec.Line("route"), spec.At("route"), "contradicts routes: write one of them")
		spec.Valid = append(spec.Valid, "route")
	}
	routes := spec.Child("routes")
	defer routes.Done()
	if rules := routes.List("rules"); len(rules) > 0 {
		spec.Doc.Add(Finding{
			Line: rules[0].Line, Key: routes.At("rules"), Severity: Error, Reason: fault.NotSupported,
			Message: "routing rules are not supported yet: write routes.default, and choose in the handler",
		})
	}
	return routes.Need("default", "the path or handler that takes the events")
}

// plainMetadata reads a Subscription's metadata, which is a mapping of keys to values.
func plainMetadata(d *manifest.Document, spec *manifest.Object) metadata {
	o := spec.Child("metadata")
	md := metadata{at: Source{File: d.File, Line: spec.Node.Line}, values: make(map[string]value, len(o.Node.Pairs))}
	for _, p := range o.Node.Pairs {
		if v, ok := o.Scalar(p.Key); ok {
			at := Source{File: d.File, Line: p.Line}
			md.values[manifest.FoldKey(p.Key)] = value{key: p.Key, at: at, valueAt: at, text: v.Value.Text}
		}
	}
	return md
}

// other checks the little that is known of documents of kinds that nobody reads.
func other(d *manifest.Document, o *manifest.Object) {
	o.Child("metadata").Need("name", "what it is called")
	d.Add(Finding{Line: o.Line("kind"), Severity: Warning, Message: "kind " + o.Str("kind") + " is not applied yet"})
}
