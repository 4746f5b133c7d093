//go:build !unix

package rundir

func ownHome() string { return "" }
