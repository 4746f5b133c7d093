package commands

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// largestBatch is the most events that one PublishBatch takes.
const largestBatch = 1000

// publication is the flags of publish.
type publication struct {
	body        input
	pubsub      string
	contentType string
	key         string
	delay       time.Duration
	raw         bool
	id          string
	headers     []string
	count       int
	lines       bool
}

func publishCommand(o *options) *cobra.Command {
	p := &publication{}
	cmd := &cobra.Command{
		Use:   "publish TOPIC",
		Short: "Publish events to a topic",
		Long: `Publishes an event and prints its id once it is stored. Every consumer group of the topic gets it at
least once.

With --lines each line of the body is an event of its own, and with --count the same event is
published so many times; both go in batches, and an id is printed for each event.`,
		Example: examples(
			`sidecast publish orders.placed --data '{"id":7}'`,
			`sidecast publish orders.placed -d '{"id":7}' --key customer-12   # in order with others of that key`,
			`sidecast publish reminders -d 'wake up' --delay 10m`,
			`sidecast publish orders.placed --lines < orders.jsonl`,
			`sidecast publish load.test -d x --count 10000 -o json`,
		),
		Args: exactArgs("TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := o.within(cmd.Context(), 0)
			defer cancel()
			entries, err := p.entries(ctx, cmd)
			if err != nil {
				return err
			}
			conn, err := o.connect(ctx, anySidecar)
			if err != nil {
				return err
			}
			defer conn.Close()
			client := sidecastv1.NewPubSubClient(conn)
			if len(entries) == 1 {
				return p.one(ctx, cmd, o, client, args[0], entries[0])
			}
			return p.batches(ctx, cmd, o, client, args[0], entries)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	p.body.flags(cmd)
	flags := cmd.Flags()
	flags.StringVar(&p.pubsub, "pubsub", "", "name of the pub/sub component (default pubsub)")
	flags.StringVar(&p.contentType, "content-type", "", "media type of the body (default application/json for JSON, text/plain for text)")
	flags.StringVarP(&p.key, "key", "k", "", "partition key: events of one key are delivered in order")
	flags.DurationVar(&p.delay, "delay", 0, "deliver no sooner than this long from now")
	flags.BoolVar(&p.raw, "raw", false, "store the body as it is, without a CloudEvents envelope")
	flags.StringVar(&p.id, "id", "", "id of the CloudEvent (default a new one)")
	flags.StringArrayVarP(&p.headers, "header", "H", nil, "CloudEvents extension, or header with --raw, as `name=value`; may be repeated")
	flags.IntVar(&p.count, "count", 1, "publish the same event so many times")
	flags.BoolVar(&p.lines, "lines", false, "each line of the body is an event")
	cmd.MarkFlagsMutuallyExclusive("count", "lines")
	cmd.MarkFlagsMutuallyExclusive("count", "id")
	cmd.MarkFlagsMutuallyExclusive("lines", "id")
	_ = cmd.RegisterFlagCompletionFunc("pubsub", o.completeComponents("pubsub"))
	return cmd
}

// entries are the events to publish.
func (p *publication) entries(ctx context.Context, cmd *cobra.Command) ([]*sidecastv1.PublishBatchEntry, error) {
	if p.count < 1 {
		return nil, usage(cmd, "--count %d: must be 1 or more", p.count)
	}
	metadata, err := pairs(cmd, "header", p.headers)
	if err != nil {
		return nil, err
	}
	if p.id != "" {
		if metadata == nil {
			metadata = make(map[string]string)
		}
		metadata["cloudevent.id"] = p.id
	}
	body, err := p.body.read(ctx, cmd)
	if err != nil {
		return nil, err
	}
	bodies := make([][]byte, p.count)
	for i := range bodies {
		bodies[i] = body
	}
	if p.lines {
		bodies = bytes.FieldsFunc(body, func(r rune) bool { return r == '\n' || r == '\r' })
		if len(bodies) == 0 {
			return nil, usage(cmd, "--lines: the body has no line")
		}
	}
	entries := make([]*sidecastv1.PublishBatchEntry, len(bodies))
	for i, body := range bodies {
		entries[i] = &sidecastv1.PublishBatchEntry{
			Data: body, ContentType: p.mediaType(body), Metadata: metadata, PartitionKey: p.key, Delay: optional(p.delay), Raw: p.raw,
		}
	}
	return entries, nil
}

func (p *publication) mediaType(body []byte) string {
	switch {
	case p.contentType != "":
		return p.contentType
	case json.Valid(body):
		return "application/json"
	case utf8.Valid(body):
		return "text/plain"
	default:
		return "application/octet-stream"
	}
}

func (p *publication) one(ctx context.Context, cmd *cobra.Command, o *options, client sidecastv1.PubSubClient, topic string, e *sidecastv1.PublishBatchEntry) error {
	answer, err := client.Publish(ctx, &sidecastv1.PublishRequest{
		PubsubName: p.pubsub, Topic: topic, Data: e.Data, ContentType: e.ContentType, Metadata: e.Metadata,
		PartitionKey: e.PartitionKey, Delay: e.Delay, Raw: e.Raw,
	})
	if err != nil {
		return err
	}
	return printID(cmd, o, answer.Id)
}

// batches publishes the entries in their order and prints the id of each that was stored. It stops at the first that
// was not, since those after it would overtake it.
func (p *publication) batches(ctx context.Context, cmd *cobra.Command, o *options, client sidecastv1.PubSubClient, topic string, entries []*sidecastv1.PublishBatchEntry) error {
	stored := 0
	for start := 0; start < len(entries); start += largestBatch {
		batch := entries[start:min(start+largestBatch, len(entries))]
		answer, err := client.PublishBatch(ctx, &sidecastv1.PublishBatchRequest{PubsubName: p.pubsub, Topic: topic, Entries: batch})
		if err != nil {
			return tooFew(err, stored, len(entries))
		}
		var failed error
		for _, result := range answer.Results {
			if result.Error != nil {
				failed = faultgrpc.FromProto(result.Error)
				continue
			}
			stored++
			if err := printID(cmd, o, result.Id); err != nil {
				return err
			}
		}
		if failed != nil {
			return tooFew(failed, stored, len(entries))
		}
	}
	return nil
}

// tooFew keeps the kind and reason of err and says how far it went.
func tooFew(err error, stored, all int) error {
	return fault.E(fmt.Sprintf("publish: %d of %d events were stored", stored, all), fault.KindOf(err), fault.ReasonOf(err), err).
		After(fault.RetryAfter(err))
}

func printID(cmd *cobra.Command, o *options, id string) error {
	if o.json() {
		return printJSON(cmd.OutOrStdout(), map[string]string{"id": id})
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), id)
	return err
}
