package commands

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/fault/faultgrpc"
	sidecastv1 "github.com/sidecast/sidecast/sdk/proto/sidecast/v1"
)

// stateOptions are what the state commands share.
type stateOptions struct {
	*options
	store string
}

func stateCommand(o *options) *cobra.Command {
	s := &stateOptions{options: o}
	cmd := group(&cobra.Command{
		Use:   "state",
		Short: "Read and write the state of an app",
		Long: `Reads and writes items of a state component. Keys belong to the app of the sidecar that is asked, so
when several sidecars run on this machine --app-id says whose state is meant.

Values are printed as they are stored. With -o json a value that is JSON is printed as JSON, other
text as a string, and bytes that are no text in base64 as valueBase64.`,
	}, s.get(), s.set(), s.delete(), s.list(), s.watch(), s.transact())
	cmd.PersistentFlags().StringVarP(&s.store, "store", "s", "", "name of the state component (default statestore)")
	_ = cmd.RegisterFlagCompletionFunc("store", o.completeComponents("state"))
	return cmd
}

// call runs one state command against its sidecar.
func (s *stateOptions) call(cmd *cobra.Command, do func(ctx context.Context, client sidecastv1.StateClient) error) error {
	ctx, cancel := s.within(cmd.Context(), 0)
	defer cancel()
	return s.dialed(ctx, func(conn *grpc.ClientConn) error { return do(ctx, sidecastv1.NewStateClient(conn)) })
}

// dialed runs do with a connection to the one sidecar meant.
func (o *options) dialed(ctx context.Context, do func(*grpc.ClientConn) error) error {
	conn, err := o.connect(ctx, oneSidecar)
	if err != nil {
		return err
	}
	defer conn.Close()
	return do(conn)
}

// itemView is an item in JSON.
type itemView struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"`
	ValueBase64 []byte          `json:"valueBase64,omitempty"`
	ETag        string          `json:"etag,omitempty"`
	TTL         string          `json:"ttl,omitempty"`
}

func viewItem(i *sidecastv1.Item, keyOnly bool) itemView {
	view := itemView{Key: i.Key, ETag: i.Etag, TTL: ttl(i.Ttl)}
	if !keyOnly {
		value := contentOf(i.Value)
		view.Value, view.ValueBase64 = value.JSON, value.Base64
	}
	return view
}

func (s *stateOptions) get() *cobra.Command {
	return &cobra.Command{
		Use:   "get KEY...",
		Short: "Print the value of one or more keys",
		Long: `Prints the value of a key, exactly as it is stored. Several keys, or -o json, show ETags and times
to live too.

A key that does not exist is exit code 3.`,
		Example: examples(
			`sidecast state get order-7 --app-id orders`,
			`sidecast state get order-7 -o json | jq -r .etag`,
			`sidecast state get a b c`,
		),
		Args:              minArgs("KEY"),
		ValidArgsFunction: s.completeKeys,
		RunE: func(cmd *cobra.Command, keys []string) error {
			return s.call(cmd, func(ctx context.Context, client sidecastv1.StateClient) error {
				answer, err := client.BatchGet(ctx, &sidecastv1.BatchGetRequest{StoreName: s.store, Keys: keys})
				if err != nil {
					return err
				}
				if err := s.printItems(cmd, answer.Items, len(keys) == 1); err != nil {
					return err
				}
				return missing(keys, answer.Items)
			})
		},
	}
}

// printItems prints one value raw, or several in a table; in JSON one object a line.
func (s *stateOptions) printItems(cmd *cobra.Command, items []*sidecastv1.Item, single bool) error {
	if s.json() {
		for _, item := range items {
			if err := printJSON(cmd.OutOrStdout(), viewItem(item, false)); err != nil {
				return err
			}
		}
		return nil
	}
	if single {
		for _, item := range items {
			return printRaw(cmd, item.Value)
		}
		return nil
	}
	return printTable(cmd, items, false)
}

func printTable(cmd *cobra.Command, items []*sidecastv1.Item, keysOnly bool) error {
	if keysOnly {
		for _, item := range items {
			fmt.Fprintln(cmd.OutOrStdout(), item.Key)
		}
		return nil
	}
	t := newTable(cmd.OutOrStdout(), "KEY", "ETAG", "TTL", "VALUE")
	for _, item := range items {
		t.row(item.Key, item.Etag, ttl(item.Ttl), preview(item.Value))
	}
	return t.flush()
}

// missing names the keys that were asked for and not found.
func missing(keys []string, found []*sidecastv1.Item) error {
	have := make(map[string]bool)
	for _, item := range found {
		have[item.Key] = true
	}
	var errs []error
	for _, key := range keys {
		if !have[key] {
			errs = append(errs, fmt.Errorf("there is no key %q", key))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fault.E("state get", fault.NotFound, "", errors.Join(errs...))
}

func (s *stateOptions) set() *cobra.Command {
	var body input
	var etag string
	var firstWrite bool
	var life time.Duration
	cmd := &cobra.Command{
		Use:   "set KEY [VALUE]",
		Short: "Store a value",
		Long: `Stores a value and prints its new ETag once it is durable.

With --etag it is stored only over that version; with --first-write only if there is none. Otherwise
the last write wins. Exit code 4 says that somebody else was there first.`,
		Example: examples(
			`sidecast state set order-7 '{"status":"paid"}' --app-id orders`,
			`sidecast state set order-7 '{"status":"sent"}' --etag "$(sidecast state get order-7 -o json | jq -r .etag)"`,
			`sidecast state set leader "$HOSTNAME" --first-write --ttl 30s`,
			`sidecast state set picture --data-file picture.png`,
		),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 2 {
				return nil
			}
			return exactArgs("KEY")(cmd, args)
		},
		ValidArgsFunction: s.completeKeys,
		RunE: func(cmd *cobra.Command, args []string) error {
			write := &sidecastv1.Write{Key: args[0], Etag: etag, Ttl: optional(life)}
			if firstWrite {
				write.Concurrency = sidecastv1.Concurrency_CONCURRENCY_FIRST_WRITE
			}
			return s.call(cmd, func(ctx context.Context, client sidecastv1.StateClient) (err error) {
				if len(args) == 2 {
					write.Value = []byte(args[1])
				} else if write.Value, err = body.read(ctx, cmd); err != nil {
					return err
				} else if write.Value == nil {
					return usage(cmd, "VALUE is missing: give it as an argument, with --data, --data-file or on standard input")
				}
				answer, err := client.Set(ctx, &sidecastv1.SetRequest{StoreName: s.store, Items: []*sidecastv1.Write{write}})
				if err != nil {
					return err
				}
				return s.printETags(cmd, []string{args[0]}, answer.Etags)
			})
		},
	}
	body.flags(cmd)
	cmd.Flags().StringVar(&etag, "etag", "", "write only over this version")
	cmd.Flags().BoolVar(&firstWrite, "first-write", false, "write only if the key does not exist, or with --etag only over that version")
	cmd.Flags().DurationVar(&life, "ttl", 0, "the item vanishes after this long (default never)")
	return cmd
}

// printETags prints the new version of each key written, in order.
func (s *stateOptions) printETags(cmd *cobra.Command, keys, etags []string) error {
	for i, etag := range etags {
		if s.json() {
			if err := printJSON(cmd.OutOrStdout(), itemView{Key: keys[i], ETag: etag}); err != nil {
				return err
			}
		} else if etag != "" {
			fmt.Fprintln(cmd.OutOrStdout(), etag)
		}
	}
	return nil
}

func (s *stateOptions) delete() *cobra.Command {
	var etag string
	cmd := &cobra.Command{
		Use:     "delete KEY...",
		Aliases: []string{"del", "rm"},
		Short:   "Remove items",
		Long: `Removes items, all or none. Removing what does not exist succeeds unless --etag is given.

Exit code 4 says that an item is not the version that --etag names.`,
		Example: examples(
			`sidecast state delete order-7 --app-id orders`,
			`sidecast state delete order-7 --etag 42`,
		),
		Args:              minArgs("KEY"),
		ValidArgsFunction: s.completeKeys,
		RunE: func(cmd *cobra.Command, keys []string) error {
			if etag != "" && len(keys) > 1 {
				return usage(cmd, "--etag is of one key, not of %d", len(keys))
			}
			ops := make([]*sidecastv1.Operation, len(keys))
			for i, key := range keys {
				ops[i] = &sidecastv1.Operation{Op: &sidecastv1.Operation_Delete{Delete: &sidecastv1.Removal{Key: key}}}
			}
			return s.call(cmd, func(ctx context.Context, client sidecastv1.StateClient) (err error) {
				if len(keys) == 1 {
					_, err = client.Delete(ctx, &sidecastv1.DeleteRequest{StoreName: s.store, Key: keys[0], Etag: etag})
				} else {
					_, err = client.Transact(ctx, &sidecastv1.TransactRequest{StoreName: s.store, Operations: ops})
				}
				return err
			})
		},
	}
	cmd.Flags().StringVar(&etag, "etag", "", "remove only this version")
	return cmd
}

func (s *stateOptions) list() *cobra.Command {
	var prefix string
	var limit int
	var keysOnly bool
	cmd := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List items by the prefix of their keys",
		Long:    `Lists the items whose keys start with a prefix, in the byte order of their keys.`,
		Example: examples(
			`sidecast state list --app-id orders`,
			`sidecast state list --prefix order- --limit 20`,
			`sidecast state list --keys-only | xargs -n 50 sidecast state delete`,
			`sidecast state list --limit 0 -o json > backup.jsonl`,
		),
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usage(cmd, "--limit %d: must not be negative", limit)
			}
			return s.call(cmd, func(ctx context.Context, client sidecastv1.StateClient) error {
				return s.page(ctx, cmd, client, prefix, limit, keysOnly)
			})
		},
	}
	cmd.Flags().StringVarP(&prefix, "prefix", "p", "", "only keys that start with this")
	cmd.Flags().IntVar(&limit, "limit", 100, "print at most so many items; 0 prints all")
	cmd.Flags().BoolVar(&keysOnly, "keys-only", false, "print the keys alone, one a line")
	return cmd
}

// page prints items page by page, so that a long list needs little memory.
func (s *stateOptions) page(ctx context.Context, cmd *cobra.Command, client sidecastv1.StateClient, prefix string, limit int, keysOnly bool) error {
	const largestPage = 1000
	request := &sidecastv1.ListRequest{StoreName: s.store, Prefix: prefix, KeysOnly: keysOnly}
	var shown []*sidecastv1.Item
	for printed := 0; ; {
		request.PageSize = largestPage
		if limit > 0 {
			request.PageSize = int32(min(largestPage, limit-printed))
		}
		answer, err := client.List(ctx, request)
		if err != nil {
			return err
		}
		printed += len(answer.Items)
		for _, item := range answer.Items {
			if !s.json() {
				shown = append(shown, &sidecastv1.Item{Key: item.Key, Etag: item.Etag, Ttl: item.Ttl, Value: []byte(preview(item.Value))})
			} else if err := printJSON(cmd.OutOrStdout(), viewItem(item, keysOnly)); err != nil {
				return err
			}
		}
		request.PageToken = answer.NextPageToken
		if request.PageToken == "" || limit > 0 && printed >= limit {
			break
		}
	}
	if !s.json() {
		if err := printTable(cmd, shown, keysOnly); err != nil {
			return err
		}
	}
	if request.PageToken != "" {
		fmt.Fprintf(cmd.ErrOrStderr(), "There are more; --limit 0 lists all.\n")
	}
	return nil
}

func (s *stateOptions) watch() *cobra.Command {
	var prefix string
	var onlyChanges bool
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print items as they change",
		Long: `Prints the items under a prefix, then each change as it happens, until it is interrupted. --timeout
does not apply.

In text a line is "set KEY ETAG VALUE" or "deleted KEY", and "current" when all that existed was
printed.`,
		Example: examples(
			`sidecast state watch --prefix order- --app-id orders`,
			`sidecast state watch --only-changes -o json | jq -c 'select(.event == "set")'`,
		),
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			return s.dialed(ctx, func(conn *grpc.ClientConn) error {
				stream, err := sidecastv1.NewStateClient(conn).Watch(ctx, &sidecastv1.StateWatchRequest{
					StoreName: s.store, Prefix: prefix, OnlyChanges: onlyChanges,
				})
				if err != nil {
					return err
				}
				return follow(ctx, stream.Recv, func(event *sidecastv1.StateWatchResponse) error { return s.printChange(cmd, event) })
			})
		},
	}
	cmd.Flags().StringVarP(&prefix, "prefix", "p", "", "only keys that start with this")
	cmd.Flags().BoolVar(&onlyChanges, "only-changes", false, "leave out the items that exist already")
	return cmd
}

// follow prints what comes until the stream ends. Being interrupted is how a watch ends: it is no error.
func follow[T any](ctx context.Context, receive func() (*T, error), print func(*T) error) error {
	for {
		event, err := receive()
		switch {
		case err != nil && (ctx.Err() != nil || errors.Is(err, io.EOF)):
			return nil
		case err != nil:
			return faultgrpc.From(err)
		}
		if err := print(event); err != nil {
			return err
		}
	}
}

func (s *stateOptions) printChange(cmd *cobra.Command, event *sidecastv1.StateWatchResponse) error {
	type change struct {
		Event string `json:"event"`
		*itemView
	}
	var view change
	line := "current"
	switch e := event.Event.(type) {
	case *sidecastv1.StateWatchResponse_Set:
		item := viewItem(e.Set, false)
		view = change{"set", &item}
		line = fmt.Sprintf("set %s %s %s", e.Set.Key, e.Set.Etag, preview(e.Set.Value))
	case *sidecastv1.StateWatchResponse_Deleted:
		view = change{"deleted", &itemView{Key: e.Deleted}}
		line = "deleted " + e.Deleted
	default:
		view = change{Event: "current"}
	}
	if s.json() {
		return printJSON(cmd.OutOrStdout(), view)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), line)
	return err
}
