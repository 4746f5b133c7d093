package contrib

import (
	"context"
	"log/slog"

	contribstate "github.com/dapr/components-contrib/state"
	"github.com/dapr/components-contrib/state/sqlite"
	"github.com/dapr/kit/logger"
)

// newSQLite makes the library's store such that a call which has begun goes on to its end, whatever becomes of its context:
// who made it is answered when that ends. The driver does not bear more: when a context ends as the first row of a query comes,
// the driver forgets the statement without closing it (modernc.org/sqlite 1.34, stmt.query), and its connection keeps the
// snapshot that it has read: each later write through it is SQLITE_BUSY at once. It may also interrupt the statement that has
// the connection next.
func newSQLite(log logger.Logger) contribstate.Store {
	return &sqliteStore{
		SQLiteStore: sqlite.NewSQLiteStateStore(log).(*sqlite.SQLiteStore),
		life:        newLife(slog.New(slog.DiscardHandler)), // a panic is the error of its call
		slots:       make(chan struct{}, sqliteSlots),
	}
}

// sqliteSlots is how many calls may be at work, those included that nobody waits for any more.
const sqliteSlots = 64

type sqliteStore struct {
	*sqlite.SQLiteStore
	life  *life
	slots chan struct{}
}

var _ contribstate.TransactionalStore = (*sqliteStore)(nil)

func (s *sqliteStore) Get(ctx context.Context, r *contribstate.GetRequest) (*contribstate.GetResponse, error) {
	return bounded(ctx, s.life, s.slots, func() (*contribstate.GetResponse, error) {
		return s.SQLiteStore.Get(context.WithoutCancel(ctx), r)
	})
}

func (s *sqliteStore) BulkGet(ctx context.Context, r []contribstate.GetRequest, o contribstate.BulkGetOpts) ([]contribstate.BulkGetResponse, error) {
	return bounded(ctx, s.life, s.slots, func() ([]contribstate.BulkGetResponse, error) {
		return s.SQLiteStore.BulkGet(context.WithoutCancel(ctx), r, o)
	})
}

func (s *sqliteStore) Set(ctx context.Context, r *contribstate.SetRequest) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLiteStore.Set(ctx, r) })
}

func (s *sqliteStore) Delete(ctx context.Context, r *contribstate.DeleteRequest) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLiteStore.Delete(ctx, r) })
}

func (s *sqliteStore) Multi(ctx context.Context, r *contribstate.TransactionalStateRequest) error {
	return s.write(ctx, func(ctx context.Context) error { return s.SQLiteStore.Multi(ctx, r) })
}

func (s *sqliteStore) write(ctx context.Context, do func(context.Context) error) error {
	_, err := bounded(ctx, s.life, s.slots, func() (struct{}, error) { return struct{}{}, do(context.WithoutCancel(ctx)) })
	return err
}

// Close waits for the calls that nobody waits for.
func (s *sqliteStore) Close() error {
	s.life.strays.Wait()
	return s.SQLiteStore.Close()
}
