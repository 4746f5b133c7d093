package contrib

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	commonsql "github.com/dapr/components-contrib/common/component/sql"
	"github.com/go-sql-driver/mysql"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

var mysqlState = components.Foreign(components.StateBlock, "mysql", "Items in a table of MySQL, MariaDB or a database that speaks their protocol.",
	func() []components.Field {
		return []components.Field{
			field("connectionString", "string", "Data source name: user:password@tcp(host:3306)/?tls=true.", needed, hidden),
			field("schemaName", "string", "Database of the tables, made if it is not there; left out, that of the connection string, or dapr_state_store."),
			field("tableName", "string", "Table that holds the items.", standard("state")),
			field("metadataTableName", "string", "Table for the component's own notes.", standard("dapr_metadata")),
			field("timeoutInSeconds", "int", "How long one statement may take.", standard("20"), within("1", "86400")),
			field("cleanupInterval", "duration", "How often expired items are removed; 0 or less is never.", standard("1h")),
			field("pemPath", "string", "File with the certificates of the authorities that may have signed the server's, for tls=custom in the connection string."),
		}
	}, openMySQL).Able(wellKnown)

// mysqlStore keeps items in the table of the library, by statements of its own: the library's first write fails where an
// item has expired, or where two come at once; it takes the server's clock for UTC; and its key column has a collation, to
// which "a", "A" and "a " are one key. A table that this store makes keeps keys as bytes. In one of the library's, a key that is
// another to us and the same to the table is refused.
type mysqlStore struct {
	tableStore
	db      *sql.DB
	table   string
	longest int    // key, in bytes or characters
	folds   bool   // the table takes some keys for the same
	ends    string // when an item ends, in SQL, of the seconds it has
	gc      commonsql.GarbageCollector
}

var _ state.Store = (*mysqlStore)(nil)

func openMySQL(ctx context.Context, host components.Host, s components.Settings) (state.Store, error) {
	const op = "state.mysql: open"
	quiet()
	config, schema, err := mysqlConfig(s)
	if err != nil {
		return nil, err
	}
	for _, key := range []string{"tableName", "metadataTableName", "schemaName"} {
		if name := s.Values[key]; name != "" && !plainIdentifier().MatchString(name) {
			return nil, s.Invalid(key, fmt.Errorf("%q is no name: it has letters of ASCII, digits and _", name))
		}
	}
	m := &mysqlStore{table: s.Values["tableName"], tableStore: tableStore{
		name: "state.mysql", timeout: time.Duration(s.Int("timeoutInSeconds")) * time.Second, life: newLife(host.Log), reason: mysqlError,
	}}
	if err := makeSchema(ctx, config, schema, m.timeout); err != nil {
		return nil, badOpen(ctx, op, s, mysqlError(err))
	}
	config.DBName = schema
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return nil, s.Invalid("connectionString", err)
	}
	m.db = sql.OpenDB(connector)
	m.db.SetMaxOpenConns(mysqlConnections)
	m.db.SetMaxIdleConns(mysqlConnections)
	m.db.SetConnMaxIdleTime(5 * time.Minute)
	if err := m.prepare(ctx, host, s); err != nil {
		_ = m.db.Close()
		return nil, badOpen(ctx, op, s, mysqlError(err))
	}
	return m, nil
}

// mysqlConnections is the most of a component: a server has room for 151 if it is not told otherwise.
const mysqlConnections = 32

var plainIdentifier = onFirstUse(`^[0-9a-zA-Z_]+$`)

var customTLS = onFirstUse(`([?&])tls=custom(&|$)`)

// mysqlConfig reads the connection string. Sessions are in UTC, and strict about what does not fit.
func mysqlConfig(s components.Settings) (config *mysql.Config, schema string, err error) {
	text := s.Values["connectionString"]
	custom := customTLS().MatchString(text)
	if config, err = mysql.ParseDSN(customTLS().ReplaceAllString(text, "${1}tls=true$2")); err != nil {
		return nil, "", s.Invalid("connectionString", errors.New("connectionString is no data source name: user:password@tcp(host:3306)/")) // the driver's words may hold the password
	}
	if pem := s.Values["pemPath"]; pem != "" {
		text, err := os.ReadFile(pem)
		if err != nil {
			return nil, "", s.Invalid("pemPath", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(text) {
			return nil, "", s.Invalid("pemPath", errors.New("pemPath names a file without a certificate in PEM"))
		}
		if custom {
			server, _, _ := net.SplitHostPort(config.Addr)
			config.TLS = &tls.Config{RootCAs: roots, ServerName: server, MinVersion: tls.VersionTLS12}
		}
	} else if custom {
		return nil, "", s.Invalid("connectionString", errors.New("tls=custom in connectionString needs pemPath"))
	}
	if config.Params == nil {
		config.Params = make(map[string]string)
	}
	config.Params["time_zone"] = "'+00:00'"
	config.Params["sql_mode"] = "CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')"
	config.InterpolateParams = config.Collation == "" || strings.HasPrefix(config.Collation, "utf8") // one round trip instead of three
	config.ParseTime, config.MaxAllowedPacket = false, 0                                             // the server tells what it takes
	schema = s.Values["schemaName"]
	if schema == "" {
		if schema = config.DBName; schema == "" {
			schema = "dapr_state_store"
		} else if !plainIdentifier().MatchString(schema) {
			return nil, "", s.Invalid("connectionString", fmt.Errorf("the database %q in connectionString is no name: it has letters of ASCII, digits and _", schema))
		}
	}
	config.DBName = ""
	return config, schema, nil
}

func makeSchema(ctx context.Context, config *mysql.Config, schema string, timeout time.Duration) error {
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	var there int
	if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = ?", schema).Scan(&there); err != nil || there > 0 {
		return err // an account need not be allowed to make what is there
	}
	_, err = db.ExecContext(ctx, "CREATE DATABASE IF NOT EXISTS "+schema+" CHARACTER SET utf8mb4")
	return err
}

// prepare makes the tables and looks at what the table of items takes for a key.
func (m *mysqlStore) prepare(ctx context.Context, host components.Host, s components.Settings) error {
	bounded, cancel := context.WithTimeout(ctx, m.timeout)
	defer cancel()
	notes := s.Values["metadataTableName"]
	for name, columns := range map[string]string{
		m.table: `id VARBINARY(1024) NOT NULL PRIMARY KEY, value JSON NOT NULL, isbinary BOOLEAN NOT NULL,
			insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
			updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
			eTag VARCHAR(36) NOT NULL, expiredate TIMESTAMP(6) NULL,
			row_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, INDEX expiredate_idx(expiredate), UNIQUE KEY row_id_uidx (row_id)`,
		notes: "id VARCHAR(255) NOT NULL PRIMARY KEY, value TEXT NOT NULL",
	} {
		var there int
		err := m.db.QueryRowContext(bounded, "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?", name).Scan(&there)
		if err == nil && there == 0 {
			_, err = m.db.ExecContext(bounded, "CREATE TABLE IF NOT EXISTS "+name+" ("+columns+") ENGINE=InnoDB")
		}
		if err != nil {
			return err
		}
	}
	var kind string
	if err := m.db.QueryRowContext(bounded, `SELECT data_type, character_maximum_length FROM information_schema.columns
		WHERE table_schema = DATABASE() AND table_name = ? AND column_name = 'id'`, m.table).Scan(&kind, &m.longest); err != nil {
		return err
	}
	m.folds = !strings.EqualFold(kind, "varbinary")
	digits, err := m.digits(bounded)
	if err != nil {
		return err
	}
	m.ends = "FROM_UNIXTIME(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(6)) + ?)"
	if digits < 6 { // a table that Dapr made: of whole seconds, and an item never goes before its time
		m.ends = "FROM_UNIXTIME(CEIL(UNIX_TIMESTAMP(CURRENT_TIMESTAMP(6)) + ?))"
	}
	if interval := s.Duration("cleanupInterval"); interval > 0 {
		m.gc, err = commonsql.ScheduleGarbageCollector(commonsql.GCOptions{
			Logger: newLogs(host.Log, nil),
			UpdateLastCleanupQuery: func(arg any) (string, any) {
				return "INSERT INTO " + notes + ` (id, value) VALUES ('last-cleanup', CURRENT_TIMESTAMP) ON DUPLICATE KEY UPDATE
					value = IF(CURRENT_TIMESTAMP > DATE_ADD(value, INTERVAL ?*1000 MICROSECOND), CURRENT_TIMESTAMP, value)`, arg
			},
			DeleteExpiredValuesQuery: "DELETE FROM " + m.table + " WHERE expiredate IS NOT NULL AND expiredate <= CURRENT_TIMESTAMP(6)",
			CleanupInterval:          interval, DB: commonsql.AdaptDatabaseSQLConn(m.db),
		})
	}
	return err
}

// digits is how much of a second the table keeps of when an item expires. A table that Dapr made before 1.11 keeps nothing
// of it: it gets the column.
func (m *mysqlStore) digits(ctx context.Context) (n int, err error) {
	for range 2 {
		err = m.db.QueryRowContext(ctx, `SELECT datetime_precision FROM information_schema.columns
			WHERE table_schema = DATABASE() AND table_name = ? AND column_name = 'expiredate'`, m.table).Scan(&n)
		if !errors.Is(err, sql.ErrNoRows) {
			return n, err
		}
		_, err = m.db.ExecContext(ctx, "ALTER TABLE "+m.table+" ADD COLUMN expiredate TIMESTAMP(6) NULL, ADD INDEX expiredate_idx(expiredate)")
		if err != nil && mysqlNumber(err) != errColumnThere { // another sidecar was quicker
			return 0, err
		}
	}
	return n, err
}

// Apply implements state.Store. A single write that expects nothing is one statement; all else is a transaction.
func (m *mysqlStore) Apply(ctx context.Context, ops []state.Op) ([]string, error) {
	return m.apply(ctx, ops, m.refuse, m.untilDone)
}

// untilDone tries until no other transaction is in the way.
func (m *mysqlStore) untilDone(ctx context.Context, op string, ops []state.Op, tags []string) error {
	for round := 0; ; round++ {
		if err := m.try(ctx, op, ops, tags); !isDeadlock(err) || ctx.Err() != nil {
			return err
		}
		select { // the server has chosen this one of several to begin again
		case <-time.After(time.Duration(round) * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// refuse says what cannot be, before the server is asked.
func (m *mysqlStore) refuse(op string, ops []state.Op) error {
	for _, o := range ops {
		switch {
		case o.Match == state.Exact && !isUUID(o.ETag):
			return fault.New(op, fault.ETagMalformed, "%q is no ETag of state.mysql", o.ETag).With("key", o.Key)
		case o.Kind == state.Set && len(o.Value) > MaxValue:
			return tooLarge(op, o)
		case len(stored(o.Key)) > m.longest:
			return fault.New(op, fault.KeyInvalid, "the key has %d bytes, the table %s has room for %d", len(stored(o.Key)), m.table, m.longest).With("key", o.Key)
		case o.Kind == state.Set && o.TTL > 0 && time.Now().Add(o.TTL).After(lastTimestamp):
			return fault.New(op, fault.TTLInvalid, "a time to live of %v goes beyond %v, which the table cannot hold", o.TTL, lastTimestamp).With("key", o.Key)
		}
	}
	return nil
}

// lastTimestamp is the server's, and a day less.
var lastTimestamp = time.Date(2038, 1, 18, 0, 0, 0, 0, time.UTC)

// Close implements state.Store.
func (m *mysqlStore) Close(ctx context.Context) error {
	return m.life.close(ctx, "state.mysql: close", func() error {
		var err error
		if m.gc != nil {
			err = m.gc.Close()
		}
		return errors.Join(err, m.db.Close())
	})
}
