package appchannel

import (
	"cmp"
	"errors"
	"math"
	"slices"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/fault"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// This file turns what the app says on the wire into the words of this package; all channels share it.

// fromApp is an error of the app's own handler as its caller sees it: kind and reason are the app's. A reason by which
// the runtime says that work never began is no longer true of a call that the app worked on, say one that failed because
// a call of its own was refused; such a reason becomes AppFailed and a fact. Only the app itself can say that it has no
// such handler.
func fromApp(op string, err error) error {
	if err == nil {
		return nil
	}
	e := &fault.Error{Kind: fault.KindOf(err), Reason: fault.AppFailed, Err: err}
	var given *fault.Error
	if errors.As(err, &given) {
		e = fault.E("", given.Kind, given.Reason, given.Err)
		e.RetryAfter, e.Meta = given.RetryAfter, given.Meta
	}
	e.Op = op
	switch {
	case e.Reason == "":
		e.Reason = fault.AppFailed
	case e.Reason.NotSent() && e.Reason != fault.HandlerNotFound:
		e = e.With("reason", string(e.Reason))
		e.Reason = fault.AppFailed
	}
	return e
}

// responseOf is the app's answer; it takes the body over.
func responseOf(r *sidecastv1.InvokeResponse) *call.Response {
	return &call.Response{
		Status: int(r.GetHttpStatus()), ContentType: r.GetContentType(), Header: call.HeaderOf(r.GetMetadata()), Body: r.GetData(),
	}
}

// outcomeOf is the app's answer to an event.
func outcomeOf(op string, status sidecastv1.EventStatus, delay *durationpb.Duration, reason string) (Outcome, error) {
	o := Outcome{Reason: reason}
	switch status {
	case sidecastv1.EventStatus_EVENT_STATUS_UNSPECIFIED, sidecastv1.EventStatus_EVENT_STATUS_SUCCESS:
		o.Verdict = Success
	case sidecastv1.EventStatus_EVENT_STATUS_RETRY:
		o.Verdict, o.Delay = Retry, max(0, delay.AsDuration())
	case sidecastv1.EventStatus_EVENT_STATUS_DROP:
		o.Verdict = Drop
	default:
		return Outcome{}, fault.New(op, fault.AppAnswer, "the app answered the event with status %d, which does not exist", status)
	}
	return o, nil
}

// fillEvent sets all of e but the time.
func fillEvent(e *sidecastv1.Event, event *Event, metadata map[string]string) {
	e.Id, e.PubsubName, e.Topic, e.Route = event.ID, event.PubSub, event.Topic, event.Route
	e.Data, e.ContentType, e.Metadata = event.Data, event.ContentType, metadata
	e.Source, e.Type, e.Subject, e.PartitionKey = event.Source, event.Type, event.Subject, event.Key
	e.Delivery = int32(min(event.Delivery, math.MaxInt32))
	e.Time = nil
}

// subscriptionsOf reads what an app listed.
func subscriptionsOf(list []*sidecastv1.Subscription) []Subscription {
	all := make([]Subscription, 0, len(list))
	for _, s := range list {
		all = append(all, Subscription{
			PubSub: s.GetPubsubName(), Topic: s.GetTopic(), Group: s.GetGroup(), Route: s.GetRoute(),
			DeadLetterTopic: s.GetDeadLetterTopic(), MaxDeliveries: max(0, int(s.GetMaxDeliveries())),
			AckWait: max(0, s.GetAckWait().AsDuration()), Raw: s.GetRaw(), OnlyNew: s.GetOnlyNew(),
		})
	}
	return all
}

// route is where the app wants the events: the topic unless it says otherwise.
func (s Subscription) route() string {
	if s.Route != "" {
		return s.Route
	}
	return s.Topic
}

// merge keeps one subscription of each topic, group and route, the first, in the order in which they come.
func merge(all []Subscription) []Subscription {
	kept := make([]Subscription, 0, len(all))
	for _, s := range all {
		if !slices.ContainsFunc(kept, func(k Subscription) bool {
			return k.PubSub == s.PubSub && k.Topic == s.Topic && k.Group == s.Group && k.route() == s.route()
		}) {
			kept = append(kept, s)
		}
	}
	return kept
}

func (s Subscription) compare(t Subscription) int {
	return cmp.Or(cmp.Compare(s.PubSub, t.PubSub), cmp.Compare(s.Topic, t.Topic), cmp.Compare(s.Group, t.Group))
}
