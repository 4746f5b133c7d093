package blocks

import (
	"cmp"
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/appchannel"
	"github.com/sidecast/sidecast/call"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/governance"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/resiliency"
	"github.com/sidecast/sidecast/telemetry"
)

// MaxBatch is the most events of one batch.
const MaxBatch = 1000

const maxDelay = 365 * 24 * time.Hour

// PubSub publishes events and delivers them at least once to each consumer group. The block owns envelopes, limits, lanes,
// dead letters and the pace of redelivery; a broker stores, counts deliveries and hands out what is asked for.
type PubSub struct {
	self       Self
	log        *slog.Logger
	system     *actors.System
	components *components.Set
	app        *App
	credits    int  // of each subscription of the app
	bounded    bool // somebody set them
	// broker is whether the app is asked what it subscribes to only once there is a broker.
	broker bool
	// maxDeliveries is that of subscriptions with a dead-letter topic which say none.
	maxDeliveries int
	lanes         *componentLanes
	deliveries    *deliveryLanes
	metrics       *telemetry.Metrics
	tracer        *telemetry.Tracer

	mu       sync.Mutex
	declared []appchannel.Subscription        // by the manifests
	wanted   []appchannel.Subscription        // by the app
	active   map[subscriptionKey]*appConsumer // of the local app
	streams  map[*appchannel.Subscription]context.CancelCauseFunc
	order    []subscriptionKey // in which the app's subscriptions are told
	watch    *actors.Worker    // follows what the app wants
	leaving  sync.WaitGroup    // stops of subscriptions that nobody wants any more
	ending   []*actors.Worker  // those that the stop of all has to wait for
	stopped  bool

	asked chan struct{} // closed when the app has said what it wants for the first time, or could not
	told  func()        // closes it

	working context.Context // of all deliveries
	cut     func()          // ends it
}

func newPubSub(d Deps, app *App, rules *rulebook) *PubSub {
	credits := d.AppMaxConcurrency
	if credits == 0 {
		credits = defaultEventConcurrency
	}
	working, cut := context.WithCancel(context.Background())
	asked := make(chan struct{})
	return &PubSub{
		maxDeliveries: cmp.Or(d.MaxDeliveries, defaultMaxDeliveries),
		self:          d.Self, log: d.Log, system: d.System, components: d.Components, app: app, credits: credits, bounded: d.AppMaxConcurrency > 0, broker: d.AsDaprd,
		lanes:      newComponentLanes(d, rules, "pubsub", governance.Pubsub),
		deliveries: &deliveryLanes{rules: rules, lanes: map[string]*deliveryLane{}},
		metrics:    d.Metrics, tracer: d.Tracer,
		active:  map[subscriptionKey]*appConsumer{},
		streams: map[*appchannel.Subscription]context.CancelCauseFunc{},
		asked:   asked, told: sync.OnceFunc(func() { close(asked) }),
		working: working, cut: cut,
	}
}

// Draft is an event to publish.
type Draft struct {
	Data        []byte
	ContentType string
	// Header holds CloudEvent extensions, attributes as `cloudevent.<name>`, or the fields of a raw event.
	Header call.Header
	// Key orders the event among those of the same key; Delay keeps it back; Raw leaves the envelope out.
	Key   string
	Delay time.Duration
	Raw   bool
	// Metadata is for the broker, which passes over what it does not know.
	Metadata map[string]string
	// Wrap makes the envelope in the block's place: a CloudEvent in JSON and its id, of the header with its traceparent. A
	// front door whose clients know another form of it sets it.
	Wrap func(call.Header) (id string, envelope []byte, err error)
	// Judged gives a failure of the broker the form by which policies match it, where the front door has one.
	Judged func(error) error
}

// Published is what became of one draft.
type Published struct {
	ID  string
	Err error
}

// Publish stores one event and returns its id.
func (p *PubSub) Publish(ctx context.Context, component, topic string, draft Draft) (id string, err error) {
	results, err := p.publish(ctx, component, topic, []Draft{draft}, "publish")
	if err != nil {
		return "", err
	}
	return results[0].ID, results[0].Err
}

// PublishBatch stores many events, in order, and says for each what became of it. It fails as a whole only when nothing
// was stored.
func (p *PubSub) PublishBatch(ctx context.Context, component, topic string, drafts []Draft) ([]Published, error) {
	if len(drafts) > MaxBatch {
		return nil, fault.New("publish "+topic, fault.BadRequest, "%d events in one batch; at most %d are allowed", len(drafts), MaxBatch)
	}
	results, err := p.publish(ctx, component, topic, drafts, "publish_batch")
	if results != nil { // some were stored: what failed is told with its own result
		return results, nil
	}
	return nil, err
}

// publish returns no results when nothing was stored, and results and an error when not everything was.
func (p *PubSub) publish(ctx context.Context, component, topic string, drafts []Draft, op string) (results []Published, err error) {
	if err := checkName("publish", "the topic", topic, maxTopic, fault.TopicInvalid); err != nil {
		return nil, err
	}
	use, err := p.components.PubSub(ctx, component)
	if err != nil {
		return nil, err
	}
	defer use.Release()
	if !use.Topics.Publish(topic) {
		return nil, fault.New("publish "+topic, fault.TopicDenied, "topic %s is not allowed for app id %s", topic, p.self.AppID)
	}
	ctx, record := p.lanes.begin(ctx, use.Name, op)
	defer record.end(&err)

	results = make([]Published, len(drafts))
	out := batch{alone: op == "publish", results: results, messages: make([]pubsub.Message, 0, len(drafts)), index: make([]int, 0, len(drafts))}
	for i := range drafts {
		p.draft(ctx, &out, i, use.Name, topic, &drafts[i])
	}
	err = p.lanes.of(use.Name).Do(ctx, resiliency.Call{Op: op}, func(ctx context.Context, _ actors.Grant) error {
		err := out.send(ctx, use.Backend, use.Topics.OnServer(topic))
		if err != nil && drafts[0].Judged != nil {
			err = drafts[0].Judged(err)
		}
		return err
	})
	if err != nil && out.stored == 0 && len(out.messages) > 0 {
		return nil, err
	}
	if len(drafts) == 1 {
		err = results[0].Err
	}
	return results, err
}

// draft validates and wraps one draft, and puts it in the batch or its error in the results.
func (p *PubSub) draft(ctx context.Context, out *batch, i int, component, topic string, draft *Draft) {
	if draft.Delay < 0 || draft.Delay > maxDelay {
		out.results[i].Err = fault.New("publish "+topic, fault.DelayInvalid, "the delay is %s; it must be positive and at most %s", draft.Delay, maxDelay)
		return
	}
	span := p.tracer.Publish(ctx, &draft.Header, topic, out.alone || draft.Raw)
	defer span.End(&out.results[i].Err)
	message, err := wrap(p.self, component, topic, draft)
	if err != nil {
		out.results[i].Err = err
		return
	}
	out.results[i].ID = message.ID
	out.messages = append(out.messages, message)
	out.index = append(out.index, i)
}

// batch is a batch on its way to a broker.
type batch struct {
	alone    bool // it is no batch, but one event
	results  []Published
	messages []pubsub.Message
	index    []int // of each message's result
	stored   int
}

// send publishes what is not stored yet: a retry after a failure in the middle repeats nothing that was acknowledged.
func (o *batch) send(ctx context.Context, broker pubsub.Broker, topic string) error {
	var first error
	var messages []pubsub.Message
	var index []int
	if len(o.messages) == 0 {
		return nil
	}
	for i, err := range broker.Publish(ctx, topic, o.messages) {
		at := o.index[i]
		o.results[at].Err = err
		if err == nil {
			o.stored++
			continue
		}
		if first == nil {
			first = err
		}
		messages, index = append(messages, o.messages[i]), append(index, at)
	}
	if first != nil {
		o.messages, o.index = messages, index
	}
	return first
}
