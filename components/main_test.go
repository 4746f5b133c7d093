package components

import (
	"context"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sidecast/sidecast/lock"
	"github.com/sidecast/sidecast/pubsub"
	"github.com/sidecast/sidecast/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testConfig has a field of every type and every tag.
type testConfig struct {
	Dir      string        `meta:"dir,required" doc:"Directory that holds the data."`
	Sync     bool          `meta:"sync" default:"true" doc:"Fsync before a write is acknowledged."`
	Size     Bytes         `meta:"size" default:"8MiB" min:"1MiB" max:"1GiB" doc:"Most memory."`
	Wait     time.Duration `meta:"wait" default:"5s" min:"1s" doc:"Longest wait."`
	Shards   int           `meta:"shards" default:"4" min:"1" max:"64" doc:"Number of shards."`
	Big      int64         `meta:"big" doc:"A large number."`
	Ratio    float64       `meta:"ratio" default:"0.5" min:"0.1" max:"0.9" doc:"A share."`
	Mode     string        `meta:"mode" default:"fast" oneof:"fast|safe" doc:"How to trade."`
	Password string        `meta:"password" secret:"true" doc:"Password."`
	Pin      int           `meta:"pin" secret:"true" doc:"Number that nobody may see."`
	Token    string        `meta:"token" doc:"Any text."`

	//lint:ignore U1000 a field without a tag is none of the schema's business
	untagged int
}

// Backends whose methods do not matter: the Set only opens and closes them.
type (
	fakeStore struct {
		state.Store
		config testConfig
		close  func() error
	}
	fakeBroker struct{ pubsub.Broker }
	fakeLocker struct{ lock.Locker }
	fakeVault  map[string]map[string]string
)

func (f *fakeStore) Close(context.Context) error {
	if f.close == nil {
		return nil
	}
	return f.close()
}
func (fakeBroker) Close(context.Context) error { return nil }
func (fakeLocker) Close(context.Context) error { return nil }
func (fakeVault) Close(context.Context) error  { return nil }

func (v fakeVault) Secret(_ context.Context, name string, metadata map[string]string) (map[string]string, error) {
	if name == "said" {
		return metadata, nil
	}
	return v[name], nil
}

func (v fakeVault) Secrets(context.Context, map[string]string) (map[string]map[string]string, error) {
	return v, nil
}

type none struct{}

// stateTest is a store that open makes.
func stateTest(open func(context.Context, Host, testConfig) (state.Store, error)) Component {
	return State("test", "Store for tests.", open)
}

var (
	testStore = stateTest(func(_ context.Context, _ Host, c testConfig) (state.Store, error) {
		return &fakeStore{config: c}, nil
	})
	testBroker = PubSub("test", "Broker for tests.", func(context.Context, Host, none) (pubsub.Broker, error) {
		return fakeBroker{}, nil
	})
	testLocker = Lock("test", "Locks for tests.", func(context.Context, Host, none) (lock.Locker, error) {
		return fakeLocker{}, nil
	})
	testVault = Secrets("test", "Secrets for tests.", func(context.Context, Host, none) (SecretStore, error) {
		return fakeVault{"redis": {"password": "hunter2", "redis": "hunter3", "pin": "hunter4"}}, nil
	})
	testComponents = []Component{testStore, testBroker, testLocker, testVault}
)
