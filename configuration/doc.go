// Package configuration reads Dapr's Configuration (dapr.io/v1alpha1): who may call the app, which parts of Dapr's API are
// served, where traces go, what is logged. It reads and decides nothing else: others enforce what it says.
//
//	settings, findings := configuration.Read(docs.Configurations)
//	list := access.NewList(settings.Access, true)
//
// Of several documents each is laid over the ones before it: a value replaces the one that was there, a list the whole list.
// Variables as ${NAME} are filled in from the environment. The structs in spec.go are the one description of the format.
// Keys that mean nothing here are read, so that a mistake in them is found, and named in one warning.
package configuration
