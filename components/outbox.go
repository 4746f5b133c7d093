package components

import (
	"strings"

	"github.com/sidecast/sidecast/manifest"
)

// outboxFields are the keys of a state store's outbox, with Dapr's names. The State block obeys them.
var outboxFields = []Field{
	{Key: "outboxPublishPubsub", Type: "string", index: -1,
		Doc: "Broker that transactions publish what they write to, all or nothing: see docs/concepts/outbox.md. Needs outboxPublishTopic."},
	{Key: "outboxPublishTopic", Type: "string", index: -1,
		Doc: "Topic that transactions publish what they write to. Needs outboxPublishPubsub."},
	{Key: "outboxPubsub", Type: "string", index: -1,
		Doc: "Accepted and without effect: events wait in the store itself until they are published, not in a broker."},
	{Key: "outboxDiscardWhenMissingState", Type: "bool", index: -1,
		Doc: "Accepted and without effect: an event is in the store if and only if its transaction is."},
}

// Outbox says where the transactions of a state store publish what they write. The zero Outbox publishes nothing.
type Outbox struct{ PubSub, Topic string }

// On says whether anything is published.
func (o Outbox) On() bool { return o.PubSub != "" && o.Topic != "" }

func outboxOf(m Manifest) Outbox {
	var o Outbox
	for _, e := range m.Metadata {
		switch manifest.FoldKey(e.Key) {
		case "outboxpublishpubsub":
			o.PubSub = strings.TrimSpace(e.Value)
		case "outboxpublishtopic":
			o.Topic = strings.TrimSpace(e.Value)
		}
	}
	return o
}

// checkOutbox reports an outbox of which half is missing, or is not known before the store is open: nothing would be published,
// and nobody would know.
func checkOutbox(d *manifest.Document, m Manifest) {
	o := outboxOf(m)
	for _, e := range m.Metadata {
		if key := manifest.FoldKey(e.Key); (e.Secret != nil || e.Env != "") && (key == "outboxpublishpubsub" || key == "outboxpublishtopic") {
			d.Fail(e.Line, "spec.metadata."+e.Key, "must be a plain value")
			return
		}
	}
	if o == (Outbox{}) || o.On() {
		return
	}
	for _, e := range m.Metadata {
		switch key := manifest.FoldKey(e.Key); {
		case key == "outboxpublishpubsub" && o.PubSub != "":
			d.Fail(e.Line, "spec.metadata."+e.Key, "needs outboxPublishTopic beside it")
		case key == "outboxpublishtopic" && o.Topic != "":
			d.Fail(e.Line, "spec.metadata."+e.Key, "needs outboxPublishPubsub beside it")
		}
	}
}

// Outbox is that of the state store of that name; of one that the app may not use it is the zero Outbox.
func (s *Set) Outbox(name string) Outbox {
	if slot := s.current.Load().slots[name]; slot != nil && slot.component.block == StateBlock && !slot.denied {
		return slot.outbox
	}
	return Outbox{}
}

// Outboxes names the state stores with an outbox that the app may use, sorted.
func (s *Set) Outboxes() []string {
	var names []string
	for _, slot := range s.current.Load().sorted() {
		if slot.component.block == StateBlock && !slot.denied && slot.outbox.On() {
			names = append(names, slot.manifest.Name)
		}
	}
	return names
}
