package fabric

import (
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/sidecast/sidecast/fabric/subject"
	"github.com/sidecast/sidecast/fault"
)

// Broadcast says something to whoever listens to a topic in this namespace, this sidecar included: at most once, and only
// while the fabric can be reached. It goes to sc.<namespace>.<topic>.<app>.<instance>, so that NATS permissions can hold a
// sidecar to its own name. The topic is one subject token, and neither `call` nor `presence`.
func (f *Fabric) Broadcast(topic string, payload []byte) error {
	if !f.link.up.Load() {
		return downFault("broadcast "+topic, errDown)
	}
	own := f.prefix + topic + "." + subject.Token(f.config.AppID) + "." + subject.Token(f.config.Instance)
	if err := f.link.nc.Publish(own, payload); err != nil {
		return downFault("broadcast "+topic, err)
	}
	return nil
}

// Listen puts what is broadcast on a topic into heard, which drops what it has no room for, until stop is called. The
// channel is not closed. It goes on over the loss of the server.
func (f *Fabric) Listen(topic string, heard chan *nats.Msg) (stop func(), err error) {
	sub, err := f.link.nc.ChanSubscribe(f.prefix+topic+".*.*", heard)
	if err != nil {
		return nil, fault.New("listen to "+topic, fault.FabricDown, "%w", err)
	}
	return func() { _ = sub.Unsubscribe() }, nil // it fails only when the connection is closed, and the subscription with it
}

// Speaker is who broadcast a message; false when its subject names nobody.
func Speaker(m *nats.Msg) (Target, bool) {
	tokens := strings.Split(m.Subject, ".")
	if len(tokens) < 2 {
		return Target{}, false
	}
	app, errApp := subject.Untoken(tokens[len(tokens)-2])
	instance, errInstance := subject.Untoken(tokens[len(tokens)-1])
	return Target{app, instance}, errApp == nil && errInstance == nil
}

// Self is this sidecar as others see it.
func (f *Fabric) Self() Target { return Target{f.config.AppID, f.config.Instance} }
