// Package governance reads what users write about resiliency and makes policies of it: Dapr's Resiliency documents with
// what Sidecast adds to them, and the fault-tolerance documents of OpenSergo v1alpha1. It decides nothing about a call;
// lanes do, by the policies that it returns.
//
//	rules, findings := governance.Read(docs.Policies, governance.Who{AppID: "cart", Namespace: "prod"})
//	orders := rules.App("orders", standard) // the policy of a lane, and rules for single operations
//
// A document that only uses what Dapr has means what it means to Dapr v1.18. What a document does not set keeps the
// target's default. Unknown keys, names that nothing has and values that cannot be are errors with file, line and key;
// one error is enough for nothing to be used.
//
// The structs in spec.go and opensergo.go are the one description of the format: the reader, the JSON Schemas and the
// reference page follow their tags.
package governance
