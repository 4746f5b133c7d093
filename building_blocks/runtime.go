package blocks

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/sidecast/sidecast/actors"
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/fabric"
)

// Runtime tells about the sidecar itself.
type Runtime struct {
	deps     Deps
	started  time.Time
	pubsub   *PubSub
	shutdown func()

	warnings atomic.Pointer[[]string]
}

// Description is who a sidecar is, what it has and whom it sees.
type Description struct {
	Self          Self
	Started       time.Time
	PID           int
	Fabric        string
	AppChannel    string
	Components    []components.Status
	Instances     []fabric.Instance
	Subscriptions []SubscriptionStatus
	// Warnings say in a sentence each what is wrong and keeps no call from being served.
	Warnings []string
}

// HasComponent says whether the block has a component of that name that the app may use, and whether it has any.
func (r *Runtime) HasComponent(block components.Block, name string) (found, any bool) {
	return r.deps.Components.Has(block, name)
}

// ComponentType is the type of the component of that name, or "" when the app has none.
func (r *Runtime) ComponentType(name string) string { return r.deps.Components.Type(name) }

// HasPlainValues says whether the component of that name is a state store without ETags and transactions: see state.Plain.
func (r *Runtime) HasPlainValues(name string) bool { return r.deps.Components.Plain(name) }

// Describe tells who this sidecar is, what it has and whom it sees.
func (r *Runtime) Describe() Description {
	d := Description{
		Self: r.deps.Self, Started: r.started, PID: os.Getpid(),
		Fabric: r.deps.Fabric.Describe(), AppChannel: r.deps.App.Kind(),
		Components: r.deps.Components.Statuses(), Instances: r.deps.Fabric.Instances(""),
		Subscriptions: r.pubsub.Subscriptions(),
	}
	if warnings := r.warnings.Load(); warnings != nil {
		d.Warnings = *warnings
	}
	return d
}

// Warn has Describe tell of these warnings, in place of those before.
func (r *Runtime) Warn(warnings ...string) { r.warnings.Store(&warnings) }

// Problems says in a sentence each what keeps the sidecar from being ready; none means ready. A degraded component is
// not among them: it takes nothing from the others.
func (r *Runtime) Problems() []string {
	var problems []string
	if !r.deps.Fabric.Connected() {
		problems = append(problems, "the fabric is not connected: "+r.deps.Fabric.Describe())
	}
	if err := r.deps.App.Ready(); err != nil && r.deps.App.Kind() != "stream" { // an app that only calls opens no stream
		problems = append(problems, err.Error())
	}
	return problems
}

// Tree is the supervision tree.
func (r *Runtime) Tree(ctx context.Context) actors.Node { return r.deps.System.Tree(ctx) }

// Shutdown asks the process to drain and end. It returns at once.
func (r *Runtime) Shutdown() { r.shutdown() }
