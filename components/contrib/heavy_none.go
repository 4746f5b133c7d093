//go:build !all_components

package contrib

import (
	"slices"
	"strings"

	"github.com/sidecast/sidecast/components"
	"github.com/sidecast/sidecast/components/datasheet"
)

// heavyMiddleware are in builds with the tag all_components alone.
var heavyMiddleware []components.Component

// without is why a program of the default build lacks a component.
const without = "is built without it; one built with -tags all_components has it"

// Rest makes those known that components-contrib has and known lacks: with the tag all_components they are there, without it
// their manifests are refused with an error that says so.
func Rest(known []components.Component) []components.Component {
	had := namesOf(known)
	lacking := slices.DeleteFunc(slices.Collect(datasheet.Names()), func(n datasheet.Name) bool { return had[n] })
	all := make([]components.Component, len(lacking))
	for i, name := range lacking {
		block, product, _ := strings.Cut(name.Type, ".")
		d := described{block: components.Block(block), product: product, version: name.Version}
		all[i] = components.NotLinked(d.block, product, without, d.doc, d.fields).Versioned(name.Version)
	}
	return all
}
