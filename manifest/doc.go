// Package manifest reads YAML documents strictly: every value knows its line, and every key that nobody asks for is an
// error that names the nearest valid one. It knows the shape that all documents share (apiVersion, kind, metadata) and no
// kind; those belong to the packages that use them.
//
//	for _, chunk := range manifest.Split(data) {
//		root, err := manifest.Parse(chunk)
//		…
//		d := &manifest.Document{File: name}
//		o := d.Object(root, "")
//		kind := o.Need("kind", "what the document is")
//		o.Done() // what is left over is wrong
//	}
//
// Reading never panics and never takes longer than the bounds on a file's size, depth and values allow, whatever the
// bytes are.
package manifest
