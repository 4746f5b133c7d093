package access_test

import (
	"strings"
	"testing"

	"github.com/sidecast/sidecast/access"
	"github.com/sidecast/sidecast/fault"
)

// What Dapr v1.18.3 answers (pkg/acl), rule by rule.
func TestCheck(t *testing.T) {
	policy := access.Policy{
		App: "cart", Namespace: "shop", TrustDomain: "public", DefaultAction: "deny",
		Operations: []access.Operation{
			{Name: "Price", Verbs: []string{"GET", "PUT"}, Action: "allow"},
			{Name: "/all/*", Verbs: []string{"*"}, Action: "allow"},
			{Name: "deep/**", Verbs: []string{"*"}, Action: "allow"},
			{Name: "v*/x", Verbs: []string{"*"}, Action: "ALLOW"},
			{Name: "no-verbs", Action: "allow"},
			{Name: "price", Verbs: []string{"*"}, Action: "deny"}, // the second of its name: it does not count over HTTP
		},
	}
	cart := access.Caller{App: "cart", Namespace: "shop", TrustDomain: "public"}
	for _, c := range []struct {
		http            bool
		caller          access.Caller
		operation, verb string
		allowed         bool
	}{
		{true, cart, "price", "GET", true},
		{true, cart, "/PRICE", "PUT", true},
		{true, cart, "price", "POST", false},
		{true, cart, "price", "", false}, // a POST
		{true, cart, "price/below", "GET", true},
		{true, cart, "price", "PROPFIND", false},
		{true, cart, "all", "GET", true},
		{true, cart, "all/one", "DELETE", true},
		{true, cart, "all/one/two", "DELETE", false},
		{true, cart, "deep/one/two", "DELETE", true},
		{true, cart, "v1/x", "GET", true},
		{true, cart, "v1/y", "GET", false},
		{true, cart, "no-verbs", "GET", false},
		{true, cart, "other", "GET", false},
		{true, access.Caller{App: "cart", Namespace: "else", TrustDomain: "public"}, "other", "GET", true},
		{true, access.Caller{App: "cart", Namespace: "shop", TrustDomain: "else"}, "other", "GET", true},
		{true, access.Caller{App: "till", Namespace: "shop", TrustDomain: "public"}, "other", "GET", true},
		{false, cart, "no-verbs", "", true},
		{false, cart, "Price", "GET", true},
		{false, cart, "price", "GET", false}, // names know case
		{false, cart, "/deep/pkg.Service/Method", "", true},
	} {
		list := access.NewList(access.Rules{DefaultAction: "allow", Policies: []access.Policy{policy}}, c.http)
		err := list.Check(c.caller, c.operation, c.verb)
		if (err == nil) != c.allowed {
			t.Errorf("http %v: %+v %s %s: %v", c.http, c.caller, c.verb, c.operation, err)
		}
		if err != nil && (fault.KindOf(err) != fault.Denied || fault.ReasonOf(err) != fault.AccessDenied) {
			t.Errorf("%v is of kind %v and reason %v", err, fault.KindOf(err), fault.ReasonOf(err))
		}
	}
}

// A policy for an app decides where it has an action of its own, also when that of an operation is taken.
func TestWhoseActionDecides(t *testing.T) {
	list := access.NewList(access.Rules{DefaultAction: "deny", Policies: []access.Policy{
		{App: "own", Namespace: "n", TrustDomain: "public", DefaultAction: "allow"}, {App: "none", Namespace: "n", TrustDomain: "public"},
	}}, true)
	for app, want := range map[string][2]bool{"own": {true, true}, "none": {false, false}, "stranger": {false, false}} {
		byApp, err := list.Decide(access.Caller{App: app, Namespace: "n", TrustDomain: "public"}, "x", "GET")
		if byApp != want[0] || (err == nil) != want[1] {
			t.Errorf("%s: by its own policy %v, %v", app, byApp, err)
		}
	}
	if byApp, err := (*access.List)(nil).Decide(access.Caller{App: "own"}, "x", "GET"); byApp || err != nil {
		t.Errorf("no list: %v %v", byApp, err)
	}
}

func TestTheDefaultAction(t *testing.T) {
	one := []access.Policy{{App: "a", Namespace: "n", TrustDomain: "public"}}
	for _, c := range []struct {
		rules   access.Rules
		allowed bool
	}{
		{access.Rules{}, true},
		{access.Rules{DefaultAction: "Allow"}, true},
		{access.Rules{DefaultAction: "deny"}, false},
		{access.Rules{Policies: one}, false},
		{access.Rules{Policies: one, DefaultAction: "allow"}, true},
	} {
		err := access.NewList(c.rules, true).Check(access.Caller{App: "b", Namespace: "n", TrustDomain: "public"}, "x/y", "GET")
		if (err == nil) != c.allowed {
			t.Errorf("%+v: %v", c.rules, err)
		}
		const text = "access control policy has denied access to id: spiffe://public/ns/n/b operation: x/y verb: GET"
		if err != nil && !strings.Contains(err.Error(), text) {
			t.Errorf("got %v", err)
		}
	}
	root := access.NewList(access.Rules{DefaultAction: "deny"}, true).Check(access.Caller{App: "b", Namespace: "n", TrustDomain: "public"}, "", "GET")
	if root == nil || !strings.Contains(root.Error(), "/n/b operation:  verb: GET") { // with the name that it has in daprd: none
		t.Errorf("got %v", root)
	}
}

func TestAPIs(t *testing.T) {
	rule := func(text string) access.APIRule {
		parts := strings.Fields(text)
		return access.APIRule{Name: parts[0], Version: parts[1], Protocol: parts[2]}
	}
	const state, query, invoke, health = "v1.0/state/{storeName}/{key}", "v1.0-alpha1/state/{storeName}/query", "v1.0/invoke/*", "v1.0/healthz"
	const getState, proxied = "/dapr.proto.runtime.v1.Dapr/GetState", "/pkg.Service/Method"
	for _, c := range []struct {
		allowed, denied string
		served, refused []string
	}{
		{"", "", []string{state, query, invoke, health, getState, proxied}, nil},
		{"state v1 http", "", []string{state, health, getState, proxied}, []string{query, invoke}},
		{"state v1.0 HTTP", "", []string{state, health}, []string{query, invoke}},
		{"state v1 grpc", "", []string{state, query, invoke, getState, proxied}, []string{"/dapr.proto.runtime.v1.Dapr/PublishEvent"}},
		{"", "state v1 grpc", []string{state, proxied, "/dapr.proto.runtime.v1.Dapr/PublishEvent"}, []string{getState}},
		{"", "state v1alpha1 http", []string{state, invoke, getState}, []string{query}},
		{"invoke v1 http", "invoke v1 http", []string{health, getState}, []string{invoke, state}},
		{"", "healthz v1 http", []string{health}, nil},
		{"nothing v1 grpc", "", []string{state, getState}, nil}, // as in Dapr: it names nothing
	} {
		var allowed, denied []access.APIRule
		if c.allowed != "" {
			allowed = append(allowed, rule(c.allowed))
		}
		if c.denied != "" {
			denied = append(denied, rule(c.denied))
		}
		apis := access.NewAPIs(allowed, denied)
		says := func(what string) bool {
			if strings.HasPrefix(what, "/") {
				return apis.GRPC(what)
			}
			return apis.HTTP(what)
		}
		for _, what := range c.served {
			if !says(what) {
				t.Errorf("allowed %q, denied %q: %s is refused", c.allowed, c.denied, what)
			}
		}
		for _, what := range c.refused {
			if says(what) {
				t.Errorf("allowed %q, denied %q: %s is served", c.allowed, c.denied, what)
			}
		}
	}
}
