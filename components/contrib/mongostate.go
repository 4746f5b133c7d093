package contrib

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/bson"
	"go.mongodb.org/mongo-driver/mongo"
	"go.mongodb.org/mongo-driver/mongo/options"
	"go.mongodb.org/mongo-driver/mongo/readconcern"
	"go.mongodb.org/mongo-driver/mongo/writeconcern"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var mongoState = components.Foreign(components.StateBlock, "mongodb", "Items in a collection of MongoDB. Transactions need a replica set, which the connection names.",
	func() []components.Field {
		return []components.Field{
			field("connectionString", "string", "URI of the servers: mongodb://user:password@host:27017/?replicaSet=rs0.", hidden),
			field("host", "string", "Without a connection string: addresses of the servers, host:port, separated by commas."),
			field("server", "string", "Instead of host: a name whose SRV record tells the servers."),
			field("username", "string", "User of the servers."),
			field("password", "string", "Password of the user.", hidden),
			field("params", "string", "What follows the address in the URI: ?replicaSet=rs0."),
			field("databaseName", "string", "Database of the collection.", standard("daprStore")),
			field("collectionName", "string", "Collection that holds the items.", standard("daprCollection")),
			field("writeConcern", "string", "Servers that have a write before it is acknowledged: a number, or majority. What fewer have is lost if they are. Dapr's default is 1.", standard("majority")),
			field("readConcern", "string", "What a read may see; linearizable is the newest that cannot be lost. Left out, that with a replica set, and local without one.",
				oneOf("local", "majority", "available", "linearizable", "snapshot")),
			field("operationTimeout", "duration", "How long one operation may take.", standard("5s")),
		}
	}, openMongo).Able(wellKnown)

// mongoStore keeps items as the library does: documents with _id, value, _etag and _ttl. It writes them itself, because the
// library's transactions succeed even if their commit does not, and what is expired still has its ETag. Where the connection
// names no replica set there are single operations alone.
type mongoStore struct {
	tableStore
	client  *mongo.Client
	items   *mongo.Collection
	replica bool
	clock   *mongoClock
}

var (
	_ state.Store      = (*mongoStore)(nil)
	_ state.Transactor = (*mongoStore)(nil)

	_ components.Capable = (*mongoStore)(nil)
)

// Capabilities implements components.Capable.
func (s *mongoStore) Capabilities() []string {
	return slices.DeleteFunc(wellKnown(), func(ability string) bool { return ability == "TRANSACTIONAL" && !s.replica })
}

// Transacts implements state.Transactor.
func (s *mongoStore) Transacts() bool { return s.replica }

func openMongo(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
	const op = "state.mongodb: open"
	config, err := mongoConfig(s)
	if err != nil {
		return nil, err
	}
	m := &mongoStore{tableStore: tableStoreOfMongo(s.Duration("operationTimeout"), host.Log), replica: config.ReplicaSet != nil && *config.ReplicaSet != "", clock: newMongoClock()}
	if m.client, err = mongo.Connect(ctx, config); err != nil {
		return nil, s.Invalid("connectionString", mongoError(err))
	}
	if err := m.prepare(ctx, s); err != nil {
		_ = m.client.Disconnect(context.WithoutCancel(ctx))
		return nil, badOpen(ctx, op, s, mongoError(err))
	}
	return m, nil
}

func tableStoreOfMongo(timeout time.Duration, log *slog.Logger) tableStore {
	return tableStore{name: "state.mongodb", timeout: timeout, life: newLife(log), reason: mongoError}
}

// mongoConfig is how to connect. Nothing is tried again by the driver: that is the lane's.
func mongoConfig(s components.Settings) (*options.ClientOptions, error) {
	uri := s.Values["connectionString"]
	if uri == "" {
		scheme, address := "mongodb", s.Values["host"]
		switch server := s.Values["server"]; {
		case (address == "") == (server == ""):
			return nil, s.Invalid("host", errors.New("one of connectionString, host and server names the servers"))
		case server != "":
			scheme, address = "mongodb+srv", server
		}
		uri = scheme + "://" + address + "/" + s.Values["databaseName"]
		if params := strings.TrimPrefix(s.Values["params"], "?"); params != "" {
			uri += "?" + params
		}
	}
	config := options.Client().ApplyURI(uri).SetRetryReads(false).SetRetryWrites(false)
	if user := s.Values["username"]; user != "" && s.Values["connectionString"] == "" {
		auth := options.Credential{Username: user, Password: s.Values["password"], PasswordSet: true}
		if config.Auth != nil {
			auth.AuthMechanism, auth.AuthSource = config.Auth.AuthMechanism, config.Auth.AuthSource
		}
		config.SetAuth(auth)
	}
	if err := config.Validate(); err != nil {
		return nil, s.Invalid("connectionString", fmt.Errorf("connectionString, or what stands for it, is no URI of MongoDB: %w", err))
	}
	if config.ServerSelectionTimeout == nil {
		config.SetServerSelectionTimeout(min(s.Duration("operationTimeout"), 2*time.Second)) // and the lane tries again
	}
	return config, nil
}

// prepare chooses the collection, makes its index, which has the server remove what has expired, and reads its clock.
func (m *mongoStore) prepare(ctx context.Context, s components.Settings) error {
	bounded, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	writes := &writeconcern.WriteConcern{W: s.Values["writeConcern"], Journal: new(true)}
	if n := s.Int("writeConcern"); n > 0 {
		writes.W = int(n)
	}
	reads := s.Values["readConcern"]
	if reads == "" {
		reads = map[bool]string{true: "linearizable", false: "local"}[m.replica]
	}
	m.items = m.client.Database(s.Values["databaseName"]).Collection(s.Values["collectionName"],
		options.Collection().SetWriteConcern(writes).SetReadConcern(&readconcern.ReadConcern{Level: reads}))
	if err := m.tell(bounded); err != nil {
		return err
	}
	_, err := m.items.Indexes().CreateOne(bounded, mongo.IndexModel{Keys: bson.M{"_ttl": 1}, Options: options.Index().SetExpireAfterSeconds(0)})
	return err
}

// Apply implements state.Store.
func (m *mongoStore) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return m.apply(ctx, ops, m.refuse, m.try)
}

// try does all ops or none.
func (m *mongoStore) try(ctx context.Context, op string, ops []state.Op, tags []string) error {
	if slices.ContainsFunc(ops, func(o state.Op) bool { return o.TTL > 0 }) {
		if err := m.tell(ctx); err != nil {
			return err
		}
	}
	if len(ops) == 1 {
		return m.write(ctx, op, ops[0], tags[0])
	}
	return m.transact(ctx, op, ops, tags)
}

// maxDocument is the most bytes of a value: a document has at most 16 MiB.
const maxDocument = 16<<20 - 16<<10

// refuse says what cannot be, before the server is asked.
func (m *mongoStore) refuse(op string, ops []state.Op) error {
	if len(ops) > 1 && !m.replica {
		return fault.New(op, fault.NotSupported, "state.mongodb has transactions only with a replica set: name it in the connection, as replicaSet")
	}
	for _, o := range ops {
		switch {
		case o.Match == state.Exact && !isUUID(o.ETag):
			return fault.New(op, fault.ETagMalformed, "%q is no ETag of state.mongodb", o.ETag).With("key", o.Key)
		case o.Kind == state.Set && len(o.Value) > maxDocument:
			return fault.New(op, fault.ValueTooLarge, "the value of %q has %d bytes, at most %d are allowed", o.Key, len(o.Value), maxDocument).With("key", o.Key)
		}
	}
	return nil
}

// transact does all ops or none. The driver tries again what has met another transaction, as long as ctx lasts.
func (m *mongoStore) transact(ctx context.Context, op string, ops []state.Op, tags []string) error {
	session, err := m.client.StartSession()
	if err != nil {
		return err
	}
	defer session.EndSession(context.WithoutCancel(ctx))
	_, err = session.WithTransaction(ctx, func(within mongo.SessionContext) (any, error) {
		for i, o := range ops {
			if err := m.write(within, op, o, tags[i]); err != nil {
				return nil, err
			}
		}
		return nil, nil
	}, options.Transaction().SetReadConcern(readconcern.Snapshot()).SetWriteConcern(writeconcern.Majority()))
	return err
}

// mongoError gives err the reason that the driver does not know.
func mongoError(err error) error {
	var known *fault.Error
	var server mongo.ServerError
	switch {
	case err == nil, errors.As(err, &known):
		return err
	case mongo.IsNetworkError(err), mongo.IsTimeout(err), errors.Is(err, mongo.ErrClientDisconnected), strings.Contains(err.Error(), "server selection"):
		return fault.E("", fault.None, fault.BackendDown, err)
	case errors.As(err, &server) && (server.HasErrorLabel("TransientTransactionError") || server.HasErrorLabel("RetryableWriteError") || server.HasErrorLabel("UnknownTransactionCommitResult")):
		return fault.E("", fault.None, fault.BackendDown, err)
	case errors.As(err, &server) && server.HasErrorCode(14031): // OutOfDiskSpace
		return fault.E("", fault.None, fault.StoreFull, err)
	}
	return err
}

// Close implements state.Store.
func (m *mongoStore) Close(ctx context.Context) error {
	return m.life.close(ctx, "state.mongodb: close", func() error { return m.client.Disconnect(context.WithoutCancel(ctx)) })
}
