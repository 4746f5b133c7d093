// Package admin is the HTTP door for operators: /healthz and /readyz for whoever restarts and routes, /metrics for
// Prometheus, /tree for people with curl, and pprof when it is asked for. They show and change nothing, and ask for no
// token. POST /lanes steers a lane, as `sidecast lane` does, and asks for the API token where the sidecar has one.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	blocks "github.com/sidecast/sidecast/building_blocks"
	"github.com/sidecast/sidecast/fault"
)

// Options is what the door needs.
type Options struct {
	Runtime  *blocks.Runtime
	Registry *prometheus.Registry
	// Token is asked of those who give orders; empty asks for none.
	Token string
	// Profiling serves /debug/pprof/.
	Profiling bool
	// MetricsEverywhere answers every other path with the metrics, as daprd does.
	MetricsEverywhere bool
	Log               *slog.Logger
}

// Server is the door.
type Server struct{ http *http.Server }

// New builds the door. It listens nowhere yet.
func New(o Options) *Server {
	o.Registry.MustRegister(newLaneCollector(o.Runtime))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, http.StatusOK, map[string]any{"status": "live"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if problems := o.Runtime.Problems(); len(problems) > 0 {
			answer(w, http.StatusServiceUnavailable, map[string]any{"status": "not ready", "problems": problems})
			return
		}
		answer(w, http.StatusOK, map[string]any{"status": "ready"})
	})
	mux.HandleFunc("GET /tree", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, o.Runtime.Tree(r.Context()))
	})
	mux.Handle("POST /lanes", newSteering(o))
	metrics := promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{})
	mux.Handle("GET /metrics", metrics)
	if o.MetricsEverywhere {
		mux.Handle("GET /", metrics)
	}
	if o.Profiling {
		mux.HandleFunc("/debug/pprof/", pprof.Index)
		mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
		mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
		mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	}
	return &Server{http: &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}}
}

// Serve answers on listener until Close.
func (s *Server) Serve(listener net.Listener) error {
	if err := s.http.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fault.E("admin api", fault.Internal, fault.Defect, err)
	}
	return nil
}

// Close lets running requests end until ctx does.
func (s *Server) Close(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(body) // a client that went away needs no answer
}
