// Package plugintest is a program for tests that brings pluggable components of every kind: a state store, a broker, a binding
// of both directions and a secret store, with Dapr's own gRPC services. It keeps what it was given in a file before it
// answers, so that it can be killed at any time.
//
//	if plugintest.Wanted() { // in TestMain
//		plugintest.Main()
//	}
//	p := plugintest.Start(t, socket, file) // the test binary again, as a process of its own
package plugintest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
)

// Program is what the components share. The zero Program has nothing, and forgets all when it ends.
type Program struct {
	// File is where everything is kept; "" keeps nothing.
	File string
	// Without lists the services that it does not have, by the last part of their names; Bulk is all calls for several things.
	// Without Init it takes no settings, and says which it was given; without Many a transaction has FewOps at most,
	// without Limit it does not say how many. Without Patience its messages do not wait for others to fill a bulk.
	Without []string
	// Hung, if set, is told of each call that hangs.
	Hung chan<- struct{}

	mu       sync.Mutex
	changed  chan struct{}
	kept     kept
	settings map[string]map[string]string // by service and instance
	busy     map[string]bool              // messages and events that a stream has
	refused  map[string]int               // publishes that were told to fail, by topic
}

// kept is what outlives the program.
type kept struct {
	Items   map[string]item
	Topics  map[string]map[string][]message // by topic and group
	Events  []message
	Answers []string
	Last    int
}

type item struct {
	Value   []byte
	Tag     int
	Expires int64 // in milliseconds of Unix time; 0 never
}

type message struct {
	ID          string
	Data        []byte
	Metadata    map[string]string
	ContentType string
}

// Serve listens until ctx ends.
func (p *Program) Serve(ctx context.Context, listener net.Listener) error {
	p.mu.Lock()
	p.changed, p.busy, p.settings = make(chan struct{}), map[string]bool{}, map[string]map[string]string{}
	p.refused = map[string]int{}
	p.kept = kept{Items: map[string]item{}, Topics: map[string]map[string][]message{}}
	data, err := os.ReadFile(p.File)
	if err == nil {
		err = json.Unmarshal(data, &p.kept)
	}
	p.mu.Unlock()
	if err != nil && p.File != "" && !os.IsNotExist(err) {
		return err
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	for _, service := range []struct {
		name     string
		register func()
	}{
		{"StateStore", func() { proto.RegisterStateStoreServer(s, store{p: p}) }},
		{"TransactionalStateStore", func() { proto.RegisterTransactionalStateStoreServer(s, store{p: p}) }},
		{"TransactionalStoreMultiMaxSize", func() { proto.RegisterTransactionalStoreMultiMaxSizeServer(s, store{p: p}) }},
		{"QueriableStateStore", func() { proto.RegisterQueriableStateStoreServer(s, store{p: p}) }},
		{"PubSub", func() { proto.RegisterPubSubServer(s, broker{p: p}) }},
		{"InputBinding", func() { proto.RegisterInputBindingServer(s, input{p: p}) }},
		{"OutputBinding", func() { proto.RegisterOutputBindingServer(s, output{p: p}) }},
		{"SecretStore", func() { proto.RegisterSecretStoreServer(s, vault{p: p}) }},
		{"Reflection", func() { reflection.Register(s) }},
	} {
		if !slices.Contains(p.Without, service.name) {
			service.register()
		}
	}
	defer context.AfterFunc(ctx, s.Stop)()
	return s.Serve(listener)
}

// change does something to what is kept, and tells those who wait for a change.
func (p *Program) change(do func() error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := do(); err != nil {
		return err
	}
	close(p.changed)
	p.changed = make(chan struct{})
	if p.File == "" {
		return nil
	}
	data, err := json.Marshal(p.kept)
	if err == nil {
		err = os.WriteFile(p.File+".new", data, 0o600)
	}
	if err == nil {
		err = os.Rename(p.File+".new", p.File)
	}
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	return nil
}

// instance is the component that a call is for.
func instance(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	return strings.Join(md.Get("x-component-instance"), " ")
}

// init takes the settings of a component.
func (p *Program) init(ctx context.Context, service string, m *proto.MetadataRequest) error {
	if text := m.GetProperties()["failInit"]; text != "" {
		return status.Error(codes.InvalidArgument, "failInit is "+text)
	}
	if slices.Contains(p.Without, "Init") {
		return status.Error(codes.InvalidArgument, fmt.Sprint("cannot sign in with ", m.GetProperties()))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.settings[service+" "+instance(ctx)] = m.GetProperties()
	return nil
}

// ready refuses a component that was told nothing.
func (p *Program) ready(ctx context.Context, service string) (map[string]string, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	settings, ok := p.settings[service+" "+instance(ctx)]
	if !ok {
		return nil, status.Errorf(codes.Internal, "component %q of %s was not initialized", instance(ctx), service)
	}
	return settings, nil
}

// number is the next of a series. p.mu is held.
func (p *Program) number() int {
	p.kept.Last++
	return p.kept.Last
}

// The variables that make a test binary the program.
const (
	socketVariable  = "SIDECAST_TEST_PLUGIN_SOCKET"
	fileVariable    = "SIDECAST_TEST_PLUGIN_FILE"
	withoutVariable = "SIDECAST_TEST_PLUGIN_WITHOUT"
)

// Wanted says whether this process was started by Start.
func Wanted() bool { return os.Getenv(socketVariable) != "" }

// Main is the program; it does not return.
func Main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &Program{File: os.Getenv(fileVariable), Without: strings.Fields(os.Getenv(withoutVariable))}
	socket := os.Getenv(socketVariable)
	_ = os.Remove(socket) // of one that was killed
	listener, err := net.Listen("unix", socket)
	if err == nil {
		err = p.Serve(ctx, listener)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "the plug-in:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
