package manifest

import (
	"fmt"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"
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

// maxName is the most bytes a name may have.
const maxName = 253

// validName says whether a component or subscription may be called that: whatever can be one segment of a path, which is what
// daprd takes outside of Kubernetes.
func validName(name string) bool {
	return len(name) <= maxName && name != "." && name != ".." && utf8.ValidString(name) &&
		!strings.ContainsAny(name, "/%") && !strings.ContainsRune(name, filepath.Separator) && !strings.ContainsFunc(name, unicode.IsControl)
}

// serverKeys are what a cluster adds to an object's metadata: `kubectl get -o yaml` shows them, they say nothing here.
var serverKeys = []string{
	"labels", "annotations", "creationTimestamp", "generation", "resourceVersion", "uid", "managedFields", "ownerReferences",
	"finalizers", "selfLink",
}

// Identity reads metadata.name and metadata.namespace.
func Identity(o *Object) (name, namespace string) {
	m := o.Child("metadata")
	name, namespace = m.Need("name", "what apps call it"), m.Str("namespace")
	if name != "" && !validName(name) {
		m.Doc.Fail(m.Line("name"), m.At("name"), "%q must have no slashes, percent signs and control characters, and at most %d bytes", name, maxName)
	}
	m.Ignored = serverKeys
	m.Done()
	return name, namespace
}
