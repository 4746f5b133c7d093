package appchannel_test

import (
	"log/slog"
	"net"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is for what tests provoke.
var quiet = slog.New(slog.DiscardHandler)

// listen listens on a loopback port: a free one, or that of address.
func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return listener
}
