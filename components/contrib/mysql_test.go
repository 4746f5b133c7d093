//go:build linux

package contrib

import (
	"database/sql"
	"fmt"
	"testing"
	"time"

	contribmysql "github.com/dapr/components-contrib/state/mysql"

	"github.com/sidecast/sidecast/fault"
	"github.com/sidecast/sidecast/state"
	"github.com/sidecast/sidecast/state/statetest"
	"github.com/sidecast/sidecast/tests/servers"
)

func mysqlSettings(t testing.TB) map[string]string { return mysqlAt(servers.MySQL(t)) }

// mysqlAt are settings with tables of their own.
func mysqlAt(address string) map[string]string {
	n := tables.Add(1)
	return map[string]string{
		"connectionString": "root@tcp(" + address + ")/", "schemaName": "tests", "tableName": fmt.Sprint("t", n), "metadataTableName": fmt.Sprint("m", n),
		"timeoutInSeconds": "120",
	}
}

func TestMySQLState(t *testing.T) {
	t.Parallel()
	conforms(t, mysqlState, statetest.Traits{}, mysqlSettings)
}

func TestMySQLStateSharesItemsWithDapr(t *testing.T) {
	for _, name := range []string{"a table of ours", "a table of the library's"} {
		t.Run(name, func(t *testing.T) {
			settings := mysqlSettings(t)
			if name == "a table of the library's" {
				libraryStore(t, contribmysql.NewMySQLStateStore, settings)
			}
			ours := openState(t, mysqlState, settings)
			sharesItems(t, ours, libraryStore(t, contribmysql.NewMySQLStateStore, settings))
		})
	}
}

// TestMySQLTablesOfOldDaprs: before 1.11 a table had no column for when an item expires.
func TestMySQLTablesOfOldDaprs(t *testing.T) {
	settings := mysqlSettings(t)
	openState(t, mysqlState, mysqlSettings(t)).Close(t.Context()) // makes the database
	db, err := sql.Open("mysql", settings["connectionString"]+settings["schemaName"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "CREATE TABLE "+settings["tableName"]+` (id VARCHAR(255) NOT NULL PRIMARY KEY, value JSON NOT NULL,
		isbinary BOOLEAN NOT NULL, insertDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
		updateDate TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, eTag VARCHAR(36) NOT NULL)`); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s := openState(t, mysqlState, settings)
		if _, err := s.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("1"), TTL: time.Hour}}); err != nil {
			t.Fatal(err)
		}
		if items, err := s.Get(t.Context(), []string{"k"}); err != nil || len(items) != 1 || items[0].Expires.IsZero() {
			t.Errorf("%v, %v", items, err)
		}
		s.Close(t.Context())
	}
}

// TestMySQLKeysThatATableFolds: in a table of the library's, "k" and "K" are one key to the server. Neither is read, written or
// deleted for the other.
func TestMySQLKeysThatATableFolds(t *testing.T) {
	settings := mysqlSettings(t)
	openState(t, mysqlState, mysqlSettings(t)).Close(t.Context()) // makes the database
	libraryStore(t, contribmysql.NewMySQLStateStore, settings)
	s := openState(t, mysqlState, settings)
	defer s.Close(t.Context())
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "k", Value: []byte("1")}}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"K", "k ", "ḱ"} {
		for _, op := range []state.Op{{Key: key}, {Key: key, Match: state.Absent}, {Key: key, Kind: state.Delete}} {
			if _, err := s.Apply(t.Context(), []state.Op{op}); fault.ReasonOf(err) != fault.KeyInvalid && err != nil {
				t.Errorf("%q: %v", key, err)
			}
		}
		items, err := s.Get(t.Context(), []string{"k", key})
		if err != nil || len(items) == 0 || items[0].Key != "k" || string(items[0].Value) != "1" {
			t.Errorf("beside %q: %v, %v", key, items, err)
		}
	}
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "K"}}); fault.ReasonOf(err) != fault.KeyInvalid {
		t.Errorf("K: %v", err)
	}
}

// TestMySQLCleansUp: the rows of what has expired go.
func TestMySQLCleansUp(t *testing.T) {
	settings := mysqlSettings(t)
	settings["cleanupInterval"] = "100ms"
	s := openState(t, mysqlState, settings)
	defer s.Close(t.Context())
	if _, err := s.Apply(t.Context(), []state.Op{{Key: "goes", TTL: time.Millisecond}, {Key: "stays"}}); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("mysql", settings["connectionString"]+settings["schemaName"])
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for deadline := time.Now().Add(hung); ; time.Sleep(20 * time.Millisecond) {
		var rows int
		if err := db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM "+settings["tableName"]).Scan(&rows); err != nil {
			t.Fatal(err)
		}
		if rows == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d rows are left", rows)
		}
	}
}
