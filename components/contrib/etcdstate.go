package contrib

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	contribetcd "github.com/dapr/components-contrib/state/etcd"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

func etcdFields() []components.Field {
	return []components.Field{
		field("endpoints", "string", "Addresses of the servers, host:port, separated by commas.", needed),
		field("keyPrefixPath", "string", "What the keys start with: key k is at PREFIX/k."),
		field("tlsEnable", "bool", "Encrypt the connection, with the certificates of ca, cert and key.", standard("false")),
		field("ca", "string", "Certificate of the authority that signed the servers', in PEM.", hidden),
		field("cert", "string", "Certificate to present to the servers, in PEM.", hidden),
		field("key", "string", "Key of that certificate, in PEM.", hidden),
		field("maxTxnOps", "int", "Most operations of a transaction: what the servers' --max-txn-ops says. A longer batch is refused.", standard("128"), within("1", "100000")),
	}
}

var (
	etcdV1 = components.Foreign(components.StateBlock, "etcd", "Items in etcd, as they are: the layout of Dapr's version 1.",
		etcdFields, openEtcd(plainValue{})).Able(wellKnown)
	etcdV2 = components.Foreign(components.StateBlock, "etcd", "Items in etcd, each with its time to live beside it: the layout of Dapr's version 2.",
		etcdFields, openEtcd(datedValue{})).Able(wellKnown).Versioned("v2")
)

// etcdStore keeps an item as Dapr does, at its key behind the prefix, with a lease of the server where it has a time to live.
// It uses a client of its own, because the library looks at ETags before it writes and not as it does, forgets whether the
// condition of a write has held, and applies the rest of a transaction whose condition has not.
//
// An ETag is the revision of the last write: one of the whole cluster, so no two writes share one.
type etcdStore struct {
	client  *clientv3.Client
	base    string // what the keys start with
	most    int    // operations of a transaction
	layout  etcdLayout
	life    *life
	watched context.Context // of all watches
	unwatch context.CancelFunc
}

var (
	_ state.Store   = (*etcdStore)(nil)
	_ state.Scanner = (*etcdStore)(nil)
	_ state.Watcher = (*etcdStore)(nil)
)

func openEtcd(layout etcdLayout) func(context.Context, components.Host, components.Settings) (state.Store, error) {
	return func(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
		const op = "state.etcd: open"
		config, err := etcdConfig(s)
		if err != nil {
			return nil, err
		}
		client, err := clientv3.New(config)
		if err != nil {
			return nil, badOpen(ctx, op, s, err)
		}
		e := &etcdStore{client: client, base: s.Values["keyPrefixPath"] + "/", most: int(s.Int("maxTxnOps")), layout: layout, life: newLife(host.Log)}
		e.watched, e.unwatch = context.WithCancel(context.Background())
		if _, err := client.Get(ctx, e.base, clientv3.WithCountOnly()); err != nil {
			_ = client.Close()
			return nil, e.failure(ctx, op, err)
		}
		return e, nil
	}
}

// etcdConfig is how to connect. Nothing is tried again by the client: that is the lane's.
func etcdConfig(s components.Settings) (clientv3.Config, error) {
	config := clientv3.Config{
		DialTimeout: 5 * time.Second, DialKeepAliveTime: 10 * time.Second, DialKeepAliveTimeout: 5 * time.Second,
		MaxUnaryRetries: 1, MaxCallSendMsgSize: math.MaxInt32, MaxCallRecvMsgSize: math.MaxInt32, Logger: zap.NewNop(),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 3 * time.Second},
			MinConnectTimeout: 5 * time.Second,
		}), grpc.WithChainUnaryInterceptor(atOnce)},
	}
	for _, endpoint := range strings.Split(s.Values["endpoints"], ",") {
		if endpoint = strings.TrimSpace(endpoint); endpoint != "" {
			config.Endpoints = append(config.Endpoints, endpoint)
		}
	}
	if len(config.Endpoints) == 0 {
		return config, s.Invalid("endpoints", fmt.Errorf("endpoints names no server"))
	}
	if !s.Bool("tlsEnable") {
		return config, nil
	}
	for _, key := range []string{"ca", "cert", "key"} {
		if s.Values[key] == "" {
			return config, s.Invalid("tlsEnable", fmt.Errorf("tlsEnable needs ca, cert and key: %s is missing", key))
		}
	}
	var err error
	if config.TLS, err = contribetcd.NewTLSConfig(s.Values["cert"], s.Values["key"], s.Values["ca"]); err != nil {
		return config, s.Invalid("cert", err)
	}
	return config, nil
}

// atOnce fails a call whose server is away. The client would have it wait for one, without a word, for as long as it may last.
func atOnce(ctx context.Context, method string, request, reply any, conn *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	return invoke(ctx, method, request, reply, conn, append(options, grpc.WaitForReady(false))...)
}

// Get implements state.Store. All items are of one moment.
func (e *etcdStore) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	const op = "state.etcd: get"
	calling, leave, err := e.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	var items []state.Item
	var moment int64
	for rest := keys; len(rest) > 0; {
		some := rest[:min(len(rest), e.most)]
		rest = rest[len(some):]
		gets := make([]clientv3.Op, len(some))
		for i, key := range some {
			gets[i] = clientv3.OpGet(e.base+key, clientv3.WithRev(moment))
		}
		answer, err := e.client.Txn(calling).Then(gets...).Commit()
		if err != nil {
			return nil, e.failure(ctx, op, err)
		}
		moment = answer.Header.Revision
		for _, r := range answer.Responses {
			for _, kv := range r.GetResponseRange().Kvs {
				item, err := e.item(calling, kv, false)
				if err != nil {
					return nil, e.failure(ctx, op, err)
				}
				items = append(items, item)
			}
		}
	}
	return items, nil
}

// Apply implements state.Store, by one transaction.
func (e *etcdStore) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	const op = "state.etcd: apply"
	calling, leave, err := e.life.enter(ctx, op)
	if err != nil {
		return nil, err
	}
	defer leave()
	tags := make([]string, len(ops))
	if err := e.refuse(op, ops); err != nil || len(ops) == 0 {
		return tags, err
	}
	b := &etcdBatch{store: e}
	defer b.abandon(calling)
	for _, o := range ops {
		if err := b.add(calling, o); err != nil {
			return nil, e.failure(ctx, op, err)
		}
	}
	answer, err := e.client.Txn(calling).If(b.conditions...).Then(b.writes...).Else(b.looks...).Commit()
	if err != nil {
		if !rejected(err) {
			b.leases = nil // items may have them: they end by themselves
		}
		return nil, e.failure(ctx, op, err)
	}
	if !answer.Succeeded {
		return nil, mismatch(op, b.broken(answer))
	}
	b.leases = nil
	for i, o := range ops {
		if o.Kind == state.Set {
			tags[i] = strconv.FormatInt(answer.Header.Revision, 10)
		}
	}
	return tags, nil
}

// refuse says what cannot be, before the server is asked.
func (e *etcdStore) refuse(op string, ops []state.Op) error {
	if len(ops) > e.most {
		return fault.New(op, fault.TransactionBig, "a batch has at most %d operations, this one has %d: raise maxTxnOps, and the servers' --max-txn-ops", e.most, len(ops)).
			With("most", strconv.Itoa(e.most))
	}
	for _, o := range ops {
		switch {
		case o.Match == state.Exact && (!isVersion(o.ETag) || o.ETag == "0"):
			return fault.New(op, fault.ETagMalformed, "%q is no ETag of state.etcd: it is a number", o.ETag).With("key", o.Key)
		case o.Kind == state.Set && len(o.Value) > MaxValue:
			return tooLarge(op, o)
		case o.Kind == state.Set && seconds(o.TTL) > longestLease:
			return fault.New(op, fault.TTLInvalid, "a time to live of %v is too long for state.etcd", o.TTL).With("key", o.Key)
		}
	}
	return nil
}

// longestLease is the server's bound, in seconds.
const longestLease = 9_000_000_000

// etcdBatch is a transaction that is being made.
type etcdBatch struct {
	store       *etcdStore
	conditions  []clientv3.Cmp
	conditional []state.Op // what the conditions are of
	writes      []clientv3.Op
	looks       []clientv3.Op              // at what the conditions are about, where one does not hold
	leases      map[int64]clientv3.LeaseID // by seconds; those that no item can have yet
}

func (b *etcdBatch) add(ctx context.Context, o state.Op) error {
	key := b.store.base + o.Key
	if o.Match != state.Any {
		var revision int64
		if o.Match == state.Exact {
			revision, _ = strconv.ParseInt(o.ETag, 10, 64) // it was checked
		}
		b.conditions = append(b.conditions, clientv3.Compare(clientv3.ModRevision(key), "=", revision))
		b.conditional = append(b.conditional, o)
		b.looks = append(b.looks, clientv3.OpGet(key, clientv3.WithKeysOnly()))
	}
	switch {
	case o.Kind == state.Set:
		ttl := seconds(o.TTL)
		lease, err := b.lease(ctx, ttl)
		if err != nil {
			return err
		}
		b.writes = append(b.writes, clientv3.OpPut(key, b.store.layout.encode(o.Value, ttl), clientv3.WithLease(lease)))
	case o.Kind == state.Delete && o.Match != state.Absent:
		b.writes = append(b.writes, clientv3.OpDelete(key))
	}
	return nil
}

// lease is one of so many seconds, which all items of the batch share that live as long; 0 is none.
func (b *etcdBatch) lease(ctx context.Context, ttl int64) (clientv3.LeaseID, error) {
	if lease := b.leases[ttl]; ttl == 0 || lease != 0 {
		return lease, nil
	}
	for {
		id := newLease(time.Now().Add(time.Duration(ttl) * time.Second))
		err := b.store.grant(ctx, id, ttl)
		if err == rpctypes.ErrLeaseExist {
			continue
		}
		if err != nil {
			return 0, err
		}
		if b.leases == nil {
			b.leases = make(map[int64]clientv3.LeaseID)
		}
		b.leases[ttl] = id
		return id, nil
	}
}

// rejected says whether err, of a transaction, is the server's word that it has done nothing of it. Whatever else a commit
// fails with may come after the deed: the server says that its space is exceeded when it has written, too.
func rejected(err error) bool {
	var known rpctypes.EtcdError
	return errors.As(err, &known) && known.Code() == codes.InvalidArgument
}

// abandon gives leases back that no item has got; those that it cannot end by themselves. With a lease goes every item that
// has it.
func (b *etcdBatch) abandon(ctx context.Context) {
	if len(b.leases) == 0 {
		return
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	for _, lease := range b.leases {
		_, _ = b.store.client.Revoke(ending, lease)
	}
}

// broken is the op whose condition did not hold.
func (b *etcdBatch) broken(answer *clientv3.TxnResponse) state.Op {
	for i, o := range b.conditional {
		var found string
		for _, kv := range answer.Responses[i].GetResponseRange().Kvs {
			found = strconv.FormatInt(kv.ModRevision, 10)
		}
		if found != o.ETag && o.Match == state.Exact || found != "" && o.Match == state.Absent {
			return o
		}
	}
	return b.conditional[0]
}

// A lease's number says when it ends, so that a read need not ask: a mark, 33 bits of seconds since 1970 and 15 of chance.
const (
	leaseMark   = 0x5ca7
	leaseChance = 15
	leaseTime   = 33
)

func newLease(end time.Time) clientv3.LeaseID {
	at := end.Add(time.Second-1).Unix() & (1<<leaseTime - 1)
	return clientv3.LeaseID(leaseMark<<(leaseTime+leaseChance) | at<<leaseChance | rand.Int64N(1<<leaseChance))
}

// leaseEnd reads the number of a lease, where newLease has made it.
func leaseEnd(id int64) (time.Time, bool) {
	return time.Unix(id>>leaseChance&(1<<leaseTime-1), 0).UTC(), id>>(leaseTime+leaseChance) == leaseMark
}

// failure is the fault of a call of ctx.
func (e *etcdStore) failure(ctx context.Context, op string, err error) error {
	if ctx.Err() == nil {
		if reason := etcdReason(ctx, err); reason != fault.BackendFailed && e.life.ctx.Err() == nil {
			return fault.E(op, fault.None, reason, err)
		}
	}
	return e.life.failure(ctx, op, err)
}

// Close implements state.Store.
func (e *etcdStore) Close(ctx context.Context) error {
	e.life.refuse()
	e.unwatch()
	return e.life.close(ctx, "state.etcd: close", e.client.Close)
}
