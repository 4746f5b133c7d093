// Package standard lists the components of the standard binary, and the ones that exist before anyone writes a manifest.
// Nothing registers itself: what is not in this list is not in the binary.
//
//	set := components.NewSet(components.Options{Host: host, Known: standard.All(), BuiltIn: standard.Defaults()})
package standard

import (
	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/contrib"
	"github.com/sidecast/sidecast/components/envsecrets"
	"github.com/sidecast/sidecast/components/filesecrets"
	"github.com/sidecast/sidecast/configstore/natsconfig"
	"github.com/sidecast/sidecast/lock/badgerlock"
	"github.com/sidecast/sidecast/lock/memorylock"
	"github.com/sidecast/sidecast/lock/natslock"
	"github.com/sidecast/sidecast/pipeline/requestlimit"
	"github.com/sidecast/sidecast/pipeline/signin"
	"github.com/sidecast/sidecast/pipeline/uppercase"
	"github.com/sidecast/sidecast/pubsub/memorypubsub"
	"github.com/sidecast/sidecast/pubsub/natspubsub"
	"github.com/sidecast/sidecast/state/badgerstore"
	"github.com/sidecast/sidecast/state/memorystore"
	"github.com/sidecast/sidecast/state/natsstore"
)

// All lists every component, by block and product. Those that components-contrib has and this program lacks are among them, as
// NotLinked says.
func All() []components.Component {
	own := []components.Component{
		badgerstore.Component,
		natsstore.Component,
		memorystore.Component,
		memorystore.Component.As("in-memory"),
		natspubsub.Component,
		memorypubsub.Component,
		memorypubsub.Component.As("in-memory"),
		badgerlock.Component,
		natslock.Component,
		memorylock.Component,
		memorylock.Component.As("in-memory"),
		envsecrets.Component,
		filesecrets.Component,
		natsconfig.Component,
		requestlimit.Component,
		signin.Component,
		uppercase.Component,
	}
	own = append(own, contrib.All()...)
	return append(own, contrib.Rest(own)...)
}

// Defaults lists the components that exist when no manifest has their name: with no files at all, an app has a durable
// state store, a broker and locks.
func Defaults() []components.Manifest {
	return []components.Manifest{
		{Name: "statestore", Type: "state.badger"},
		{Name: "pubsub", Type: "pubsub.jetstream"},
		{Name: "lockstore", Type: "lock.jetstream"},
	}
}
