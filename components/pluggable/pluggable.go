// Package pluggable makes components of programs beside the sidecar: Dapr's pluggable components. Such a program listens on a
// Unix socket in a folder, DAPR_COMPONENTS_SOCKETS_FOLDER or /tmp/dapr-components-sockets, and serves Dapr's gRPC services of
// state stores, brokers, bindings and secret stores (github.com/dapr/dapr, dapr/proto/components/v1). What it serves is asked
// by gRPC's reflection; the name of the socket without its extension is the rest of the type: a state store that listens on
// redis-like.sock there is of type state.redis-like.
//
//	folder := pluggable.New(log)
//	folder.Discover(ctx)
//	known := folder.Known(standard.All())
//	go folder.Follow(ctx, func() { set.SetKnown(folder.Known(standard.All())) })
//
// A component of such a type takes any metadata, which its program is told in Init, and again whenever it was away: it may be
// killed and started again, and until it is back calls fail at once with BACKEND_UNAVAILABLE and the component is degraded.
// Lanes, taps and all else are those of every other component.
//
// # What is not promised
//
// The protocol does not tell when a subscription has begun: what is published in the first moments after Subscribe a program
// may not count as the group's. A message that was at work when its program went away is brought again, and handled twice.
// Order is that of one stream: what fails comes again after what came behind it.
package pluggable

import (
	"cmp"
	"context"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	proto "github.com/dapr/dapr/pkg/proto/components/v1"

	"github.com/sidecast/sidecast/components"
)

const (
	// FolderVariable names the folder of the sockets; without it they are in DefaultFolder.
	FolderVariable = "DAPR_COMPONENTS_SOCKETS_FOLDER"
	DefaultFolder  = "/tmp/dapr-components-sockets"
)

// Folder is the folder of the sockets, and what is known of the programs there. All methods may be called concurrently.
type Folder struct {
	dir   string
	named bool // by the environment
	log   *slog.Logger

	turn   sync.Mutex // held by Discover
	mu     sync.Mutex
	places map[string]*place      // by the name of the file
	said   map[string]string      // what was logged of a file last
	known  map[string]fs.FileInfo // the sockets whose programs have answered
	first  map[string]bool        // the types that the first Known had of programs; nil before
	tardy  map[string]bool        // those that came later than the sidecar's own, and were logged
}

// New finds out which folder it is; nothing is looked for yet.
func New(log *slog.Logger) *Folder {
	dir := os.Getenv(FolderVariable)
	return &Folder{
		dir: cmp.Or(dir, DefaultFolder), named: dir != "", log: log, places: make(map[string]*place), said: make(map[string]string),
		known: make(map[string]fs.FileInfo), tardy: make(map[string]bool),
	}
}

// place is a program's socket and what it serves.
type place struct {
	socket, name string
	services     []string // those of components, sorted
}

func (p *place) has(service string) bool { return slices.Contains(p.services, service) }

func (p *place) typeOf(block components.Block) string { return string(block) + "." + p.name }

// String is the same for a program that does the same at the same place.
func (p *place) String() string { return p.socket + " " + strings.Join(p.services, " ") }

// Known is the components of the programs that were discovered so far, before those of base, and what stands for the types
// of programs that were not. A type of base that can be opened is a program's only if it was discovered before Known was
// called first: nobody takes over a component under the app that uses it.
func (f *Folder) Known(base []components.Component) []components.Component {
	own := make(map[string]bool, len(base))
	for _, c := range base {
		if c.NotLinked() == "" {
			own[strings.ToLower(c.Type())] = true
		}
	}
	brought := f.Components()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.first == nil {
		f.first = make(map[string]bool, len(brought))
		for _, c := range brought {
			f.first[c.Type()] = true
		}
	}
	brought = slices.DeleteFunc(brought, func(c components.Component) bool {
		late := own[c.Type()] && !f.first[c.Type()]
		if late && !f.tardy[c.Type()] {
			f.tardy[c.Type()] = true
			f.log.Warn("a pluggable component came after the sidecar took its own of that type: it counts from the next start", "type", c.Type())
		}
		return late
	})
	return slices.Concat(brought, base, f.elsewhere())
}

// Components are those of the programs that were discovered so far, by type. A program that went away may come back: its
// components stay.
func (f *Folder) Components() []components.Component {
	f.mu.Lock()
	defer f.mu.Unlock()
	var all []components.Component
	for _, file := range slices.Sorted(maps.Keys(f.places)) {
		all = append(all, f.places[file].components()...)
	}
	slices.SortStableFunc(all, func(a, b components.Component) int { return strings.Compare(a.Type(), b.Type()) })
	return slices.CompactFunc(all, func(a, b components.Component) bool { return a.Type() == b.Type() })
}

// components are those that the program brings.
func (p *place) components() (all []components.Component) {
	doc := "A pluggable component of the program at " + p.socket + "."
	if p.has(proto.StateStore_ServiceDesc.ServiceName) {
		all = append(all, component(components.StateBlock, p, doc, openStore).Able(untold))
	}
	if p.has(proto.PubSub_ServiceDesc.ServiceName) {
		all = append(all, component(components.PubSubBlock, p, doc, openBroker))
	}
	switch in, out := p.has(proto.InputBinding_ServiceDesc.ServiceName), p.has(proto.OutputBinding_ServiceDesc.ServiceName); {
	case in && out:
		all = append(all, component(components.BindingBlock, p, doc, openBoth))
	case in:
		all = append(all, component(components.BindingBlock, p, doc, openInput))
	case out:
		all = append(all, component(components.BindingBlock, p, doc, openOutput))
	}
	if p.has(proto.SecretStore_ServiceDesc.ServiceName) {
		all = append(all, component(components.SecretBlock, p, doc, openVault))
	}
	return all
}

// untold are the abilities of a store whose program was not asked yet.
func untold() []string { return []string{} }

func component[B components.Backend](block components.Block, p *place, doc string, open func(context.Context, components.Host, *place, components.Settings) (B, error)) components.Component {
	return components.Foreign(block, p.name, doc, components.AnyKeys, func(ctx context.Context, host components.Host, s components.Settings) (B, error) {
		return open(ctx, host, p, s)
	}).At(p.String())
}

// blocks are those that programs bring components of.
var blocks = []components.Block{components.StateBlock, components.PubSubBlock, components.BindingBlock, components.SecretBlock}

// elsewhere stands for what was not discovered: it may come when the folder is in use.
func (f *Folder) elsewhere() []components.Component {
	var all []components.Component
	for _, block := range blocks {
		all = append(all, components.Elsewhere(block, f.awaited))
	}
	return all
}

// usable says whether there is a folder, and why its programs are not to be trusted. Where anybody may make the folder that
// nobody has named, nobody but root and the user that the sidecar runs as may have made it or may put something into it, and
// it must be that folder itself: a link leads to any folder of those two.
func (f *Folder) usable() (there bool, wrong string) {
	if f.named {
		_, err := os.Stat(f.dir)
		return err == nil, ""
	}
	info, err := os.Lstat(f.dir)
	if err != nil {
		return false, ""
	}
	if info.Mode().Type() == fs.ModeSymlink {
		wrong = "is a link"
	} else {
		wrong = distrust(info)
	}
	if wrong != "" {
		wrong += ": it counts only if " + FolderVariable + " names it"
	}
	return true, wrong
}

// awaited says why there is no component of that type.
func (f *Folder) awaited(typ string) (why string, awaited bool) {
	_, name, _ := strings.Cut(typ, ".")
	switch there, wrong := f.usable(); {
	case !there && !f.named:
		return "there is no folder " + f.dir + " with the sockets of pluggable components (" + FolderVariable + " names another)", false
	case wrong != "":
		return "the folder " + f.dir + " " + wrong, false
	}
	where := filepath.Join(f.dir, name+".sock")
	f.mu.Lock()
	defer f.mu.Unlock()
	for file, said := range f.said {
		if strings.EqualFold(nameOf(file), name) {
			return "the socket " + filepath.Join(f.dir, file) + " brings none: " + said, true
		}
	}
	for file, p := range f.places {
		if p.name == strings.ToLower(name) {
			return "the program at " + filepath.Join(f.dir, file) + " serves no " + typ[:strings.Index(typ, ".")] + ", but " + p.serves(), true
		}
	}
	return "no program in the folder " + f.dir + " brings it; a pluggable component of that type would listen on a socket like " + where, true
}

// serves are the kinds of components that the program brings, in words.
func (p *place) serves() string {
	var kinds []string
	for _, c := range p.components() {
		kinds = append(kinds, c.Type())
	}
	return strings.Join(kinds, ", ")
}

// nameOf is what the file of a socket calls its components; types of Dapr know no case.
func nameOf(file string) string {
	return strings.ToLower(strings.TrimSuffix(file, filepath.Ext(file)))
}
