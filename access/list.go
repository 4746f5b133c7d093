package access

import (
	"fmt"
	"strings"

	"github.com/sidecast/sidecast/fault"
)

// The actions of rules. Whatever is not Allow denies.
const (
	Allow = "allow"
	Deny  = "deny"
)

// PublicDomain is the trust domain of those that name none.
const PublicDomain = "public"

// Rules are what a Configuration says of the callers of its app.
type Rules struct {
	// DefaultAction is for callers that no policy is for; empty denies when there are policies.
	DefaultAction string
	// TrustDomain is the app's own; empty is PublicDomain.
	TrustDomain string
	Policies    []Policy
}

// Policy is what holds for the callers of one app id, namespace and trust domain. Of two for the same app id and namespace
// the later counts.
type Policy struct {
	App, Namespace, TrustDomain string
	// DefaultAction is for operations that none of the policy's names; empty leaves it to the Rules'.
	DefaultAction string
	Operations    []Operation
}

// Operation is what holds for the operations of a name. Segments of the name may hold `*`; `/*` at the end stands for one
// segment or none, `/**` for all that follow.
type Operation struct {
	Name string
	// Verbs are those of HTTP that Action is for, in upper case, or `*`. They count for HTTP apps alone.
	Verbs  []string
	Action string
}

// Caller is who makes a call, as the fabric vouches for it.
type Caller struct{ App, Namespace, TrustDomain string }

// id is the caller in the form of a SPIFFE ID, as Dapr tells it.
func (c Caller) id() string {
	return "spiffe://" + c.TrustDomain + "/ns/" + c.Namespace + "/" + c.App
}

// DeniedText is the fact of a fault of reason fault.AccessDenied that holds the text for Dapr's callers.
const DeniedText = "access-denied"

// List decides about the callers of one app. The nil List allows all.
type List struct {
	action   string
	http     bool // the app speaks HTTP: names know no case, and verbs count
	policies map[appKey]policy
}

type appKey struct{ app, namespace string }

type policy struct {
	domain, action string
	operations     *tree
}

// NewList makes a list of rules for an app that speaks HTTP, or that does not. Rules that allow everything make the nil
// List.
func NewList(r Rules, http bool) *List {
	l := &List{action: strings.ToLower(r.DefaultAction), http: http, policies: make(map[appKey]policy, len(r.Policies))}
	if l.action == "" {
		l.action = Deny
		if len(r.Policies) == 0 {
			l.action = Allow
		}
	}
	if l.action == Allow && len(r.Policies) == 0 {
		return nil
	}
	for _, p := range r.Policies {
		operations := new(tree)
		for _, o := range p.Operations {
			operations.put(l.name(o.Name), rule{verbs: o.Verbs, action: o.Action})
		}
		l.policies[appKey{p.App, p.Namespace}] = policy{p.TrustDomain, p.DefaultAction, operations}
	}
	return l
}

// name is an operation in the form in which names are compared.
func (l *List) name(operation string) string {
	if !strings.HasPrefix(operation, "/") {
		operation = "/" + operation
	}
	if l.http {
		operation = strings.ToLower(operation)
	}
	return operation
}

// Check is nil when caller may invoke the operation, and otherwise a fault of reason fault.AccessDenied. Verb is that of
// HTTP; empty is POST for an HTTP app.
func (l *List) Check(caller Caller, operation, verb string) error {
	_, err := l.Decide(caller, operation, verb)
	return err
}

// Decide is Check, and says whether a policy for the caller's app decided, and not the action that is everybody's.
func (l *List) Decide(caller Caller, operation, verb string) (byApp bool, err error) {
	if l == nil {
		return false, nil
	}
	verb = l.verb(verb)
	action, byApp := l.actionFor(caller, operation, verb)
	if strings.EqualFold(action, Allow) {
		return byApp, nil
	}
	text := fmt.Sprintf("access control policy has denied access to id: %s operation: %s verb: %s", caller.id(), operation, verb)
	return byApp, fault.New("invoke "+operation, fault.AccessDenied, "%s", text).With(DeniedText, text)
}

// noVerb is the verb of calls to apps that know none, and of verbs that Dapr does not.
const noVerb = "NONE"

func (l *List) verb(verb string) string {
	switch {
	case !l.http:
		return noVerb
	case verb == "":
		return "POST"
	}
	switch verb {
	case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		return verb
	}
	return noVerb
}

// actionFor is what is to be done. Like daprd's, a policy for an app counts as such when it has an action of its own, also where one of
// its operations decides.
func (l *List) actionFor(caller Caller, operation, verb string) (action string, byApp bool) {
	p, ok := l.policies[appKey{caller.App, caller.Namespace}]
	if !ok || p.domain != caller.TrustDomain {
		return l.action, false
	}
	action, byApp = p.action, p.action != ""
	if action == "" {
		action = l.action
	}
	found, ok := p.operations.find(l.name(operation))
	switch {
	case !ok:
		return action, byApp
	case !l.http:
		return found.action, byApp
	case verb == noVerb:
		return p.action, byApp
	}
	for _, v := range found.verbs {
		if v == verb || v == "*" {
			return found.action, byApp
		}
	}
	return action, byApp
}

// rule is what is known of the operations of one name.
type rule struct {
	verbs  []string
	action string
}

// tree finds the rule for a path, segment by segment, as Dapr does: the first branch that fits, in the order in which the
// rules were given, is the one that is followed. A rule holds for all that lies below its path as well, unless there is a
// longer way. Of two rules of one name the first counts.
type tree struct {
	segment  string
	rule     *rule
	branches []*tree
}

func (t *tree) put(path string, r rule) {
	segments := strings.Split(path, "/")[1:]
	for i, segment := range segments {
		last := i == len(segments)-1
		next := t.exactly(segment)
		if next == nil {
			next = &tree{segment: segment}
			t.branches = append(t.branches, next)
		}
		if last && next.rule == nil {
			next.rule = &r
		}
		t = next
	}
}

func (t *tree) exactly(segment string) *tree {
	for _, b := range t.branches {
		if b.segment == segment {
			return b
		}
	}
	return nil
}

func (t *tree) find(path string) (rule, bool) {
	segments := strings.Split(path, "/")[1:]
	for i, segment := range segments {
		last := i == len(segments)-1
		if t = t.follow(segment, last); t == nil {
			return rule{}, false
		}
		if t.rule != nil && (last || t.segment != "*") {
			return *t.rule, true
		}
		if last {
			t = t.follow("*", true)
		}
	}
	if t != nil && t.rule != nil {
		return *t.rule, true
	}
	return rule{}, false
}

// follow is the first branch that fits a segment. A single star stands for the last one alone.
func (t *tree) follow(segment string, last bool) *tree {
	for _, b := range t.branches {
		switch {
		case b.segment == segment, b.segment == "**", b.segment == "*" && last:
			return b
		case b.segment == "*":
		case fits(segment, b.segment):
			return b
		}
	}
	return nil
}

// fits says whether text has the form of a pattern whose stars stand for any text, none included. It takes time in the
// product of their lengths at most: after a star that let the rest fail, only the last star is tried again.
func fits(text, pattern string) bool {
	star, retry := -1, 0
	at := 0
	for i := 0; i < len(text); {
		switch {
		case at < len(pattern) && pattern[at] == '*':
			star, retry = at, i
			at++
		case at < len(pattern) && pattern[at] == text[i]:
			at++
			i++
		case star >= 0:
			retry++
			at, i = star+1, retry
		default:
			return false
		}
	}
	return strings.Trim(pattern[at:], "*") == ""
}
