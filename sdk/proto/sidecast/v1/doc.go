// Package sidecastv1 is the native gRPC API of Sidecast, generated from the proto files beside it; docs/reference/api.md
// documents it field by field. Go apps are better served by sdk/go, which wraps it.
package sidecastv1
