package components

import (
	"reflect"
	"time"

	"github.com/sidecast/sidecast/manifest"
	"github.com/sidecast/sidecast/routing"
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
	s.Route, s.Routes = route(spec, version)
	bulk := spec.Child("bulkSubscribe")
	if most, wait := bulk.Count("maxMessagesCount"), bulk.Count("maxAwaitDurationMs"); bulk.Flag("enabled") {
		s.Bulk = &Bulk{Most: most, Wait: time.Duration(wait) * time.Millisecond}
	}
	bulk.Done()

	var keys subscriptionKeys
	md := plainMetadata(d, spec)
	s.Metadata = md.texts()
	for _, f := range subscriptionSchema.decode(md, reflect.ValueOf(&keys).Elem()) {
		if f.Unknown && version != sidecastV1 { // Dapr hands all keys to the broker, so its files may hold any
			f.Severity = Warning
		}
		d.Add(f)
	}
	s.Group, s.MaxDeliveries, s.AckWait, s.Raw, s.OnlyNew = keys.Group, keys.MaxDeliveries, keys.AckWait, keys.RawPayload, keys.OnlyNew
	spec.Done()
	o.Done()
	r.docs.Subscriptions = append(r.docs.Subscriptions, s)
}

// route reads where events go: spec.route in v1alpha1, spec.routes in v2alpha1, either in Sidecast's own version.
func route(spec *manifest.Object, version string) (string, []routing.Route) {
	switch {
	case version == daprV1Alpha1, version == sidecastV1 && spec.Node.Get("routes") == nil:
		return spec.Need("route", "the path or handler that takes the events"), nil
	case version == sidecastV1 && spec.Node.Get("route") != nil:
		spec.Doc.Fail(spec.Line("route"), spec.At("route"), "contradicts routes: write one of them")
		spec.Valid = append(spec.Valid, "route")
	}
	routes := spec.Child("routes")
	defer routes.Done()
	var rules []routing.Route
	for _, item := range routes.List("rules") {
		o := spec.Doc.Object(item, routes.At("rules"))
		text := o.Str("match")
		rule, err := routing.Compile(text)
		if err != nil {
			spec.Doc.Fail(o.Line("match"), o.At("match"), "%v", err)
		}
		rules = append(rules, routing.Route{Rule: rule, Path: o.Need("path", "the path or handler that takes the events")})
		o.Done()
	}
	if len(rules) > 0 {
		return routes.Str("default"), rules
	}
	return routes.Need("default", "the path or handler that takes the events"), nil
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

// texts is the metadata as it was written.
func (m metadata) texts() map[string]string {
	if len(m.values) == 0 {
		return nil
	}
	all := make(map[string]string, len(m.values))
	for _, v := range m.values {
		all[v.key] = v.text
	}
	return all
}
