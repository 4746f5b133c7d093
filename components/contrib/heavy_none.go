//go:build !all_components

package contrib

import "github.com/sidecast/sidecast/components"

// heavyMiddleware are in builds with the tag all_components alone.
var heavyMiddleware []components.Component
