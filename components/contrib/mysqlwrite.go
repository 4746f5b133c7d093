package contrib

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
)

// mysqlRunner is a database or a transaction.
type mysqlRunner interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// Get implements state.Store. All items are of one moment, as far as one statement has room for their keys.
func (m *mysqlStore) Get(ctx context.Context, keys []string) ([]state.Item, error) {
	return m.get(ctx, keys, m.read)
}

// in is a list of so many parameters, and the names of keys for it.
func in(keys []string) (list string, args []any) {
	args = make([]any, len(keys))
	for i, key := range keys {
		args[i] = stored(key)
	}
	return "(?" + strings.Repeat(",?", len(keys)-1) + ")", args
}

func (m *mysqlStore) read(ctx context.Context, keys []string, found map[string]state.Item) error {
	list, args := in(keys)
	rows, err := m.db.QueryContext(ctx, "SELECT id, value, isbinary, eTag, UNIX_TIMESTAMP(expiredate) FROM "+m.table+
		" WHERE id IN "+list+" AND (expiredate IS NULL OR expiredate > CURRENT_TIMESTAMP(6))", args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var item state.Item
		var binary bool
		var ends sql.NullFloat64
		if err := rows.Scan(&item.Key, &item.Value, &binary, &item.ETag, &ends); err != nil {
			return err
		}
		if binary {
			var text string
			err := json.Unmarshal(item.Value, &text)
			if err == nil {
				item.Value, err = base64.StdEncoding.DecodeString(text)
			}
			if err != nil {
				return err
			}
		}
		if ends.Valid {
			item.Expires = time.UnixMicro(int64(math.Round(ends.Float64 * 1e6))).UTC()
		}
		found[item.Key] = item
	}
	return rows.Err()
}

// try does all ops or none.
func (m *mysqlStore) try(ctx context.Context, op string, ops []state.Op, tags []string) error {
	if len(ops) == 1 && ops[0].Match == state.Any && !m.folds {
		return m.run(ctx, m.db, op, ops[0], tags[0], true)
	}
	// Locks are those of rows alone: the gaps that a stricter level locks are where creations of two keys wait for each other.
	tx, err := m.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return err
	}
	if err := m.within(ctx, tx, op, ops, tags); err != nil {
		_ = tx.Rollback() // of a connection that is lost there is nothing to take back
		return err
	}
	return tx.Commit()
}

// row is what a write finds.
type mysqlRow struct {
	etag    string
	expired bool
}

func (m *mysqlStore) within(ctx context.Context, tx mysqlRunner, op string, ops []state.Op, tags []string) error {
	rows := make(map[string]mysqlRow, len(ops))
	for some := range slices.Chunk(keysOf(ops), mostKeys) {
		if err := m.lock(ctx, tx, op, some, rows); err != nil {
			return err
		}
	}
	order := make([]int, len(ops))
	for i, o := range ops {
		order[i] = i
		row, found := rows[stored(o.Key)]
		live := found && !row.expired
		if o.Match == state.Absent && live || o.Match == state.Exact && (!live || row.etag != o.ETag) {
			return mismatch(op, o)
		}
	}
	// Everybody makes rows in one order, so that few wait for each other.
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(ops[a].Key, ops[b].Key) })
	for _, i := range order {
		_, found := rows[stored(ops[i].Key)]
		if err := m.run(ctx, tx, op, ops[i], tags[i], found); err != nil {
			return err
		}
	}
	return nil
}

// lock reads the rows of keys and keeps others from writing them.
func (m *mysqlStore) lock(ctx context.Context, tx mysqlRunner, op string, keys []string, rows map[string]mysqlRow) error {
	list, args := in(keys)
	asked := make(map[string]bool, len(args))
	for _, name := range args {
		asked[name.(string)] = true
	}
	found, err := tx.QueryContext(ctx, "SELECT id, eTag, expiredate IS NOT NULL AND expiredate <= CURRENT_TIMESTAMP(6) FROM "+m.table+" WHERE id IN "+list+" FOR UPDATE", args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var name string
		var row mysqlRow
		if err := found.Scan(&name, &row.etag, &row.expired); err != nil {
			return err
		}
		if !asked[name] {
			return fault.New(op, fault.KeyInvalid, "the table %s takes a key of this call for %q, which it holds: have its column id compare bytes (VARBINARY)", m.table, name)
		}
		rows[name] = row
	}
	return found.Err()
}

// run does one op whose condition holds. Nothing locks a row that is not there: where that matters, one is made for it.
func (m *mysqlStore) run(ctx context.Context, to mysqlRunner, op string, o state.Op, tag string, known bool) error {
	over := known || o.Match != state.Absent && !m.folds
	switch {
	case o.Kind == state.Set:
		return m.insert(ctx, to, op, o, tag, over)
	case o.Kind == state.Check && (known || o.Match == state.Any):
		return nil
	case !known:
		placeholder := o
		placeholder.Value, placeholder.TTL = nil, 0
		if err := m.insert(ctx, to, op, placeholder, "", over); err != nil {
			return err
		}
	}
	_, err := to.ExecContext(ctx, "DELETE FROM "+m.table+" WHERE id = ?", stored(o.Key))
	return err
}

// insert makes the row of o, or writes over the one that there is.
func (m *mysqlStore) insert(ctx context.Context, to mysqlRunner, op string, o state.Op, tag string, over bool) error {
	ends := "NULL"
	args := []any{stored(o.Key), `"` + base64.StdEncoding.EncodeToString(o.Value) + `"`, tag}
	if o.TTL > 0 {
		ends = m.ends
		args = append(args, o.TTL.Seconds())
	}
	text := "INSERT INTO " + m.table + " (id, value, isbinary, eTag, expiredate) VALUES (?, ?, TRUE, ?, " + ends + ")"
	if over {
		text += " ON DUPLICATE KEY UPDATE value = VALUES(value), isbinary = TRUE, eTag = VALUES(eTag), expiredate = VALUES(expiredate)"
	}
	_, err := to.ExecContext(ctx, text, args...)
	switch {
	case over || mysqlNumber(err) != errDuplicate:
		return err
	case o.Match == state.Absent:
		return mismatch(op, o)
	}
	return errAgain
}

// errAgain has a transaction begin again: a row has come that was not there.
var errAgain = errors.New("another one has made the row")

// Numbers of the server's errors.
const (
	errColumnThere = 1060
	errDuplicate   = 1062
	errLockWait    = 1205
	errDeadlock    = 1213
	errPacket      = 1153
	errOutOfMemory = 1041
	errTableFull   = 1114
	errDiskFull    = 1021
)

// strangeText are what is said of a key with letters that a table of another character set does not have.
var strangeText = []uint16{1267, 1270, 1271, 1366, 1406}

func mysqlNumber(err error) uint16 {
	var known *mysql.MySQLError
	if errors.As(err, &known) {
		return known.Number
	}
	return 0
}

func isDeadlock(err error) bool { return mysqlNumber(err) == errDeadlock || errors.Is(err, errAgain) }

// mysqlError gives err the reason that the driver does not know.
func mysqlError(err error) error {
	reason := fault.BackendFailed
	switch number := mysqlNumber(err); {
	case err == nil:
		return nil
	case errors.Is(err, mysql.ErrPktTooLarge), number == errPacket:
		reason = fault.ValueTooLarge
	case slices.Contains(strangeText, number):
		reason = fault.KeyInvalid
	case number == errTableFull, number == errDiskFull, number == errOutOfMemory:
		reason = fault.StoreFull
	case errors.Is(err, mysql.ErrInvalidConn), errors.Is(err, sql.ErrConnDone), isDeadlock(err), number == errLockWait,
		number == 1040, number == 1053, number == 1077, number == 1290, number == 1836, number == 3159: // too many connections, a shutdown, a server that only reads
		reason = fault.BackendDown
	default:
		return err
	}
	return fault.E("", fault.None, reason, err)
}
