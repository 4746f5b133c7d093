package contrib

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	etcdpb "github.com/dapr/components-contrib/common/proto/state/etcd/v2"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	statefeed "github.com/sidecast/sidecast/state/feed"
)

// etcdLayout is how a value is stored.
type etcdLayout interface {
	encode(value []byte, ttl int64) string
	// decode returns the value and when it ends, where it says so.
	decode(stored []byte) (value []byte, ends time.Time, err error)
}

type plainValue struct{}

func (plainValue) encode(value []byte, _ int64) string { return string(value) }

func (plainValue) decode(stored []byte) ([]byte, time.Time, error) { return stored, time.Time{}, nil }

type datedValue struct{}

func (datedValue) encode(value []byte, ttl int64) string {
	text, _ := proto.Marshal(&etcdpb.Value{Data: value, Ts: timestamppb.Now(), Ttl: &durationpb.Duration{Seconds: ttl}}) // bytes and numbers: it cannot fail
	return string(text)
}

func (datedValue) decode(stored []byte) ([]byte, time.Time, error) {
	var value etcdpb.Value
	if err := proto.Unmarshal(stored, &value); err != nil {
		return nil, time.Time{}, err
	}
	if value.GetTtl().GetSeconds() == 0 {
		return value.GetData(), time.Time{}, nil
	}
	return value.GetData(), value.GetTs().AsTime().Add(value.GetTtl().AsDuration()), nil
}

// item is what kv holds, or its key and times alone.
func (e *etcdStore) item(ctx context.Context, kv *mvccpb.KeyValue, keyOnly bool) (state.Item, error) {
	item := state.Item{Key: strings.TrimPrefix(string(kv.Key), e.base), ETag: strconv.FormatInt(kv.ModRevision, 10)}
	var ends time.Time
	if !keyOnly {
		var err error
		if item.Value, ends, err = e.layout.decode(kv.Value); err != nil {
			return item, err
		}
	}
	if kv.Lease == 0 {
		return item, nil
	}
	if at, ours := leaseEnd(kv.Lease); ours {
		ends = at
	}
	if ends.IsZero() { // a lease of another program: the server tells how many seconds are left
		left, err := e.client.TimeToLive(ctx, clientv3.LeaseID(kv.Lease))
		if err != nil {
			return item, err
		}
		ends = time.Now().Add(time.Duration(max(left.TTL, 0)) * time.Second).UTC().Truncate(time.Second)
	}
	item.Expires = ends
	return item, nil
}

// grant makes a lease with a number of our choice, which the client does not offer.
func (e *etcdStore) grant(ctx context.Context, id clientv3.LeaseID, ttl int64) error {
	_, err := pb.NewLeaseClient(e.client.ActiveConnection()).LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: int64(id), TTL: ttl})
	return rpctypes.Error(err)
}

// Scan implements state.Scanner.
func (e *etcdStore) Scan(ctx context.Context, prefix, after string, limit int, keysOnly bool) ([]state.Item, error) {
	const op = "state.etcd: scan"
	calling, leave, err := e.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	items, _, err := e.list(calling, prefix, after, limit, keysOnly, 0)
	if err != nil {
		return nil, e.failure(ctx, op, err)
	}
	return items, nil
}

// list is a page of what has prefix, at a revision (0: now), and that revision.
func (e *etcdStore) list(ctx context.Context, prefix, after string, limit int, keysOnly bool, revision int64) ([]state.Item, int64, error) {
	from, end := e.base+prefix, clientv3.GetPrefixRangeEnd(e.base+prefix)
	if next := e.base + after + "\x00"; after != "" && next > from {
		if from = next; from >= end && end != "\x00" {
			return nil, revision, nil
		}
	}
	options := []clientv3.OpOption{clientv3.WithRange(end), clientv3.WithLimit(int64(limit)), clientv3.WithRev(revision)}
	if keysOnly {
		options = append(options, clientv3.WithKeysOnly())
	}
	answer, err := e.client.Get(ctx, from, options...)
	if err != nil {
		return nil, 0, err
	}
	items := make([]state.Item, len(answer.Kvs))
	for i, kv := range answer.Kvs {
		if items[i], err = e.item(ctx, kv, keysOnly); err != nil {
			return nil, 0, err
		}
	}
	return items, answer.Header.Revision, nil
}

// watchPage is how many items of a watch's beginning are read at once.
const watchPage = 500

// Watch implements state.Watcher. The client keeps what comes without a bound: a goroutine takes it from there, and folds it.
func (e *etcdStore) Watch(ctx context.Context, prefix string, onlyChanges bool, fn func(state.Event) error) error {
	const op = "state.etcd: watch"
	failed := func(err error) error {
		if ctx.Err() != nil {
			return statefeed.Ended(op, ctx)
		}
		return err
	}
	calling, leave, err := e.life.enter(ctx, op)
	if err != nil {
		return failed(err)
	}
	defer leave()
	calling, cancel := context.WithCancel(calling)
	defer context.AfterFunc(e.watched, cancel)()
	limit := watchPage
	if onlyChanges {
		limit = 1
	}
	page, revision, err := e.list(calling, prefix, "", limit, onlyChanges, 0)
	if err != nil {
		cancel()
		return failed(e.failure(ctx, op, err))
	}
	var changes statefeed.Feed
	sub := changes.Subscribe(prefix)
	pumped := make(chan struct{})
	go func() {
		defer close(pumped)
		e.pump(calling, prefix, revision+1, &changes)
	}()
	defer func() { cancel(); <-pumped; sub.Cancel() }()
	err = e.snapshot(calling, op, prefix, page, revision, onlyChanges, fn)
	if err == nil {
		err = sub.Follow(calling, op, fn, func() {})
	}
	if ctx.Err() == nil && e.watched.Err() != nil {
		return closedError(op)
	}
	return err
}

// snapshot reports what there is at a revision, of which the first page has been read.
func (e *etcdStore) snapshot(ctx context.Context, op, prefix string, page []state.Item, revision int64, onlyChanges bool, fn func(state.Event) error) error {
	for !onlyChanges && len(page) > 0 {
		for _, item := range page {
			if err := fn(state.Event{Kind: state.Written, Item: item}); err != nil {
				return err
			}
		}
		if len(page) < watchPage {
			break
		}
		var err error
		if page, _, err = e.list(ctx, prefix, page[len(page)-1].Key, watchPage, false, revision); err != nil {
			return e.failure(ctx, op, err)
		}
	}
	return fn(state.Event{Kind: state.Current})
}

// pump publishes what happens from a revision on, until ctx ends or the server ends the watch.
func (e *etcdStore) pump(ctx context.Context, prefix string, revision int64, changes *statefeed.Feed) {
	const op = "state.etcd: watch"
	from := e.base + prefix
	for answer := range e.client.Watch(clientv3.WithRequireLeader(ctx), from, clientv3.WithPrefix(), clientv3.WithRev(revision), clientv3.WithFragment()) {
		if err := answer.Err(); err != nil {
			changes.Close(e.failure(ctx, op, err))
			return
		}
		for _, event := range answer.Events {
			if event.Type == clientv3.EventTypeDelete {
				changes.Publish(state.Event{Kind: state.Deleted, Item: state.Item{Key: strings.TrimPrefix(string(event.Kv.Key), e.base)}})
				continue
			}
			item, err := e.item(ctx, event.Kv, false)
			if err != nil {
				changes.Close(e.failure(ctx, op, err))
				return
			}
			changes.Publish(state.Event{Kind: state.Written, Item: item})
		}
	}
	if ctx.Err() == nil {
		changes.Close(fault.New(op, fault.BackendDown, "the server has ended the watch"))
	}
}

// etcdReason is what kind of trouble err is: BACKEND_FAILED when it is none of those that have a name. What has a deadline
// at the same moment as ctx is waited for.
func etcdReason(ctx context.Context, err error) fault.Reason {
	var known rpctypes.EtcdError
	code, text := status.Code(err), err.Error()
	if errors.As(err, &known) {
		code = known.Code()
	}
	switch {
	case strings.Contains(text, "request is too large"), strings.Contains(text, "message larger than max"):
		return fault.ValueTooLarge
	case strings.Contains(text, "database space exceeded"):
		return fault.StoreFull
	case strings.Contains(text, "too many operations in txn request"):
		return fault.TransactionBig
	case strings.Contains(text, "requested lease not found"): // it has ended before its item was there: try again
		return fault.BackendDown
	}
	if code == codes.Unknown && (strings.Contains(text, context.DeadlineExceeded.Error()) || strings.Contains(text, context.Canceled.Error())) {
		code = codes.DeadlineExceeded // as the server puts it at times
	}
	switch code {
	case codes.DeadlineExceeded, codes.Canceled, codes.Unavailable:
		// The server knows the deadline, and may be the first to say that it is reached.
		if deadline, limited := ctx.Deadline(); limited && time.Until(deadline) < 20*time.Millisecond {
			<-ctx.Done()
			return fault.BackendFailed
		}
		return fault.BackendDown
	}
	return fault.BackendFailed
}
