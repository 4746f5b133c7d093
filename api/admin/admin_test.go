package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/actors"
	blocks "github.com/sidecast/sidecast/building_blocks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// door is the admin API of a sidecar that has nothing but lanes.
type door struct {
	t      *testing.T
	system *actors.System
	server *Server
	log    bytes.Buffer
}

func open(t *testing.T, token string) *door {
	t.Helper()
	d := &door{t: t, system: actors.NewSystem(actors.Options{})}
	log := slog.New(slog.NewJSONHandler(&d.log, nil))
	b := blocks.New(blocks.Deps{System: d.system, Log: log, Self: blocks.Self{AppID: "orders"}})
	d.server = New(Options{Runtime: b.Runtime, Registry: prometheus.NewRegistry(), Token: token, Log: log})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := d.system.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d *door) ask(method, path, body string, headers ...string) (int, string) {
	d.t.Helper()
	r := httptest.NewRequestWithContext(d.t.Context(), method, path, strings.NewReader(body))
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	d.server.http.Handler.ServeHTTP(w, r)
	text, err := io.ReadAll(w.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return w.Code, string(text)
}

func (d *door) order(body string, headers ...string) (int, string) {
	d.t.Helper()
	return d.ask("POST", "/lanes", body, append([]string{"Content-Type", "application/json"}, headers...)...)
}

// audit returns the lines of the audit log since it was last asked.
func (d *door) audit() (lines []map[string]any) {
	d.t.Helper()
	for line := range strings.Lines(d.log.String()) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil {
			d.t.Fatal(err)
		}
		if fields["audit"] == true {
			lines = append(lines, fields)
		}
	}
	d.log.Reset()
	return lines
}

func (d *door) status(lane string) actors.LaneStatus {
	d.t.Helper()
	l, ok := d.system.Find(lane)
	if !ok {
		d.t.Fatalf("no lane %s", lane)
	}
	return l.Status(d.t.Context())
}

func TestHealthAndTreeAskForNoToken(t *testing.T) {
	d := open(t, "open-sesame")
	for path, want := range map[string]string{"/healthz": `"live"`, "/tree": `"name": "app"`, "/metrics": `sidecast_lane_in_flight{lane="app"} 0`} {
		if code, body := d.ask("GET", path, ""); code != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d %s", path, code, body)
		}
	}
}
