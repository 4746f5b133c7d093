// Package access says who may do what, by the rules of Dapr's Configuration: which operations of an app its callers may
// invoke (List), and which parts of Dapr's API a sidecar serves (APIs). Both are pure: they read no clock and know no
// transport. Nil values allow everything.
//
//	list, err := access.NewList(rules, true)
//	if err := list.Check(access.Caller{App: "cart", Namespace: "prod", TrustDomain: "public"}, "price", "GET"); err != nil {
//		return err // of kind fault.Denied
//	}
package access
