package pluggable

import (
	"context"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// Apply implements state.Store.
func (s *store) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	writes, checks, err := s.sort(ops)
	if err != nil {
		return nil, err
	}
	switch {
	case len(checks) > 0 && len(writes) > 0:
		return nil, fault.New(s.typ+": apply", fault.NotSupported, "a plug-in cannot check some items and write others in one transaction: make every condition one of a write")
	case len(checks) > 0:
		err = s.check(ctx, checks)
	case len(writes) == 1:
		err = s.write(ctx, writes[0])
	case len(writes) > 1:
		err = s.multi(ctx, writes)
	}
	if err != nil {
		return nil, err
	}
	return s.tags(ctx, ops), nil
}

// sort refuses what cannot be, and parts the ops that change something from those that only look. A Delete of what must not
// be there deletes nothing.
func (s *store) sort(ops []state.Op) (writes, checks []state.Op, err error) {
	for _, o := range ops {
		switch {
		case o.Match == state.Exact && o.ETag == "":
			return nil, nil, fault.New(s.typ+": apply", fault.ETagMalformed, "%q: the ETag is empty", o.Key).With("key", o.Key)
		case o.Kind == state.Set && len(o.Value) > MaxValue:
			return nil, nil, fault.New(s.typ+": apply", fault.ValueTooLarge, "the value of %q has %d bytes, at most %d are allowed", o.Key, len(o.Value), MaxValue).With("key", o.Key)
		case o.Kind == state.Set && seconds(o.TTL) > math.MaxInt32:
			return nil, nil, fault.New(s.typ+": apply", fault.TTLInvalid, "a time to live of %v is too long", o.TTL).With("key", o.Key)
		case o.Kind == state.Set, o.Kind == state.Delete && o.Match != state.Absent:
			writes = append(writes, o)
		case o.Match != state.Any:
			checks = append(checks, o)
		}
	}
	for _, o := range ops {
		if o.Match == state.Exact && strings.HasPrefix(o.ETag, superseded) {
			return nil, nil, s.mismatch(o, "")
		}
	}
	return writes, checks, nil
}

func (s *store) check(ctx context.Context, ops []state.Op) error {
	asks := make([]*proto.GetRequest, len(ops))
	for i, o := range ops {
		asks[i] = asking(o)
	}
	found, err := s.read(ctx, asks)
	if err != nil {
		return err
	}
	for _, o := range ops {
		if !o.Holds(found) {
			return s.mismatch(o, "")
		}
	}
	return nil
}

func (s *store) mismatch(o state.Op, text string) error {
	if text == "" {
		text = "it is not at ETag " + o.ETag
		if o.Match == state.Absent {
			text = "it exists"
		}
	}
	return fault.New(s.typ+": apply", fault.ETagMismatch, "%q: %s", o.Key, text).With("key", o.Key)
}

// write does a single op.
func (s *store) write(ctx context.Context, o state.Op) error {
	_, err := call(ctx, s.link, "apply", func(ctx context.Context, conn *grpc.ClientConn) (struct{}, error) {
		client := proto.NewStateStoreClient(conn)
		var err error
		if o.Kind == state.Delete {
			_, err = client.Delete(ctx, deletion(o))
		} else {
			_, err = client.Set(ctx, setting(o))
		}
		return struct{}{}, s.told(err, o)
	})
	return err
}

// told is what a program says of the ETag of one of ops, or err.
func (s *store) told(err error, ops ...state.Op) error {
	reason, text := badETag(err)
	if reason == "" {
		return err
	}
	conditional := slices.IndexFunc(ops, func(o state.Op) bool { return o.Match != state.Any })
	if conditional < 0 {
		return err
	}
	o := ops[conditional]
	if reason == fault.ETagMalformed {
		return fault.New(s.typ+": apply", reason, "%q: %s", o.Key, text).With("key", o.Key)
	}
	return s.mismatch(o, text)
}

// Transacts implements state.Transactor: the program must have the service and say so.
func (s *store) Transacts() bool { return slices.Contains(s.Capabilities(), "TRANSACTIONAL") }

// most is how many operations a transaction may have; 0 is no limit. The program is asked before its first, for it need not be able
// to tell otherwise.
func (s *store) most(ctx context.Context, op string) (int64, error) {
	said := s.said.Load()
	if known := said.most.Load(); known != nil {
		return *known, nil
	}
	if !s.limit {
		return 0, nil
	}
	answer, err := call(ctx, s.link, op, func(ctx context.Context, conn *grpc.ClientConn) (*proto.MultiMaxSizeResponse, error) {
		answer, err := proto.NewTransactionalStoreMultiMaxSizeClient(conn).MultiMaxSize(ctx, &proto.MultiMaxSizeRequest{})
		if status.Code(err) == codes.Unimplemented {
			return &proto.MultiMaxSizeResponse{}, nil
		}
		return answer, err
	})
	if err != nil {
		return 0, err
	}
	most := answer.GetMaxSize()
	said.most.Store(&most)
	return most, nil
}

// multi does several ops, all or none.
func (s *store) multi(ctx context.Context, ops []state.Op) error {
	const op = "apply"
	if !s.transact {
		return fault.New(s.typ+": "+op, fault.NotSupported, "the plug-in at %s has no transactions: it does one operation at a time", s.socket)
	}
	if most, err := s.most(ctx, op); err != nil {
		return err
	} else if most > 0 && int64(len(ops)) > most {
		return fault.New(s.typ+": "+op, fault.TransactionBig, "%d operations; the plug-in at %s takes at most %d in one transaction", len(ops), s.socket, most).
			With("most", strconv.FormatInt(most, 10))
	}
	request := &proto.TransactionalStateRequest{Metadata: contrib.Agreed(ops)}
	for _, o := range ops {
		one := &proto.TransactionalStateOperation{Request: &proto.TransactionalStateOperation_Set{Set: setting(o)}}
		if o.Kind == state.Delete {
			one.Request = &proto.TransactionalStateOperation_Delete{Delete: deletion(o)}
		}
		request.Operations = append(request.Operations, one)
	}
	_, err := call(ctx, s.link, op, func(ctx context.Context, conn *grpc.ClientConn) (struct{}, error) {
		_, err := proto.NewTransactionalStateStoreClient(conn).Transact(ctx, request)
		return struct{}{}, s.blamed(ctx, conn, err, ops)
	})
	return err
}

// blamed is told, of the op that did not hold: the program does not say which.
func (s *store) blamed(ctx context.Context, conn *grpc.ClientConn, err error, ops []state.Op) error {
	conditions := slices.DeleteFunc(slices.Clone(ops), func(o state.Op) bool { return o.Match == state.Any })
	reason, text := badETag(err)
	if reason != fault.ETagMismatch || len(conditions) == 0 {
		return s.told(err, conditions...)
	}
	for _, o := range conditions {
		found := map[string]state.Item{}
		got, failed := proto.NewStateStoreClient(conn).Get(ctx, asking(o))
		if failed == nil && s.take(found, o.Key, got.GetData(), got.GetEtag(), nil) == nil && !o.Holds(found) {
			return s.mismatch(o, text)
		}
	}
	return s.mismatch(conditions[0], text)
}

// ApplyEach implements state.Bulker.
func (s *store) ApplyEach(ctx context.Context, ops []state.Op) error {
	writes, checks, err := s.sort(ops)
	if err == nil && len(checks) > 0 {
		err = s.check(ctx, checks)
	}
	if err != nil {
		return err
	}
	if len(writes) == 1 {
		return s.write(ctx, writes[0])
	}
	sets := &proto.BulkSetRequest{Options: &proto.BulkSetRequestOptions{Parallelism: parallel}}
	deletes := &proto.BulkDeleteRequest{Options: &proto.BulkDeleteRequestOptions{Parallelism: parallel}}
	for _, o := range writes {
		if o.Kind == state.Delete {
			deletes.Items = append(deletes.Items, deletion(o))
		} else {
			sets.Items = append(sets.Items, setting(o))
		}
	}
	_, err = call(ctx, s.link, "apply", func(ctx context.Context, conn *grpc.ClientConn) (_ struct{}, err error) {
		client := proto.NewStateStoreClient(conn)
		if len(sets.GetItems()) > 0 {
			_, err = client.BulkSet(ctx, sets)
		}
		if err == nil && len(deletes.GetItems()) > 0 {
			_, err = client.BulkDelete(ctx, deletes)
		}
		return struct{}{}, s.told(err, writes...)
	})
	if fault.ReasonOf(err) != fault.NotSupported {
		return err
	}
	for _, o := range writes { // the program has no bulks
		if err := s.write(ctx, o); err != nil {
			return err
		}
	}
	return nil
}

// asking is how the item of o is read.
func asking(o state.Op) *proto.GetRequest {
	return &proto.GetRequest{Key: contrib.KeyName(o.Key), Metadata: o.Metadata}
}

func setting(o state.Op) *proto.SetRequest {
	r := &proto.SetRequest{Key: contrib.KeyName(o.Key), Value: slices.Clone(o.Value), Options: &proto.StateOptions{}, Metadata: map[string]string{}}
	maps.Copy(r.Metadata, o.Metadata)
	switch o.Match {
	case state.Exact:
		r.Etag = &proto.Etag{Value: o.ETag}
	case state.Absent:
		r.Options.Concurrency = proto.StateOptions_CONCURRENCY_FIRST_WRITE
	}
	if o.JSON {
		r.ContentType = "application/json"
	}
	if o.TTL > 0 {
		r.Metadata["ttlInSeconds"] = strconv.FormatInt(seconds(o.TTL), 10)
	}
	return r
}

func deletion(o state.Op) *proto.DeleteRequest {
	r := &proto.DeleteRequest{Key: contrib.KeyName(o.Key), Options: &proto.StateOptions{}, Metadata: o.Metadata}
	if o.Match == state.Exact {
		r.Etag = &proto.Etag{Value: o.ETag}
	}
	return r
}

// seconds rounds up: an item never goes before its time.
func seconds(ttl time.Duration) int64 { return int64((ttl + time.Second - 1) / time.Second) }

// superseded starts the ETag of a write that another one has followed already: no write will match it any more.
const superseded = "superseded-"

// tags reads the ETags of what was set, where there are any: a program does not tell them. An item that is another by now has
// been written again, and one that cannot be read may have been.
func (s *store) tags(ctx context.Context, ops []state.Op) []string {
	tags := make([]string, len(ops))
	var asks []*proto.GetRequest
	for _, o := range ops {
		if o.Kind == state.Set {
			asks = append(asks, asking(o))
		}
	}
	if len(asks) == 0 || !slices.Contains(s.said.Load().features, "ETAG") {
		return tags
	}
	found, err := s.read(ctx, asks)
	for i, o := range ops {
		if o.Kind != state.Set {
			continue
		}
		tags[i] = superseded + uuid.NewString()
		if item, ok := found[o.Key]; err == nil && ok && slices.Equal(item.Value, o.Value) {
			tags[i] = item.ETag
		}
	}
	return tags
}
