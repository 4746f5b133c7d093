package manifest

import (
	"fmt"
	"regexp"
)

// Source is where something was written.
type Source struct {
	File string
	Line int
}

// String is `file:line`, or the file alone when there is no line.
func (s Source) String() string {
	if s.Line == 0 {
		return s.File
	}
	return fmt.Sprintf("%s:%d", s.File, s.Line)
}

// Raw is a document as text, for whoever reads its kind.
type Raw struct {
	Kind   string
	Source Source
	// YAML is the document; its first line is the Source's.
	YAML []byte
}

// validName is what a component or subscription may be called.
var validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?$`)

// serverKeys are what a cluster adds to an object's metadata: `kubectl get -o yaml` shows them, they say nothing here.
var serverKeys = []string{
	"labels", "annotations", "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "ownerReferences",
	"finalizers", "selfLink",
}

// Identity reads metadata.name and metadata.namespace.
func Identity(o *Object) (name, namespace string) {
	m := o.Child("metadata")
	name, namespace = m.Need("name", "what apps call it"), m.Str("namespace")
	if name != "" && !validName.MatchString(name) {
		m.Doc.Fail(m.Line("name"), m.At("name"), "%q must be letters, digits, dots, dashes and underscores", name)
	}
	m.Ignored = serverKeys
	m.Done()
	return name, namespace
}
