//go:build !linux

// Package servers starts real servers for tests, on Linux alone: elsewhere what needs one is skipped.
package servers

import "testing"

// HasPostgres says that there is none.
func HasPostgres(testing.TB) bool { return false }

// Postgres skips the test.
func Postgres(t testing.TB) string { return none(t) }

// RabbitMQ skips the test.
func RabbitMQ(t testing.TB) string { return none(t) }

// Stop has nothing to end.
func Stop() error { return nil }

func none(t testing.TB) string {
	t.Helper()
	t.Skip("servers are started on Linux alone")
	return ""
}
