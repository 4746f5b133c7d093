package components

import "github.com/sidecast/sidecast/manifest"

// What the files of a folder say, and what is wrong with them, is package manifest's to tell.
type (
	// Finding is one thing that is wrong in a file, or worth knowing about it.
	Finding = manifest.Finding
	// Source is where something was written.
	Source = manifest.Source
	// Raw is a document of a kind that this package recognises and leaves to others.
	Raw = manifest.Raw
)

// The severities of a Finding.
const (
	Error   = manifest.Error
	Warning = manifest.Warning
)
